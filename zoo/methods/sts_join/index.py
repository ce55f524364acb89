"""The index: which motions are where and when, as sorted keys of a space-time hash.

The time axis is cut into bins of one width. The motion of a track within a bin is a piece, with the box it stays in.
Every piece is listed under the key (bin, cell row, cell column) of each cell its box touches; keys are sorted, so the
cells of one row are one range of them. Two motions that are ever within reach of each other have pieces of one bin
whose boxes, one of them grown by reach, share a cell: nothing is missed whatever delta is asked for. A key holds 23
bits of the bin's number; where an index spans more bins, several share a key, and their times distinguish them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from zoo.errors import BadInput, InvalidConfig, UnsafeFile
from zoo.methods.sts_join.motions import Motions, Pieces, cut_at_bins, expand_ranges, runs_of

__all__ = ["IndexFacts", "STSIndex", "cell_of_key", "make_table", "tick_rate"]

_AXIS, _TIME = 20, 23  # bits of a key for a cell row or column, and for a time bin
PRECISION = (
    "The join needs float64: leave trainer.precision at 32-true, 64-true or bf16-mixed, and the module as it is loaded "
    "(no .half(), .float(), ...)."
)
_MOST_CELLS = 64  # of the average piece; more means that cells are far too small


class STSIndex(nn.Module):
    """Motions with their pieces and sorted keys, as buffers whose sizes depend on the data.

    Buffers:
        segments (S, 6), owner (S,): see `Motions`.
        ids (N,): number of each track in the data it came from; names: UTF-8 bytes, one line per track.
        pieces (M, 4), boxes (M, 4), times (M, 2): see `Pieces`.
        keys (R,) sorted; under (R,): the piece listed under each key.
        grid (5,): bin width, cell side, begin of bin 0, and the corner of cell (0, 0).
        error (1,): how far a motion may be from the true one, metres; 0 for exact ones.
    """

    segments: Tensor
    owner: Tensor
    ids: Tensor
    names: Tensor
    pieces: Tensor
    boxes: Tensor
    times: Tensor
    keys: Tensor
    under: Tensor
    grid: Tensor
    error: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, value in empty_table().items():
            self.register_buffer(name, value)
        self._stamp: tuple[tuple[int, int], ...] = ()
        self._facts = IndexFacts()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def track_names(self) -> list[str]:
        """Name of each track."""
        text = bytes(self.names.cpu().numpy().tobytes()).decode("utf-8", errors="replace")
        return text.split("\n") if len(self) else []

    @property
    def motions(self) -> Motions:
        """The motions."""
        return Motions(self.segments, self.owner, runs_of(self.segments, self.owner), len(self))

    @property
    def facts(self) -> IndexFacts:
        """What follows from the buffers and is asked for again and again; they are checked first."""
        self.check()
        return self._facts

    def all_pieces(self) -> Pieces:
        """Every piece, in the order of tracks and time."""
        return Pieces(self.pieces, self.boxes, self.times)

    def fill(self, values: dict[str, Tensor]) -> STSIndex:
        """Take over a table from `make_table`."""
        for name, value in values.items():  # the same tensors get new storage: an optimiser may hold them
            getattr(self, name).data = value.to(self.segments.device)
        self._stamp = ()
        return self

    def _load_from_state_dict(self, *args: Any, **options: Any) -> None:
        super()._load_from_state_dict(*args, **options)
        self._stamp = ()
        self._mend()

    def _mend(self) -> None:
        """Cut again what was cut elsewhere: an early version rounded the borders of bins to single precision."""
        if self._contradictions():
            return  # said when it is used
        width, cell, start = self.grid[:3].tolist()
        try:
            pieces = cut_at_bins(self.motions, width, start)
            kept = (self.pieces, self.boxes, self.times)
            if not all(map(torch.equal, kept, (pieces.table, pieces.boxes, pieces.times))):
                self.fill(_hashed(pieces, width, cell, start))
        except BadInput as error:
            raise UnsafeFile(f"The index contradicts itself in 'grid': {error}") from None

    def cells(self, boxes: Tensor, grow: float = 0.0) -> Tensor:
        """First and last column and row of cells that boxes touch: (n, 4) int64 x0, y0, x1, y1, cut to the grid."""
        return _cells(boxes, float(self.grid[1]), self.grid[3:5], grow)

    def lookup(self, pieces: Pieces, reach: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Ranges of keys that may hold partners: one for each (piece, row of cells).

        Returns:
            number of the piece, begin and end of the range (n,) each, and the pieces' own cells (len(pieces), 4).
        """
        cells = self.cells(pieces.boxes, reach)
        entry, number = expand_ranges(cells[:, 3] - cells[:, 1] + 1)
        left, top, right, _ = cells.index_select(0, entry).unbind(1)
        bins = pieces.table[:, 0].index_select(0, entry)
        line = _key(bins, number.add_(top), left)
        begin = torch.searchsorted(self.keys, line)
        end = torch.searchsorted(self.keys, line.add_(right).sub_(left), right=True)
        inside = (end > begin).nonzero()[:, 0]
        return *(v.index_select(0, inside) for v in (entry, begin, end)), cells  # type: ignore[return-value]

    def check(self) -> None:
        """Refuse a table that contradicts itself, such as one of a file that somebody altered.

        Raises:
            UnsafeFile: naming the part.
            InvalidConfig: if it was cast, which rounds times and places for good.
        """
        stamp = tuple((b.data_ptr(), 0 if b.is_inference() else b._version) for b in self.buffers())
        if stamp == self._stamp:
            return
        if self.segments.dtype != torch.float64:
            raise InvalidConfig(PRECISION)
        wrong = self._contradictions()
        if wrong:
            raise UnsafeFile(f"The index contradicts itself in {wrong[0]!r}. Build it again from the tracks.")
        self._facts = IndexFacts.of(self)
        self._stamp = stamp

    def _contradictions(self) -> list[str]:
        """The buffers that do not fit the others."""
        s, m, n = len(self.segments), len(self.pieces), len(self.ids)
        shapes = {"segments": (s, 6), "owner": (s,), "pieces": (m, 4), "boxes": (m, 4), "times": (m, 2), "grid": (5,)}
        shapes |= {"under": tuple(self.keys.shape), "error": (1,)}
        wrong = [name for name, shape in shapes.items() if tuple(getattr(self, name).shape) != shape]
        return wrong or [name for name, fine in self._ranges(s, m, n).items() if not fine]

    def _ranges(self, s: int, m: int, n: int) -> dict[str, bool]:
        def within(values: Tensor, end: int) -> bool:
            return not values.numel() or (int(values.min()) >= 0 and int(values.max()) < end)

        spans = self.pieces[:, 2] - self.pieces[:, 1]
        return {
            "names": len(self.track_names) == n,
            "owner": within(self.owner, n) and bool((self.owner.diff() >= 0).all()),
            "pieces": within(self.pieces[:, 0], 1 << 53)
            and all(within(values, s) for values in (self.pieces[:, 1], self.pieces[:, 2] - 1, spans - 1)),
            "under": within(self.under, m),
            "keys": bool((self.keys.diff() >= 0).all()),
            "segments": bool((self.segments[:, 1] > self.segments[:, 0]).all() and self.segments.sum().isfinite()),
            "grid": bool((self.grid[:2] > 0).all() and self.grid.isfinite().all()) and self._fine_bins(),
            "error": bool((self.error >= 0).all()),
        }

    def _fine_bins(self) -> bool:
        """Whether the numbers of all time bins are exact in float64."""
        if not len(self.segments):
            return True
        first, last = self.segments[:, 0].min() - self.grid[2], self.segments[:, 1].max() - self.grid[2]
        return bool(torch.maximum(-first, last) < 2.0**52 * self.grid[0])


@dataclass(frozen=True)
class IndexFacts:
    """What follows from the buffers of an index.

    Attributes:
        bins: (n,) int64 time bins that hold pieces, rising.
        begin: first time of a motion, seconds.
        end: last time, seconds.
        longest: bound on the distance between the ends of a segment, metres.
        rate: ticks per second, a power of 2: as many as the time of the longest track allows in 64 bits, at most 2^44.
    """

    bins: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    begin: float = 0.0
    end: float = 0.0
    longest: float = 0.0
    rate: float = 2.0**44

    @classmethod
    def of(cls, index: STSIndex) -> IndexFacts:
        """Facts of a valid index."""
        if not len(index.pieces):
            return cls(index.pieces[:, 0])
        bins = index.pieces[:, 0]
        in_keys = int(bins.max()) < 1 << _TIME  # where they are sorted
        bins = torch.unique_consecutive(index.keys >> (2 * _AXIS)) if in_keys else torch.unique(bins)
        seconds = index.segments[:, 1] - index.segments[:, 0]
        moving = seconds.new_zeros(len(index)).index_add_(0, index.owner, seconds)
        begin, end = float(index.times[:, 0].min()), float(index.times[:, 1].max())
        return cls(bins, begin, end, index.motions.longest, tick_rate(float(moving.max())))


def tick_rate(seconds: float) -> float:
    """Ticks per second in which durations up to some seconds are added: a power of 2, at most 2^44 (57 fs)."""
    return 2.0 ** min(44, 61 - math.ceil(math.log2(max(seconds, 1.0))))


def empty_table() -> dict[str, Tensor]:
    """The buffers of an index without tracks."""
    real, whole = torch.float64, torch.int64
    shapes = {"segments": (0, 6), "owner": (0,), "ids": (0,), "names": (0,), "pieces": (0, 4), "boxes": (0, 4)}
    shapes |= {"times": (0, 2), "keys": (0,), "under": (0,)}
    kinds = {"owner": whole, "ids": whole, "names": torch.uint8, "pieces": whole, "keys": whole, "under": whole}
    table = {name: torch.zeros(shape, dtype=kinds.get(name, real)) for name, shape in shapes.items()}
    return table | {"grid": torch.tensor([60.0, 100.0, 0, 0, 0], dtype=real), "error": torch.zeros(1, dtype=real)}


def _key(bins: Tensor, row: Tensor, column: Tensor) -> Tensor:
    return ((bins & ((1 << _TIME) - 1)) << (2 * _AXIS)) | (row << _AXIS) | column


def cell_of_key(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Column and row of keys."""
    most = (1 << _AXIS) - 1
    return keys & most, (keys >> _AXIS) & most


def _cells(boxes: Tensor, side: float, corner: Tensor, grow: float) -> Tensor:
    low = ((boxes[:, :2] - grow - corner) / side).floor()
    high = ((boxes[:, 2:] + grow - corner) / side).floor()
    return torch.cat([low, high], 1).clamp_(0, (1 << _AXIS) - 1).long()


def _cell_counts(cells: Tensor) -> Tensor:
    return (cells[:, 2] - cells[:, 0] + 1) * (cells[:, 3] - cells[:, 1] + 1)


def default_grid(motions: Motions, reach: float) -> tuple[float, float]:
    """Bin width and cell side for motions that are joined within `reach`.

    A bin should hold few segments, and a piece should not move much further than reach; then most candidates that
    share a cell are partners.
    """
    if not len(motions.segments):
        return 60.0, max(reach, 1.0)
    rows = motions.segments
    if len(rows) > 4096:  # medians of a sample, evenly spread
        rows = rows[torch.linspace(0, len(rows) - 1, 4096, dtype=torch.float64, device=rows.device).long()]
    duration = rows[:, 1] - rows[:, 0]
    step = float(duration.median())
    speed = float(((rows[:, 4:6] - rows[:, 2:4]).norm(dim=1) / duration).median())
    width = min(max(reach / max(speed, 1e-9), 2 * step), 3 * step)
    mean = float((motions.segments[:, 1] - motions.segments[:, 0]).mean())
    width = max(width, mean / 16)  # a few very long segments must not be cut into very many pieces
    return width, max(reach, 1e-3) + 0.5 * speed * width


def _cells_of(pieces: Pieces, cell: float) -> tuple[Tensor, str]:
    """The cells of all pieces, (M, 4), and why cells of that side are too small; empty if they are not."""
    if not len(pieces.boxes):
        return pieces.table, ""
    corner = pieces.boxes[:, :2].amin(0)
    cells = _cells(pieces.boxes, cell, corner, 0.0)
    extent = float((pieces.boxes[:, 2:].amax(0) - corner).max())
    if extent / cell >= (1 << _AXIS) - 1:
        return cells, f"for data {extent:g} m wide"
    total = float(_cell_counts(cells).sum(dtype=torch.float64))
    if total > _MOST_CELLS * max(len(cells), 1024):
        return cells, f"({total / len(cells):.0f} per piece)"
    return cells, ""


def _hashed(pieces: Pieces, width: float, cell: float, start: float, *, fixed: bool = True) -> dict[str, Tensor]:
    """The buffers that follow from pieces and grid.

    Args:
        pieces: of all motions.
        width: of a time bin, seconds.
        cell: side of a cell, metres.
        start: begin of bin 0, seconds.
        fixed: refuse cells that are too small, rather than double them.
    """
    cells, why = _cells_of(pieces, cell)
    while why:  # the data are very wide, or a few pieces are very long
        if fixed:
            raise BadInput(f"Cells of {cell:g} m are too small {why}: choose a larger cell.")
        cell *= 2
        cells, why = _cells_of(pieces, cell)
    corner = pieces.boxes[:, :2].amin(0) if len(cells) else pieces.boxes.new_zeros(2)
    entry, number = expand_ranges(_cell_counts(cells))
    wide = (cells[:, 2] - cells[:, 0] + 1)[entry]
    keys = _key(pieces.table[entry, 0], cells[entry, 1] + number // wide, cells[entry, 0] + number % wide)
    keys, order = keys.sort(stable=True)
    return {
        "pieces": pieces.table,
        "boxes": pieces.boxes,
        "times": pieces.times,
        "keys": keys,
        "under": entry[order],
        "grid": torch.cat([pieces.boxes.new_tensor([width, cell, start]), corner]),
    }


def make_table(
    motions: Motions,
    ids: Tensor,
    names: Sequence[str],
    *,
    reach: float,
    error: float = 0.0,
    width: float | None = None,
    cell: float | None = None,
) -> dict[str, Tensor]:
    """Build the buffers of an index.

    Args:
        motions: of `len(ids)` tracks.
        ids: (N,) int64.
        names: N names; line breaks in them become spaces.
        reach: distance that joins will mostly ask for, metres; others are answered as rightly, less quickly.
        error: how far the motions may be from the true ones, metres.
        width: of a time bin, seconds; chosen from the data if None.
        cell: side of a cell, metres; chosen from the data if None.

    Raises:
        BadInput: if cells or bins are too small for the extent of the data.
    """
    usual = default_grid(motions, reach)
    width = width or usual[0]
    segments = motions.segments
    start = float(segments[:, 0].min()) if len(segments) else 0.0
    pieces = cut_at_bins(motions, width, start)
    text = "\n".join(" ".join(str(name).splitlines()) or "-" for name in names).encode()
    return {
        "segments": segments,
        "owner": motions.owner,
        "ids": ids,
        "names": torch.frombuffer(bytearray(text), dtype=torch.uint8) if text else torch.zeros(0, dtype=torch.uint8),
        **_hashed(pieces, width, cell or usual[1], start, fixed=cell is not None),
        "error": segments.new_tensor([error]),
    }
