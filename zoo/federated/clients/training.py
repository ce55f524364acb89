"""How a client optimises: plain settings, and the random state of one client in one round."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo import checks
from zoo.errors import BadInput

__all__ = ["LocalTraining", "seeded"]

_OPTIMIZERS = ("sgd", "adam", "adamw")
_POLICIES = ("fresh", "persistent")


@dataclass(frozen=True)
class LocalTraining:
    """Settings of local training.

    Attributes:
        epochs: E, passes over a client's data in a round.
        lr: learning rate in round 0.
        optimizer: sgd, adam or adamw.
        momentum: of SGD.
        nesterov: whether momentum looks ahead.
        weight_decay: on all trained parameters.
        policy: `fresh` optimisers in every round, or `persistent` ones, whose moments stay with the client.
        milestones: rounds from which on the learning rate is multiplied by `decay`.
        decay: factor at each milestone.
    """

    epochs: int = 1
    lr: float = 0.01
    optimizer: str = "sgd"
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    policy: str = "fresh"
    milestones: tuple[int, ...] = ()
    decay: float = 0.1

    def __post_init__(self) -> None:
        checks.one_of("optimizer", self.optimizer, _OPTIMIZERS)
        checks.one_of("optimizer_policy", self.policy, _POLICIES)
        if self.epochs < 1 or not self.lr > 0:
            raise BadInput(f"local_epochs must be at least 1 and lr above 0, got {self.epochs} and {self.lr}.")

    def lr_in(self, round: int) -> float:
        """The learning rate of a round."""
        return self.lr * self.decay ** sum(round >= milestone for milestone in self.milestones)

    def optimizer_of(self, parameters: Iterable[Tensor], round: int, state: Any = None) -> torch.optim.Optimizer:
        """The optimiser of a client in a round.

        Args:
            parameters: what it trains.
            round: 0-based.
            state: `state_dict()` of the client's last one, under the persistent policy.
        """
        rest: dict[str, Any] = {"lr": self.lr, "weight_decay": self.weight_decay}
        if self.optimizer == "sgd":
            made: torch.optim.Optimizer = torch.optim.SGD(
                parameters, momentum=self.momentum, nesterov=self.nesterov, **rest
            )
        else:
            made = (torch.optim.Adam if self.optimizer == "adam" else torch.optim.AdamW)(parameters, **rest)
        if state is not None and self.policy == "persistent":
            made.load_state_dict(state)
        for group in made.param_groups:
            group["lr"] = self.lr_in(round)
        return made


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Random numbers that belong to `seed`; the surrounding state is as before afterwards."""
    numpy, python = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numpy)
            random.setstate(python)
