"""Stretches: times on which two motions are both straight, how far apart they are then, and when within a distance."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from zoo.methods.sts_join.candidates import TICKS, JoinPlan, rows
from zoo.methods.sts_join.distance import close_part

__all__ = ["CloseStretches", "Stretches", "merge_runs", "ticks"]

_TOUCH = 1e-6  # seconds between stretches that are one interval


def ticks(seconds: Tensor) -> Tensor:
    """Whole ticks, int64."""
    return (seconds * TICKS).round_().long()


@dataclass
class Stretches:
    """Times on which the motions of a query and of an indexed track are both straight.

    Attributes:
        key: (n,) pair of tracks, as one number.
        candidate: (n,) candidate that each stretch belongs to, rising.
        start: (n,) seconds.
        seconds: (n,) length.
        x0: (n,) difference of the two positions at the start, metres.
        y0: (n,) its second coordinate.
        x1: (n,) the difference at the end.
        y1: (n,) its second coordinate.
    """

    key: Tensor
    candidate: Tensor
    start: Tensor
    seconds: Tensor
    x0: Tensor
    y0: Tensor
    x1: Tensor
    y1: Tensor

    @classmethod
    def between(cls, a: Tensor, b: Tensor, start: Tensor, end: Tensor, key: Tensor, candidate: Tensor) -> Stretches:
        """Stretches of two lists of segments, one of each.

        Args:
            a: (n, 6) t0, t1, x0, y0, x1, y1.
            b: (n, 6).
            start: (n,) seconds, within both segments.
            end: (n,) seconds, within both and after the start.
            key: (n,) pair of tracks.
            candidate: (n,) rising.
        """
        a0, a1, ax, ay, bx, by = a.unbind(1)
        c0, c1, cx, cy, dx, dy = b.unbind(1)
        rate, other_rate = (a1 - a0).reciprocal_(), (c1 - c0).reciprocal_()
        differences = []
        for time in (start, end):
            u, w = (time - a0).mul_(rate), (time - c0).mul_(other_rate)
            differences += [torch.lerp(ax, bx, u).sub_(torch.lerp(cx, dx, w))]
            differences += [torch.lerp(ay, by, u).sub_(torch.lerp(cy, dy, w))]
        return cls(key, candidate, start, end - start, *differences)

    def __len__(self) -> int:
        return len(self.key)

    def subset(self, which: Tensor) -> Stretches:
        """The stretches of some numbers."""
        return Stretches(*(rows(getattr(self, field.name), which) for field in fields(self)))

    def may_be_within(self, reach: float) -> Tensor:
        """Numbers of the stretches on which the motions may come within reach.

        The box of the difference itself is looked at, which is tighter than the gap of two boxes.
        """
        x = torch.maximum(torch.minimum(self.x0, self.x1), -torch.maximum(self.x0, self.x1)).clamp_min_(0)
        y = torch.maximum(torch.minimum(self.y0, self.y1), -torch.maximum(self.y0, self.y1)).clamp_min_(0)
        return (x.square_().add_(y.square_()) <= reach * reach).nonzero()[:, 0]

    def close_part(self, delta: float) -> tuple[Tensor, Tensor]:
        """The part of each stretch within delta, as shares from low to high; see `close_part`."""
        return close_part(self.x0, self.y0, self.x1 - self.x0, self.y1 - self.y0, delta)


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
    def of(cls, stretches: Stretches, plan: JoinPlan) -> CloseStretches:
        """Solve all stretches."""
        start, seconds = stretches.start, stretches.seconds
        low, high = stretches.close_part(plan.delta + plan.slack)
        upper = ticks((high - low) * seconds)
        if plan.slack == 0:
            lower = upper
        elif plan.min_run > 0:  # runs of the lower bound are not kept: everything is refined
            lower = torch.zeros_like(upper)
        else:
            inner_low, inner_high = stretches.close_part(plan.delta - plan.slack)
            lower = ticks((inner_high - inner_low) * seconds)
        begin, end = torch.addcmul(start, low, seconds), torch.addcmul(start, high, seconds)
        return cls(stretches.key, begin, end, upper, lower)

    @classmethod
    def together(cls, parts: list[CloseStretches]) -> CloseStretches:
        """Several lists as one."""
        if len(parts) == 1:
            return parts[0]
        return cls(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(cls)))


def merge_runs(run: Tensor, start: Tensor, end: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Join the stretches of each pair that adjoin; in the order of pairs and time.

    Args:
        run: (R,) pair of each stretch.
        start: (R,) seconds.
        end: (R,) seconds.
    """
    if not len(run):
        return run, start, end
    order = run.argsort(stable=True)
    sorted_run, sorted_start = rows(run, order), rows(start, order)
    if ((sorted_run[1:] == sorted_run[:-1]) & (sorted_start[1:] < sorted_start[:-1])).any():
        order = start.argsort(stable=True)  # rare: mostly the stretches of a pair come in the order of time
        order = rows(order, rows(run, order).argsort(stable=True))
    run, start, end = rows(run, order), rows(start, order), rows(end, order)
    fresh = torch.ones(len(run), dtype=torch.bool, device=run.device)
    fresh[1:] = (run[1:] != run[:-1]) | (start[1:] > end[:-1] + _TOUCH)
    first = fresh.nonzero()[:, 0]
    last = torch.cat([first[1:], first.new_tensor([len(run)])]) - 1
    return run[first], start[first], end[last]
