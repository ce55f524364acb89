"""What users hand over as tracks: files and folders, tables, arrays; read, tidied and checked."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zoo import checks
from zoo.errors import BadData, BadInput
from zoo.inputs.tracks.files import detect, read_files
from zoo.inputs.tracks.plane import Projection
from zoo.inputs.tracks.sieve import POLICIES, Sieve
from zoo.inputs.tracks.table import Columns, Track, from_columns, tidy

__all__ = ["names_of", "origin_of", "pad_tracks", "plane_of", "read_tracks", "tracks_of"]

_log = logging.getLogger(__name__)

_FAR = 250_000.0  # metres north or south of the centre beyond which the plane distorts by more than 4 %


def read_tracks(
    root: Path,
    format: str | None = None,
    columns: Columns = None,
    pattern: str | None = None,
    limit: int | None = None,
    every: float | None = None,
    on_error: str = "raise",
) -> tuple[list[Track], dict[str, int]]:
    """All tracks of files, sorted by time, thinned if asked for, in one unit.

    Args:
        root: folder of track files, or one file.
        format: a key of `FORMATS`; recognised if None.
        columns: meaning -> column of a CSV file, where common names do not tell.
        pattern: wildcard of the files instead of the format's own.
        limit: read at most so many tracks.
        every: of each so many seconds keep the first point only; None keeps all.
        on_error: "raise" names broken rows and files, "skip" leaves them out.

    Returns:
        the tracks, and how often what was done: the keys of `COUNTED`.

    Raises:
        BadInput: for a missing folder, an unknown format, or no files.
        BadData: listing broken files; for no track that moves, or units that differ.
    """
    checks.one_of("on_error", on_error, POLICIES)
    kind = format or detect(root)
    if not root.exists():
        raise BadInput(f"{root}: there is no such folder. Give one with track files.")
    sieve = Sieve(on_error)
    cleaned = sieve.counts
    kept: list[Track] = []
    for track in read_files(root, kind, columns, pattern, limit, sieve):
        sorted_track, done = tidy(track)
        for key, count in done.items():
            cleaned[key] += count
        if sorted_track is not None and every:
            sorted_track = _thin(sorted_track, every)
        if sorted_track is not None:
            kept.append(sorted_track)
    if any(cleaned.values()):
        _log.info("%s: %s", root, ", ".join(f"{v} {k.replace('_', ' ')}" for k, v in cleaned.items()))
    if not kept:
        left = ", ".join(f"{count} {key.replace('_', ' ')}" for key, count in cleaned.items() if count)
        raise BadData(f"{root}: no track has two points{f' ({left})' if left else ''}. Give tracks that move.")
    for name, values in (("degrees", {t.geographic for t in kept}), ("dates", {t.dated for t in kept})):
        if len(values) > 1:
            odd = next(t for t in kept if (t.geographic if name == "degrees" else t.dated))
            raise BadData(f"{odd.where}: track {odd.name} is in {name}, others are not. Give all in one unit.")
    return kept, cleaned


def _thin(track: Track, every: float) -> Track | None:
    """The first point of each `every` seconds; None if fewer than two remain."""
    _, first = np.unique(track.times // every, return_index=True)
    if len(first) < 2:
        return None
    positions, times = track.positions[first], track.times[first]
    return Track(track.name, positions, times, track.geographic, track.dated, track.where)


def plane_of(tracks: Sequence[Track], origin: Sequence[float] | None, where: object) -> Projection | None:
    """The plane of tracks in degrees; None for tracks in metres. Warns if they reach too far for one plane.

    Args:
        tracks: at least one.
        origin: of the plane; the tracks' own centre and begin if None.
        where: for the warning.
    """
    if not tracks[0].geographic:
        return None
    given = Projection.of(origin)
    if given is not None:
        return given
    plane = Projection.around(tracks)
    far = max(float(np.abs(plane.metres(t.positions)[:, 1]).max()) for t in tracks)
    if far > _FAR:
        _log.warning(
            "%s: tracks reach %.0f km from the centre; distances there are wrong by several per cent. Join regions one "
            "by one, each with its own origin.",
            where,
            far / 1000,
        )
    return plane


def tracks_of(
    item: Any, name: str, *, columns: Columns = None, format: str | None = None, on_error: str = "raise"
) -> list[Track]:
    """The tracks of one input, as given.

    Args:
        item: array or tensor (L, 3) of x, y, t; a DataFrame or dict of columns; the path of a file or folder of tracks.
        name: of the input, for messages and for tracks without a name.
        columns: meaning -> column of a table or CSV file, where common names do not tell.
        format: of files, a key of `FORMATS`; recognised if None.
        on_error: "raise" names broken rows and files, "skip" leaves them out.

    Raises:
        BadInput: naming the input and what is wrong with it.
        BadData: listing broken files.
    """
    if isinstance(item, (str, Path)):
        tracks, _ = read_tracks(Path(item).expanduser(), format, columns, on_error=on_error)
        return [_renamed(track, label) for track, label in zip(tracks, names_of(tracks), strict=True)]
    if (hasattr(item, "columns") and hasattr(item, "to_dict")) or isinstance(item, dict):
        table = dict(item) if isinstance(item, dict) else {str(c): item[c].to_numpy() for c in item.columns}
        checks.one_of("on_error", on_error, POLICIES)
        tracks = from_columns(table, name, columns, Sieve(on_error))
        if not tracks:
            raise BadInput(f"{name}: the table has no rows. Give at least two positions.")
        return tracks if len(tracks) > 1 else [_renamed(track, name) for track in tracks]
    try:
        array = torch.as_tensor(item, dtype=torch.float64).detach().cpu().numpy()
    except (TypeError, ValueError, RuntimeError):
        raise BadInput(
            f"{name}: expected rows of x, y, t, a table with the columns t and x, y or lon, lat, or a file of "
            f"tracks; got {type(item).__name__}."
        ) from None
    if array.ndim != 2 or array.shape[1] != 3:
        raise BadInput(f"{name}: expected rows of x, y, t, the shape (points, 3), got {array.shape}.")
    return [Track(name, array[:, :2], array[:, 2], None, False)]


def _renamed(track: Track, name: str) -> Track:
    return Track(name, track.positions, track.times, track.geographic, track.dated, track.where)


def origin_of(inputs: Iterable[Sequence[Track]]) -> list[float] | None:
    """Origin of a plane around the first input that is a file or a table; None for metres and for plain arrays."""
    for tracks in inputs:
        if tracks and tracks[0].geographic is not None:
            plane = plane_of(tracks, None, tracks[0].where)
            return plane.origin if plane is not None else None
    return None


def names_of(tracks: Iterable[Track]) -> list[str]:
    """Names, made distinct."""
    seen: dict[str, int] = {}
    names = []
    for track in tracks:
        count = seen[track.name] = seen.get(track.name, 0) + 1
        names.append(track.name if count == 1 else f"{track.name} ({count})")
    return names


def pad_tracks(tracks: Sequence[np.ndarray | torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Tracks (L_i, 3) as one tensor: xyt (N, L, 3) float64, zeros behind each track's end, and length (N,) int64."""
    length = torch.tensor([len(t) for t in tracks], dtype=torch.int64)
    xyt = torch.zeros(len(tracks), int(length.max()) if len(tracks) else 0, 3, dtype=torch.float64)
    for row, track in zip(xyt, tracks, strict=True):
        row[: len(track)] = torch.as_tensor(track, dtype=torch.float64)
    return xyt, length
