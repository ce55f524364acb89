"""The same join by brute force: every pair of tracks, every stretch, no index and no bound. Slow on purpose."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.methods.sts_join.candidates import GUARD, SLACK
from zoo.methods.sts_join.distance import cdds

__all__ = ["all_durations", "sts_join_bruteforce"]

_PAIRS = 4096


def all_durations(
    a: Tensor, length_a: Tensor, b: Tensor, length_b: Tensor, delta: float, gap: float, *, far: bool = False
) -> Tensor:
    """CDDS of every track of one set with every track of another, (Na, Nb) seconds.

    Args:
        a: (Na, La, 3) padded tracks.
        length_a: (Na,) points.
        b: (Nb, Lb, 3).
        length_b: (Nb,).
        delta: metres.
        gap: seconds; a longer step is no motion.
        far: leave out pairs of tracks whose boxes in space and time are further apart than delta; changes no result.
    """
    first, second = torch.meshgrid(torch.arange(len(a)), torch.arange(len(b)), indexing="ij")
    first, second = first.flatten(), second.flatten()
    seconds = torch.zeros(len(a) * len(b), dtype=torch.float64)
    at = torch.arange(len(first))
    if far and len(at):
        (low_a, high_a), (low_b, high_b) = _boxes(a, length_a), _boxes(b, length_b)
        apart = torch.maximum(low_a[first] - high_b[second], low_b[second] - high_a[first])
        at = (apart <= torch.tensor([delta + SLACK, delta + SLACK, 0.0], dtype=torch.float64)).all(1).nonzero()[:, 0]
    for part in torch.split(at, _PAIRS):
        i, j = first[part], second[part]
        seconds[part] = cdds(a[i], b[j], delta, length_a=length_a[i], length_b=length_b[j], gap=gap)
    return seconds.view(len(a), len(b))


def _boxes(xyt: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    padding = (torch.arange(xyt.shape[1]) >= length[:, None])[..., None]
    return xyt.masked_fill(padding, float("inf")).amin(1), xyt.masked_fill(padding, -float("inf")).amax(1)


def sts_join_bruteforce(
    a: Tensor, length_a: Tensor, b: Tensor, length_b: Tensor, delta: float, eps: float, gap: float = 120.0
) -> tuple[Tensor, Tensor]:
    """All pairs within delta for at least eps: pairs (K, 2) and seconds (K,); arguments as in `all_durations`."""
    seconds = all_durations(a, length_a, b, length_b, delta, gap)
    pairs = ((seconds >= eps - GUARD) & (seconds > 0)).nonzero()
    return pairs, seconds[pairs[:, 0], pairs[:, 1]]
