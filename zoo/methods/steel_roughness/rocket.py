"""ROCKET as a regressor of steel strip: random kernels and a ridge head, and the stages that tune the kernels.

A run that tunes has three stages, told by the epoch: the first solves the head for the random kernels, the last solves
it again for the tuned ones, and in between kernels and head follow the gradient of the Huber loss, kernels tied to
their start by `anchor ||w - w0||^2`. Of all models of the run the one that validates best is what remains, so tuning
never ships a worse model.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zoo.methods.steel_roughness.fits import Fit, Gather, Sum
from zoo.nn.ridge import Ridge, RidgeHead
from zoo.nn.rocket import Rocket

__all__ = ["RocketFit"]

_LEARNED = ("rocket.weights", "rocket.biases", "rocket.log_sharpness")
_HEAD = ("head.mean", "head.scale", "head.weight", "head.bias")


class RocketFit(Fit):
    """Kernels and head.

    Args:
        targets: T.
        channels: C.
        length: L.
        kernels: N.
        seed: of the kernels.
        pooling: `hard`, `soft` or `straight-through`.
        sharpness: lambda of soft pooling.
        tuned: whether kernels are parameters that follow the gradient.
    """

    standardised = True

    def __init__(
        self,
        targets: int,
        channels: int,
        length: int,
        kernels: int,
        seed: int,
        pooling: str,
        sharpness: float,
        tuned: bool,
    ) -> None:
        super().__init__()
        self.tuned = tuned
        self.rocket = Rocket(kernels, length, channels, seed, pooling, sharpness, trainable=tuned)
        self.head = RidgeHead(self.rocket.num_features, targets, trainable=tuned)
        self.ridge = Ridge(self.rocket.num_features, targets)
        self.start: dict[str, Tensor] = {}
        self.best: dict[str, Tensor] = {}
        self.best_loss = float("inf")

    def features(self, signal: Tensor) -> Tensor:
        """(B, 2N), always in float32."""
        with torch.autocast(signal.device.type, enabled=False):
            found: Tensor = self.rocket(signal.float())
        return found

    def forward(self, signal: Tensor) -> Tensor:
        """Standardised scores (B, T)."""
        features = self.features(signal)
        with torch.autocast(signal.device.type, enabled=False):
            found: Tensor = self.head(features)
        return found

    # Closed form --------------------------------------------------------------------------------------------------

    def collect(self, signal: Tensor, score: Tensor, index: Tensor) -> None:
        """Keep the features, or add them up where there are too many."""
        self.ridge.add(self.features(signal), score, index)

    def solve(self, total: Sum, gather: Gather) -> dict[str, Tensor]:
        """Ridge regression, its penalty by leave-one-out."""
        fit = self.ridge.solve(gather, total)
        if fit.exact:
            self.ridge.clear()  # otherwise a second epoch makes the choice of the penalty exact
        return {f"head.{name}": value for name, value in RidgeHead.values(fit).items()}

    # Tuning -------------------------------------------------------------------------------------------------------

    def remember_start(self) -> None:
        """Note the kernels to which tuning is tied; what was summed up for them is worth nothing from here on."""
        if not self.start:
            self.start = self._copy(_LEARNED[:2])
            self.ridge.clear()

    def distance(self) -> Tensor:
        """Squared distance of weights and biases from the start."""
        pairs = [(self.get_parameter(name), value) for name, value in self.start.items()]
        return torch.stack([(now - value.to(now.device)).square().sum() for now, value in pairs]).sum()

    def consider(self, loss: float) -> None:
        """Keep this model if it validates best."""
        if loss < self.best_loss:
            self.best_loss, self.best = loss, self._copy(_LEARNED + _HEAD)

    @torch.no_grad()
    def use_best(self) -> None:
        """Go back to the best model of the run."""
        for name, value in self.best.items():
            self._tensor(name).copy_(value)

    def _tensor(self, name: str) -> Tensor:
        part, _, leaf = name.rpartition(".")
        found: Tensor = getattr(self.get_submodule(part), leaf)
        return found

    def _copy(self, names: tuple[str, ...]) -> dict[str, Tensor]:
        return {name: self._tensor(name).detach().cpu().clone() for name in names}

    def collected(self) -> dict[str, Any]:
        """Features or sums so far, and the best model."""
        return {
            "ridge": self.ridge.state(),
            "start": self.start,
            "best": self.best,
            "best_loss": self.best_loss,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.ridge.load_state(state["ridge"])
        self.start, self.best, self.best_loss = state["start"], state["best"], state["best_loss"]
