"""What to join, and which pieces may be partners: the part of the join that asks the index."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.errors import BadInput
from zoo.sequence._sts_join_cdds import check_delta
from zoo.sequence._sts_join_index import Motions, Pieces, STSIndex, cut, expand, place

__all__ = ["GUARD", "SLACK", "TICKS", "Block", "Plan", "blocks", "candidates", "query_pieces", "take"]

TICKS = float(1 << 36)
"""Parts of a second in which durations are added."""

GUARD = 1e-9
"""Seconds by which a duration may fall short of eps and still count: rounding must not decide."""

SLACK = 1e-6  # metres added to every box test, far above the rounding of a position


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
    chunk: int = 1 << 16
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


def query_pieces(query: Motions, index: STSIndex, plan: Plan) -> Pieces:
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
class Block:
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


def blocks(pieces: Pieces, query: Motions, index: STSIndex, plan: Plan) -> Iterator[Block]:
    """Queries in blocks of about `chunk` candidates; a query is never split, so that its sums are whole."""
    if not len(pieces.rows) or not len(index.keys):
        return
    owner = pieces.rows[:, 3].contiguous()
    reach = plan.delta + plan.slack + SLACK
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
                corner = cells[:, :2].contiguous()
                at, since = entry[inner], begin[inner]
                yield Block(some, owner[part], corner, own, spans, at, since, count, first, last - first + 1)


def _pages(owner: Tensor, weight: Tensor, limit: int, tracks: int) -> Iterator[slice]:
    """Slices of rows, ordered by owner, that end between owners and weigh about `limit`, with few owners each."""
    if not len(owner):
        return
    numbers, sizes = torch.unique_consecutive(owner, return_counts=True)
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


def candidates(block: Block, index: STSIndex, plan: Plan) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of a query's piece and an indexed piece that share a cell, each once, in portions."""
    reach = plan.delta + plan.slack + SLACK
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
