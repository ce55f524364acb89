"""Motions of tracks, and their pieces: what remains of them within one bin of the time axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.errors import BadInput
from zoo.methods.sts_join.distance import check_motion

__all__ = [
    "Motions",
    "Pieces",
    "border",
    "columns_of",
    "cut_at_bins",
    "expand_ranges",
    "longest_of",
    "motions_of",
    "positions",
    "runs_of",
]

_MOST_PIECES = 64  # of the average segment; more means that bins are far too small


@dataclass(frozen=True)
class Motions:
    """Straight motions of several tracks, ordered by track and time.

    Attributes:
        segments: (S, 6) float64: t0, t1 in seconds, x0, y0, x1, y1 in metres.
        owner: (S,) track of each segment, 0-based.
        run: (S,) number of the gapless run each segment belongs to, rising.
        count: number of tracks; one without segments (gaps only) is possible.
    """

    segments: Tensor
    owner: Tensor
    run: Tensor
    count: int

    @property
    def longest(self) -> float:
        """Bound on the distance between the ends of a segment, metres."""
        return longest_of(self.segments)


def columns_of(segments: Tensor) -> list[Tensor]:
    """Segments (S, 6) by column, contiguous."""
    return list(segments.t().contiguous().unbind(0))


def longest_of(segments: Tensor) -> float:
    """Bound on the distance between the ends of segments (S, 6), metres."""
    return float((segments[:, 4:6] - segments[:, 2:4]).abs_().amax(0).sum()) if len(segments) else 0.0


def motions_of(xyt: Tensor, length: Tensor, gap: float, names: Sequence[str] | None = None) -> Motions:
    """Segments of padded tracks.

    Args:
        xyt: (N, L, 3) float64, x and y in metres, t in seconds.
        length: (N,) points of each.
        gap: seconds; across a longer step there is no motion.
        names: of the tracks, for messages.

    Raises:
        BadInput: for a track that is no motion (see `check_motion`), or a gap that is not positive.
    """
    if not gap > 0:
        raise BadInput(f"gap must be a positive time in seconds, got {gap}.")
    xyt = xyt.double()
    inside = torch.arange(xyt.shape[1], device=xyt.device) < length[:, None]
    steps = (xyt[:, 1:, 2] > xyt[:, :-1, 2]) | ~inside[:, 1:]
    fine = (xyt.isfinite().all(2) | ~inside).all(1) & steps.all(1) & (length >= 2)
    if not fine.all():
        bad = int((~fine).nonzero()[0])
        check_motion(xyt[bad, : int(length[bad])], names[bad] if names else f"track {bad}")
    first, second = xyt[:, :-1], xyt[:, 1:]
    valid = inside[:, 1:] & (second[..., 2] - first[..., 2] <= gap)
    # a run begins where the segment before it in the same track is missing
    begins = valid.clone()
    begins[:, 1:] &= ~valid[:, :-1]
    run = begins.flatten().cumsum(0)[valid.flatten()] - 1
    rows = torch.cat([first[..., 2:], second[..., 2:], first[..., :2], second[..., :2]], 2)[valid]
    owner = torch.arange(len(xyt), device=xyt.device)[:, None].expand_as(valid)[valid]
    return Motions(rows, owner, run, len(xyt))


@dataclass(frozen=True)
class Pieces:
    """Motions cut at the borders of time bins.

    Attributes:
        table: (M, 4) int64: bin, first segment, end of the segments (exclusive), track.
        boxes: (M, 4) float64: least x, least y, largest x, largest y in the bin, metres.
        times: (M, 2) float64: begin and end within the bin, seconds.
    """

    table: Tensor
    boxes: Tensor
    times: Tensor

    def __getitem__(self, which: Tensor | slice) -> Pieces:
        return Pieces(self.table[which], self.boxes[which], self.times[which])


def expand_ranges(counts: Tensor) -> tuple[Tensor, Tensor]:
    """For each of n groups of `counts` items: the group of every item, and the item's number in its group."""
    group = torch.repeat_interleave(counts)
    starts = counts.cumsum(0).sub_(counts)
    return group, torch.arange(len(group), device=counts.device).sub_(starts.index_select(0, group))


def positions(segments: Tensor, time: Tensor) -> Tensor:
    """Where segments (n, 6) are at times (n,) within them, (n, 2)."""
    t0, t1 = segments[:, 0], segments[:, 1]
    share = ((time - t0) / (t1 - t0))[:, None]
    return segments[:, 2:4] + (segments[:, 4:6] - segments[:, 2:4]) * share


def runs_of(segments: Tensor, owner: Tensor) -> Tensor:
    """Number of the gapless run each segment belongs to: a run ends where the next segment begins later."""
    fresh = torch.ones_like(owner)
    fresh[1:] = (owner[1:] != owner[:-1]) | (segments[1:, 0] != segments[:-1, 1])
    return fresh.cumsum(0) - 1


def border(bins: Tensor, width: float, origin: float) -> Tensor:
    """Time at which bins begin, seconds, float64; the one definition of it, as rounding is part of it."""
    return bins.double().mul_(width).add_(origin)


def cut_at_bins(motions: Motions, width: float, origin: float, among: Tensor | None = None) -> Pieces:
    """Cut motions at `origin + k width`.

    Args:
        motions: to cut.
        width: of a bin, seconds.
        origin: time at which bin 0 begins, seconds.
        among: (n,) bins that matter, rising; all if None.

    Raises:
        BadInput: if there are far more pieces than segments.
    """
    segments = motions.segments
    first = _bin_of(segments[:, 0], width, origin, last=False)
    last = torch.maximum(_bin_of(segments[:, 1], width, origin, last=True), first)
    if among is not None:
        first, last = torch.searchsorted(among, first), torch.searchsorted(among, last, right=True) - 1
    total = int((last - first + 1).sum())
    if not total:
        empty = segments.new_zeros
        return Pieces(empty((0, 4)).long(), empty((0, 4)), empty((0, 2)))
    if among is None and total > max(_MOST_PIECES * len(segments), 1 << 20):
        raise BadInput(
            f"Time bins of {width:g} s are too small: {total / len(segments):,.0f} per segment. Choose a larger width, "
            "or look for a broken time."
        )
    entry, number = expand_ranges(last - first + 1)
    bins = first[entry] + number
    bins = bins if among is None else among[bins]
    rows = segments[entry]
    begin = torch.maximum(rows[:, 0], border(bins, width, origin))
    end = torch.minimum(rows[:, 1], border(bins + 1, width, origin))
    a, b = positions(rows, begin), positions(rows, end)
    fresh = torch.ones(len(entry), dtype=torch.bool, device=entry.device)
    fresh[1:] = (bins[1:] != bins[:-1]) | (motions.run[entry[1:]] != motions.run[entry[:-1]])
    piece = fresh.cumsum(0) - 1
    where = fresh.nonzero()[:, 0]
    stop = torch.cat([where[1:], where.new_tensor([len(entry)])]) - 1
    into = piece[:, None].expand(-1, 2)
    low = a.new_zeros(len(where), 2).scatter_reduce_(0, into, torch.minimum(a, b), "amin", include_self=False)
    high = a.new_zeros(len(where), 2).scatter_reduce_(0, into, torch.maximum(a, b), "amax", include_self=False)
    table = torch.stack([bins[where], entry[where], entry[stop] + 1, motions.owner[entry[where]]], 1)
    return Pieces(table, torch.cat([low, high], 1), torch.stack([begin[where], end[stop]], 1))


def _bin_of(times: Tensor, width: float, origin: float, *, last: bool) -> Tensor:
    """The bin that holds each time; on a border the one before it if `last`, else the one after it."""
    bins = ((times - origin) / width).floor().long()
    while True:  # the quotient is rounded: far from the origin it may be one off
        begin, end = border(bins, width, origin), border(bins + 1, width, origin)
        early, late = (end < times, begin >= times) if last else (end <= times, begin > times)
        if not (early.any() or late.any()):
            return bins
        bins += early.long() - late.long()
