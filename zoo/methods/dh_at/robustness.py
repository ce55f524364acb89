"""How robust the weights of dh-at are against attacks on what the aggregator merges, as `robustness.json` of the card.

    python -m zoo.methods.dh_at.robustness evaluate --n 300
    python -m zoo.methods.dh_at.robustness table

A network of two heads can be fooled through either of them, or through both at once, where the gradient of the merged
logits shows no way: the aggregator pools and normalises them. Examples are made on each head, on the sum of their
logits, and on the mean of all three probabilities, by cross-entropy and by the margin, and judged by the merged logits.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from zoo.methods.dh_at.module import DualHeadAT
from zoo.nn.attacks import cw_margin, pgd, transfer
from zoo.robustness.stored import main

TAGS = ("fmnist-wrn16-1", "fmnist-wrn16-1-trades")
COLUMNS = {
    "PGD-20": ["pgd-20"],
    "CW-30": ["cw-30"],
    "main head": ["main-ce", "main-margin"],
    "second head": ["second-ce", "second-margin"],
    "sum": ["sum-ce", "sum-margin"],
    "all three": ["all-ce", "all-margin"],
    "AutoAttack": ["autoattack"],
}
STEPS = 20

Attack = Callable[[Any, Tensor, Tensor], Tensor]


def adaptive_attacks(model: DualHeadAT) -> dict[str, Attack]:
    """Attacks on the parts of the answer, by name; empty for a network with one head."""
    if model.hparams["strategy"] == "single":
        return {}
    eps = float(model.hparams["eps"])
    parts = {"main": model.main_logits, "second": model.second_logits, "sum": model.sum_logits}
    parts["all"] = partial(_mixture, model)

    def made_on(part: Any, attack: Any, m: Any, x: Tensor, y: Tensor) -> Tensor:
        options: dict[str, Any] = {"eps": eps, "step": eps / 10, "steps": STEPS, "check": False}
        return transfer(model, x, y, surrogates=[part], attack=attack, **options)

    by = {"ce": pgd, "margin": cw_margin}
    return {f"{name}-{how}": partial(made_on, parts[name], by[how]) for name in parts for how in by}


def _mixture(model: DualHeadAT, x: Tensor) -> Tensor:
    """Logarithm (N, K) of the mean of the probabilities of both heads and of the merged logits."""
    every = torch.stack([logits.log_softmax(1) for logits in model.forward_heads(x)])
    return every.logsumexp(0)


def battery(model: DualHeadAT) -> dict[str, str | Attack]:
    """The standard attacks, AutoAttack, and those on the parts."""
    usual: dict[str, str | Attack] = {name: name for name in ("pgd-20", "cw-30")}
    return {**usual, **adaptive_attacks(model), "autoattack": "autoattack"}


if __name__ == "__main__":
    main("dh-at", __doc__, TAGS, COLUMNS, battery)
