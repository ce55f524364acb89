"""The join: candidates from the index, pruning, exact durations, thresholds; all tensors, no loop over pairs.

Durations are summed as whole numbers of 2^-36 s (15 ps), because integer sums do not depend on their order: the same
pairs and the same bits come out whatever the chunks, the order of tracks, the number of ranks or the device.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from zoo.sequence._sts_join_candidates import GUARD, SLACK, TICKS, Block, Plan, blocks, candidates, query_pieces, take
from zoo.sequence._sts_join_cdds import close_part
from zoo.sequence._sts_join_index import Motions, STSIndex, expand

__all__ = ["TICKS", "Found", "Partial", "Plan", "finish", "join", "merge_runs", "partial_join", "share_of"]

_TOUCH = 1e-6  # seconds between stretches that are one interval


@dataclass
class Partial:
    """Sums of pairs over the time that was looked at.

    Attributes:
        key: (P,) query number times the number of tracks in the index, plus the track's number.
        upper, lower: (P,) ticks within delta + slack and delta - slack.
        run_key, start, end: (R,) stretches within delta + slack, with their pair's key.
        counts: work done per query: `candidates` (piece pairs), `segment_pairs` and `solved`, (queries,) each.
    """

    key: Tensor
    upper: Tensor
    lower: Tensor
    run_key: Tensor
    start: Tensor
    end: Tensor
    counts: dict[str, Tensor] = field(default_factory=dict)

    def tensors(self) -> list[Tensor]:
        return [self.key, self.upper, self.lower, self.run_key, self.start, self.end]


@dataclass
class Found:
    """Pairs that may belong to the result, ordered by query and track.

    Attributes:
        query, track: (K,) numbers.
        upper, lower: (K,) seconds; both are the duration where nothing is obfuscated.
        offsets: (K + 1,): the intervals of pair k are `offsets[k]:offsets[k + 1]`.
        start, end: (R,) seconds; intervals within delta + slack.
        counts: see `Partial`.
    """

    query: Tensor
    track: Tensor
    upper: Tensor
    lower: Tensor
    offsets: Tensor
    start: Tensor
    end: Tensor
    counts: dict[str, Tensor]

    def subset(self, keep: Tensor) -> Found:
        """The pairs of a boolean mask (K,)."""
        sizes = self.offsets.diff()
        runs = torch.repeat_interleave(keep, sizes)
        offsets = torch.cat([sizes.new_zeros(1), sizes[keep].cumsum(0)])
        rows = [v[keep] for v in (self.query, self.track, self.upper, self.lower)]
        return Found(rows[0], rows[1], rows[2], rows[3], offsets, self.start[runs], self.end[runs], self.counts)


def ticks(seconds: Tensor) -> Tensor:
    """Whole ticks, int64."""
    return (seconds * TICKS).round_().long()


class _Totals:
    """Sums per pair in a table that is used again: only what was touched is cleared."""

    def __init__(self, size: int, like: Tensor) -> None:
        self.table = torch.zeros(max(size, 1), dtype=torch.int64, device=like.device)

    def of(self, key: Tensor, amount: Tensor) -> Tensor:
        """For each item the total of its key."""
        self.table.index_add_(0, key, amount)
        found = take(self.table, key)
        self.table.index_fill_(0, key, 0)
        return found

    def first(self, key: Tensor) -> Tensor:
        """Whether each item is the one that represents its key."""
        number = torch.arange(1, len(key) + 1, device=key.device)
        self.table.index_copy_(0, key, number)
        found = take(self.table, key) == number
        self.table.index_fill_(0, key, 0)
        return found


def join(query: Motions, index: STSIndex, plan: Plan) -> Found:
    """All pairs of a query and an indexed track that are within delta for at least eps.

    With slack, all pairs that may be: none is missing, those with `lower >= eps` certainly belong.
    """
    index.check()
    return finish([partial_join(query, index, plan)], plan, len(index), query.count)


def partial_join(query: Motions, index: STSIndex, plan: Plan) -> Partial:
    """The sums over the plan's share of time. Of a whole plan, pairs below eps are left out already."""
    rows = [
        _block(block, query, index, plan) for block in blocks(query_pieces(query, index, plan), query, index, plan)
    ] or [_nothing(index)]
    counts = {
        name: sum((r.counts[name] for r in rows if r.counts), torch.zeros(query.count, dtype=torch.int64))
        for name in ("candidates", "segment_pairs", "solved")
    }
    key, upper, lower, run_key, start, end = (torch.cat(v) for v in zip(*(r.tensors() for r in rows), strict=True))
    return Partial(key, upper, lower, run_key, start, end, counts)


def _nothing(index: STSIndex) -> Partial:
    whole, real = index.owner.new_zeros(0), index.segments.new_zeros(0)
    return Partial(whole, whole, whole, whole, real, real)


def _block(block: Block, query: Motions, index: STSIndex, plan: Plan) -> Partial:
    """Everything about the queries of a block."""
    parts = list(candidates(block, index, plan))
    mine, other = (torch.cat(v) for v in zip(*parts, strict=True)) if len(parts) > 1 else parts[0]
    totals = _Totals(block.tracks * len(index), index.owner)
    q = take(block.owner, mine)
    key = (q - block.first).mul_(len(index)).add_(take(index.pieces[:, 3], other))
    counts = {"candidates": torch.bincount(q, minlength=query.count).cpu()}
    if plan.whole and plan.backward:  # a pair that is never near for long enough cannot be close for long enough
        a, b = take(block.pieces.times, mine), take(index.times, other)
        common = torch.minimum(a[:, 1], b[:, 1]).sub_(torch.maximum(a[:, 0], b[:, 0])).clamp_min_(0)
        keep = (totals.of(key, ticks(common)) >= plan.least).nonzero()[:, 0]
        mine, other, key = take(mine, keep), take(other, keep), take(key, keep)
    found = list(_solve(mine, other, key, block, query, index, plan, totals))
    if len(found) == 1:
        key, start, end, upper, lower = found[0][:5]
    else:
        key, start, end, upper, lower = (torch.cat(v) for v in zip(*(f[:5] for f in found), strict=True))
    for name, i in (("segment_pairs", 5), ("solved", 6)):
        counts[name] = sum((f[i] for f in found), torch.zeros(query.count, dtype=torch.int64))
    high = totals.of(key, upper)
    low = high if lower is upper else totals.of(key, lower)
    keep = (high >= (plan.least if plan.whole else 1)).logical_and_(upper > 0).nonzero()[:, 0]
    key, start, end, high, low = (take(v, keep) for v in (key, start, end, high, low))
    single = totals.first(key).nonzero()[:, 0]
    shift = block.first * len(index)
    runs = merge_runs(key, start, end)  # within a block, where sorting is cheap
    pair = take(key, single) + shift, take(high, single), take(low, single)
    return Partial(pair[0], pair[1], pair[2], runs[0] + shift, runs[1], runs[2], counts)


def _solve(
    mine: Tensor,
    other: Tensor,
    key: Tensor,
    block: Block,
    query: Motions,
    index: STSIndex,
    plan: Plan,
    totals: _Totals,
) -> Iterator[tuple[Tensor, ...]]:
    """Stretches within delta + slack of every candidate: key, start, end, ticks (upper, lower), and work per query."""
    segments = index.segments if plan.same else query.segments
    bins, first, stop, owner = take(block.pieces.rows, mine).unbind(1)
    _, first_other, stop_other, _ = take(index.pieces, other).unbind(1)
    wide = stop_other - first_other
    group, number = expand((stop - first).mul_(wide))
    across = take(wide, group)
    step = torch.div(number, across, rounding_mode="floor")
    i = take(first, group).add_(step)
    j = take(first_other, group).add_(number).sub_(step.mul_(across))
    border = take(bins * index.grid[0] + index.grid[2], group)
    until = take((bins + 1) * index.grid[0] + index.grid[2], group)
    start = torch.maximum(torch.maximum(take(block.spans[0], i), take(block.spans[2], j)), border)
    end = torch.minimum(torch.minimum(take(block.spans[1], i), take(block.spans[3], j)), until)
    keep = (end > start).nonzero()[:, 0]
    i, j, start, end, group = (take(v, keep) for v in (i, j, start, end, group))
    tally = _Tally(owner, block, query.count)
    asked = tally(group)
    d0, d1 = _apart(take(segments, i), take(index.segments, j), start, end)
    if plan.box_gap:  # of the difference itself, which is tighter than that of two boxes
        reach = plan.delta + plan.slack + SLACK
        far = [
            torch.maximum(torch.minimum(p, q), -torch.maximum(p, q)).clamp_min_(0) for p, q in zip(d0, d1, strict=True)
        ]
        near = (far[0].square_().add_(far[1].square_()) <= reach * reach).nonzero()[:, 0]
        d0, d1 = [take(v, near) for v in d0], [take(v, near) for v in d1]
        start, end, group = (take(v, near) for v in (start, end, group))
    at, length = take(key, group), end - start
    if plan.whole and plan.backward:
        keep = (totals.of(at, ticks(length)) >= plan.least).nonzero()[:, 0]
        if len(keep) < 0.9 * len(at):  # copying the rest costs more than solving a few for nothing
            d0, d1 = [take(v, keep) for v in d0], [take(v, keep) for v in d1]
            start, length, group, at = (take(v, keep) for v in (start, length, group, at))
    if plan.rounds == 1 or not plan.whole:
        yield *_close(at, d0, d1, start, length, plan), asked, tally(group)
        return
    yield from _rounds(at, d0, d1, start, length, group, asked, plan, totals, tally)


class _Tally:
    """Counts items per query. Candidates come in the order of queries, so the borders between queries are enough."""

    def __init__(self, owner: Tensor, block: Block, queries: int) -> None:
        numbers = torch.arange(block.first, block.first + block.tracks + 1, device=owner.device)
        self.edges, self.first, self.queries = torch.searchsorted(owner.contiguous(), numbers), block.first, queries

    def __call__(self, group: Tensor) -> Tensor:
        """(queries,) counts of items, given the candidate of each item, in order."""
        counts = torch.zeros(self.queries, dtype=torch.int64)
        found = torch.searchsorted(group, self.edges).diff().cpu()
        counts[self.first : self.first + len(found)] = found
        return counts


def _apart(a: Tensor, b: Tensor, start: Tensor, end: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Difference of two motions' positions at two times, as coordinates [x, y] of each."""
    a0, a1, ax, ay, bx, by = a.unbind(1)
    c0, c1, cx, cy, dx, dy = b.unbind(1)
    own, theirs = (a1 - a0).reciprocal_(), (c1 - c0).reciprocal_()
    found = []
    for time in (start, end):
        u, w = (time - a0).mul_(own), (time - c0).mul_(theirs)
        found.append(
            [torch.lerp(ax, bx, u).sub_(torch.lerp(cx, dx, w)), torch.lerp(ay, by, u).sub_(torch.lerp(cy, dy, w))]
        )
    return found[0], found[1]


def _close(
    at: Tensor, d0: list[Tensor], d1: list[Tensor], start: Tensor, length: Tensor, plan: Plan
) -> tuple[Tensor, ...]:
    """Key, start, end, and ticks (upper, lower) of stretches."""
    (x, y), (gx, gy) = d0, [q - p for p, q in zip(d0, d1, strict=True)]
    low, high = close_part(x, y, gx, gy, plan.delta + plan.slack)
    upper = ticks((high - low) * length)
    if plan.slack == 0:
        lower = upper
    elif plan.min_run > 0:  # runs of the lower bound are not kept: everything is refined
        lower = torch.zeros_like(upper)
    else:
        inner = close_part(x, y, gx, gy, plan.delta - plan.slack)
        lower = ticks((inner[1] - inner[0]) * length)
    return at, torch.addcmul(start, low, length), torch.addcmul(start, high, length), upper, lower


def _rounds(
    at: Tensor,
    d0: list[Tensor],
    d1: list[Tensor],
    start: Tensor,
    length: Tensor,
    group: Tensor,
    asked: Tensor,
    plan: Plan,
    totals: _Totals,
    tally: _Tally,
) -> Iterator[tuple[Tensor, ...]]:
    """The same in parts of the time axis: a pair is given up when what is left cannot bring it to eps."""
    first, last = start.min() if len(start) else start.sum(), start.max() if len(start) else start.sum()
    part = ((start - first) / (last - first).clamp_min(1e-9) * plan.rounds).long().clamp_max_(plan.rounds - 1)
    left, sure, high = ticks(length), torch.zeros_like(at), torch.zeros_like(at)
    for number in range(plan.rounds):
        hope = high + totals.of(at, torch.where(part >= number, left, 0)) >= plan.least
        if plan.membership:
            hope &= sure < plan.least
        now = (part == number) & hope
        solved = tally(group[now])
        found = _close(at[now], [v[now] for v in d0], [v[now] for v in d1], start[now], length[now], plan)
        yield *found, asked if number == 0 else torch.zeros_like(asked), solved
        done = torch.zeros_like(at)
        done[now] = found[3]
        high = high + totals.of(at, done)
        done[now] = found[4]
        sure = sure + totals.of(at, done)


def finish(parts: Iterable[Partial], plan: Plan, tracks: int, queries: int) -> Found:
    """Add up the shares of all ranks, and apply the thresholds.

    Args:
        parts: one per share of time.
        plan: of the join.
        tracks: in the index.
        queries: how many there are.
    """
    parts = list(parts)
    key, upper, lower, run_key, start, end = (torch.cat(v) for v in zip(*(p.tensors() for p in parts), strict=True))
    pairs, into = torch.unique(key, return_inverse=True)
    high, low = torch.zeros_like(pairs).index_add_(0, into, upper), torch.zeros_like(pairs).index_add_(0, into, lower)
    keep = high >= plan.least
    pairs, high, low = pairs[keep], high[keep], low[keep]
    number = torch.searchsorted(pairs, run_key)
    known = number < len(pairs)
    known &= pairs[number.clamp_max(max(len(pairs) - 1, 0))] == run_key if len(pairs) else False
    run, start, end = merge_runs(number[known], start[known], end[known])
    if plan.min_run > 0:
        long = end - start >= plan.min_run - GUARD
        run, start, end = run[long], start[long], end[long]
        high = torch.zeros_like(pairs).index_add_(0, run, ticks(end - start))
        low = high if plan.slack == 0 else torch.zeros_like(high)
        keep = high >= plan.least
        pairs, high, low = pairs[keep], high[keep], low[keep]
        stay = keep[run]
        run, start, end = (keep.cumsum(0) - 1)[run[stay]], start[stay], end[stay]
    sizes = torch.bincount(run, minlength=len(pairs)).cumsum(0) if len(pairs) else run.new_zeros(0)
    offsets = torch.cat([sizes.new_zeros(1), sizes])
    counts = {name: torch.stack([p.counts[name] for p in parts]).sum(0) for name in parts[0].counts}
    query, track = pairs // max(tracks, 1), pairs % max(tracks, 1)
    return Found(query, track, high.double() / TICKS, low.double() / TICKS, offsets, start, end, counts)


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
    sorted_run, sorted_start = take(run, order), take(start, order)
    if ((sorted_run[1:] == sorted_run[:-1]) & (sorted_start[1:] < sorted_start[:-1])).any():
        order = start.argsort(stable=True)  # rare: mostly the stretches of a pair come in the order of time
        order = take(order, take(run, order).argsort(stable=True))
    run, start, end = take(run, order), take(start, order), take(end, order)
    fresh = torch.ones(len(run), dtype=torch.bool, device=run.device)
    fresh[1:] = (run[1:] != run[:-1]) | (start[1:] > end[:-1] + _TOUCH)
    begins = fresh.nonzero()[:, 0]
    stops = torch.cat([begins[1:], begins.new_tensor([len(run)])]) - 1
    return run[begins], start[begins], end[stops]


def share_of(plan: Plan, index: STSIndex, rank: int, world: int) -> Plan:
    """The part of a plan that a rank does: a range of time bins with about as many pieces as the others'."""
    bins = torch.sort(index.pieces[:, 0]).values
    if not len(bins):
        return replace(plan, bins=(0, -1))
    borders = [int(bins[min(len(bins) * r // world, len(bins) - 1)]) for r in range(1, world)]
    first = 0 if rank == 0 else borders[rank - 1]
    last = int(bins[-1]) if rank == world - 1 else borders[rank] - 1
    return replace(plan, bins=(first, last))
