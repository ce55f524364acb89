"""What is counted while evaluating: errors in physical units, and the split-conformal interval."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

__all__ = ["OFFSETS", "Scores", "conformal_quantile", "roughness_errors", "to_score", "to_value"]

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


class Scores:
    """Predictions and labels of an evaluation, put in the order of their index, so that ranks change nothing."""

    def __init__(self) -> None:
        self.seen: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def update(self, index: Tensor, score: Tensor, true: Tensor, loss: Tensor) -> None:
        """Add a batch: positions (B,), scores (B, T), true scores (B, T), loss of each section (B,)."""
        parts = (index, score.double(), true.double(), loss.double())
        self.seen.append(tuple(part.detach().cpu() for part in parts))  # type: ignore[arg-type]

    def take(self, gather: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Scores, true scores and losses of all ranks in order; forget them."""
        seen = [part for rank in gather(self.seen) for part in rank]
        self.seen = []
        index, score, true, loss = (torch.cat(parts) for parts in zip(*seen, strict=True))
        order = index.argsort()
        return score[order], true[order], loss[order]


def roughness_errors(score: Tensor, true: Tensor, offsets: Tensor, quantile: Tensor) -> dict[str, float]:
    """Errors of the first target.

    Args:
        score: predicted (n, T), float64.
        true: measured, likewise.
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
    found = {
        "rmse": error.square().mean().sqrt(),
        "bias": error.mean(),
        "rmse_relative": (error / measured.clamp(min=1e-6)).square().mean().sqrt(),
        "correlation": (centred * other).sum() / spread.clamp(min=1e-12),  # 0 where nothing varies
        "coverage": inside.double().mean(),
        "width": width.mean(),
    }
    return {name: float(v) for name, v in found.items()}
