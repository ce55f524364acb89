"""CDDS, the close-distance duration of two motions, exact and batched.

Exact means: the times and places given are taken as they are, as float64 numbers, and the duration is that of exact
arithmetic on them, to a nanosecond (or to the last bits of a float64, for durations above 50 days). Two points are
within delta if their distance is at most delta, give or take 1e-20 m; touching for an instant lasts no time. Nothing is
lost at Unix times, nor at northings of 10,000 km.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from zoo.errors import BadInput
from zoo.methods.sts_join.solve import Columns, crossing_shares, in_doubt, quadratic, settle

__all__ = ["CDDS", "cdds", "cdds_intervals", "check_delta", "check_motion"]

_ROWS = 1 << 16  # elements worked on at once: few enough to stay in the processor's cache


def check_delta(delta: float) -> float:
    """Refuse a distance that no two points can be within.

    Raises:
        BadInput: unless delta is a positive finite number.
    """
    if not 0 < delta < float("inf"):
        raise BadInput(f"delta must be a positive distance in metres, got {delta}.")
    return float(delta)


def check_motion(xyt: Tensor, name: str = "track") -> None:
    """Refuse what is no motion: fewer than two points, numbers that are not finite, times that do not rise.

    Args:
        xyt: (L, 3), metres, metres, seconds.
        name: of the track, for the message.

    Raises:
        BadInput: naming the track and the row.
    """
    if xyt.ndim != 2 or xyt.shape[1] != 3:
        raise BadInput(f"{name}: expected rows of x, y, t, the shape (points, 3), got {tuple(xyt.shape)}.")
    if len(xyt) < 2:
        raise BadInput(f"{name}: a motion needs at least 2 points, got {len(xyt)}.")
    if not xyt.isfinite().all():
        row = int((~xyt.isfinite()).any(1).nonzero()[0])
        raise BadInput(f"{name}: expected finite numbers, got {xyt[row].tolist()} in row {row}. Remove that row.")
    steps = xyt[:, 2].diff()
    if (steps <= 0).any():
        row = int((steps <= 0).nonzero()[0]) + 1
        what = "twice the time" if steps[row - 1] == 0 else "a time before that of the row above,"
        raise BadInput(
            f"{name}: times must rise, got {what} {float(xyt[row, 2])} s in row {row}. Sort the rows by time and keep "
            "one row per time."
        )


def _segments(motion: Tensor, length: Tensor | None, gap: float) -> tuple[Tensor, list[Tensor], float]:
    """Times (B, L), infinite in the padding; t0, t1, x, y, vx, vy of segments, (B, L - 1) each; metres of the longest.

    A segment that is no motion (a gap, padding) ends when it starts, so that no time is spent on it.
    """
    x, y, times = (v.contiguous() for v in motion.unbind(-1))  # by column: rows would be copied again and again
    ends = times
    if length is not None:
        padding = torch.arange(motion.shape[1], device=motion.device) >= length[:, None]
        x, y, ends = (v.masked_fill(padding, 0.0) for v in (x, y, times))
        times = times.masked_fill(padding, float("inf"))
    t0, t1 = ends[:, :-1].contiguous(), ends[:, 1:].contiguous()
    step = t1 - t0
    x0, y0, rate = x[:, :-1].contiguous(), y[:, :-1].contiguous(), step.clamp_min(1e-300).reciprocal_()
    vx, vy = x[:, 1:] - x0, y[:, 1:] - y0
    if length is not None or gap < float("inf"):
        stop = (step > gap).logical_or_(step <= 0)
        vx, vy = vx.masked_fill_(stop, 0.0), vy.masked_fill_(stop, 0.0)
        t1 = torch.where(stop, t0, t1)
    longest = sum(max(abs(float(v)) for v in torch.aminmax(change)) for change in (vx, vy))
    return times, [t0, t1, x0, y0, vx.mul_(rate), vy.mul_(rate)], longest


def _events(
    ours: tuple[Tensor, list[Tensor]], other: tuple[Tensor, list[Tensor]], right: bool
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """The stretches that begin at our points: when, how long, and how far apart.

    Each stretch ends at the next point of either motion, so both are straight on it. Stretches without a common time,
    or across a gap, get the length 0.

    Returns:
        start, seconds, x, y, gx, gy, (B, L - 1) each: the difference at the start, and its change; and the number of
        the other motion's segment.
    """
    (times, (start, end, x, y, vx, vy)), (other_times, columns) = ours, other
    # the other motion's segment in which each of our points falls; -1 before its first point
    where = torch.searchsorted(other_times, times[:, :-1].contiguous(), right=right).sub_(1)
    where.clamp_(0, columns[0].shape[1] - 1)
    t0, t1, qx, qy, wx, wy = (column.gather(1, where) for column in columns)
    since = start - t0
    inside = since >= 0 if right else since > 0  # a point before the other's first one was put into its first segment
    length = torch.minimum(end, t1).sub_(start).clamp_min_(0).mul_(inside.to(start.dtype))
    gx, gy = (vx - wx).mul_(length), (vy - wy).mul_(length)
    dx, dy = (x - qx).addcmul_(wx, since, value=-1), (y - qy).addcmul_(wy, since, value=-1)
    return start, length, (dx, dy, gx, gy), where


def _close_times(
    a: Tensor, b: Tensor, delta: float, length_a: Tensor | None, length_b: Tensor | None, gap: float
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Start and seconds of every stretch, and the shares of it between which the motions are close.

    Yields:
        four tensors (B, La - 1), then four (B, Lb - 1).
    """
    first, second = _segments(a, length_a, gap), _segments(b, length_b, gap)
    longest = max(first[2], second[2])
    # a point of both motions begins one stretch: on the second side, only points strictly after the other's count
    for ours, other, right, motions in ((first, second, True, (a, b)), (second, first, False, (b, a))):
        start, seconds, places, where = _events(ours[:2], other[:2], right)
        squared, mixed, constant, disc = quadratic(*places, delta)
        doubt = in_doubt(squared, disc, seconds, delta, longest)
        low, high = crossing_shares(squared, mixed, constant, disc)
        if len(doubt):
            row, column = doubt // start.shape[1], doubt % start.shape[1]
            own, theirs = _segments_at(motions[0], row, column), _segments_at(motions[1], row, where[row, column])
            begin, shares = start[row, column], (low[row, column], high[row, column])
            shares = settle(own, theirs, begin, begin + seconds[row, column], delta, *shares)
            low[row, column], high[row, column] = shares
        yield start, seconds, low, high


def _segments_at(motion: Tensor, row: Tensor, column: Tensor) -> Columns:
    """Segments that begin at some points of motions (B, L, 3)."""
    (x0, y0, t0), (x1, y1, t1) = motion[row, column].unbind(1), motion[row, column + 1].unbind(1)
    return [t0, t1, x0, y0, x1, y1]


def cdds(
    a: Tensor,
    b: Tensor,
    delta: float,
    *,
    length_a: Tensor | None = None,
    length_b: Tensor | None = None,
    gap: float = float("inf"),
) -> Tensor:
    """Total time for which two motions are within delta, over their common time.

    Args:
        a: (B, La, 3) float64: x and y in metres, t in seconds, rising within the length; padding may hold anything.
        b: (B, Lb, 3).
        delta: metres, above 0.
        length_a: points of each first motion, (B,); all if None.
        length_b: points of each second motion, (B,); all if None.
        gap: seconds; a step longer than that is no motion.

    Returns:
        Seconds, (B,) float64.

    Raises:
        BadInput: for shapes that do not fit, or a delta that is not positive.
    """
    check_delta(delta)
    if a.ndim != 3 or b.ndim != 3 or a.shape[2] != 3 or b.shape[2] != 3 or len(a) != len(b):
        raise BadInput(f"Expected motions (B, L, 3) of x, y, t, got {tuple(a.shape)} and {tuple(b.shape)}.")
    if min(a.shape[1], b.shape[1]) < 2:
        raise BadInput("A motion needs at least 2 points.")
    a, b = a.double(), b.double()
    rows = max(1, _ROWS // (a.shape[1] + b.shape[1]))
    seconds = []
    for i in range(0, len(a), rows):
        part = slice(i, i + rows)
        first, second = (None if v is None else v[part] for v in (length_a, length_b))
        parts = _close_times(a[part], b[part], delta, first, second, gap)
        seconds.append(torch.stack([high.sub_(low).mul_(length).sum(1) for _, length, low, high in parts]).sum(0))
    return torch.cat(seconds) if seconds else a.new_zeros(0)


def cdds_intervals(a: Tensor, b: Tensor, delta: float, gap: float = float("inf")) -> Tensor:
    """When two motions are within delta.

    Args:
        a: (La, 3) float64.
        b: (Lb, 3) float64.
        delta: metres, above 0.
        gap: seconds; a step longer than that is no motion.

    Returns:
        (R, 2) start and end in seconds, in order, adjoining ones joined.
    """
    check_delta(delta)
    parts = list(_close_times(a.double()[None], b.double()[None], delta, None, None, gap))
    begin, length, low, high = (torch.cat([part[i][0] for part in parts]) for i in range(4))
    kept = (high > low) & (length > 0)
    start, end = (begin + low * length)[kept], (begin + high * length)[kept]
    order = start.argsort()
    merged: list[list[float]] = []
    for s, e in zip(start[order].tolist(), end[order].tolist(), strict=True):
        if merged and s <= merged[-1][1] + 1e-9:
            merged[-1][1] = max(e, merged[-1][1])
        else:
            merged.append([s, e])
    return torch.tensor(merged, dtype=torch.float64).reshape(-1, 2)


class CDDS(nn.Module):
    """`cdds` as a module, for a fixed distance.

    Args:
        delta: metres, above 0.
        gap: seconds; a step longer than that is no motion.
    """

    def __init__(self, delta: float, gap: float = 120.0) -> None:
        super().__init__()
        self.delta, self.gap = check_delta(delta), gap

    def forward(self, a: Tensor, b: Tensor, length_a: Tensor | None = None, length_b: Tensor | None = None) -> Tensor:
        """Seconds within delta, (B,); arguments as in `cdds`."""
        return cdds(a, b, self.delta, length_a=length_a, length_b=length_b, gap=self.gap)
