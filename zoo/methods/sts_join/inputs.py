"""User inputs in the plane of the index, and what a join gives back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.errors import BadInput, require
from zoo.inputs.tracks import Projection, Track
from zoo.methods.sts_join.distance import check_motion
from zoo.methods.sts_join.index import STSIndex

__all__ = ["JoinResults", "in_plane", "one_input", "part_of", "why_no_pair", "why_nothing"]


def in_plane(tracks: Sequence[Track], origin: Sequence[float] | None, name: str) -> list[tuple[str, Tensor]]:
    """Tracks as name and (L, 3) float64 in the index's plane.

    Args:
        tracks: of one input; see `zoo.inputs.tracks.tracks_of`.
        origin: of the index's plane; None for metres.
        name: of the input, for messages.

    Raises:
        BadInput: naming the input, if its unit is not the index's, or the track that is no motion.
    """
    plane = Projection.of(origin)
    named = []
    for track in tracks:
        if track.geographic is not None and track.geographic != (plane is not None):
            raise BadInput(_units(name, origin))
        if plane is None or track.geographic is None:
            xyt = torch.from_numpy(np.column_stack([track.positions, track.times]))
        else:
            xyt = torch.from_numpy(plane.place(track))
        check_motion(xyt, track.name)
        named.append((track.name, xyt))
    return named


def _units(name: str, origin: Sequence[float] | None) -> str:
    ours, theirs = ("metres", "degrees") if origin is None else ("degrees", "metres")
    return (
        f"{name}: positions in {theirs}, but the index was made from positions in {ours}. Give {ours}, or build an "
        "index from your own tracks: model.index(tracks)."
    )


class JoinResults(list[dict[str, Any]]):
    """One dict per input, and all of them together as arrays or a table.

    Attributes:
        note: why there are no pairs, where there are none.
    """

    note: str = ""

    def __init__(self, tracks: Sequence[dict[str, Any]] = (), epoch: float | None = None) -> None:
        super().__init__(tracks)
        self.epoch = epoch

    def __repr__(self) -> str:
        note = f"; {self.note}" if self.note else ""
        return f"<JoinResults: {len(self)} inputs, {len(self.pairs)} pairs; to_dataframe() lists them{note}>"

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
    """Rows of a batch."""
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


def why_nothing(table: STSIndex, spans: Sequence[tuple[float, float]], delta: float, eps: float, gap: float) -> str:
    """Why queries have no partner in an index.

    Args:
        table: the index.
        spans: first and last time of each query that moves.
        delta: of the join, metres.
        eps: of the join, seconds.
        gap: of the join, seconds.
    """
    if why := _why_no_motion(table, gap):
        return why
    if not spans:
        return f"No query moves: every step is longer than gap ({gap:g} s)."
    first, last = float(table.times[:, 0].min()), float(table.times[:, 1].max())
    common = max((min(last, b) - max(first, a) for a, b in spans), default=0.0)
    if common <= 0:
        return f"No query moves while the index does, from {first:.0f} s to {last:.0f} s of its time."
    if common < eps:
        return f"eps is {eps:g} s, longer than the longest time that a query shares with the index ({common:.0f} s)."
    return f"No pair is within {delta:g} m for {eps:g} s."


def why_no_pair(table: STSIndex, delta: float, eps: float, gap: float) -> str:
    """Why no two tracks of an index are a pair; arguments as in `why_nothing`."""
    if why := _why_no_motion(table, gap):
        return why
    if len(table) < 2:
        return "The index holds one track only."
    begin = table.times.new_full((len(table),), float("inf"))
    end = -begin
    begin = begin.scatter_reduce(0, table.pieces[:, 3], table.times[:, 0], "amin")
    end = end.scatter_reduce(0, table.pieces[:, 3], table.times[:, 1], "amax")
    begin, order = begin.sort()
    latest = end[order].cummax(0).values[:-1]
    common = float((torch.minimum(latest, end[order][1:]) - begin[1:]).max())
    if common <= 0:
        return "No two tracks of the index move at the same time."
    if common < eps:
        return f"eps is {eps:g} s, longer than the longest time that two tracks share ({common:.0f} s)."
    return f"No pair is within {delta:g} m for {eps:g} s."


def _why_no_motion(table: STSIndex, gap: float) -> str:
    if not len(table):
        return "The index is empty: fit the module, or build an index with model.index(tracks)."
    if not len(table.times):
        return f"The index has no motion: every step of its tracks is longer than gap ({gap:g} s)."
    return ""
