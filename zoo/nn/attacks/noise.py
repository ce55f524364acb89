"""Random numbers that belong to a sample: functions of (seed, sample index, stream, position) and of nothing else.

Batches, their order and their size therefore change no attack, and neither does another one that ran before. Numbers
come from the counter-based generator SplitMix64 (Steele, Lea, Flood 2014) on whole tensors, the same on every device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["gaussian", "integers", "signs", "uniform"]


def _signed(value: int) -> int:
    """The int64 with the same 64 bits."""
    return (value + 2**63) % 2**64 - 2**63


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_STREAM = 0x632BE59BD9B4E019
_FIRST = _signed(0xBF58476D1CE4E5B9)
_SECOND = _signed(0x94D049BB133111EB)


def _shift(z: Tensor, bits: int) -> Tensor:
    """Logical right shift of signed 64-bit integers."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _mix(z: Tensor) -> Tensor:
    """The finaliser of SplitMix64; int64 products wrap around."""
    z = (z ^ _shift(z, 30)) * _FIRST
    z = (z ^ _shift(z, 27)) * _SECOND
    return z ^ _shift(z, 31)


def _bits(shape: Sequence[int], seed: int, index: Tensor, stream: int) -> Tensor:
    """Random int64 (N, *shape)."""
    key = _mix(index.to(torch.int64) * _GOLDEN + _mix(torch.tensor(_signed(int(seed)), device=index.device)))
    key = _mix(key + _signed((stream + 1) * _STREAM))
    count = math.prod(shape)
    places = torch.arange(1, count + 1, device=index.device) * _GOLDEN
    return _mix(key[:, None] + places).view(len(index), *shape)


def uniform(shape: Sequence[int], seed: int, index: Tensor, stream: int = 0) -> Tensor:
    """Float32 numbers (N, *shape) in (0, 1), never 0 or 1.

    Args:
        shape: of one sample.
        seed: of the run.
        index: (N,) int64, which samples these are.
        stream: distinguishes draws for one sample: restarts, iterations.
    """
    return (_shift(_bits(shape, seed, index, stream), 41).to(torch.float32) + 0.5) * 2.0**-23


def gaussian(shape: Sequence[int], seed: int, index: Tensor, stream: int = 0) -> Tensor:
    """Standard normal float32 numbers (N, *shape), cut off at 5.2 standard deviations."""
    return torch.erfinv(2 * uniform(shape, seed, index, stream) - 1) * math.sqrt(2)


def signs(shape: Sequence[int], seed: int, index: Tensor, stream: int = 0) -> Tensor:
    """-1.0 or 1.0, (N, *shape)."""
    return (_bits(shape, seed, index, stream) >= 0).to(torch.float32) * 2 - 1


def integers(high: Sequence[int], seed: int, index: Tensor, stream: int = 0) -> Tensor:
    """Whole numbers (N, len(high)) with column j in [0, high[j])."""
    limits = torch.tensor(list(high), device=index.device)
    drawn = uniform((len(high),), seed, index, stream) * limits
    return torch.minimum(drawn.to(torch.int64), limits - 1)
