"""Filters that make perturbations of series smooth."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.errors import BadInput

__all__ = ["SIGMAS", "SIZES", "filtered", "gaussian_filters"]

SIZES = (5, 7, 11, 15, 19)
SIGMAS = (1.0, 3.0, 5.0, 7.0, 10.0)
"""Points and standard deviations of the filters of Han et al., "Deep learning models for electrocardiograms are
susceptible to adversarial attack", Nature Medicine 2020."""


def gaussian_filters(sizes: Sequence[int] = SIZES, sigmas: Sequence[float] = SIGMAS) -> Tensor:
    """Mean of Gaussian filters, each of sum 1, as one filter (largest size,).

    Args:
        sizes: points of each, odd.
        sigmas: standard deviation of each, in points.

    Raises:
        BadInput: if they are no filters.
    """
    if not sizes or len(sizes) != len(sigmas) or min(sigmas) <= 0 or any(size < 1 or size % 2 == 0 for size in sizes):
        raise BadInput(f"Filters need odd sizes and as many sigmas above 0, got {list(sizes)} and {list(sigmas)}.")
    total = torch.zeros(max(sizes), dtype=torch.float64)
    for size, sigma in zip(sizes, sigmas, strict=True):
        at = torch.arange(size, dtype=torch.float64) - size // 2
        weight = torch.exp(-0.5 * (at / sigma) ** 2)
        place = (len(total) - size) // 2
        total[place : place + size] += weight / weight.sum()
    return total / len(sizes)


def filtered(series: Tensor, kernel: Tensor) -> Tensor:
    """Series (N, C, L) after a filter of odd size, each channel by itself, zeros beyond the ends."""
    count, channels, length = series.shape
    flat = series.reshape(count * channels, 1, length)
    return F.conv1d(flat, kernel[None, None], padding=len(kernel) // 2).view(count, channels, length)
