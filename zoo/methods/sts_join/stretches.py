"""Stretches: times on which two motions are both straight, how far apart they are then, and when within a distance."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from zoo.methods.sts_join.candidates import SLACK, JoinPlan, rows
from zoo.methods.sts_join.solve import Columns, close_shares, crossing_shares, difference, in_doubt, quadratic, settle

__all__ = ["CloseStretches", "Solver", "StretchOrigin", "Stretches", "merge_runs", "ticks", "ticks_at_most"]

_TOUCH = 1e-6  # seconds between stretches that are one interval


def ticks(seconds: Tensor, rate: float) -> Tensor:
    """Whole ticks, int64."""
    return (seconds * rate).round_().long()


def ticks_at_most(seconds: Tensor, rate: float) -> Tensor:
    """Whole ticks, rounded up: for bounds, which must not fall below the truth."""
    return (seconds * rate).ceil_().long()


@dataclass
class Stretches:
    """Times on which the motions of a query and of an indexed track are both straight.

    Attributes:
        origin: what all of them came from.
        number: (n,) of each stretch in `origin`, rising.
        start: (n,) seconds.
        end: (n,) seconds.
        x: (n,) difference of the two positions at the start, metres.
        y: (n,) its second coordinate.
        gx: (n,) change of the difference until the end, metres.
        gy: (n,) its second coordinate.
    """

    origin: StretchOrigin
    number: Tensor
    start: Tensor
    end: Tensor
    x: Tensor
    y: Tensor
    gx: Tensor
    gy: Tensor

    def __len__(self) -> int:
        return len(self.number)

    @property
    def seconds(self) -> Tensor:
        """(n,) length."""
        return self.end - self.start

    @property
    def candidate(self) -> Tensor:
        """(n,) candidate that each stretch belongs to, rising."""
        return rows(self.origin.candidate, self.number)

    def subset(self, which: Tensor) -> Stretches:
        """The stretches of some numbers."""
        columns = (self.number, self.start, self.end, self.x, self.y, self.gx, self.gy)
        return Stretches(self.origin, *(rows(column, which) for column in columns))

    def may_be_within(self, reach: float) -> Tensor:
        """Numbers of the stretches on which the motions may come within reach.

        The box of the difference itself is looked at, which is tighter than the gap of two boxes.
        """
        x, y, x1, y1 = self.x, self.y, self.x + self.gx, self.y + self.gy
        far_x = torch.maximum(torch.minimum(x, x1), -torch.maximum(x, x1)).clamp_min_(0)
        far_y = torch.maximum(torch.minimum(y, y1), -torch.maximum(y, y1)).clamp_min_(0)
        return (far_x.square_().add_(far_y.square_()) <= reach * reach).nonzero()[:, 0]


@dataclass(frozen=True)
class StretchOrigin:
    """Which segments stretches were made from.

    Attributes:
        first: (m,) segment of the query.
        second: (m,) segment of the indexed track.
        candidate: (m,) pair of pieces to which the segments belong, rising.
    """

    first: Tensor
    second: Tensor
    candidate: Tensor


@dataclass
class CloseStretches:
    """What of some stretches is within a distance.

    Attributes:
        key: (n,) pair of tracks.
        start: (n,) seconds; of the part within delta + slack.
        end: (n,) seconds.
        upper: (n,) ticks within delta + slack.
        lower: (n,) ticks within delta - slack; the same tensor as `upper` where there is no slack.
    """

    key: Tensor
    start: Tensor
    end: Tensor
    upper: Tensor
    lower: Tensor

    @classmethod
    def together(cls, parts: list[CloseStretches]) -> CloseStretches:
        """Several lists as one."""
        if len(parts) == 1:
            return parts[0]
        return cls(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(cls)))


@dataclass(frozen=True)
class Solver:
    """Solves stretches of two lists of segments for a plan.

    Attributes:
        ours: segments of the queries: t0, t1, x0, y0, x1, y1, (S,) each.
        theirs: segments of the indexed tracks, (T,) each.
        longest: bound on the distance between the ends of a segment, metres.
        rate: ticks per second.
        plan: of the join.
    """

    ours: Columns
    theirs: Columns
    longest: float
    rate: float
    plan: JoinPlan

    def stretches(self, origin: StretchOrigin, start: Tensor, end: Tensor) -> Stretches:
        """Stretches of pairs of segments.

        Args:
            origin: the pairs.
            start: (n,) seconds, within both segments.
            end: (n,) seconds, within both and after the start.
        """
        number = torch.arange(len(start), device=start.device)
        ours, theirs = [rows(c, origin.first) for c in self.ours], [rows(c, origin.second) for c in self.theirs]
        places = difference(ours, theirs, start, end)
        return Stretches(origin, number, start, end, *places)

    def close(self, stretches: Stretches, key: Tensor) -> CloseStretches:
        """What of the stretches is within the plan's distance; bounds on it if there is slack.

        Args:
            stretches: n of them.
            key: (n,) pair of tracks that each belongs to.
        """
        plan, start, seconds = self.plan, stretches.start, stretches.seconds
        if plan.slack == 0:
            low, high = self._exact(stretches, seconds)
        else:
            low, high = _close_part(stretches, plan.delta + plan.slack + SLACK)
        upper = ticks((high - low) * seconds, self.rate)
        if plan.slack == 0:
            lower = upper
        elif plan.min_run > 0:  # runs of the lower bound are not kept: everything is refined
            lower = torch.zeros_like(upper)
        else:
            inner_low, inner_high = _close_part(stretches, plan.delta - plan.slack - SLACK)
            lower = ticks((inner_high - inner_low) * seconds, self.rate)
        begin, end = torch.addcmul(start, low, seconds), torch.addcmul(start, high, seconds)
        return CloseStretches(key, begin, end, upper, lower)

    def _exact(self, stretches: Stretches, seconds: Tensor) -> tuple[Tensor, Tensor]:
        delta = self.plan.delta
        squared, mixed, constant, disc = quadratic(stretches.x, stretches.y, stretches.gx, stretches.gy, delta)
        doubt = in_doubt(squared, disc, seconds, delta, self.longest)
        low, high = crossing_shares(squared, mixed, constant, disc)
        if len(doubt):
            origin, number = stretches.origin, rows(stretches.number, doubt)
            first, second = rows(origin.first, number), rows(origin.second, number)
            ours, theirs = [rows(c, first) for c in self.ours], [rows(c, second) for c in self.theirs]
            start, end = rows(stretches.start, doubt), rows(stretches.end, doubt)
            settled = settle(ours, theirs, start, end, delta, rows(low, doubt), rows(high, doubt))
            low, high = low.index_copy_(0, doubt, settled[0]), high.index_copy_(0, doubt, settled[1])
        return low, high


def _close_part(stretches: Stretches, distance: float) -> tuple[Tensor, Tensor]:
    """Shares of each stretch within a distance, which may be negative: then nothing is."""
    if distance <= 0:
        return torch.zeros_like(stretches.x), torch.zeros_like(stretches.x)
    return close_shares(*quadratic(stretches.x, stretches.y, stretches.gx, stretches.gy, distance))


def merge_runs(run: Tensor, start: Tensor, end: Tensor, amount: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Join the stretches of each pair that adjoin, to a microsecond; in the order of pairs and time.

    Args:
        run: (R,) pair of each stretch.
        start: (R,) seconds.
        end: (R,) seconds.
        amount: (R,) ticks of each stretch.

    Returns:
        the same of the intervals; times are rounded at Unix times, the ticks are not.
    """
    if not len(run):
        return run, start, end, amount
    order = run.argsort(stable=True)
    sorted_run, sorted_start = rows(run, order), rows(start, order)
    if ((sorted_run[1:] == sorted_run[:-1]) & (sorted_start[1:] < sorted_start[:-1])).any():
        order = start.argsort(stable=True)  # rare: mostly the stretches of a pair come in the order of time
        order = rows(order, rows(run, order).argsort(stable=True))
    run, start, end, amount = (rows(v, order) for v in (run, start, end, amount))
    fresh = torch.ones(len(run), dtype=torch.bool, device=run.device)
    fresh[1:] = (run[1:] != run[:-1]) | (start[1:] > end[:-1] + _TOUCH)
    first = fresh.nonzero()[:, 0]
    last = torch.cat([first[1:], first.new_tensor([len(run)])]) - 1
    total = amount.cumsum(0)  # may exceed 64 bits, which its differences survive
    return run[first], start[first], end[last], total[last] - total[first] + amount[first]
