"""The join: candidates from the index, pruning, exact durations, thresholds. Everything is a tensor; no loop over pairs.

Durations are summed as whole numbers of 2^-36 s (15 ps), because integer sums do not depend on their order: the same
pairs and the same bits come out whatever the chunks, the order of tracks, the number of ranks or the device.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from zoo.errors import BadInput
from zoo.sequence._sts_join_cdds import check_delta, close_part
from zoo.sequence._sts_join_index import Motions, Pieces, STSIndex, cut, expand, place

__all__ = ["TICKS", "Found", "Partial", "Plan", "finish", "join", "merge_runs", "partial_join"]

TICKS = float(1 << 36)
"""Parts of a second in which durations are added."""

GUARD = 1e-9
"""Seconds by which a duration may fall short of eps and still count: rounding must not decide."""

_SLACK = 1e-6  # metres added to every box test, far above the rounding of a position
_TOUCH = 1e-6  # seconds between stretches that are one interval


@dataclass(frozen=True)
class Plan:
    """What to join, and how.

    Attributes:
        delta: metres, above 0.
        eps: seconds, at least 0.
        slack: metres by which the distance of two reported motions may differ from the true one (2E).
        min_run: seconds; only contiguous runs of at least this length count.
        same: the queries are the index's own tracks: each pair is found once, with the smaller number first.
        bins: first and last time bin (inclusive) of this share of the work; all if None.
        chunk: candidates worked on at once; bounds the memory.
        rounds: parts of the time axis after each of which hopeless pairs are dropped.
        membership: durations do not matter, so pairs that certainly belong are dropped as well.
        box_gap, backward: pruning rules, to be switched off in comparisons only.
    """

    delta: float
    eps: float
    slack: float = 0.0
    min_run: float = 0.0
    same: bool = False
    bins: tuple[int, int] | None = None
    chunk: int = 1 << 17
    rounds: int = 1
    membership: bool = False
    box_gap: bool = True
    backward: bool = True

    def __post_init__(self) -> None:
        check_delta(self.delta)
        for name in ("eps", "slack", "min_run"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise BadInput(f"{name} must be at least 0, got {value}.")
        if self.chunk < 1 or self.rounds < 1:
            raise BadInput(f"chunk and rounds must be at least 1, got {self.chunk} and {self.rounds}.")

    @property
    def whole(self) -> bool:
        """Whether each pair's whole time is seen, so that sums can be compared with eps."""
        return self.bins is None

    @property
    def least(self) -> int:
        """Ticks that a pair must reach; at least one, since touching is no time."""
        return max(1, round((self.eps - GUARD) * TICKS))


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
        return Found(*rows, offsets, self.start[runs], self.end[runs], self.counts)


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
    pieces = _query_pieces(query, index, plan)
    rows = [_block(block, query, index, plan) for block in _blocks(pieces, query, index, plan)] or [_nothing(index)]
    counts = {
        name: sum((r.counts[name] for r in rows if r.counts), torch.zeros(query.count, dtype=torch.int64))
        for name in ("candidates", "segment_pairs", "solved")
    }
    return Partial(*(torch.cat(part) for part in zip(*(r.tensors() for r in rows), strict=True)), counts)


def _nothing(index: STSIndex) -> Partial:
    whole, real = index.owner.new_zeros(0), index.segments.new_zeros(0)
    return Partial(whole, whole, whole, whole, real, real)


def _query_pieces(query: Motions, index: STSIndex, plan: Plan) -> Pieces:
    width, start = float(index.grid[0]), float(index.grid[2])
    if plan.same:
        pieces = index.all_pieces()
    else:
        if not len(index.times):
            return Pieces(index.pieces, index.boxes, index.times)
        begin, end = float(index.times[:, 0].min()), float(index.times[:, 1].max())
        # segments at other times need no pieces, of which there could be very many
        kept = ((query.segments[:, 1] > begin) & (query.segments[:, 0] < end)).nonzero()[:, 0]
        near = Motions(query.segments[kept], query.owner[kept], query.run[kept], query.count)
        pieces = cut(near, width, start)
        back = torch.cat([kept, kept.new_zeros(1)])
        table = pieces.rows.clone()
        table[:, 1] = back[pieces.rows[:, 1]]
        table[:, 2] = table[:, 1] + pieces.rows[:, 2] - pieces.rows[:, 1]
        pieces = Pieces(table, pieces.boxes, pieces.times)
    if plan.bins is not None:
        bins = pieces.rows[:, 0]
        pieces = pieces[(bins >= plan.bins[0]) & (bins <= plan.bins[1])]
    return pieces


@dataclass
class _Block:
    """Some queries with all that may be near them: ranges of keys, still to be expanded."""

    pieces: Pieces
    owner: Tensor
    cells: Tensor
    own: Tensor
    spans: list[Tensor]
    entry: Tensor
    begin: Tensor
    count: Tensor
    first: int
    tracks: int


def _blocks(pieces: Pieces, query: Motions, index: STSIndex, plan: Plan) -> Iterator[_Block]:
    """Queries in blocks of about `chunk` candidates; a query is never split, so that its sums are whole."""
    if not len(pieces.rows) or not len(index.keys):
        return
    owner = pieces.rows[:, 3].contiguous()
    reach = plan.delta + plan.slack + _SLACK
    own = index.cells(index.boxes)[:, :2].contiguous()
    spans = [v.contiguous() for rows in (query.segments, index.segments) for v in (rows[:, 0], rows[:, 1])]
    for part in _pages(owner, torch.ones_like(owner), plan.chunk, len(index)):
        some = pieces[part]
        entry, begin, end, cells = index.lookup(some, reach)
        # the same again, now that the number of candidates is known
        for inner in _pages(take(owner[part], entry), end - begin, plan.chunk, len(index)):
            mine = take(owner[part], entry[inner])
            if len(mine):
                first, last = int(mine[0]), int(mine[-1])
                count = (end - begin)[inner]
                mine = (entry[inner], begin[inner], count)
                yield _Block(some, owner[part], cells[:, :2].contiguous(), own, spans, *mine, first, last - first + 1)


def _pages(owner: Tensor, weight: Tensor, limit: int, tracks: int) -> Iterator[slice]:
    """Slices of rows, ordered by owner, that end between owners and weigh about `limit`, with few owners each."""
    if not len(owner):
        return
    numbers, sizes = owner.unique_consecutive(return_counts=True)
    ends = sizes.cumsum(0)
    weights = torch.cat([weight.new_zeros(1), weight.cumsum(0)])[ends]
    most = max(1, (1 << 22) // max(tracks, 1))  # owners whose table of totals stays small
    place_, row = 0, 0
    total = 0
    while place_ < len(numbers):
        stop = int(torch.searchsorted(weights, total + limit, right=True))
        stop = min(max(stop, place_ + 1), len(numbers))
        stop = min(stop, max(int(torch.searchsorted(numbers, numbers[place_] + most)), place_ + 1))
        yield slice(row, int(ends[stop - 1]))
        place_, row, total = stop, int(ends[stop - 1]), int(weights[stop - 1])


def _candidates(block: _Block, index: STSIndex, plan: Plan) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of a query's piece and an indexed piece that share a cell, each once, in portions."""
    reach = plan.delta + plan.slack + _SLACK
    weights = block.count.cumsum(0)
    row = 0
    while row < len(block.count):  # several portions only where one query has too many candidates by itself
        done = int(weights[row - 1]) if row else 0
        stop = max(row + 1, int(torch.searchsorted(weights, done + 4 * plan.chunk, right=True)))
        group, number = expand(block.count[row:stop])
        at = number.add_(take(block.begin[row:stop], group))
        mine, other = take(block.entry[row:stop], group), take(index.under, at)
        if plan.same:
            some = (take(block.owner, mine) < take(index.pieces[:, 3], other)).nonzero()[:, 0]
            mine, other, at = take(mine, some), take(other, some), take(at, some)
        # a pair in several cells is taken in the one where both ranges of cells begin
        (left, top), (x, y) = take(block.cells, mine).unbind(1), take(block.own, other).unbind(1)
        column, line = place(take(index.keys, at))
        keep = (column == torch.maximum(left, x)).logical_and_(line == torch.maximum(top, y))
        if plan.box_gap:
            keep.logical_and_(_gap(take(block.pieces.boxes, mine), take(index.boxes, other)) <= reach * reach)
        some = keep.nonzero()[:, 0]
        yield take(mine, some), take(other, some)
        row = stop


def take(values: Tensor, which: Tensor) -> Tensor:
    """Rows by number; several times faster than indexing with brackets."""
    return values.index_select(0, which)


def _gap(a: Tensor, b: Tensor) -> Tensor:
    """Squared distance of boxes, (n,)."""
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = a.unbind(1), b.unbind(1)
    x = torch.maximum(ax0 - bx1, bx0 - ax1).clamp_min_(0)
    y = torch.maximum(ay0 - by1, by0 - ay1).clamp_min_(0)
    return x.square_().add_(y.square_())


def _block(block: _Block, query: Motions, index: STSIndex, plan: Plan) -> Partial:
    """Everything about the queries of a block."""
    parts = list(_candidates(block, index, plan))
    mine, other = (torch.cat(v) for v in zip(*parts, strict=True))
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
    key, start, end, upper, lower = (torch.cat(v) for v in zip(*(f[:5] for f in found), strict=True))
    for name, i in (("segment_pairs", 5), ("solved", 6)):
        counts[name] = sum((f[i] for f in found), torch.zeros(query.count, dtype=torch.int64))
    high = totals.of(key, upper)
    low = totals.of(key, lower)
    keep = (high >= (plan.least if plan.whole else 1)).logical_and_(upper > 0).nonzero()[:, 0]
    key, start, end, high, low = (take(v, keep) for v in (key, start, end, high, low))
    single = totals.first(key).nonzero()[:, 0]
    shift = block.first * len(index)
    runs = merge_runs(key, start, end)  # within a block, where sorting is cheap
    pair = [take(v, single) for v in (key, high, low)]
    return Partial(pair[0] + shift, *pair[1:], runs[0] + shift, *runs[1:], counts)


def _solve(
    mine: Tensor,
    other: Tensor,
    key: Tensor,
    block: _Block,
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
    owners = take(owner, group)
    asked = torch.bincount(owners, minlength=query.count).cpu()
    d0, d1 = _apart(take(segments, i), take(index.segments, j), start, end)
    if plan.box_gap:  # of the difference itself, which is tighter than that of two boxes
        reach = plan.delta + plan.slack + _SLACK
        far = [torch.maximum(torch.minimum(p, q), -torch.maximum(p, q)).clamp_min_(0) for p, q in zip(d0, d1, strict=True)]
        near = (far[0].square_().add_(far[1].square_()) <= reach * reach).nonzero()[:, 0]
        d0, d1 = [take(v, near) for v in d0], [take(v, near) for v in d1]
        start, end, group, owners = (take(v, near) for v in (start, end, group, owners))
    at, length = take(key, group), end - start
    if plan.whole and plan.backward:
        keep = (totals.of(at, ticks(length)) >= plan.least).nonzero()[:, 0]
        d0, d1 = [take(v, keep) for v in d0], [take(v, keep) for v in d1]
        start, length, owners, at = (take(v, keep) for v in (start, length, owners, at))
    if plan.rounds == 1 or not plan.whole:
        solved = torch.bincount(owners, minlength=query.count).cpu()
        yield *_close(at, d0, d1, start, length, plan), asked, solved
        return
    yield from _rounds(at, d0, d1, start, length, owners, asked, plan, totals)


def _apart(a: Tensor, b: Tensor, start: Tensor, end: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Difference of two motions' positions at two times, as coordinates [x, y] of each."""
    a0, a1, ax, ay, bx, by = a.unbind(1)
    c0, c1, cx, cy, dx, dy = b.unbind(1)
    own, theirs = (a1 - a0).reciprocal_(), (c1 - c0).reciprocal_()
    found = []
    for time in (start, end):
        u, w = (time - a0).mul_(own), (time - c0).mul_(theirs)
        found.append([torch.lerp(ax, bx, u).sub_(torch.lerp(cx, dx, w)), torch.lerp(ay, by, u).sub_(torch.lerp(cy, dy, w))])
    return found[0], found[1]


def _close(at: Tensor, d0: list[Tensor], d1: list[Tensor], start: Tensor, length: Tensor, plan: Plan) -> tuple[Tensor, ...]:
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
    owner: Tensor,
    asked: Tensor,
    plan: Plan,
    totals: _Totals,
) -> Iterator[tuple[Tensor, ...]]:
    """The same in parts of the time axis: a pair is given up when what is left cannot bring it to eps."""
    queries = len(asked)
    first, last = start.min() if len(start) else start.sum(), start.max() if len(start) else start.sum()
    part = ((start - first) / (last - first).clamp_min(1e-9) * plan.rounds).long().clamp_max_(plan.rounds - 1)
    left, sure, high = ticks(length), torch.zeros_like(at), torch.zeros_like(at)
    for number in range(plan.rounds):
        hope = high + totals.of(at, torch.where(part >= number, left, 0)) >= plan.least
        if plan.membership:
            hope &= sure < plan.least
        now = (part == number) & hope
        solved = torch.bincount(owner[now], minlength=queries).cpu()
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
    key, upper, lower, run_key, start, end = (
        torch.cat(v) for v in zip(*(p.tensors() for p in parts), strict=True)
    )
    pairs, into = key.unique(return_inverse=True)
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
        start, end: (R,) seconds.
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
