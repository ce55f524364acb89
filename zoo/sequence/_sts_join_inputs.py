"""What people hand to the join: arrays, tables, files; and what comes back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.errors import BadInput, require
from zoo.sequence._sts_join_cdds import check_motion
from zoo.sequence._sts_join_index import STSIndex

__all__ = ["JoinResults", "one_input", "origin_of", "part_of", "tracks_of", "why_nothing"]


def tracks_of(item: Any, origin: Sequence[float] | None, name: str) -> list[tuple[str, Tensor]]:
    """The tracks of one input, as name and (L, 3) float64 in the index's plane.

    Args:
        item: array or tensor (L, 3) of x, y, t; a DataFrame or dict of columns; the path of a file or folder of tracks.
        origin: of the index's plane; None for metres.
        name: of the input, for messages and for tracks without a name.

    Raises:
        BadInput: naming the input and what is wrong with it.
    """
    from datamodules._tracks_formats import from_columns
    from datamodules.tracks import TracksDataModule

    if isinstance(item, (str, Path)):
        data = TracksDataModule(root=str(item), origin=list(origin) if origin is not None else None)
        if (data.projection() is None) != (origin is None):
            raise BadInput(_units(name, origin))
        return [(t[1], torch.from_numpy(t[2])) for t in data.dataset("predict").tracks]
    if (hasattr(item, "columns") and hasattr(item, "to_dict")) or isinstance(item, dict):
        table = dict(item) if isinstance(item, dict) else {str(c): item[c].to_numpy() for c in item.columns}
        tracks = from_columns(table, name)
        plane = _plane(tracks, origin, name)
        found = [(t.name if len(tracks) > 1 else name, torch.from_numpy(plane(t))) for t in tracks]
    else:
        try:
            found = [(name, torch.as_tensor(item, dtype=torch.float64))]
        except (TypeError, ValueError, RuntimeError):
            raise BadInput(
                f"{name}: expected rows of x, y, t, a table with the columns t and x, y or lon, lat, or a file of "
                f"tracks; got {type(item).__name__}."
            ) from None
    for label, xyt in found:
        check_motion(xyt, label)
    return found


def _units(name: str, origin: Sequence[float] | None) -> str:
    ours, theirs = ("metres", "degrees") if origin is None else ("degrees", "metres")
    return (
        f"{name}: positions in {theirs}, but the index was made from positions in {ours}. Give {ours}, or build an "
        "index from your own tracks: model.index(tracks)."
    )


def _plane(tracks: Sequence[Any], origin: Sequence[float] | None, name: str) -> Any:
    from datamodules._tracks_table import Projection

    plane = Projection.of(origin)
    if tracks and tracks[0].geographic != (plane is not None):
        raise BadInput(_units(name, origin))
    if plane is not None:
        return plane.place
    return lambda t: np.column_stack([t.positions, t.times])


class JoinResults(list[dict[str, Any]]):
    """One dict per input, and all of them together as arrays or a table.

    Attributes:
        note: why there are no pairs, where there are none.
    """

    note: str = ""

    def __init__(self, found: Sequence[dict[str, Any]] = (), epoch: float | None = None) -> None:
        super().__init__(found)
        self.epoch = epoch

    @property
    def pairs(self) -> np.ndarray:
        """(K, 2) int64: number of the query, counted over all inputs, and of the indexed track."""
        rows, shift = [], 0
        for one in self:
            rows.append(one["pairs"].cpu().numpy() + np.array([[shift, 0]]))
            shift += one["queries"]
        return np.concatenate(rows) if rows else np.zeros((0, 2), dtype=np.int64)

    @property
    def durations(self) -> np.ndarray:
        """(K,) float64 seconds within delta."""
        return np.concatenate([one["durations"].cpu().numpy() for one in self]) if self else np.zeros(0)

    @property
    def intervals(self) -> list[np.ndarray]:
        """K arrays (R_k, 2): start and end in seconds of the index's time."""
        return [part.cpu().numpy() for one in self for part in one["intervals"]]

    def to_dataframe(self) -> Any:
        """A row per interval: query, track, their names, seconds of the pair, start and end of the interval.

        Times are UTC where the index knows its epoch, else seconds.

        Raises:
            MissingExtra: if pandas is not installed.
        """
        pandas: Any = require("pandas", "sequence")
        sizes = [len(part) for part in self.intervals]
        flat = np.concatenate([*self.intervals, np.zeros((0, 2))])
        pairs = np.repeat(self.pairs, sizes, axis=0)
        names = [pair for one in self for pair in one["names"]]
        named = [names[k] for k in np.repeat(np.arange(len(names)), sizes)]
        when = flat if self.epoch is None else (flat + self.epoch) * 1e9
        times = [when[:, i] if self.epoch is None else pandas.to_datetime(when[:, i], utc=True) for i in (0, 1)]
        return pandas.DataFrame(
            {
                "query": pairs[:, 0],
                "track": pairs[:, 1],
                "query_name": [n[0] for n in named],
                "track_name": [n[1] for n in named],
                "seconds": np.repeat(self.durations, sizes),
                "start": times[0],
                "end": times[1],
            }
        )


def part_of(batch: dict[str, Any], which: slice) -> dict[str, Any]:
    return {key: value[which] for key, value in batch.items()}


def one_input(parts: Sequence[dict[str, Any]], own: bool = False) -> dict[str, Any]:
    """The queries of one input as one result; they are numbered from 0, or by their own numbers."""
    rows = {key: [v for part in parts for v in part[key]] for key in parts[0]}
    for number, pairs in enumerate(rows["pairs"]):
        if not own:
            pairs[:, 0] = number
    stats: dict[str, int] = {}
    for one in rows["stats"]:
        stats = {k: stats.get(k, 0) + v for k, v in one.items()}
    joined = {key: torch.cat(rows[key]) for key in ("pairs", "durations", "certain")}
    flat = {key: [v for part in rows[key] for v in part] for key in ("intervals", "names")}
    return {**joined, **flat, "stats": stats, "queries": len(rows["pairs"])}


def origin_of(items: Sequence[Any]) -> list[float] | None:
    """The plane of the first input that is a file or a table in degrees."""
    from datamodules._tracks_formats import from_columns
    from datamodules._tracks_table import Projection
    from datamodules.tracks import TracksDataModule

    for item in items:
        if isinstance(item, (str, Path)):
            return TracksDataModule(root=str(item)).facts()["origin"]
        if isinstance(item, dict) or hasattr(item, "columns"):
            table = dict(item) if isinstance(item, dict) else {str(c): item[c].to_numpy() for c in item.columns}
            tracks = from_columns(table, "tracks")
            return Projection.around(tracks).origin if tracks and tracks[0].geographic else None
    return None


def why_nothing(table: STSIndex, spans: Sequence[tuple[float, float]], delta: float, eps: float) -> str:
    """Why a join found no pair.

    Args:
        table: the index.
        spans: first and last time of each query.
        delta: of the join, metres.
        eps: of the join, seconds.
    """
    if not len(table):
        return "The index is empty: fit the module, or build an index with model.index(tracks)."
    if not len(table.times):
        return "The index has no motion: every step of its tracks is longer than gap."
    first, last = float(table.times[:, 0].min()), float(table.times[:, 1].max())
    common = max((min(last, b) - max(first, a) for a, b in spans), default=0.0)
    if common <= 0:
        return f"No query moves while the index does, from {first:.0f} s to {last:.0f} s of its time."
    if common < eps:
        return f"eps is {eps:g} s, longer than the longest time that a query shares with the index ({common:.0f} s)."
    return f"No pair is within {delta:g} m for {eps:g} s."
