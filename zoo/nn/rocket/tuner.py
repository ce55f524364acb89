"""Tuning random kernels by gradient descent: the stages of a run that never ships a worse model than it began with.

After Milne, Xie: "Predicting Surface Texture in Steel Manufacturing at Speed", arXiv 2301.08527, whose soft pooling
lets gradients reach the kernels:

    solve     one epoch: the ridge head in closed form, for the random kernels w_0
    tune      several epochs: kernels, lambda and head follow the gradient of L + anchor ||w - w_0||^2
    resolve   one epoch: the head in closed form again, for the tuned kernels
    done      the best of all validated models is what remains
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any, Protocol

import torch
from lightning import LightningModule
from torch import Tensor, nn

from zoo.base import average_gradients

__all__ = ["RocketTuner", "Tunable"]

_ANCHORED = ("rocket.weights", "rocket.biases")
_KERNELS = (*_ANCHORED, "rocket.log_sharpness")
_HEAD = ("head.mean", "head.scale", "head.weight", "head.bias")
_STORED = ("entered", "tuned", "waited", "start", "best", "best_loss", "best_tuned", "best_tuned_loss")


class Tunable(Protocol):
    """A module with trainable ROCKET kernels and a trainable ridge head."""

    @property
    def rocket(self) -> nn.Module:
        """Kernels: the parameters `weights`, `biases` and `log_sharpness`."""

    @property
    def head(self) -> nn.Module:
        """Head: the parameters `weight` and `bias`, the buffers `mean` and `scale`."""

    def begin_tuning(self) -> None:
        """Make the head give what the loss takes, and discard what was summed up over features of the first kernels."""


class RocketTuner:
    """Where a run is, the kernels it started from, and the best model so far.

    In each training step the owner calls `enter` and does what the stage says. It calls `finish_epoch` after it has
    solved (`descend` does so by itself), and `consider` after each validation.

    Args:
        owner: what is tuned.
        epochs: most epochs of `tune`; with 0 every epoch is `solve`.
        anchor: factor of the squared distance of the kernels from where they started.
        patience: epochs without a better validation loss after which tuning stops; None for no limit.
        solve_for_best: whether `resolve` takes the tuned kernels that validated best, or those of the last step.
        kept_with_head: further tensors of the owner that belong to a model, by name, such as a temperature.
    """

    def __init__(
        self,
        owner: Tunable,
        epochs: int,
        anchor: float,
        patience: int | None = None,
        solve_for_best: bool = True,
        kept_with_head: Sequence[str] = (),
    ) -> None:
        self.owner, self.epochs, self.anchor = owner, epochs, anchor
        self.patience, self.solve_for_best = patience, solve_for_best
        self.kept = (*_KERNELS, *_HEAD, *kept_with_head)
        self._begin_run()

    def _begin_run(self) -> None:
        self.stage = "solve"
        self.entered = ""  # the stage that has been prepared
        self.tuned = self.waited = 0
        self.start: dict[str, Tensor] = {}
        self.best: dict[str, Tensor] = {}
        self.best_tuned: dict[str, Tensor] = {}
        self.best_loss = self.best_tuned_loss = float("inf")

    # Stages -------------------------------------------------------------------------------------------------------

    def enter(self, epoch: int) -> str:
        """Prepare the stage at its first training step.

        Args:
            epoch: of this step, from 0.

        Returns:
            `solve`, `tune`, `resolve` or `done`.
        """
        if epoch == 0 and self.stage != "solve":
            self._begin_run()
        if not self.stage:
            self._guess_stage(epoch)
        if self.entered != self.stage:
            self.entered = self.stage
            if self.stage == "tune":
                self.start = self._copy(_ANCHORED)
                with torch.no_grad():
                    self.owner.begin_tuning()
            elif self.stage == "resolve" and self.solve_for_best:
                self._restore(self.best_tuned)
        return self.stage

    def finish_epoch(self) -> None:
        """Choose the stage of the next epoch."""
        if not self.epochs:
            return
        if self.stage == "tune":
            self.tuned += 1
            impatient = self.patience is not None and self.waited >= self.patience
            if self.tuned >= self.epochs or impatient:
                self.stage = "resolve"
        else:
            self.stage = "tune" if self.stage == "solve" else "done"

    def consider(self, loss: float, *, last: bool) -> bool:
        """Note how the model validates, and go back to the best one when the run ends.

        Args:
            loss: of the validation.
            last: whether training ends with it, whatever the stage.

        Returns:
            Whether no model before was better. False for NaN.
        """
        if self.entered == "tune":
            self.waited += 1
            if loss < self.best_tuned_loss:
                self.best_tuned_loss, self.best_tuned, self.waited = loss, self._copy(_KERNELS), 0
        unbeaten = loss <= self.best_loss
        if loss < self.best_loss:
            self.best_loss, self.best = loss, self._copy(self.kept)
        if self.stage == "done" or last:
            self._restore(self.best)
        return unbeaten

    # Gradients ----------------------------------------------------------------------------------------------------

    def optimizer(self, lr_kernels: float, lr_head: float) -> torch.optim.AdamW:
        """AdamW on kernels and head. In `configure_optimizers` it comes second, after the one that assigns solutions.

        Args:
            lr_kernels: learning rate of weights, biases and lambda.
            lr_head: learning rate of the head.
        """
        groups = [
            {"params": [p for p in part.parameters() if p.requires_grad], "lr": lr}
            for part, lr in ((self.owner.rocket, lr_kernels), (self.owner.head, lr_head))
        ]
        return torch.optim.AdamW([group for group in groups if group["params"]], weight_decay=0.0)

    def distance(self) -> Tensor:
        """Squared distance of weights and biases from where tuning started."""
        pairs = [(attrgetter(name)(self.owner), self.start[name]) for name in _ANCHORED]
        return torch.stack([(now - start.to(now.device)).square().sum() for now, start in pairs]).sum()

    def descend(self, module: LightningModule, loss: Tensor, samples: int) -> None:
        """Take one step along the gradient of the loss and the anchor, averaged over the samples of all ranks.

        Args:
            module: the Lightning module of the run; nothing wraps it that would average gradients.
            loss: L of this rank's batch, a mean over its samples.
            samples: number of them.
        """
        optimizer: Any = module.optimizers()[1]  # type: ignore[index]
        optimizer.zero_grad()
        module.manual_backward(loss + self.anchor * self.distance())
        average_gradients(module.parameters(), samples)
        optimizer.step()
        if module.trainer.is_last_batch:
            self.finish_epoch()

    # Resuming -----------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Everything, as tensors and plain values."""
        return {"name": self.stage, **{name: getattr(self, name) for name in _STORED}}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what `state` returned.

        Checkpoints of before this class may know the start and the best model only; the epoch then tells the stage.
        """
        self._begin_run()
        for name in _STORED:
            if name in state:
                setattr(self, name, state[name])
        self.stage = state.get("name", "")
        if "entered" not in state and self.start:
            self.entered = "tune"

    def _guess_stage(self, epoch: int) -> None:
        self.tuned = min(max(0, epoch - 1), self.epochs)
        if epoch == 0 or not self.epochs:
            self.stage = "solve"
        else:
            self.stage = "tune" if epoch <= self.epochs else "resolve"

    def _copy(self, names: Sequence[str]) -> dict[str, Tensor]:
        return {name: attrgetter(name)(self.owner).detach().cpu().clone() for name in names}

    @torch.no_grad()
    def _restore(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            attrgetter(name)(self.owner).copy_(value)
