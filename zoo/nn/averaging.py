"""Averaged weights for training runs of any length."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from zoo.errors import BadInput

__all__ = ["RampedEMA"]


class RampedEMA(WeightAveraging):
    """Exponential moving average of weights and batch statistics whose memory grows with the run.

    After n updates the decay is `min(decay, (1 + n) / (10 + n))`. A constant decay keeps `decay^n` of the values a run
    started with: after 750 steps at 0.998 still 22 % of batch variances that were 1 by convention, enough to make a
    good detector score zero; and a fine-tuning run of 100 steps would hardly move at all.

    Args:
        decay: the limit, in [0, 1); 0.998 averages about the last 500 steps.
    """

    def __init__(self, decay: float = 0.998) -> None:
        if not 0 <= decay < 1:
            raise BadInput(f"decay must be in [0, 1), got {decay}.")
        self.decay = decay
        super().__init__(multi_avg_fn=self.average)

    def average(self, averaged: Sequence[Tensor], current: Sequence[Tensor], updates: Tensor | int) -> None:
        """Update tensors of one type in place, after `updates` earlier ones."""
        count = torch.as_tensor(updates) + 1.0
        decay = (count / (count + 9.0)).clamp(max=self.decay)
        if averaged[0].is_floating_point():
            torch._foreach_mul_(list(averaged), decay)
            torch._foreach_add_(list(averaged), torch._foreach_mul(list(current), 1 - decay))
        else:  # counters of batches are whole numbers
            for mean, value in zip(averaged, current, strict=True):
                mean.copy_((mean * decay + value * (1 - decay)).round())
