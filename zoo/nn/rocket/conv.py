"""Convolutions of many kernels with few taps, in cache-sized blocks: the arithmetic under ROCKET.

A kernel with weights w, dilation d and padding p has the responses

    z[t] = bias + sum_c sum_j w[c, j] x[c, t - p + j d],    t = 0 .. L + 2p - (l - 1)d - 1,    x = 0 outside of 0 .. L-1

Kernels that share d and the window (l, p) form a group and are one matrix product: the taps of a block of series are
copied into a matrix (1 + C l, L_out M) by contiguous runs, and the weights of the group multiply it. Kernels whose
padding keeps the length (2p = (l-1)d) are aligned at their centres, so those of different odd l share a group as well.

The product is many times larger than its factors, so it is never written to main memory: series and kernels are cut so
that a block stays within `block_bytes`, and the caller reduces it over time at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

import torch
from torch import Tensor

from zoo.errors import BadInput

__all__ = ["BLOCK_BYTES", "Group", "GroupedConvolution", "Window", "group_kernels", "time_major"]

BLOCK_BYTES = 1 << 20
"""Default size of a block of responses: about what the caches of a core hold beside the inputs."""

_ROWS = 4096  # of a block: enough for the matrix product to run at full speed
_MOST_THREADS = 8  # more of them would wait for Python; each then gets several threads of torch's own


@dataclass(frozen=True)
class Window:
    """What kernels of a group have in common.

    Attributes:
        taps: l, points of the series under the kernel.
        dilation: d, distance between them in samples.
        padding: p, zeros before and after the series; None where it keeps the length, (l - 1)d / 2.
    """

    taps: int
    dilation: int
    padding: int | None

    @property
    def zeros(self) -> int:
        """Zeros on either side."""
        return (self.taps - 1) * self.dilation // 2 if self.padding is None else self.padding

    def responses(self, length: int) -> int:
        """Number of responses of a series of that length; below 1 if it is too short."""
        return length + 2 * self.zeros - (self.taps - 1) * self.dilation


@dataclass(frozen=True)
class Group:
    """Kernels `start` to `stop`, in group order, under one window."""

    window: Window
    start: int
    stop: int


def group_kernels(
    taps: Sequence[int], dilation: Sequence[int], padding: Sequence[int]
) -> tuple[list[int], list[Group]]:
    """Sort kernels into groups.

    Args:
        taps: l of each kernel.
        dilation: d of each kernel.
        padding: p of each kernel.

    Returns:
        The kernels' numbers in group order, and the groups.
    """

    def key(i: int) -> tuple[int, int, int]:
        keeps_length = padding[i] > 0 and 2 * padding[i] == (taps[i] - 1) * dilation[i]
        return (dilation[i], -1, taps[i] % 2) if keeps_length else (dilation[i], padding[i], taps[i])

    order = sorted(range(len(taps)), key=key)
    groups, start = [], 0
    for (d, p, _), same in groupby(order, key=key):
        members = list(same)
        window = Window(max(taps[i] for i in members), d, None if p < 0 else p)
        groups.append(Group(window, start, start + len(members)))
        start += len(members)
    return order, groups


Job = tuple[slice, Sequence[Group]]
Collect = Callable[..., None]


def time_major(x: Tensor, zeros: int) -> Tensor:
    """Series (M, C, L) as (C, L + 2 zeros, M), padded in time: a tap of all series is then one run of memory."""
    m, channels, length = x.shape
    out = x.new_zeros(channels, length + 2 * zeros, m)
    out[:, zeros : zeros + length] = x.permute(1, 2, 0)
    return out


class GroupedConvolution:
    """Responses of kernels to series, block by block.

    Args:
        groups: from `group_kernels`.
        channels: C.
        block_bytes: largest block of responses.
        together: blocks hold whole multiples of so many kernels.
    """

    def __init__(
        self, groups: Sequence[Group], channels: int, block_bytes: int = BLOCK_BYTES, together: int = 1
    ) -> None:
        if block_bytes < 1:
            raise BadInput(f"block_bytes must be positive, got {block_bytes}.")
        self.groups = list(groups)
        self.channels = channels
        self.block_bytes, self.together = block_bytes, together
        self.zeros = max((g.window.zeros for g in self.groups), default=0)

    def before_taps(self, group: Group) -> int:
        """Inputs of each kernel of a group that are no taps, which come first: one for the bias."""
        return 1

    def rows(self, group: Group) -> int:
        """Inputs of each kernel of a group: those, and one per channel and tap."""
        return self.before_taps(group) + self.channels * group.window.taps

    def offsets(self) -> list[int]:
        """Where each group's weights (kernels, rows) begin in one flat tensor; the last entry is its size."""
        starts = [0]
        for group in self.groups:
            starts.append(starts[-1] + (group.stop - group.start) * self.rows(group))
        return starts

    def series_per_block(self, count: int, length: int) -> int:
        """How many series are worked on together, so that inputs and some kernels' responses stay in the cache."""
        rows = max((self.rows(g) for g in self.groups), default=1)
        positions = min(_ROWS, self.block_bytes // (4 * max(16, rows)))
        return max(1, min(count, positions // max(1, length)))

    def taps_of(self, group: Group, series: Tensor, length: int) -> Tensor:
        """Matrix (rows, L_out M) of a group's inputs.

        Args:
            group: one of `groups`.
            series: from `time_major` with `zeros`.
            length: L.
        """
        window = group.window
        padded, m = series.shape[1:]
        count = window.responses(length)
        first = self.zeros - window.zeros
        matrix = series.new_empty(self.rows(group), count * m)
        matrix[0] = 1.0
        view = series.as_strided(
            (self.channels, window.taps, count, m), (padded * m, window.dilation * m, m, 1), first * m
        )
        matrix[1:].view(self.channels, window.taps, count, m).copy_(view)
        return matrix

    def reduce(self, x: Tensor, weight: Tensor, collect: Collect) -> None:
        """Compute all responses, without gradients, and hand them out block by block.

        The work is shared among as many threads as torch is set to use, each of which works alone on its part: blocks
        are too small for threads to meet in every operation.

        Args:
            x: float (M, C, L).
            weight: flat, see `offsets`; in a group (kernels, bias and channel-major taps).
            collect: called with series, kernels (in group order), their window, and the block (L_out, series, kernels),
                which it may overwrite and must not keep; from several threads at once.
        """
        x, weight = x.detach(), weight.detach()
        threads = min(torch.get_num_threads(), _MOST_THREADS) if x.device.type == "cpu" else 1
        step = self.series_per_block(-(-len(x) // threads), x.shape[2])
        jobs = [(slice(i, min(i + step, len(x))), self.groups) for i in range(0, len(x), step)]
        if len(jobs) < threads:
            jobs = [(part, some) for part, _ in jobs for some in self._parts(threads)]
        if threads == 1:
            self._work(x, weight, collect, iter(jobs))
            return
        share_work(lambda queue: self._work(x, weight, collect, queue), jobs, threads)

    def _parts(self, count: int) -> list[list[Group]]:
        """The groups cut into consecutive parts with about equally many weights."""
        cuts, total = self.offsets(), self.offsets()[-1]
        parts: list[list[Group]] = [[] for _ in range(count)]
        for group, start, stop in zip(self.groups, cuts, cuts[1:], strict=False):
            parts[min(count - 1, (start + stop) * count // (2 * max(1, total)))].append(group)
        return [part for part in parts if part]

    def _work(self, x: Tensor, weight: Tensor, collect: Collect, jobs: Iterator[Job]) -> None:
        place = dict(zip([g.start for g in self.groups], self.offsets(), strict=False))
        buffer = x.new_empty(0)
        for part, groups in jobs:
            series = time_major(x[part], self.zeros)
            for group in groups:
                matrix = self.taps_of(group, series, x.shape[2])
                total, rows, positions = group.stop - group.start, *matrix.shape
                kernels = weight[place[group.start] :][: total * rows].view(total, rows)
                width = even_share(total, max(16, self.block_bytes // (4 * positions)))
                width = -(-width // self.together) * self.together
                if buffer.numel() < positions * width:
                    buffer = x.new_empty(positions * width)
                for k in range(0, total, width):
                    some = kernels[k : k + width]
                    block = buffer[: positions * len(some)].view(positions, len(some))
                    torch.mm(matrix.T, some.T, out=block)
                    chosen = slice(group.start + k, group.start + k + len(some))
                    collect(part, chosen, group.window, block.view(-1, series.shape[2], len(some)))

    def all_of(self, group: Group, x: Tensor, kernels: Tensor) -> Tensor:
        """Responses (L_out, M, kernels) of one group in one piece, differentiable and without data-dependent shapes."""
        window = group.window
        zeros, count = window.zeros, window.responses(x.shape[2])
        series = torch.nn.functional.pad(x, (zeros, zeros)).permute(1, 2, 0)
        taps = [series[:, j * window.dilation : j * window.dilation + count] for j in range(window.taps)]
        matrix = torch.stack(taps, 1).flatten(0, 1)  # (C taps, L_out, M)
        return torch.einsum("rtm,gr->tmg", matrix, kernels[:, 1:]) + kernels[:, 0]

    def convolved(self, group: Group, x: Tensor, kernels: Tensor) -> Tensor:
        """The same as (M, kernels, L_out), in one operation."""
        weight = kernels[:, 1:].reshape(-1, self.channels, group.window.taps)
        return torch.nn.functional.conv1d(
            x, weight, kernels[:, 0], padding=group.window.zeros, dilation=group.window.dilation
        )


def even_share(total: int, most: int) -> int:
    """The largest share when `total` is cut into as few, nearly equal parts of at most `most` as possible."""
    return -(-total // -(-total // most)) if total else 1


def share_work(work: Callable[[Iterator[Any]], None], jobs: Sequence[Any], threads: int) -> None:
    """Let several threads, this one among them, work through one queue, each with its share of torch's threads.

    Raises:
        Exception: the first one of any thread.
    """
    queue: SimpleQueue[Any] = SimpleQueue()
    for job in jobs:
        queue.put(job)
    failed: list[BaseException] = []

    def waiting() -> Iterator[Any]:
        while not failed:
            try:
                yield queue.get_nowait()
            except Empty:
                return

    def run() -> None:
        try:
            with torch.inference_mode():  # grad mode belongs to a thread, and new ones start with gradients
                work(waiting())
        except BaseException as error:
            failed.append(error)

    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before // threads))  # threads that start now inherit it
    try:
        helpers = [Thread(target=run, daemon=True) for _ in range(min(threads, len(jobs)) - 1)]
        for helper in helpers:
            helper.start()
        run()
        for helper in helpers:
            helper.join()
    finally:
        torch.set_num_threads(before)
    if failed:
        raise failed[0]
