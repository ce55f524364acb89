"""The index: which motions are where and when, as sorted keys of a space-time hash.

The time axis is cut into bins of one width. The motion of a track within a bin is a piece, with the box it stays in.
Every piece is listed under the key (bin, cell row, cell column) of each cell its box touches; keys are sorted, so the
cells of one row are one range of them. Two motions that are ever within reach of each other have pieces of one bin
whose boxes, one of them grown by reach, share a cell: nothing is missed whatever delta is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zoo.errors import BadInput, UnsafeFile
from zoo.methods.sts_join.distance import check_motion

__all__ = [
    "Motions",
    "Pieces",
    "STSIndex",
    "cell_of_key",
    "cut_at_bins",
    "expand_ranges",
    "make_table",
    "motions_of",
    "positions",
]

_AXIS, _TIME = 20, 23  # bits of a key for a cell row or column, and for a time bin
_MOST_CELLS = 64  # of the average piece; more means that cells are far too small


@dataclass(frozen=True)
class Motions:
    """Straight motions of several tracks, ordered by track and time.

    Attributes:
        segments: (S, 6) float64: t0, t1 in seconds, x0, y0, x1, y1 in metres.
        owner: (S,) track of each segment, 0-based.
        run: (S,) number of the gapless run each segment belongs to, rising.
        count: number of tracks; one without segments (gaps only) is possible.
    """

    segments: Tensor
    owner: Tensor
    run: Tensor
    count: int

    def subset(self, tracks: Tensor) -> Motions:
        """The tracks of a boolean mask (count,), with their numbers unchanged."""
        kept = tracks[self.owner]
        return Motions(self.segments[kept], self.owner[kept], self.run[kept], self.count)


def motions_of(xyt: Tensor, length: Tensor, gap: float, names: Sequence[str] | None = None) -> Motions:
    """Segments of padded tracks.

    Args:
        xyt: (N, L, 3) float64, x and y in metres, t in seconds.
        length: (N,) points of each.
        gap: seconds; across a longer step there is no motion.
        names: of the tracks, for messages.

    Raises:
        BadInput: for a track that is no motion (see `check_motion`), or a gap that is not positive.
    """
    if not gap > 0:
        raise BadInput(f"gap must be a positive time in seconds, got {gap}.")
    xyt = xyt.double()
    inside = torch.arange(xyt.shape[1], device=xyt.device) < length[:, None]
    steps = (xyt[:, 1:, 2] > xyt[:, :-1, 2]) | ~inside[:, 1:]
    fine = (xyt.isfinite().all(2) | ~inside).all(1) & steps.all(1) & (length >= 2)
    if not fine.all():
        bad = int((~fine).nonzero()[0])
        check_motion(xyt[bad, : int(length[bad])], names[bad] if names else f"track {bad}")
    first, second = xyt[:, :-1], xyt[:, 1:]
    valid = inside[:, 1:] & (second[..., 2] - first[..., 2] <= gap)
    # a run begins where the segment before it in the same track is missing
    begins = valid.clone()
    begins[:, 1:] &= ~valid[:, :-1]
    run = begins.flatten().cumsum(0)[valid.flatten()] - 1
    rows = torch.cat([first[..., 2:], second[..., 2:], first[..., :2], second[..., :2]], 2)[valid]
    owner = torch.arange(len(xyt), device=xyt.device)[:, None].expand_as(valid)[valid]
    return Motions(rows, owner, run, len(xyt))


@dataclass(frozen=True)
class Pieces:
    """Motions cut at the borders of time bins.

    Attributes:
        table: (M, 4) int64: bin, first segment, end of the segments (exclusive), track.
        boxes: (M, 4) float64: least x, least y, largest x, largest y in the bin, metres.
        times: (M, 2) float64: begin and end within the bin, seconds.
    """

    table: Tensor
    boxes: Tensor
    times: Tensor

    def __getitem__(self, which: Tensor | slice) -> Pieces:
        return Pieces(self.table[which], self.boxes[which], self.times[which])


def expand_ranges(counts: Tensor) -> tuple[Tensor, Tensor]:
    """For each of n groups of `counts` items: the group of every item, and the item's number in its group."""
    group = torch.repeat_interleave(counts)
    starts = counts.cumsum(0).sub_(counts)
    return group, torch.arange(len(group), device=counts.device).sub_(starts.index_select(0, group))


def positions(segments: Tensor, time: Tensor) -> Tensor:
    """Where segments (n, 6) are at times (n,) within them, (n, 2)."""
    t0, t1 = segments[:, 0], segments[:, 1]
    share = ((time - t0) / (t1 - t0))[:, None]
    return segments[:, 2:4] + (segments[:, 4:6] - segments[:, 2:4]) * share


def cut_at_bins(motions: Motions, width: float, origin: float) -> Pieces:
    """Cut motions at `origin + k width`.

    Raises:
        BadInput: if there are more bins than a key can number.
    """
    segments = motions.segments
    if not len(segments):
        empty = segments.new_zeros
        return Pieces(empty((0, 4)).long(), empty((0, 4)), empty((0, 2)))
    first = ((segments[:, 0] - origin) / width).floor().long()
    last = torch.maximum(((segments[:, 1] - origin) / width).ceil().long() - 1, first)
    entry, number = expand_ranges(last - first + 1)
    bins = first[entry] + number
    if int(bins.max()) - min(int(bins.min()), 0) >= 1 << _TIME:
        raise BadInput(
            f"{int(bins.max()) + 1:,} time bins of {width:g} s are too many (at most {1 << _TIME:,}): choose a larger "
            "bin, or look for a broken time."
        )
    begin = torch.maximum(segments[entry, 0], origin + bins * width)
    end = torch.minimum(segments[entry, 1], origin + (bins + 1) * width)
    rows = segments[entry]
    a, b = positions(rows, begin), positions(rows, end)
    fresh = torch.ones(len(entry), dtype=torch.bool, device=entry.device)
    fresh[1:] = (bins[1:] != bins[:-1]) | (motions.run[entry[1:]] != motions.run[entry[:-1]])
    piece = fresh.cumsum(0) - 1
    where = fresh.nonzero()[:, 0]
    stop = torch.cat([where[1:], where.new_tensor([len(entry)])]) - 1
    into = piece[:, None].expand(-1, 2)
    low = a.new_zeros(len(where), 2).scatter_reduce_(0, into, torch.minimum(a, b), "amin", include_self=False)
    high = a.new_zeros(len(where), 2).scatter_reduce_(0, into, torch.maximum(a, b), "amax", include_self=False)
    table = torch.stack([bins[where], entry[where], entry[stop] + 1, motions.owner[entry[where]]], 1)
    return Pieces(table, torch.cat([low, high], 1), torch.stack([begin[where], end[stop]], 1))


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
        self._seen: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def track_names(self) -> list[str]:
        """Name of each track."""
        text = bytes(self.names.cpu().numpy().tobytes()).decode("utf-8", errors="replace")
        return text.split("\n") if len(self) else []

    @property
    def motions(self) -> Motions:
        """The motions; runs are not kept, as cutting is done."""
        return Motions(self.segments, self.owner, self.owner, len(self))

    def all_pieces(self) -> Pieces:
        """Every piece, in the order of tracks and time."""
        return Pieces(self.pieces, self.boxes, self.times)

    def fill(self, values: dict[str, Tensor]) -> STSIndex:
        """Take over a table from `make_table`."""
        for name, value in values.items():
            setattr(self, name, value.to(self.segments.device))
        return self

    def cells(self, boxes: Tensor, grow: float = 0.0) -> Tensor:
        """First and last column and row of cells that boxes touch: (n, 4) int64 x0, y0, x1, y1, cut to the grid."""
        return _cells(boxes, self.grid, grow)

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
        inside = ((bins >= 0) & (bins < 1 << _TIME) & (end > begin)).nonzero()[:, 0]
        return *(v.index_select(0, inside) for v in (entry, begin, end)), cells  # type: ignore[return-value]

    def check(self) -> None:
        """Refuse a table that contradicts itself, such as one of a file that somebody altered.

        Raises:
            UnsafeFile: naming the part.
        """
        stamp = tuple(b.data_ptr() for b in self.buffers())
        if stamp == self._seen:
            return
        s, m, n = len(self.segments), len(self.pieces), len(self.ids)
        shapes = {"segments": (s, 6), "owner": (s,), "pieces": (m, 4), "boxes": (m, 4), "times": (m, 2), "grid": (5,)}
        shapes |= {"under": tuple(self.keys.shape), "error": (1,)}
        wrong = [name for name, shape in shapes.items() if tuple(getattr(self, name).shape) != shape]
        wrong = wrong or [name for name, fine in self._ranges(s, m, n).items() if not fine]
        if wrong:
            raise UnsafeFile(f"The index contradicts itself in {wrong[0]!r}. Build it again from the tracks.")
        self._seen = stamp

    def _ranges(self, s: int, m: int, n: int) -> dict[str, bool]:
        def within(values: Tensor, end: int) -> bool:
            return not values.numel() or (int(values.min()) >= 0 and int(values.max()) < end)

        spans = self.pieces[:, 2] - self.pieces[:, 1]
        return {
            "names": len(self.track_names) == n,
            "owner": within(self.owner, n),
            "pieces": within(self.pieces[:, 1], s) and within(self.pieces[:, 2] - 1, s) and within(spans - 1, s),
            "under": within(self.under, m),
            "keys": bool((self.keys.diff() >= 0).all()),
            "segments": bool((self.segments[:, 1] > self.segments[:, 0]).all()),
            "grid": bool((self.grid[:2] > 0).all()),
            "error": bool((self.error >= 0).all()),
        }


def empty_table() -> dict[str, Tensor]:
    """The buffers of an index without tracks."""
    real, whole = torch.float64, torch.int64
    shapes = {"segments": (0, 6), "owner": (0,), "ids": (0,), "names": (0,), "pieces": (0, 4), "boxes": (0, 4)}
    shapes |= {"times": (0, 2), "keys": (0,), "under": (0,)}
    kinds = {"owner": whole, "ids": whole, "names": torch.uint8, "pieces": whole, "keys": whole, "under": whole}
    table = {name: torch.zeros(shape, dtype=kinds.get(name, real)) for name, shape in shapes.items()}
    return table | {"grid": torch.tensor([60.0, 100.0, 0, 0, 0], dtype=real), "error": torch.zeros(1, dtype=real)}


def _key(bins: Tensor, row: Tensor, column: Tensor) -> Tensor:
    return (bins << (2 * _AXIS)) | (row << _AXIS) | column


def cell_of_key(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Column and row of keys."""
    most = (1 << _AXIS) - 1
    return keys & most, (keys >> _AXIS) & most


def _cells(boxes: Tensor, grid: Tensor, grow: float) -> Tensor:
    corner, side = grid[3:5], grid[1]
    low = ((boxes[:, :2] - grow - corner) / side).floor()
    high = ((boxes[:, 2:] + grow - corner) / side).floor()
    return torch.cat([low, high], 1).clamp_(0, (1 << _AXIS) - 1).long()


def default_grid(motions: Motions, reach: float) -> tuple[float, float]:
    """Bin width and cell side for motions that are joined within `reach`.

    A bin should hold few segments, and a piece should not move much further than reach; then most candidates that
    share a cell are partners.
    """
    if not len(motions.segments):
        return 60.0, max(reach, 1.0)
    rows = motions.segments
    if len(rows) > 4096:  # medians of a sample, evenly spread
        rows = rows[torch.linspace(0, len(rows) - 1, 4096, device=rows.device).long()]
    duration = rows[:, 1] - rows[:, 0]
    step = float(duration.median())
    speed = float(((rows[:, 4:6] - rows[:, 2:4]).norm(dim=1) / duration).median())
    width = min(max(reach / max(speed, 1e-9), 2 * step), 3 * step)
    return width, max(reach, 1e-3) + 0.5 * speed * width


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
    width, cell = width or usual[0], cell or usual[1]
    segments = motions.segments
    start = float(segments[:, 0].min()) if len(segments) else 0.0
    pieces = cut_at_bins(motions, width, start)
    corner = pieces.boxes[:, :2].amin(0) if len(pieces.boxes) else segments.new_zeros(2)
    grid = torch.cat([segments.new_tensor([width, cell, start]), corner])
    if len(pieces.boxes):
        extent = float((pieces.boxes[:, 2:] - corner).max())
        if extent / cell >= (1 << _AXIS) - 1:
            raise BadInput(f"Cells of {cell:g} m are too small for data {extent:g} m wide: choose a larger cell.")
    cells = _cells(pieces.boxes, grid, 0.0)
    wide, high = cells[:, 2] - cells[:, 0] + 1, cells[:, 3] - cells[:, 1] + 1
    total = int((wide * high).sum())
    if total > _MOST_CELLS * max(len(cells), 1024):
        raise BadInput(f"Cells of {cell:g} m are too small: {total / len(cells):.0f} per piece. Choose a larger cell.")
    entry, number = expand_ranges(wide * high)
    row, column = cells[entry, 1] + number // wide[entry], cells[entry, 0] + number % wide[entry]
    keys, order = _key(pieces.table[entry, 0], row, column).sort(stable=True)
    text = "\n".join(" ".join(str(name).splitlines()) or "-" for name in names).encode()
    return {
        "segments": segments,
        "owner": motions.owner,
        "ids": ids,
        "names": torch.frombuffer(bytearray(text), dtype=torch.uint8) if text else torch.zeros(0, dtype=torch.uint8),
        "pieces": pieces.table,
        "boxes": pieces.boxes,
        "times": pieces.times,
        "keys": keys,
        "under": entry[order],
        "grid": grid,
        "error": segments.new_tensor([error]),
    }
