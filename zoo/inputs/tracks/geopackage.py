"""Tracks in GeoPackages: layers of points with a time each, read by pyogrio."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo.errors import BadInput, require
from zoo.inputs.text_files import read_head
from zoo.inputs.tracks.sieve import Sieve
from zoo.inputs.tracks.table import Columns, Track, find_columns, from_columns

__all__ = ["read_geopackage"]

_DEGREES = ("EPSG:4326", "OGC:CRS84", "EPSG:4979")
_MAGIC = b"SQLite format 3\0"


def read_geopackage(path: Path, columns: Columns, sieve: Sieve) -> list[Track]:
    """All layers of points, in longitude and latitude; a layer without an `id` is one track of its name.

    Raises:
        MissingExtra: if pyogrio is not installed.
        BadInput: if it is no GeoPackage, has no points, or other coordinates.
    """
    # the library opens whatever the content is, such as a list of places elsewhere to read from
    if not read_head(path, len(_MAGIC)).startswith(_MAGIC):
        raise BadInput(f"{path.name}: expected a GeoPackage, got a file that is no SQLite database.")
    library: Any = require("pyogrio", "tracks")
    layers = [(str(name), str(kind)) for name, kind in library.list_layers(path)]
    points = [name for name, kind in layers if "Point" in kind and "Multi" not in kind]
    if not points:
        got = ", ".join(f"{name} ({kind})" for name, kind in layers)[:200] or "none"
        raise BadInput(f"{path.name}: expected a layer of points with a time each, got {got}.")
    tracks: list[Track] = []
    for layer in points:
        where = f"{path.name}: {layer}" if len(points) > 1 else path.name
        about, _, shapes, values = library.raw.read(path, layer=layer, datetime_as_string=True)
        if about["crs"] not in _DEGREES:
            raise BadInput(
                f"{where}: expected longitude and latitude (EPSG:4326), got {str(about['crs'])[:80]}. Convert it: "
                f"ogr2ogr -t_srs EPSG:4326 new.gpkg {path.name}"
            )
        table: dict[str, Sequence[Any]] = dict(zip(map(str, about["fields"]), values, strict=True))
        for word in ("lon", "lat"):  # the shapes say it
            table.pop(word, None)
        known, placed = _placed(shapes, where, sieve)
        table = {key: [column[i] for i in known] for key, column in table.items()}
        table |= {"lon": [x for x, _ in placed], "lat": [y for _, y in placed]}
        parts = from_columns(table, where, columns, sieve)
        if "id" not in find_columns(list(table), columns, where):
            parts = [Track(layer, t.positions, t.times, True, t.dated, t.where) for t in parts]
        tracks += parts
    return tracks


def _placed(shapes: Sequence[bytes | None], where: str, sieve: Sieve) -> tuple[list[int], list[tuple[float, float]]]:
    """Which rows have a place, and these, from points in well-known binary."""
    known: list[int] = []
    placed: list[tuple[float, float]] = []
    for number, shape in enumerate(shapes):
        if shape is None or len(shape) < 21:
            sieve.rows(f"{where}: row {number}", "a point", "no shape")
            continue
        order = "<" if shape[0] else ">"
        x, y = struct.unpack_from(f"{order}dd", shape, 5)
        known.append(number)
        placed.append((x, y))
    return known, placed
