"""When two straight motions are within a distance: in float64 where that suffices, with twice the digits elsewhere.

On a common time interval two straight motions differ by `D(u) = d0 + u g`, u in [0, 1], g = d1 - d0. With a = g.g,
h = d0.g and c = d0.d0 - delta^2 they are within delta where `a u^2 + 2 h u + c <= 0`. The discriminant is taken as
`a delta^2 - (d0 x g)^2`, which equals `h^2 - a c` but does not cancel when the motions are far apart.

When two motions graze the distance delta, or keep it all the time, a rounding error of 1e-15 m in their distance
decides about microseconds or about the whole stretch. Such stretches are few; they are solved again with pairs of
float64 whose sum has 106 bits (Dekker, "A floating-point technique for extending the available precision", 1971).
Divisions are avoided by multiplying with the durations of both segments, so that equal velocities and a distance of
exactly delta are recognised as such: what differs by less than 2^-96 of the numbers it comes from, that is by less than
1e-20 m on earth, is equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

__all__ = ["Columns", "close_shares", "crossing_shares", "difference", "in_doubt", "quadratic", "settle"]

TOLERANCE = 2e-11
"""Seconds by which rounding may change the close part of a stretch before it is solved with more digits."""

_ROUNDING = 8 * 2.0**-53  # relative error of a distance after the few operations that give it
_EQUAL = 2.0**-96

Number = TypeVar("Number", Tensor, float)

Columns = Sequence[Tensor]
"""Segments by column, which is several times faster than by row."""

Pair = tuple[Tensor, Tensor]
"""A number as the sum of two, the second at most half a unit in the last place of the first."""


def difference(a: Columns, b: Columns, start: Tensor, end: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """How far apart two straight motions are at the start of a stretch, and how that changes until its end.

    Only differences of times and of places enter, so neither Unix times nor northings cost precision.

    Args:
        a: segments t0, t1, x0, y0, x1, y1, (n,) each.
        b: segments of the other motions.
        start: (n,) seconds, within both.
        end: (n,) seconds, within both.

    Returns:
        x, y, gx, gy, (n,) metres each.
    """
    a0, a1, ax, ay, bx, by = a
    c0, c1, cx, cy, dx, dy = b
    rate, other_rate, seconds = (a1 - a0).reciprocal_(), (c1 - c0).reciprocal_(), end - start
    u, w = (start - a0).mul_(rate), (start - c0).mul_(other_rate)
    rate.mul_(seconds)
    other_rate.mul_(seconds)
    wx, wy, other_wx, other_wy = bx - ax, by - ay, dx - cx, dy - cy
    x = (ax - cx).addcmul_(wx, u).addcmul_(other_wx, w, value=-1)
    y = (ay - cy).addcmul_(wy, u).addcmul_(other_wy, w, value=-1)
    gx = wx.mul_(rate).addcmul_(other_wx, other_rate, value=-1)
    gy = wy.mul_(rate).addcmul_(other_wy, other_rate, value=-1)
    return x, y, gx, gy


def quadratic(x: Tensor, y: Tensor, gx: Tensor, gy: Tensor, delta: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Coefficients a, h, c of `|d0 + u g|^2 - delta^2 = a u^2 + 2 h u + c`, and the discriminant `h^2 - a c`.

    Args:
        x: first coordinate of d0, the difference of the positions at u = 0, metres.
        y: second coordinate of d0.
        gx: first coordinate of g, the change of the difference until u = 1, metres.
        gy: second coordinate of g.
        delta: metres.
    """
    a = gx * gx + gy * gy
    h = x * gx + y * gy
    distance = (x * x + y * y).sqrt_()
    c = (distance - delta).mul_(distance.add_(delta))
    disc = (a * (delta * delta)).sub_((x * gy - y * gx).square_())
    return a, h, c, disc


def crossing_shares(a: Tensor, h: Tensor, c: Tensor, disc: Tensor) -> tuple[Tensor, Tensor]:
    """The part of [0, 1] in which `a u^2 + 2 h u + c <= 0`, where a is not 0 and the stretch not `in_doubt`.

    Args:
        a: coefficient, at least 0.
        h: coefficient.
        c: coefficient.
        disc: `h^2 - a c`.

    Returns:
        u0 and u1; equal where the motions are never closer than delta. Elsewhere they are any numbers in [0, 1].
    """
    root = disc.clamp_min(0).sqrt_()
    # the root of larger size first, the other one from the product of both (c / a): no cancellation
    q = (h + torch.copysign(root, h)).neg_().sub_(1e-300)  # not 0, so that nothing below is NaN
    first, second = (q / a).clamp_(0, 1), (c / q).clamp_(0, 1)
    low = torch.minimum(first, second)
    long = torch.maximum(first, second).sub_(low).mul_((root > 0).to(low.dtype))
    return low, long.add_(low)


def close_shares(a: Tensor, h: Tensor, c: Tensor, disc: Tensor) -> tuple[Tensor, Tensor]:
    """The same for any a: with equal velocities the motions are close all the time, or never."""
    low, high = crossing_shares(a, h, c, disc)
    still = a == 0
    return low.masked_fill_(still, 0.0), torch.where(still, (c <= 0).to(high.dtype), high)


def error_of(delta: float, longest: Number) -> Number:
    """Bound on the rounding of a squared distance near delta squared, as `difference` and `quadratic` give it.

    Args:
        delta: metres.
        longest: metres between the ends of a segment, at most.
    """
    return 2 * delta * _ROUNDING * (delta + 4 * longest)


def in_doubt(a: Tensor, disc: Tensor, seconds: Tensor, delta: float, longest: float) -> Tensor:
    """Numbers of the stretches whose close part rounding may change by more than `TOLERANCE` seconds.

    An error e of the squared distance moves a root by e / sqrt(disc); near disc = 0 it moves without bound.

    Args:
        a: coefficient, of any shape.
        disc: discriminant.
        seconds: length of each stretch; 0 where there is none.
        delta: metres.
        longest: metres between the ends of a segment, at most.
    """
    error = error_of(delta, longest)
    margin = (seconds * (error / TOLERANCE)).square_().add_(a, alpha=4 * error)
    return (disc.abs() < margin).flatten().nonzero()[:, 0]


def settle(
    a: Columns, b: Columns, start: Tensor, end: Tensor, delta: float, low: Tensor, high: Tensor
) -> tuple[Tensor, Tensor]:
    """The close part of stretches in doubt, as shares of each.

    Args:
        a: segments t0, t1, x0, y0, x1, y1, (n,) each.
        b: segments of the other motions.
        start: (n,) seconds, begin of each stretch.
        end: (n,) seconds.
        delta: metres.
        low: (n,) shares at which the close part begins, as float64 has them.
        high: (n,) shares at which it ends.

    Returns:
        low and high, exact to far less than a nanosecond.
    """
    seconds = end - start
    x, y, gx, gy = difference(a, b, start, end)
    squared, mixed, constant, disc = quadratic(x, y, gx, gy, delta)
    last = quadratic(x + gx, y + gy, gx, gy, delta)[2]  # as `constant`, at the end
    moved = [(columns[k + 2] - columns[k]).abs() for columns in (a, b) for k in (2, 3)]
    error = error_of(delta, moved[0] + moved[1] + moved[2] + moved[3])
    turns = (mixed < 0) & (-mixed < squared)  # nearest in between, where disc is more precise than the polynomial
    least = torch.where(turns, -disc / squared, torch.minimum(constant, last))
    inside, outside = torch.maximum(constant, last) < -4 * error, least > 4 * error
    low, high = low.masked_fill(inside | outside, 0.0), high.masked_fill(outside, 0.0).masked_fill(inside, 1.0)
    margin = (seconds * error / TOLERANCE).square() + 4 * error * squared
    doubtful = ((disc.abs() < margin) & ~inside & ~outside).nonzero()[:, 0]
    if len(doubtful):
        ours, theirs = [column[doubtful] for column in a], [column[doubtful] for column in b]
        exact = _solve(ours, theirs, start[doubtful], end[doubtful], delta)
        low, high = low.index_copy(0, doubtful, exact[0]), high.index_copy(0, doubtful, exact[1])
    return low, high


def _solve(a: Columns, b: Columns, start: Tensor, end: Tensor, delta: float) -> tuple[Tensor, Tensor]:
    """Shares of stretches from numbers of twice the length; all lengths are scaled by both segments' durations."""
    a0, a1, *a_places = a
    b0, b1, *b_places = b
    duration_a, duration_b, seconds = _difference(a1, a0), _difference(b1, b0), _difference(end, start)
    since_a, since_b = _difference(start, a0), _difference(start, b0)
    scale = _product(duration_a, duration_b)
    places, changes = [], []
    size = torch.zeros_like(start)  # of the numbers from which places come
    for axis in (0, 1):
        apart = _product(_difference(a_places[axis], b_places[axis]), scale)
        way_a = _product(_difference(a_places[axis + 2], a_places[axis]), duration_b)
        way_b = _product(_difference(b_places[axis + 2], b_places[axis]), duration_a)
        moved_a, moved_b = _product(since_a, way_a), _product(since_b, way_b)
        places.append(_minus(_plus(apart, moved_a), moved_b))
        size = size + apart[0].abs() + moved_a[0].abs() + moved_b[0].abs()
        change, ways = _minus(way_a, way_b), way_a[0].abs() + way_b[0].abs()
        changes.append(_product(_zero_below(change, _EQUAL * ways), seconds))
    (x, y), (gx, gy) = places, changes
    reach = _product((torch.full_like(start, delta), torch.zeros_like(start)), scale)
    squared = _product(reach, reach)
    qa = _plus(_product(gx, gx), _product(gy, gy))
    qh = _plus(_product(x, gx), _product(y, gy))
    qc = _minus(_plus(_product(x, x), _product(y, y)), squared)
    qc = _zero_below(qc, _EQUAL * reach[0] * (size + reach[0]))
    cross = _minus(_product(x, gy), _product(y, gx))
    disc = _minus(_product(qa, squared), _product(cross, cross))
    disc = _zero_below(disc, _EQUAL * qa[0] * reach[0] * (size + reach[0]))
    return close_shares(qa[0], qh[0], qc[0], disc[0])


def _zero_below(value: Pair, limit: Tensor) -> Pair:
    """Zero where the size is at most the limit."""
    small = value[0].abs() <= limit
    return value[0].masked_fill(small, 0.0), value[1].masked_fill(small, 0.0)


def _exact_sum(a: Tensor, b: Tensor) -> Pair:
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _difference(a: Tensor, b: Tensor) -> Pair:
    """Of two float64 numbers, without any error."""
    return _exact_sum(a, -b)


def _plus(a: Pair, b: Pair) -> Pair:
    high, rest = _exact_sum(a[0], b[0])
    low, last = _exact_sum(a[1], b[1])
    high, rest = _exact_sum(high, rest + low)
    return _exact_sum(high, rest + last)


def _minus(a: Pair, b: Pair) -> Pair:
    return _plus(a, (-b[0], -b[1]))


def _product(a: Pair, b: Pair) -> Pair:
    high = a[0] * b[0]
    (a_top, a_rest), (b_top, b_rest) = _halves(a[0]), _halves(b[0])
    error = ((a_top * b_top - high) + a_top * b_rest + a_rest * b_top) + a_rest * b_rest
    return _exact_sum(high, error + (a[0] * b[1] + a[1] * b[0]))


def _halves(value: Tensor) -> Pair:
    """Two numbers of 26 bits whose products have no rounding error."""
    large = value * 134217729.0  # 2^27 + 1
    top = large - (large - value)
    return top, value - top
