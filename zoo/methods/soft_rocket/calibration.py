"""How scores of the ridge head become probabilities and intervals: set on series that the head was not fitted to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["CalibrationSample", "half_widths", "temperature_of"]

_SERIES = 1024
_QUANTILE = 0.9  # of the errors that an interval covers


class CalibrationSample:
    """Features of the first series by index, the same ones however ranks and batches share them.

    A streamed fit has no left-out scores: these series take their place.
    """

    def __init__(self) -> None:
        self.rows: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, features: Tensor, targets: Tensor, index: Tensor) -> None:
        """Keep the series of a batch whose index is below 1,024: features (B, D), targets (B, K), index (B,)."""
        keep = index < _SERIES
        self.rows.append((features[keep].float().cpu(), targets[keep].cpu(), index[keep].cpu()))

    def joined(self, gather: Callable[[Any], list[Any]]) -> tuple[Tensor, Tensor]:
        """Features and targets of these series of all ranks, in the order of their index."""
        parts = [row for rank in gather(self.rows) for row in rank]
        features, targets, index = (torch.cat([p[i] for p in parts]) for i in range(3))
        order = index.argsort(stable=True)
        return features[order], targets[order]

    def clear(self) -> None:
        """Drop these series."""
        self.rows = []


def temperature_of(scores: Tensor, targets: Tensor) -> Tensor:
    """Factor of the scores with the least cross-entropy, from a grid of 0.1 to 100.

    Args:
        scores: (M, K) of left-out series, float64.
        targets: (M, K), largest at the right class.
    """
    grid = torch.logspace(-1, 2, 91, dtype=torch.float64)
    labels, k = targets.argmax(1), targets.shape[1]
    # Platt's targets, (M_k + 1) / (M_k + 2): where all are right, no temperature would be too high
    smooth = min(0.5, k / ((k - 1) * (len(labels) / k + 2)))
    losses = torch.stack([F.cross_entropy(t * scores, labels, label_smoothing=smooth) for t in grid])
    return grid[losses.argmin()].float()


def half_widths(scores: Tensor, targets: Tensor) -> Tensor:
    """Half widths (R,) of intervals that held 90 % of left-out series, from scores and targets (M, R)."""
    return (targets - scores).abs().quantile(_QUANTILE, 0).float()
