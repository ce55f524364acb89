"""What the regressors of steel roughness have in common, whichever way they learn."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.base import AssignOptimizer

__all__ = ["KEY", "Gather", "Regressor", "Sections", "Sum", "huber"]

KEY = "fit_"
"""Name of a regressor that is solved, in the keys of published weights and checkpoints."""

Gather = Callable[[Any], list[Any]]
Sum = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Sections:
    """A batch in the units of a regressor (see `Regressor.standardised`).

    Attributes:
        signal: (B, C, L).
        meta: state of the line (B, 3), standardised, or None.
        wanted: measured scores (B, T), or None where `Regressor.needs_labels` is false.
        index: positions in the data set (B,).
    """

    signal: Tensor
    meta: Tensor | None
    wanted: Tensor | None
    index: Tensor


class Regressor(nn.Module):
    """Maps sections to scores (B, T), which are logarithms of their roughness parameters, and says how it is learned.

    Strategies are `ClosedForm`, `Trees`, `Rocket` and `Networks`. The first two are solved: one pass over the training
    sections collects what `solve` needs. Networks follow the gradient of `loss`. Rocket is solved, and can be tuned.
    """

    standardised = True
    """Whether signals and scores are standardised by the training set; if not, intensities and plain logarithms."""

    by_gradient = False
    """Whether Lightning trains it like any network."""

    needs_labels = True
    """Whether its loss compares with measured scores."""

    least_length = 2
    """Samples that a section must have."""

    only_length: int | None = None
    """Samples that a section must have exactly, if other numbers are impossible."""

    def parts(self) -> dict[str, nn.Module]:
        """What the model registers, under the names in the keys of published weights and checkpoints."""
        return {KEY: self}

    def forward(self, signal: Tensor, meta: Tensor | None = None) -> Tensor:
        """Scores (B, T)."""
        raise NotImplementedError

    # Learning -----------------------------------------------------------------------------------------------------

    def stage(self, epoch: int) -> Literal["solve", "descend", "done"]:
        """What the training steps of an epoch do: collect and solve, follow the gradient, or nothing."""
        return "solve"

    def collect(self, sections: Sections) -> None:
        """Take in a batch."""
        raise NotImplementedError

    def solve(self, total: Sum, gather: Gather) -> dict[str, Tensor]:
        """New values by name, equal on all ranks; forget what was collected.

        Args:
            total: sum over the ranks.
            gather: values of all ranks.
        """
        raise NotImplementedError

    def collected(self) -> dict[str, Any]:
        """What was taken in so far."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `collected` returned."""

    def loss(self, sections: Sections) -> Tensor:
        """Mean loss of a batch, whose gradient is followed."""
        raise NotImplementedError

    def descend(self, model: LightningModule, loss: Tensor, samples: int) -> Tensor | None:
        """Take a step along the gradient, or return the loss so that Lightning does."""
        return loss

    def optimizers(self, model: LightningModule) -> Any:
        """What `configure_optimizers` returns; solutions are assigned by the first one."""
        return AssignOptimizer(model)

    # Validation ---------------------------------------------------------------------------------------------------

    def losses(self, sections: Sections, score: Tensor, true: Tensor) -> Tensor:
        """Loss of each section (B,) in an evaluation: Huber on logarithms.

        Args:
            sections: the batch.
            score: predicted logarithms (B, T).
            true: measured ones (B, T).
        """
        return F.huber_loss(score, true, reduction="none").mean(1)

    @property
    def finished(self) -> bool:
        """Whether further epochs would change nothing."""
        return False

    def consider(self, loss: float, *, last: bool) -> bool:
        """Note how the model validates while it is trained; return whether it is the best one so far.

        Args:
            loss: mean over the validation sections.
            last: whether training ends with this validation; the best model then remains.
        """
        return not math.isnan(loss)


def huber(scores: Tensor, wanted: Tensor) -> Tensor:
    """L of each section (B,): the mean over members and targets of standardised scores (M, B, T) against (B, T)."""
    return F.huber_loss(scores.float(), wanted.expand_as(scores), reduction="none").mean((0, 2))
