"""MiniRocket and Hydra: relatives of ROCKET, on the same blocks of responses, for the timings of `rocket.py`.

MiniRocket (Dempster, Schmidt, Webb, KDD 2021, arXiv 2012.08791): the 84 kernels of nine points with weights -1 and
three times 2, thresholds from quantiles of responses to training series, share of responses above each threshold.

Hydra (Dempster, Schmidt, Webb, DMKD 2023, arXiv 2203.13652): random kernels in groups of k; at each point the kernel
with the largest response of its group scores that response, and the one with the smallest scores 1; on the series and
on its differences.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from zoo.errors import BadInput
from zoo.nn.rocket.conv import BLOCK_BYTES, GroupedConvolution, Window, group_kernels

__all__ = ["Hydra", "MiniRocket"]

_TAPS = 9
_TRIPLES = list(combinations(range(_TAPS), 3))  # the places of the weight 2


def _check_length(length: int, channels: int) -> None:
    if length < _TAPS:
        raise BadInput(f"The kernels have {_TAPS} points, so series need at least as many, got {length}.")
    if channels < 1:
        raise BadInput(f"channels must be at least 1, got {channels}.")


def _check_batch(x: Tensor, channels: int) -> None:
    if x.ndim != 3 or x.shape[1] != channels:
        raise BadInput(f"Expected a batch of series (series, {channels}, points), got the shape {tuple(x.shape)}.")


def spread_dilations(length: int, per_kernel: int, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Dilations on a logarithmic scale, and how many thresholds a kernel has with each."""
    tried = min(per_kernel, most)
    exponents = np.logspace(0, np.log2((length - 1) / (_TAPS - 1)), tried, base=2).astype(np.int32)
    dilations, counts = np.unique(exponents, return_counts=True)
    counts = (counts * (per_kernel / tried)).astype(np.int32)
    for i in range(per_kernel - int(counts.sum())):
        counts[i % len(counts)] += 1
    return dilations, counts


class MiniRocket(nn.Module):
    """Shares of responses above thresholds. `fit` draws the thresholds; without it all features are 0.

    Args:
        num_features: about so many; a multiple of 84.
        length: L of the training series.
        channels: C.
        seed: of the channels of each kernel, and of the series that give the thresholds.
        most_dilations: per kernel.
        block_bytes: of responses at once, per thread.
    """

    biases: Tensor
    weights: Tensor

    def __init__(
        self,
        num_features: int = 10_000,
        length: int = 100,
        channels: int = 1,
        seed: int = 0,
        most_dilations: int = 32,
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        super().__init__()
        _check_length(length, channels)
        self.series_channels, self.seed = channels, seed
        self.dilations, self.counts = spread_dilations(length, max(num_features, 84) // 84, most_dilations)
        rng = np.random.default_rng(seed)
        total = 84 * len(self.dilations)
        counts = (2 ** rng.uniform(0, np.log2(min(channels, _TAPS) + 1), total)).astype(int)
        self._build([rng.permutation(channels)[:n].tolist() for n in counts], block_bytes)
        self.register_buffer("biases", torch.full((84 * int(self.counts.sum()),), torch.inf))

    @property
    def num_features(self) -> int:
        """Features of a series."""
        return len(self.biases)

    def _build(self, chosen: list[list[int]], block_bytes: int) -> None:
        """Kernel `84 j + k` has dilation j; it is padded when j + k is even."""
        dilation = np.repeat(self.dilations, 84).tolist()
        padded = [(i // 84 + i % 84) % 2 == 0 for i in range(len(dilation))]
        padding = [4 * d if p else 0 for d, p in zip(dilation, padded, strict=True)]
        order, groups = group_kernels([_TAPS] * len(dilation), dilation, padding)
        self.order = order
        self.convolution = GroupedConvolution(groups, self.series_channels, block_bytes)
        weights = torch.zeros(len(order), 1 + self.series_channels * _TAPS)
        taps = weights[:, 1:].view(len(order), self.series_channels, _TAPS)
        for row, i in enumerate(order):
            taps[row, chosen[i]] = -1.0
            for place in _TRIPLES[i % 84]:
                taps[row, chosen[i], place] = 2.0
        self.register_buffer("weights", weights, persistent=False)
        starts = np.concatenate([[0], np.cumsum(np.repeat(self.counts, 84))])
        self.starts = [int(starts[i]) for i in order]  # of each kernel's features
        self.widths = [int(self.counts[i // 84]) for i in order]

    @torch.no_grad()
    def fit(self, x: Tensor) -> MiniRocket:
        """Set the thresholds from training series (M, C, L): each kernel's from one of them, drawn at random."""
        _check_batch(x, self.series_channels)
        rng = np.random.default_rng([self.seed, 1])
        golden = (np.sqrt(5) + 1) / 2
        quantiles = torch.as_tensor((np.arange(1, self.num_features + 1) * golden) % 1, dtype=torch.float32)
        whole = rng.integers(len(x), size=len(self.order))
        for row, i in enumerate(self.order):
            dilation = int(self.dilations[i // 84])
            weight = self.weights[row, 1:].view(1, self.series_channels, _TAPS)
            z = torch.conv1d(x[whole[i] : whole[i] + 1].float(), weight, padding=4 * dilation, dilation=dilation)
            place = slice(self.starts[row], self.starts[row] + self.widths[row])
            self.biases[place] = torch.quantile(z.flatten(), quantiles[place].to(z.device))
        return self

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Features (M, num_features) of series (M, C, L)."""
        _check_batch(x, self.series_channels)
        found = x.new_zeros(len(x), self.num_features, dtype=torch.float32)
        thresholds = self.biases

        def pool(part: slice, kernels: slice, window: Window, z: Tensor) -> None:
            above = torch.empty_like(z)
            starts = torch.tensor(self.starts[kernels], device=z.device)
            for number in range(self.widths[kernels.start]):
                torch.gt(z, thresholds[starts + number], out=above)
                found[part, starts + number] = above.mean(0)

        self.convolution.reduce(x.float(), self.weights.flatten(), pool)
        return found


class Hydra(nn.Module):
    """Competing kernels.

    Args:
        length: L of the series.
        channels: C.
        kernels: k, competing in a group.
        groups: g; half of them look at the series, half at its differences.
        most_channels: of a group.
        seed: of the kernels.
        block_bytes: of responses at once, per thread.
    """

    weights: Tensor
    channel_index: Tensor

    def __init__(
        self,
        length: int = 100,
        channels: int = 1,
        kernels: int = 8,
        groups: int = 64,
        most_channels: int = 8,
        seed: int = 0,
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        super().__init__()
        _check_length(length, channels)
        if kernels < 2 or groups < 2 or groups % 2:
            raise BadInput(f"kernels must be at least 2 and groups even, got {kernels} and {groups}.")
        self.series_channels, self.kernels, self.per_side = channels, kernels, groups // 2
        self.dilations = [2**i for i in range(int(np.log2((length - 1) / (_TAPS - 1))) + 1)]
        draw = torch.Generator().manual_seed(seed)
        shape = (len(self.dilations), 2, self.per_side * kernels, _TAPS)
        weights = torch.randn(shape, generator=draw)
        weights -= weights.mean(-1, keepdim=True)
        self.register_buffer("weights", weights / weights.abs().sum(-1, keepdim=True))
        width = 1 if channels == 1 else int(np.clip(channels // 2, 2, most_channels))
        chosen = torch.randint(0, channels, (len(self.dilations), 2, self.per_side, width), generator=draw)
        self.register_buffer("channel_index", chosen)
        number = self.per_side * kernels
        dilation = np.repeat(self.dilations, number).tolist()
        _, found = group_kernels([_TAPS] * len(dilation), dilation, [4 * d for d in dilation])
        self.convolution = GroupedConvolution(found, channels, block_bytes, together=kernels)

    @property
    def num_features(self) -> int:
        """Features of a series."""
        return 4 * len(self.dilations) * self.per_side * self.kernels

    def _grouped(self, side: int) -> Tensor:
        """Weights for the series (side 0) or the differences (1), flat. A channel drawn twice counts twice."""
        often = nn.functional.one_hot(self.channel_index[:, side], self.series_channels).sum(2)
        often = often.repeat_interleave(self.kernels, 1)  # (dilations, kernels, C)
        taps = often[..., None] * self.weights[:, side, :, None]
        return nn.functional.pad(taps.flatten(2), (1, 0)).flatten()

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Features (M, num_features): per dilation and side the k g/2 sums of winners, then the counts of losers."""
        _check_batch(x, self.series_channels)
        x = x.float()
        size = self.per_side * self.kernels
        found = x.new_zeros(len(x), len(self.dilations), 2, 2, self.per_side, self.kernels)
        for side, series in enumerate((x, x.diff())):

            def pool(part: slice, kernels: slice, window: Window, z: Tensor, side: int = side) -> None:
                which, start = kernels.start // size, kernels.start % size // self.kernels
                rows: Any = z.view(*z.shape[:2], -1, self.kernels)
                place = slice(start, start + rows.shape[2])
                highest, winner = rows.max(-1)
                loser = rows.argmin(-1)
                out = found[part, which, side]
                for number in range(self.kernels):
                    out[:, 0, place, number] = torch.where(winner == number, highest, 0).sum(0)
                    out[:, 1, place, number] = (loser == number).sum(0).float()

            self.convolution.reduce(series, self._grouped(side), pool)
        return found.flatten(1)
