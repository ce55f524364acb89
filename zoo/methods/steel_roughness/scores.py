"""Logarithms and micrometres; what an evaluation counts: errors in physical units, the split-conformal interval."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from zoo.base import gather

__all__ = ["OFFSETS", "RoughnessErrors", "conformal_quantile", "roughness_errors", "to_score", "to_value"]

OFFSETS = {"ra": 0.0, "rq": 0.0, "rz": 0.0, "rpc": 1.0}
"""Roughness parameters, and what is added before the logarithm: a peak count may be zero."""


def to_score(values: Tensor, offsets: Tensor) -> Tensor:
    """Logarithms (B, T) of roughness parameters, whose errors are multiplicative."""
    return (values + offsets).clamp(min=1e-4).log()


def to_value(scores: Tensor, offsets: Tensor) -> Tensor:
    """Roughness parameters (B, T) from their logarithms."""
    return scores.float().clamp(-12, 12).exp() - offsets


def conformal_quantile(residuals: Tensor, coverage: float) -> Tensor:
    """The ceil((n + 1) coverage)-th smallest of n absolute residuals, (T,) from (n, T).

    A new section of the same population then lies within +- this of its prediction with at least that probability. With
    too few residuals for the coverage, the largest one is taken.
    """
    count = len(residuals)
    rank = min(count, math.ceil((count + 1) * coverage))
    return residuals.abs().sort(0).values[rank - 1]


def roughness_errors(score: Tensor, true: Tensor, offsets: Tensor, quantile: Tensor) -> dict[str, float]:
    """Errors of the first target.

    Args:
        score: predicted (n, T), float64.
        true: measured (n, T), float64.
        offsets: (T,), see `OFFSETS`.
        quantile: half width of the interval in logarithms, (T,).

    Returns:
        `rmse` and `bias` in the target's unit, `rmse_relative` of the measured value, `correlation`, `coverage` of the
        interval and its mean `width` in the target's unit.
    """
    value, measured = (score.exp() - offsets)[:, 0], (true.exp() - offsets)[:, 0]
    error = value - measured
    inside = (score - true).abs()[:, 0] <= quantile[0].double()
    width = ((score + quantile).exp() - (score - quantile).exp())[:, 0]
    centred, other = value - value.mean(), measured - measured.mean()
    spread = (centred.square().sum() * other.square().sum()).sqrt()
    errors = {
        "rmse": error.square().mean().sqrt(),
        "bias": error.mean(),
        "rmse_relative": (error / measured.clamp(min=1e-6)).square().mean().sqrt(),
        "correlation": (centred * other).sum() / spread.clamp(min=1e-12),  # 0 where nothing varies
        "coverage": inside.double().mean(),
        "width": width.mean(),
    }
    return {name: float(v) for name, v in errors.items()}


class RoughnessErrors:
    """`roughness_errors` and the mean loss of an evaluation, over the sections of all ranks in order of their index.

    Args:
        targets: names of the T roughness parameters.

    Attributes:
        quantile: half width of the interval in logarithms, (T,); set it before `compute`.
    """

    def __init__(self, targets: Sequence[str]) -> None:
        self.offsets = torch.tensor([OFFSETS[name] for name in targets])
        self.quantile = torch.ones(len(targets))
        self.reset()

    def reset(self) -> None:
        """Forget the sections."""
        self.seen: list[tuple[Tensor, ...]] = []
        self._joined: tuple[Tensor, Tensor, Tensor] | None = None

    def update(self, index: Tensor, score: Tensor, true: Tensor, loss: Tensor) -> None:
        """Add a batch: positions (B,), scores (B, T), true scores (B, T), loss of each section (B,)."""
        self.seen.append(tuple(part.detach().cpu() for part in (index, score.double(), true.double(), loss.double())))
        self._joined = None

    def joined(self) -> tuple[Tensor, Tensor, Tensor]:
        """Scores, true scores and losses of all ranks in order. All ranks must call it."""
        if self._joined is None:
            seen = [part for rank in gather(self.seen) for part in rank]
            index, score, true, loss = (torch.cat(parts) for parts in zip(*seen, strict=True))
            order = index.argsort()
            self._joined = score[order], true[order], loss[order]
        return self._joined

    def compute(self) -> dict[str, float]:
        """The errors, and the mean `loss`. All ranks must call it."""
        score, true, loss = self.joined()
        return {**roughness_errors(score, true, self.offsets, self.quantile), "loss": float(loss.mean())}
