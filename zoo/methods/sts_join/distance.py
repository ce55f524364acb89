"""CDDS, the close-distance duration of two motions, exact and batched, in float64.

On a common time interval two straight motions differ by `D(u) = d0 + u g`, u in [0, 1], g = d1 - d0. With a = g.g,
h = d0.g and c = d0.d0 - delta^2 they are within delta where `a u^2 + 2 h u + c <= 0`. The discriminant is taken as
`a delta^2 - (d0 x g)^2`, which equals `h^2 - a c` but does not cancel when the motions are far apart.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from zoo.errors import BadInput

__all__ = ["CDDS", "cdds", "cdds_intervals", "check_delta", "check_motion", "close_part"]

_ROWS = 1 << 16  # elements worked on at once: few enough to stay in the processor's cache


def check_delta(delta: float) -> float:
    """Refuse a distance that no two points can be within.

    Raises:
        BadInput: unless delta is a positive finite number.
    """
    if not 0 < delta < float("inf"):
        raise BadInput(f"delta must be a positive distance in metres, got {delta}.")
    return float(delta)


def close_part(x: Tensor, y: Tensor, gx: Tensor, gy: Tensor, delta: float) -> tuple[Tensor, Tensor]:
    """The part of [0, 1] in which `|d0 + u g| <= delta`; without `where`, which is slow on processors.

    Args:
        x: first coordinate of d0, the difference of the positions at u = 0, metres.
        y: second coordinate of d0.
        gx: first coordinate of g, the change of the difference until u = 1, metres.
        gy: second coordinate of g.
        delta: metres; where it is not positive, nothing is close.

    Returns:
        u0 and u1; equal where the motions are never closer than delta. Touching lasts no time.
    """
    if delta <= 0:
        return torch.zeros_like(x), torch.zeros_like(x)
    a = gx * gx + gy * gy
    h = x * gx + y * gy
    distance = (x * x + y * y).sqrt_()
    c = (distance - delta).mul_(distance.add_(delta))
    root = (a * (delta * delta)).sub_((x * gy - y * gx).square_()).clamp_min_(0).sqrt_()
    # the root of larger size first, the other one from the product of both (c / a): no cancellation
    q = (h + torch.copysign(root, h)).neg_()
    q.add_((q == 0).to(q.dtype), alpha=1e-300)  # so that nothing below is NaN; it only happens where root is 0
    first, second = (q / a).clamp_(0, 1), (c / q).clamp_(0, 1)
    low = torch.minimum(first, second)
    long = torch.maximum(first, second).sub_(low).mul_((root > 0).to(low.dtype))
    still = (a == 0).logical_and_(c <= 0).to(low.dtype)  # equal velocities: close all the time, or never
    low.mul_(1 - still)
    return low, long.add_(still).add_(low)


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


def _segments(motion: Tensor, length: Tensor | None, gap: float) -> tuple[Tensor, list[Tensor]]:
    """Times (B, L), infinite in the padding, and t0, t1, x, y, vx, vy of the segments, (B, L - 1) each.

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
    vx, vy = (x[:, 1:] - x0).mul_(rate), (y[:, 1:] - y0).mul_(rate)
    if length is not None or gap < float("inf"):
        stop = (step > gap).logical_or_(step <= 0)
        vx, vy = vx.masked_fill_(stop, 0.0), vy.masked_fill_(stop, 0.0)
        t1 = torch.where(stop, t0, t1)
    return times, [t0, t1, x0, y0, vx, vy]


def _events(
    ours: tuple[Tensor, list[Tensor]], other: tuple[Tensor, list[Tensor]], right: bool
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The stretches that begin at our points: when, how long, and how far apart.

    Each stretch ends at the next point of either motion, so both are straight on it. Stretches without a common time,
    or across a gap, get the length 0.

    Returns:
        start, seconds, and x, y, gx, gy, (B, L - 1) each: the difference at the start, and its change.
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
    dx, dy = x - qx.addcmul_(wx, since), y - qy.addcmul_(wy, since)
    return start, length, [dx, dy, gx, gy]


def _stretches(
    a: Tensor, b: Tensor, delta: float, length_a: Tensor | None, length_b: Tensor | None, gap: float
) -> Iterator[tuple[Tensor, Tensor]]:
    """Start and seconds of the close part of every stretch, in two parts: (B, La - 1) and (B, Lb - 1) each."""
    first, second = _segments(a, length_a, gap), _segments(b, length_b, gap)
    # a point of both motions begins one stretch: on the second side, only points strictly after the other's count
    for ours, other, right in ((first, second, True), (second, first, False)):
        start, length, (x, y, gx, gy) = _events(ours, other, right)
        low, high = close_part(x, y, gx, gy, delta)
        high.sub_(low).mul_(length)
        yield torch.addcmul(start, low, length), high


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
        stretches = _stretches(a[part], b[part], delta, first, second, gap)
        seconds.append(torch.stack([length.sum(1) for _, length in stretches]).sum(0))
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
    parts = list(_stretches(a.double()[None], b.double()[None], delta, None, None, gap))
    start, length = (torch.cat([part[i][0] for part in parts]) for i in (0, 1))
    kept = length > 0
    start, end = start[kept], start[kept] + length[kept]
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
