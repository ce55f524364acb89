"""The join: candidates from the index, pruning, exact durations, thresholds; all tensors, no loop over pairs.

Durations are summed as whole numbers of 2^-36 s (15 ps), because integer sums do not depend on their order: the same
pairs and the same bits come out whatever the chunks, the order of tracks, the number of ranks or the device.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from zoo.methods.sts_join.candidates import GUARD, TICKS, Block, JoinPlan, blocks, candidates, query_pieces, rows
from zoo.methods.sts_join.index import Motions, STSIndex, expand_ranges
from zoo.methods.sts_join.stretches import CloseStretches, Stretches, merge_runs, ticks

__all__ = ["JoinPlan", "JoinResult", "PartialSums", "finish", "join", "partial_join", "share_of"]

_COUNTS = ("candidates", "segment_pairs", "solved")


@dataclass
class PartialSums:
    """Sums of pairs over the time that was looked at.

    Attributes:
        key: (P,) query number times the number of tracks in the index, plus the track's number.
        upper: (P,) ticks within delta + slack.
        lower: (P,) ticks within delta - slack.
        run_key: (R,) pair of each stretch within delta + slack.
        start: (R,) seconds at which it begins.
        end: (R,) seconds at which it ends.
        counts: work done per query: `candidates` (piece pairs), `segment_pairs` and `solved`, (queries,) each.
    """

    key: Tensor
    upper: Tensor
    lower: Tensor
    run_key: Tensor
    start: Tensor
    end: Tensor
    counts: dict[str, Tensor]

    @classmethod
    def together(cls, parts: Sequence[PartialSums]) -> PartialSums:
        """Several lists as one, without adding up; counts are those per query in all."""
        columns = [[p.key, p.upper, p.lower, p.run_key, p.start, p.end] for p in parts]
        key, upper, lower, run_key, start, end = (torch.cat(column) for column in zip(*columns, strict=True))
        counts = {name: torch.stack([p.counts[name] for p in parts]).sum(0) for name in _COUNTS}
        return cls(key, upper, lower, run_key, start, end, counts)


@dataclass
class JoinResult:
    """Pairs that may belong to the result, ordered by query and track.

    Attributes:
        query: (K,) numbers.
        track: (K,) numbers in the index.
        upper: (K,) seconds; the duration where nothing is obfuscated.
        lower: (K,) seconds; the same.
        offsets: (K + 1,): the intervals of pair k are `offsets[k]:offsets[k + 1]`.
        start: (R,) seconds; begins of the intervals within delta + slack.
        end: (R,) seconds.
        counts: see `PartialSums`.
    """

    query: Tensor
    track: Tensor
    upper: Tensor
    lower: Tensor
    offsets: Tensor
    start: Tensor
    end: Tensor
    counts: dict[str, Tensor]

    def subset(self, keep: Tensor) -> JoinResult:
        """The pairs of a boolean mask (K,)."""
        sizes = self.offsets.diff()
        runs = torch.repeat_interleave(keep, sizes)
        offsets = torch.cat([sizes.new_zeros(1), sizes[keep].cumsum(0)])
        query, track, upper, lower = (v[keep] for v in (self.query, self.track, self.upper, self.lower))
        return JoinResult(query, track, upper, lower, offsets, self.start[runs], self.end[runs], self.counts)


def join(query: Motions, index: STSIndex, plan: JoinPlan) -> JoinResult:
    """All pairs of a query and an indexed track that are within delta for at least eps.

    With slack, all pairs that may be: none is missing, those with `lower >= eps` certainly belong.
    """
    index.check()
    return finish([partial_join(query, index, plan)], plan, len(index))


def partial_join(query: Motions, index: STSIndex, plan: JoinPlan) -> PartialSums:
    """The sums over the plan's share of time. Of a whole plan, pairs below eps are left out already."""
    pieces = query_pieces(query, index, plan)
    parts = [BlockJoin(block, query, index, plan).sums() for block in blocks(pieces, query, index, plan)]
    return PartialSums.together(parts or [_nothing(query, index)])


def _nothing(query: Motions, index: STSIndex) -> PartialSums:
    whole, real = index.owner.new_zeros(0), index.segments.new_zeros(0)
    counts = {name: torch.zeros(query.count, dtype=torch.int64) for name in _COUNTS}
    return PartialSums(whole, whole, whole, whole, real, real, counts)


class PairTotals:
    """Sums per pair in a table that is used again: only what was touched is cleared.

    Args:
        size: number of possible pairs.
        like: tensor on the device of the table.
    """

    def __init__(self, size: int, like: Tensor) -> None:
        self.table = torch.zeros(max(size, 1), dtype=torch.int64, device=like.device)

    def of(self, key: Tensor, amount: Tensor) -> Tensor:
        """For each item the total of its key."""
        self.table.index_add_(0, key, amount)
        total = rows(self.table, key)
        self.table.index_fill_(0, key, 0)
        return total

    def first(self, key: Tensor) -> Tensor:
        """Whether each item is the one that represents its key."""
        number = torch.arange(1, len(key) + 1, device=key.device)
        self.table.index_copy_(0, key, number)
        represents = rows(self.table, key) == number
        self.table.index_fill_(0, key, 0)
        return represents


class BlockJoin:
    """The join of one block of queries: from its candidates to the sums of its pairs.

    Pairs are numbered within the block while it is worked on: query, counted from the block's first, times the number
    of tracks in the index, plus the track.

    Args:
        block: the queries with their ranges of keys.
        query: motions of all queries.
        index: of the tracks.
        plan: of the join.
    """

    def __init__(self, block: Block, query: Motions, index: STSIndex, plan: JoinPlan) -> None:
        self.block, self.index, self.plan = block, index, plan
        self.segments = index.segments if plan.same else query.segments
        self.totals = PairTotals(block.tracks * len(index), index.owner)
        self.counts = {name: torch.zeros(query.count, dtype=torch.int64) for name in _COUNTS}

    def sums(self) -> PartialSums:
        """Sums of the block's pairs; with a whole plan, of those that reach eps."""
        ours, theirs, key = self._candidates()
        stretches = self._stretches(ours, theirs, key)
        owner = rows(self.block.pieces.table[:, 3], ours)
        if self.plan.rounds == 1 or not self.plan.whole:
            self._count("solved", owner, stretches.candidate)
            close = CloseStretches.of(stretches, self.plan)
        else:
            close = CloseStretches.together(list(self._in_rounds(stretches, owner)))
        return self._summed(close)

    def _candidates(self) -> tuple[Tensor, Tensor, Tensor]:
        """Pieces of the queries and of the index that may be partners, and the number of each pair of tracks."""
        block, index, plan = self.block, self.index, self.plan
        parts = list(candidates(block, index, plan))
        ours, theirs = (torch.cat(part) for part in zip(*parts, strict=True)) if len(parts) > 1 else parts[0]
        query = rows(block.owner, ours)
        key = (query - block.first).mul_(len(index)).add_(rows(index.pieces[:, 3], theirs))
        self.counts["candidates"] = torch.bincount(query, minlength=len(self.counts["candidates"])).cpu()
        if plan.whole and plan.backward:  # a pair that is never near for long enough cannot be close for long enough
            a, b = rows(block.pieces.times, ours), rows(index.times, theirs)
            common = torch.minimum(a[:, 1], b[:, 1]).sub_(torch.maximum(a[:, 0], b[:, 0])).clamp_min_(0)
            kept = (self.totals.of(key, ticks(common)) >= plan.least).nonzero()[:, 0]
            ours, theirs, key = rows(ours, kept), rows(theirs, kept), rows(key, kept)
        return ours, theirs, key

    def _stretches(self, ours: Tensor, theirs: Tensor, key: Tensor) -> Stretches:
        """The stretches of all candidates that may come within delta + slack, for long enough in all."""
        block, index, plan = self.block, self.index, self.plan
        bins, first, stop, owner = rows(block.pieces.table, ours).unbind(1)
        _, other_first, other_stop, _ = rows(index.pieces, theirs).unbind(1)
        other_count = other_stop - other_first
        candidate, number = expand_ranges((stop - first).mul_(other_count))
        across = rows(other_count, candidate)
        step = torch.div(number, across, rounding_mode="floor")
        i = rows(first, candidate).add_(step)
        j = rows(other_first, candidate).add_(number).sub_(step.mul_(across))
        since = rows(bins * index.grid[0] + index.grid[2], candidate)
        until = rows((bins + 1) * index.grid[0] + index.grid[2], candidate)
        start = torch.maximum(torch.maximum(rows(block.query_times[0], i), rows(block.index_times[0], j)), since)
        end = torch.minimum(torch.minimum(rows(block.query_times[1], i), rows(block.index_times[1], j)), until)
        kept = (end > start).nonzero()[:, 0]
        i, j, start, end, candidate = (rows(v, kept) for v in (i, j, start, end, candidate))
        self._count("segment_pairs", owner, candidate)
        stretches = Stretches.between(
            rows(self.segments, i), rows(index.segments, j), start, end, rows(key, candidate), candidate
        )
        if plan.box_gap:
            stretches = stretches.subset(stretches.may_be_within(plan.reach))
        if plan.whole and plan.backward:
            enough = self.totals.of(stretches.key, ticks(stretches.seconds)) >= plan.least
            kept = enough.nonzero()[:, 0]
            if len(kept) < 0.9 * len(stretches):  # copying the rest costs more than solving a few for nothing
                stretches = stretches.subset(kept)
        return stretches

    def _in_rounds(self, stretches: Stretches, owner: Tensor) -> Iterator[CloseStretches]:
        """Solve by parts of the time axis: a pair is given up when what is left cannot bring it to eps."""
        plan, start, key = self.plan, stretches.start, stretches.key
        first, last = start.min() if len(start) else start.sum(), start.max() if len(start) else start.sum()
        part = ((start - first) / (last - first).clamp_min(1e-9) * plan.rounds).long().clamp_max_(plan.rounds - 1)
        left, sure, high = ticks(stretches.seconds), torch.zeros_like(key), torch.zeros_like(key)
        for number in range(plan.rounds):
            hopeful = high + self.totals.of(key, torch.where(part >= number, left, 0)) >= plan.least
            if plan.membership:
                hopeful &= sure < plan.least
            now = (part == number) & hopeful
            some = stretches.subset(now.nonzero()[:, 0])
            self._count("solved", owner, some.candidate)
            close = CloseStretches.of(some, plan)
            yield close
            done = torch.zeros_like(key)
            done[now] = close.upper
            high = high + self.totals.of(key, done)
            done[now] = close.lower
            sure = sure + self.totals.of(key, done)

    def _count(self, name: str, owner: Tensor, candidate: Tensor) -> None:
        """Add to the work done per query.

        Args:
            name: of the work.
            owner: query of each candidate, rising.
            candidate: of each item of work, rising, so that the borders between queries are enough.
        """
        first, tracks = self.block.first, self.block.tracks
        numbers = torch.arange(first, first + tracks + 1, device=owner.device)
        borders = torch.searchsorted(owner.contiguous(), numbers)
        self.counts[name][first : first + tracks] += torch.searchsorted(candidate, borders).diff().cpu()

    def _summed(self, close: CloseStretches) -> PartialSums:
        """Add up per pair, leave out pairs that are too short, and merge what adjoins."""
        plan = self.plan
        upper = self.totals.of(close.key, close.upper)
        lower = upper if close.lower is close.upper else self.totals.of(close.key, close.lower)
        least = plan.least if plan.whole else 1
        kept = (upper >= least).logical_and_(close.upper > 0).nonzero()[:, 0]
        key, start, end, upper, lower = (rows(v, kept) for v in (close.key, close.start, close.end, upper, lower))
        single = self.totals.first(key).nonzero()[:, 0]
        run_key, start, end = merge_runs(key, start, end)  # within a block, where sorting is cheap
        shift = self.block.first * len(self.index)
        return PartialSums(
            rows(key, single) + shift,
            rows(upper, single),
            rows(lower, single),
            run_key + shift,
            start,
            end,
            self.counts,
        )


def finish(parts: Iterable[PartialSums], plan: JoinPlan, tracks: int) -> JoinResult:
    """Add up the shares of all ranks, and apply the thresholds.

    Args:
        parts: one per share of time.
        plan: of the join.
        tracks: how many are in the index.
    """
    sums = PartialSums.together(list(parts))
    pairs, into = torch.unique(sums.key, return_inverse=True)
    upper = torch.zeros_like(pairs).index_add_(0, into, sums.upper)
    lower = torch.zeros_like(pairs).index_add_(0, into, sums.lower)
    kept = upper >= plan.least
    pairs, upper, lower = pairs[kept], upper[kept], lower[kept]
    number = torch.searchsorted(pairs, sums.run_key)
    known = number < len(pairs)
    known &= pairs[number.clamp_max(max(len(pairs) - 1, 0))] == sums.run_key if len(pairs) else False
    run, start, end = merge_runs(number[known], sums.start[known], sums.end[known])
    if plan.min_run > 0:
        long = end - start >= plan.min_run - GUARD
        run, start, end = run[long], start[long], end[long]
        upper = torch.zeros_like(pairs).index_add_(0, run, ticks(end - start))
        lower = upper if plan.slack == 0 else torch.zeros_like(upper)
        kept = upper >= plan.least
        pairs, upper, lower = pairs[kept], upper[kept], lower[kept]
        stays = kept[run]
        run, start, end = (kept.cumsum(0) - 1)[run[stays]], start[stays], end[stays]
    sizes = torch.bincount(run, minlength=len(pairs)).cumsum(0) if len(pairs) else run.new_zeros(0)
    offsets = torch.cat([sizes.new_zeros(1), sizes])
    query, track = pairs // max(tracks, 1), pairs % max(tracks, 1)
    return JoinResult(query, track, upper.double() / TICKS, lower.double() / TICKS, offsets, start, end, sums.counts)


def share_of(plan: JoinPlan, index: STSIndex, rank: int, world: int) -> JoinPlan:
    """The part of a plan that a rank does: a range of time bins with about as many pieces as the others'."""
    bins = torch.sort(index.pieces[:, 0]).values
    if not len(bins):
        return replace(plan, bins=(0, -1))
    borders = [int(bins[min(len(bins) * r // world, len(bins) - 1)]) for r in range(1, world)]
    first = 0 if rank == 0 else borders[rank - 1]
    last = int(bins[-1]) if rank == world - 1 else borders[rank] - 1
    return replace(plan, bins=(first, last))
