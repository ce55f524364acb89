"""What to join, and which pieces may be partners: the part of the join that asks the index."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.errors import BadInput
from zoo.methods.sts_join.distance import check_delta
from zoo.methods.sts_join.index import STSIndex, cell_of_key
from zoo.methods.sts_join.motions import Motions, Pieces, cut_at_bins, expand_ranges

__all__ = ["GUARD", "SLACK", "Block", "JoinPlan", "blocks", "candidates", "query_pieces", "rows"]

GUARD = 1e-9
"""Seconds by which a duration may fall short of eps and still count: rounding must not decide."""

SLACK = 1e-6
"""Metres added to every box test and to the bounds of obfuscated motions, far above the rounding of a position."""

_HOPE = 1e-6  # seconds by which pruning is more generous than eps, far above the rounding of a duration


@dataclass(frozen=True)
class JoinPlan:
    """What to join, and how.

    Attributes:
        delta: metres, above 0.
        eps: seconds, at least 0.
        slack: metres by which the distance of two reported motions may differ from the true one (2E).
        min_run: seconds; only contiguous runs of at least this length count.
        same: the queries are the index's own tracks: each pair is reported once, with the smaller number first.
        bins: first and last time bin (inclusive) of this share of the work; all if None.
        chunk: candidates worked on at once; bounds the memory.
        rounds: parts of the time axis after each of which hopeless pairs are dropped.
        membership: durations do not matter, so pairs that certainly belong are dropped as well.
        box_gap: drop candidates whose boxes are too far apart; off in comparisons only.
        backward: drop pairs whose remaining common time cannot bring them to eps; off in comparisons only.
    """

    delta: float
    eps: float
    slack: float = 0.0
    min_run: float = 0.0
    same: bool = False
    bins: tuple[int, int] | None = None
    chunk: int = 1 << 15
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

    def least(self, rate: float) -> int:
        """Ticks that a pair must reach; at least one, since touching is no time.

        Args:
            rate: ticks per second.
        """
        return _ticks(self.eps - GUARD, rate)

    def hopeful(self, rate: float) -> int:
        """Ticks that a pair must still be able to reach in order not to be dropped; see `least`."""
        return _ticks(self.eps - _HOPE, rate)

    @property
    def reach(self) -> float:
        """Metres within which boxes must be for their motions to matter."""
        return self.delta + self.slack + SLACK


def _ticks(seconds: float, rate: float) -> int:
    return min(max(1, round(seconds * rate)), 1 << 62)


def rows(values: Tensor, which: Tensor) -> Tensor:
    """Rows by number; several times faster than indexing with brackets."""
    return values.index_select(0, which)


def query_pieces(query: Motions, index: STSIndex, plan: JoinPlan) -> Pieces:
    """The queries cut at the index's time bins, as far as the plan's bins and the index's time reach."""
    if plan.same:
        pieces = index.all_pieces()
    elif not len(index.times):
        return Pieces(index.pieces, index.boxes, index.times)
    else:
        facts = index.facts
        # at other times than the index's no pieces are needed, of which there could be very many
        kept = ((query.segments[:, 1] > facts.begin) & (query.segments[:, 0] < facts.end)).nonzero()[:, 0]
        inside = Motions(query.segments[kept], query.owner[kept], query.run[kept], query.count)
        cut = cut_at_bins(inside, float(index.grid[0]), float(index.grid[2]), facts.bins)
        number = torch.cat([kept, kept.new_zeros(1)])  # of each kept segment among all
        table = cut.table.clone()
        table[:, 1] = number[cut.table[:, 1]]
        table[:, 2] = table[:, 1] + cut.table[:, 2] - cut.table[:, 1]
        pieces = Pieces(table, cut.boxes, cut.times)
    if plan.bins is not None:
        bins = pieces.table[:, 0]
        pieces = pieces[(bins >= plan.bins[0]) & (bins <= plan.bins[1])]
    return pieces


@dataclass
class Block:
    """Consecutive queries with all that may be near them: ranges of keys, still to be expanded.

    Attributes:
        pieces: of these queries, and possibly of further ones.
        owner: (len(pieces),) query of each piece.
        corner: (len(pieces), 2) first column and row of the cells that each piece, grown by reach, touches.
        index_corner: (M, 2) first column and row of the cells of each piece of the index.
        entry: (n,) piece to which each range belongs, rising.
        begin: (n,) first key of the range.
        count: (n,) keys in it.
        first: number of the first query.
        tracks: number of queries.
    """

    pieces: Pieces
    owner: Tensor
    corner: Tensor
    index_corner: Tensor
    entry: Tensor
    begin: Tensor
    count: Tensor
    first: int
    tracks: int


def blocks(pieces: Pieces, index: STSIndex, plan: JoinPlan) -> Iterator[Block]:
    """Queries in blocks of about `chunk` candidates; a query is never split, so that its sums are whole."""
    if not len(pieces.table) or not len(index.keys):
        return
    owner = pieces.table[:, 3].contiguous()
    index_corner = index.cells(index.boxes)[:, :2].contiguous()
    for page in _pages(owner, torch.ones_like(owner), plan.chunk, len(index)):
        some = pieces[page]
        entry, begin, end, cells = index.lookup(some, plan.reach)
        corner = cells[:, :2].contiguous()
        # the same again, now that the number of candidates is known
        for inner in _pages(rows(owner[page], entry), end - begin, plan.chunk, len(index)):
            queries = rows(owner[page], entry[inner])
            first, last = int(queries[0]), int(queries[-1])
            ranges = entry[inner], begin[inner], (end - begin)[inner]
            yield Block(some, owner[page], corner, index_corner, *ranges, first, last - first + 1)


def _pages(owner: Tensor, weight: Tensor, limit: int, tracks: int) -> Iterator[slice]:
    """Slices of rows, ordered by owner, that end between owners and weigh about `limit`, with few owners each."""
    if not len(owner):
        return
    numbers, sizes = torch.unique_consecutive(owner, return_counts=True)
    ends = sizes.cumsum(0)
    weights = torch.cat([weight.new_zeros(1), weight.cumsum(0)])[ends]
    most = max(1, (1 << 22) // max(tracks, 1))  # owners whose table of totals stays small
    at, row, total = 0, 0, 0
    while at < len(numbers):
        stop = int(torch.searchsorted(weights, total + limit, right=True))
        stop = min(max(stop, at + 1), len(numbers))
        stop = min(stop, max(int(torch.searchsorted(numbers, numbers[at] + most)), at + 1))
        yield slice(row, int(ends[stop - 1]))
        at, row, total = stop, int(ends[stop - 1]), int(weights[stop - 1])


def candidates(block: Block, index: STSIndex, plan: JoinPlan) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of a query's piece and an indexed piece that share a cell, each once, in portions."""
    weights = block.count.cumsum(0)
    row = 0
    while row < len(block.count):  # several portions only where one query has too many candidates by itself
        done = int(weights[row - 1]) if row else 0
        stop = max(row + 1, int(torch.searchsorted(weights, done + 4 * plan.chunk, right=True)))
        group, number = expand_ranges(block.count[row:stop])
        key = number.add_(rows(block.begin[row:stop], group))
        ours, theirs = rows(block.entry[row:stop], group), rows(index.under, key)
        if plan.same:
            later = (rows(block.owner, ours) < rows(index.pieces[:, 3], theirs)).nonzero()[:, 0]
            ours, theirs, key = rows(ours, later), rows(theirs, later), rows(key, later)
        # a pair in several cells is taken in the one where both ranges of cells begin
        (left, top), (x, y) = rows(block.corner, ours).unbind(1), rows(block.index_corner, theirs).unbind(1)
        column, line = cell_of_key(rows(index.keys, key))
        kept = (column == torch.maximum(left, x)).logical_and_(line == torch.maximum(top, y))
        if plan.box_gap:
            gap = _squared_gap(rows(block.pieces.boxes, ours), rows(index.boxes, theirs))
            kept.logical_and_(gap <= plan.reach * plan.reach)
        near = kept.nonzero()[:, 0]
        yield rows(ours, near), rows(theirs, near)
        row = stop


def _squared_gap(a: Tensor, b: Tensor) -> Tensor:
    """Squared distance of boxes, (n,)."""
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = a.unbind(1), b.unbind(1)
    x = torch.maximum(ax0 - bx1, bx0 - ax1).clamp_min_(0)
    y = torch.maximum(ay0 - by1, by0 - ay1).clamp_min_(0)
    return x.square_().add_(y.square_())
