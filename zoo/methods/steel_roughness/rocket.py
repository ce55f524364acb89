"""ROCKET as a regressor: random kernels and a ridge head, solved in one pass, and tuned through soft pooling."""

from __future__ import annotations

from typing import Any, Literal

import torch
from lightning import LightningModule
from torch import Tensor

from zoo.base import AssignOptimizer
from zoo.methods.steel_roughness.regressor import Gather, Regressor, Sections, Sum, huber
from zoo.nn.ridge import Ridge, RidgeHead
from zoo.nn.rocket import Rocket as Kernels
from zoo.nn.rocket import RocketTuner

__all__ = ["Rocket"]


class Rocket(Regressor):
    """Kernels and head.

    Args:
        targets: T.
        channels: C.
        length: L.
        kernels: N.
        seed: of the kernels.
        pooling: `hard`, `soft` or `straight-through`.
        sharpness: lambda of soft pooling.
        tune_epochs: epochs in which kernels and head follow the gradient; 0 keeps the kernels.
        anchor: factor of the kernels' squared distance from where they started.
    """

    def __init__(
        self,
        targets: int,
        channels: int,
        length: int,
        kernels: int,
        seed: int,
        pooling: str,
        sharpness: float,
        tune_epochs: int,
        anchor: float,
    ) -> None:
        super().__init__()
        tuned = tune_epochs > 0
        self.rocket = Kernels(kernels, length, channels, seed, pooling, sharpness, trainable=tuned)
        self.head = RidgeHead(self.rocket.num_features, targets, trainable=tuned)
        self.ridge = Ridge(self.rocket.num_features, targets)
        self.tuner = RocketTuner(self, tune_epochs, anchor, solve_for_best=False)

    def features(self, signal: Tensor) -> Tensor:
        """(B, 2N), always in float32."""
        with torch.autocast(signal.device.type, enabled=False):
            features: Tensor = self.rocket(signal.float())
        return features

    def forward(self, signal: Tensor, meta: Tensor | None = None) -> Tensor:
        """Standardised scores (B, T)."""
        features = self.features(signal)
        with torch.autocast(signal.device.type, enabled=False):
            scores: Tensor = self.head(features)
        return scores

    def stage(self, epoch: int) -> Literal["solve", "descend", "done"]:
        """The head is solved for the random kernels in the first epoch, for the tuned ones in the last."""
        stage = self.tuner.enter(epoch)
        return "descend" if stage == "tune" else "done" if stage == "done" else "solve"

    # Closed form --------------------------------------------------------------------------------------------------

    def collect(self, sections: Sections) -> None:
        """Keep the features, or add them up where there are too many."""
        assert sections.wanted is not None
        self.ridge.add(self.features(sections.signal), sections.wanted, sections.index)

    def solve(self, total: Sum, gather: Gather) -> dict[str, Tensor]:
        """Ridge regression, its penalty by leave-one-out."""
        fit = self.ridge.solve(gather, total)
        if fit.exact:
            self.ridge.clear()  # otherwise a second epoch makes the choice of the penalty exact
        self.tuner.finish_epoch()
        return {f"head.{name}": value for name, value in RidgeHead.values(fit).items()}

    # Gradients ----------------------------------------------------------------------------------------------------

    def begin_tuning(self) -> None:
        """Discard what was summed up over features of the first kernels."""
        self.ridge.clear()

    def loss(self, sections: Sections) -> Tensor:
        """Huber on standardised scores."""
        assert sections.wanted is not None
        return huber(self(sections.signal)[None], sections.wanted).mean()

    def descend(self, model: LightningModule, loss: Tensor, samples: int) -> None:
        """Move kernels, lambda and head, the kernels tied to their start."""
        self.tuner.descend(model, loss, samples)

    def optimizers(self, model: LightningModule) -> Any:
        """One that assigns the solutions; AdamW for what is tuned."""
        assign = AssignOptimizer(model)
        if not self.tuner.epochs:
            return assign
        return [assign, self.tuner.optimizer(model.hparams["lr_kernels"], model.hparams["lr"])]

    @property
    def finished(self) -> bool:
        """Whether the head has been solved for the tuned kernels."""
        return self.tuner.stage == "done"

    def consider(self, loss: float, *, last: bool) -> bool:
        """Keep the model if it validates best; of a run that tunes, the best model remains."""
        return self.tuner.consider(loss, last=last) if self.tuner.epochs else super().consider(loss, last=last)

    def collected(self) -> dict[str, Any]:
        """Features or sums so far, and how far tuning has come."""
        return {"ridge": self.ridge.state(), **self.tuner.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `collected` returned."""
        self.ridge.load_state(state["ridge"])
        self.tuner.load_state(state)
