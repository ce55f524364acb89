"""What a step of training costs, against a plain one and one of adversarial training."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from zoo.methods.j_sigr.module import JSIGR
from zoo.studies import Outcome, study

__all__ = ["step_time"]


@study("share_of_adversarial", "plain_steps", "adversarial_plain_steps")
def step_time(batch: int = 128, rounds: int = 7) -> Outcome:
    """Processor seconds of a step of J-SIGR, relative to adversarial training (PGD-7) and to plain training.

    Args:
        batch: images in a step.
        rounds: steps of each kind, taken in turn; medians are compared.
    """
    torch.manual_seed(0)
    common: dict[str, Any] = {"network": "resnet10-w16-softplus", "channels": 1, "img_size": 28, "eps": 0.1}
    plain: dict[str, Any] = {"jacobian": 0.0, "selective": 0.0}
    kinds = {
        "ours": JSIGR(**common),
        "plain": JSIGR(**common, **plain),
        "adversarial": JSIGR(**common, **plain, criterion="sat", attack_steps=7, attack_step=0.025),
    }
    given = {"image": torch.rand(batch, 1, 28, 28), "label": torch.randint(10, (batch,)), "index": torch.arange(batch)}
    kinds["ours"].cache.values = torch.randint(256, (batch, 7, 7), dtype=torch.uint8)
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for number in range(rounds + 1):
        for name, model in kinds.items():
            spent = _seconds(partial(_step, model, given))
            if number:  # the first round warms up
                seconds[name].append(spent)
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    return Outcome(
        {
            "share_of_adversarial": middle["ours"] / middle["adversarial"],
            "plain_steps": middle["ours"] / middle["plain"],
            "adversarial_plain_steps": middle["adversarial"] / middle["plain"],
        }
    )


def _step(model: JSIGR, batch: dict[str, Any]) -> None:
    model.train().zero_grad()
    torch.autograd.backward(model.training_step(batch))


def _seconds(function: Callable[[], None]) -> float:
    begin = time.process_time()
    function()
    return time.process_time() - begin
