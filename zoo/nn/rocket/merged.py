"""Responses of ROCKET's kernels with one matrix product per dilation, so that calls cost less than arithmetic.

To one series of a few hundred points, thousands of kernels have a few million responses, but they fall into hundreds of
groups, each of which costs a dozen calls. Here all kernels of a dilation d are one group: centred under its longest
window, with zeros that keep the length L. A kernel of l taps with padding p < (l - 1)d/2 has responses
only where it fits, at the centres c0 .. L - 1 - c0 with c0 = (l - 1)d/2 - p; for each c0 of a group, the matrix of
inputs has one more row, which is 0 there and hugely negative elsewhere, and which those kernels weigh with 1. Beyond
their responses they then have values that no maximum, count or sigmoid notices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from zoo.nn.rocket.conv import BLOCK_BYTES, Group, GroupedConvolution, Job, Window

__all__ = ["MergedConvolution"]

_POSITIONS = 4096  # of the series that are worked on together


class MergedConvolution(GroupedConvolution):
    """Responses of kernels, block by block.

    `reduce` calls `collect` with the series, the kernels (in group order) and their block (kernels, series, L), hugely
    negative where a kernel has no response.

    Args:
        groups: from `group_kernels`; those of one dilation follow each other. See `possible`.
        channels: C.
        block_bytes: largest block of responses.
    """

    def __init__(self, groups: Sequence[Group], channels: int, block_bytes: int = BLOCK_BYTES) -> None:
        merged: list[Group] = []
        self.cuts: dict[int, list[int]] = {}
        trims: list[int] = []
        for dilation, members in groupby(groups, key=lambda g: g.window.dilation):
            parts = list(members)
            group = Group(Window(max(p.window.taps for p in parts), dilation, None), parts[0].start, parts[-1].stop)
            merged.append(group)
            for part in parts:
                trims += [_trim(part)] * (part.stop - part.start)
            self.cuts[group.start] = sorted({_trim(part) for part in parts} - {0})
        super().__init__(merged, channels, block_bytes)
        self.trims = torch.tensor(trims)
        self._known: tuple[Any, list[Tensor], Tensor] | None = None

    @staticmethod
    def possible(groups: Sequence[Group]) -> bool:
        """Whether all kernels of a dilation have one centre, and none has more padding than keeps the length."""
        for _, members in groupby(groups, key=lambda g: g.window.dilation):
            windows = [group.window for group in members]
            if len({w.taps % 2 for w in windows}) > 1:
                return False
            if any(2 * w.zeros > (w.taps - 1) * w.dilation or (w.taps - 1) * w.dilation % 2 for w in windows):
                return False
        return True

    def before_taps(self, group: Group) -> int:
        """The row of the bias and those of the cuts."""
        return 1 + len(self.cuts[group.start])

    def weights_of_cuts(self) -> Tensor:
        """Flat weights as in `offsets`, 0 but where a kernel weighs the row that cuts its responses."""
        flat = torch.zeros(self.offsets()[-1])
        for group, begin in zip(self.groups, self.offsets(), strict=False):
            weight = flat[begin:][: (group.stop - group.start) * self.rows(group)].view(-1, self.rows(group))
            for row, cut in enumerate(self.cuts[group.start], start=1):
                weight[:, row] = (self.trims[group.start : group.stop] == cut).float()
        return flat

    def _fixed(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Per group the rows (1 + cuts, L) that do not depend on the series; number of responses (N, 1)."""
        length, state = x.shape[2], (x.shape[2], x.dtype, x.device)
        if self._known is None or self._known[0] != state:
            rows = []
            for group in self.groups:
                fixed = x.new_zeros(self.before_taps(group), length)
                fixed[0] = 1.0
                for row, cut in enumerate(self.cuts[group.start], start=1):
                    fixed[row, :cut] = fixed[row, length - cut :] = -torch.finfo(x.dtype).max / 4
                rows.append(fixed)
            self._known = (state, rows, (length - 2 * self.trims[:, None]).to(x))
        return self._known[1:]

    def counts(self, x: Tensor) -> Tensor:
        """How many responses (N, 1) each kernel has, in group order."""
        return self._fixed(x)[1]

    def series_per_block(self, count: int, length: int) -> int:
        """How many series are worked on together."""
        return max(1, min(count, _POSITIONS // max(1, length)))

    def _work(self, x: Tensor, weight: Tensor, collect: Callable[..., None], jobs: Iterator[Job]) -> None:
        length, (known, _) = x.shape[2], self._fixed(x)
        place = {g.start: (begin, rows) for g, begin, rows in zip(self.groups, self.offsets(), known, strict=False)}
        buffer = x.new_empty(0)
        for part, groups in jobs:
            series = torch.nn.functional.pad(x[part].transpose(0, 1), (self.zeros, self.zeros)).contiguous()
            m = series.shape[1]
            width = max(16, self.block_bytes // (4 * m * length))
            for group in groups:
                total, rows = group.stop - group.start, self.rows(group)
                begin, fixed = place[group.start]
                if buffer.numel() < rows * m * length:
                    buffer = x.new_empty(rows * m * length)
                matrix = buffer[: rows * m * length].view(rows, m * length)
                matrix[: len(fixed)].view(-1, m, length).copy_(fixed[:, None])
                self._copy_taps(group.window, series, matrix[len(fixed) :], length)
                kernels = weight[begin : begin + total * rows].view(total, rows)
                for k in range(0, total, width):
                    some = kernels[k : k + width]
                    chosen = slice(group.start + k, group.start + k + len(some))
                    collect(part, chosen, torch.mm(some, matrix).view(-1, m, length))

    def _copy_taps(self, window: Window, series: Tensor, rows: Tensor, length: int) -> None:
        """Write what lies under each tap of each channel, (C taps, M L)."""
        m, padded = series.shape[1:]
        shape = (self.channels, window.taps, m, length)
        first = self.zeros - window.zeros
        rows.view(shape).copy_(series.as_strided(shape, (m * padded, window.dilation, padded, 1), first))


def _trim(group: Group) -> int:
    """c0: responses that kernels of a group lack on either side."""
    window = group.window
    return (window.taps - 1) * window.dilation // 2 - window.zeros
