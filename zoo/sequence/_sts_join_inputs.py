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

__all__ = ["JoinResults", "tracks_of"]


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
    if hasattr(item, "columns") and hasattr(item, "to_dict") or isinstance(item, dict):
        table = dict(item) if isinstance(item, dict) else {str(c): item[c].to_numpy() for c in item.columns}
        tracks = from_columns(table, name)
        plane = _plane(tracks, origin, name)
        found = [(t.name if len(tracks) > 1 else name, torch.from_numpy(plane(t))) for t in tracks]
    else:
        try:
            found = [(name, torch.as_tensor(item, dtype=torch.float64))]
        except (TypeError, ValueError, RuntimeError):
            raise BadInput(
                f"{name}: expected rows of x, y, t, a table with the columns t and x, y or lon, lat, or a file of tracks; "
                f"got {type(item).__name__}."
            ) from None
    for label, xyt in found:
        check_motion(xyt, label)
    return found


def _units(name: str, origin: Sequence[float] | None) -> str:
    ours, theirs = ("metres", "degrees") if origin is None else ("degrees", "metres")
    return (
        f"{name}: positions in {theirs}, but the index was made from positions in {ours}. Give {ours}, or build an index "
        "from your own tracks: model.index(tracks)."
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
            rows.append(one["pairs"].cpu().numpy() + [[shift, 0]])
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
