"""The join: candidates from the index, pruning, exact durations, thresholds; all tensors, no loop over pairs.

Durations are summed as whole ticks (2^-44 s, 57 fs, for tracks of up to 36 hours; see `IndexFacts`), because integer
sums do not depend on their order: the same pairs and the same bits come out whatever the chunks, the order of tracks,
the number of ranks or the device. `cdds` says what is exact about a duration; a pair belongs to the result if its
duration reaches eps or falls short of it by less than a nanosecond (`GUARD`). Pruning is more generous than that by a
micrometre and a microsecond, far above any rounding, so it never decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from zoo.methods.sts_join.candidates import GUARD, Block, JoinPlan, blocks, candidates, query_pieces, rows
from zoo.methods.sts_join.index import STSIndex
from zoo.methods.sts_join.motions import Motions, border, columns_of, expand_ranges
from zoo.methods.sts_join.stretches import CloseStretches, Solver, Stretches, StretchOrigin, merge_runs, ticks_at_most

__all__ = ["JoinPlan", "JoinResult", "PartialSums", "finish", "join", "partial_join", "share_of"]

_COUNTS = ("candidates", "segment_pairs", "solved")


@dataclass
class PartialSums:
    """Sums of pairs over the time that was looked at.

    Attributes:
        key: (P,) query number times the number of tracks in the index, plus the track's number.
        upper: (P,) ticks within delta + slack.
        lower: (P,) ticks within delta - slack.
        run_key: (R,) pair of each interval within delta + slack.
        start: (R,) seconds at which it begins.
        end: (R,) seconds at which it ends.
        length: (R,) ticks within it.
        rate: ticks per second.
        counts: work done per query: `candidates` (piece pairs), `segment_pairs` and `solved`, (queries,) each.
    """

    key: Tensor
    upper: Tensor
    lower: Tensor
    run_key: Tensor
    start: Tensor
    end: Tensor
    length: Tensor
    rate: float
    counts: dict[str, Tensor]

    @classmethod
    def together(cls, parts: Sequence[PartialSums]) -> PartialSums:
        """Several lists as one, without adding up; counts are those per query in all."""
        columns = [[p.key, p.upper, p.lower, p.run_key, p.start, p.end, p.length] for p in parts]
        key, upper, lower, run_key, start, end, length = (torch.cat(column) for column in zip(*columns, strict=True))
        counts = {name: torch.stack([p.counts[name] for p in parts]).sum(0) for name in _COUNTS}
        return cls(key, upper, lower, run_key, start, end, length, parts[0].rate, counts)


@dataclass
class JoinResult:
    """Pairs that may belong to the result, ordered by query and track.

    Attributes:
        query: (K,) numbers.
        track: (K,) numbers in the index.
        upper: (K,) seconds; the duration where nothing is obfuscated.
        lower: (K,) seconds; the same.
        certain: (K,) whether `lower` reaches eps.
        offsets: (K + 1,): the intervals of pair k are `offsets[k]:offsets[k + 1]`.
        start: (R,) seconds; begins of the intervals within delta + slack.
        end: (R,) seconds.
        counts: see `PartialSums`.
    """

    query: Tensor
    track: Tensor
    upper: Tensor
    lower: Tensor
    certain: Tensor
    offsets: Tensor
    start: Tensor
    end: Tensor
    counts: dict[str, Tensor]

    def subset(self, keep: Tensor) -> JoinResult:
        """The pairs of a boolean mask (K,)."""
        sizes = self.offsets.diff()
        runs = torch.repeat_interleave(keep, sizes)
        offsets = torch.cat([sizes.new_zeros(1), sizes[keep].cumsum(0)])
        pairs = (self.query, self.track, self.upper, self.lower, self.certain)
        query, track, upper, lower, certain = (v[keep] for v in pairs)
        return JoinResult(query, track, upper, lower, certain, offsets, self.start[runs], self.end[runs], self.counts)


def join(query: Motions, index: STSIndex, plan: JoinPlan) -> JoinResult:
    """All pairs of a query and an indexed track that are within delta for at least eps.

    With slack, all pairs that may be: none is missing, those that are `certain` do belong.
    """
    return finish([partial_join(query, index, plan)], plan, len(index))


def partial_join(query: Motions, index: STSIndex, plan: JoinPlan) -> PartialSums:
    """The sums over the plan's share of time. Of a whole plan, pairs below eps are left out already."""
    theirs = columns_of(index.segments)
    ours = theirs if plan.same else columns_of(query.segments)
    solver = Solver(ours, theirs, max(index.facts.longest, query.longest), index.facts.rate, plan)
    pieces = query_pieces(query, index, plan)
    parts = [BlockJoin(block, index, solver, query.count).sums() for block in blocks(pieces, index, plan)]
    return PartialSums.together(parts or [_nothing(query, index)])


def _nothing(query: Motions, index: STSIndex) -> PartialSums:
    whole, real = index.owner.new_zeros(0), index.segments.new_zeros(0)
    counts = {name: torch.zeros(query.count, dtype=torch.int64) for name in _COUNTS}
    return PartialSums(whole, whole, whole, whole, real, real, whole, index.facts.rate, counts)


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
        index: of the tracks.
        solver: of stretches of the queries and the tracks; it has the plan.
        queries: how many there are in all.
    """

    def __init__(self, block: Block, index: STSIndex, solver: Solver, queries: int) -> None:
        self.block, self.index, self.solver, self.plan = block, index, solver, solver.plan
        self.least, self.hopeful = self.plan.least(solver.rate), self.plan.hopeful(solver.rate)
        self.totals = PairTotals(block.tracks * len(index), index.owner)
        self.counts = {name: torch.zeros(queries, dtype=torch.int64) for name in _COUNTS}

    def sums(self) -> PartialSums:
        """Sums of the block's pairs; with a whole plan, of those that reach eps."""
        ours, theirs, key = self._candidates()
        stretches, key = self._stretches(ours, theirs, key)
        owner = rows(self.block.pieces.table[:, 3], ours)
        if self.plan.rounds == 1 or not self.plan.whole:
            self._count("solved", owner, stretches.candidate)
            close = self.solver.close(stretches, key)
        else:
            close = CloseStretches.together(list(self._in_rounds(stretches, key, owner)))
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
            kept = (self.totals.of(key, ticks_at_most(common, self.solver.rate)) >= self.hopeful).nonzero()[:, 0]
            ours, theirs, key = rows(ours, kept), rows(theirs, kept), rows(key, kept)
        return ours, theirs, key

    def _stretches(self, ours: Tensor, theirs: Tensor, key: Tensor) -> tuple[Stretches, Tensor]:
        """The stretches of all candidates that may come within delta + slack for long enough, and their pairs."""
        block, index, plan = self.block, self.index, self.plan
        bins, first, last, owner = rows(block.pieces.table, ours).unbind(1)
        _, other_first, other_last, _ = rows(index.pieces, theirs).unbind(1)
        other_count = other_last - other_first
        candidate, number = expand_ranges((last - first).mul_(other_count))
        across = rows(other_count, candidate)
        step = torch.div(number, across, rounding_mode="floor")
        i = rows(first, candidate).add_(step)
        j = rows(other_first, candidate).add_(number).sub_(step.mul_(across))
        width, _, origin, *_ = index.grid.tolist()
        since, until = rows(border(bins, width, origin), candidate), rows(border(bins + 1, width, origin), candidate)
        (begin, stop, *_), (other_begin, other_stop, *_) = self.solver.ours, self.solver.theirs
        start = torch.maximum(torch.maximum(rows(begin, i), rows(other_begin, j)), since)
        end = torch.minimum(torch.minimum(rows(stop, i), rows(other_stop, j)), until)
        kept = (end > start).nonzero()[:, 0]
        i, j, start, end, candidate = (rows(v, kept) for v in (i, j, start, end, candidate))
        self._count("segment_pairs", owner, candidate)
        stretches = self.solver.stretches(StretchOrigin(i, j, candidate), start, end)
        if plan.box_gap:
            stretches = stretches.subset(stretches.may_be_within(plan.reach))
        key = rows(key, stretches.candidate)
        if plan.whole and plan.backward:
            possible = self.totals.of(key, ticks_at_most(stretches.seconds, self.solver.rate))
            kept = (possible >= self.hopeful).nonzero()[:, 0]
            if len(kept) < 0.9 * len(stretches):  # copying the rest costs more than solving a few for nothing
                stretches, key = stretches.subset(kept), rows(key, kept)
        return stretches, key

    def _in_rounds(self, stretches: Stretches, key: Tensor, owner: Tensor) -> Iterator[CloseStretches]:
        """Solve by parts of the time axis: a pair is given up when what is left cannot bring it to eps."""
        plan, start = self.plan, stretches.start
        first, last = start.min() if len(start) else start.sum(), start.max() if len(start) else start.sum()
        part = ((start - first) / (last - first).clamp_min(1e-9) * plan.rounds).long().clamp_max_(plan.rounds - 1)
        left = ticks_at_most(stretches.seconds, self.solver.rate)
        sure, high = torch.zeros_like(key), torch.zeros_like(key)
        for number in range(plan.rounds):
            hopeful = high + self.totals.of(key, torch.where(part >= number, left, 0)) >= self.hopeful
            if plan.membership:
                hopeful &= sure < self.least
            now = (part == number) & hopeful
            which = now.nonzero()[:, 0]
            some = stretches.subset(which)
            self._count("solved", owner, some.candidate)
            close = self.solver.close(some, rows(key, which))
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
        upper = self.totals.of(close.key, close.upper)
        lower = upper if close.lower is close.upper else self.totals.of(close.key, close.lower)
        kept = (upper >= (self.least if self.plan.whole else 1)).logical_and_(close.upper > 0).nonzero()[:, 0]
        key, upper, lower = rows(close.key, kept), rows(upper, kept), rows(lower, kept)
        start, end, length = rows(close.start, kept), rows(close.end, kept), rows(close.upper, kept)
        single = self.totals.first(key).nonzero()[:, 0]
        run_key, start, end, length = merge_runs(key, start, end, length)  # within a block, where sorting is cheap
        shift = self.block.first * len(self.index)
        pair, upper, lower = rows(key, single) + shift, rows(upper, single), rows(lower, single)
        return PartialSums(pair, upper, lower, run_key + shift, start, end, length, self.solver.rate, self.counts)


def finish(parts: Iterable[PartialSums], plan: JoinPlan, tracks: int) -> JoinResult:
    """Add up the shares of all ranks, and apply the thresholds.

    Args:
        parts: one per share of time.
        plan: of the join.
        tracks: how many are in the index.
    """
    sums = PartialSums.together(list(parts))
    least = plan.least(sums.rate)
    pairs, into = torch.unique(sums.key, return_inverse=True)
    upper = torch.zeros_like(pairs).index_add_(0, into, sums.upper)
    lower = torch.zeros_like(pairs).index_add_(0, into, sums.lower)
    kept = upper >= least
    pairs, upper, lower = pairs[kept], upper[kept], lower[kept]
    number = torch.searchsorted(pairs, sums.run_key)
    known = number < len(pairs)
    known &= pairs[number.clamp_max(max(len(pairs) - 1, 0))] == sums.run_key if len(pairs) else False
    run, start, end, length = merge_runs(number[known], sums.start[known], sums.end[known], sums.length[known])
    if plan.min_run > 0:
        long = length >= min(round((plan.min_run - GUARD) * sums.rate), 1 << 62)
        run, start, end, length = run[long], start[long], end[long], length[long]
        upper = torch.zeros_like(pairs).index_add_(0, run, length)
        lower = upper if plan.slack == 0 else torch.zeros_like(upper)
        kept = upper >= least
        pairs, upper, lower = pairs[kept], upper[kept], lower[kept]
        stays = kept[run]
        run, start, end = (kept.cumsum(0) - 1)[run[stays]], start[stays], end[stays]
    sizes = torch.bincount(run, minlength=len(pairs)).cumsum(0) if len(pairs) else run.new_zeros(0)
    offsets = torch.cat([sizes.new_zeros(1), sizes])
    query, track = pairs // max(tracks, 1), pairs % max(tracks, 1)
    seconds, surely = upper.double() / sums.rate, lower.double() / sums.rate
    return JoinResult(query, track, seconds, surely, lower >= least, offsets, start, end, sums.counts)


def share_of(plan: JoinPlan, index: STSIndex, rank: int, world: int) -> JoinPlan:
    """The part of a plan that a rank does: a range of time bins with about as many pieces as the others'."""
    bins = torch.sort(index.pieces[:, 0]).values
    if not len(bins):
        return replace(plan, bins=(0, -1))
    borders = [int(bins[min(len(bins) * r // world, len(bins) - 1)]) for r in range(1, world)]
    first = 0 if rank == 0 else borders[rank - 1]
    last = int(bins[-1]) if rank == world - 1 else borders[rank] - 1
    return replace(plan, bins=(first, last))
