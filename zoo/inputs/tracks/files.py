"""Readers of track files: CSV with named columns, GeoJSON, GeoLife, T-Drive, Porto, and JSON of aircraft positions."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from zoo.errors import BadData, BadInput, nearest
from zoo.inputs.tracks.table import Columns, Track, find_columns, from_columns

__all__ = ["FORMATS", "detect", "read_files"]


def _text(path: Path) -> str:
    raw = path.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        raw = gzip.decompress(raw)
    return raw.decode("utf-8-sig")


def _read_csv(path: Path, columns: Columns) -> list[Track]:
    rows = list(csv.reader(io.StringIO(_text(path))))
    if len(rows) < 2:
        raise BadInput(f"{path.name}: expected a header and at least one row, got {len(rows)} lines.")
    head = [name.strip() for name in rows[0]]
    uneven = [n for n, row in enumerate(rows[1:], 2) if len(row) != len(head)]
    if uneven:
        raise BadInput(f"{path.name}: line {uneven[0]}: expected {len(head)} fields, got {len(rows[uneven[0] - 1])}.")
    table = {name: [row[i] for row in rows[1:]] for i, name in enumerate(head)}
    tracks = from_columns(table, path.name, columns)
    if "id" in find_columns(head, columns, path.name):
        return tracks
    return [Track(path.stem, t.positions, t.times, t.geographic, t.dated, t.where) for t in tracks]


def _read_geojson(path: Path, columns: Columns) -> list[Track]:
    whole = json.loads(_text(path))
    features = whole.get("features", [whole] if whole.get("type") == "Feature" else None)
    if not isinstance(features, list):
        raise BadInput(f"{path.name}: expected a GeoJSON FeatureCollection of LineStrings, got {whole.get('type')!r}.")
    found = []
    for number, feature in enumerate(features):
        about, shape = feature.get("properties") or {}, feature.get("geometry") or {}
        name = str(feature.get("id", about.get("id", about.get("name", number))))
        where = f"{path.name}: feature {name}"
        if shape.get("type") != "LineString":
            raise BadInput(f"{where}: expected a LineString, got {shape.get('type')!r}.")
        points = shape.get("coordinates") or []
        times = next((about[k] for k in ("times", "coordTimes", "timestamps") if k in about), None)
        if times is None and points and all(len(p) >= 4 for p in points):
            times = [p[3] for p in points]
        if times is None or len(times) != len(points):
            raise BadInput(
                f"{where}: expected one time per point in properties.times (or coordTimes), got "
                f"{'none' if times is None else len(times)} for {len(points)} points."
            )
        table = {"lon": [p[0] for p in points], "lat": [p[1] for p in points], "t": times}
        found += [Track(name, t.positions, t.times, True, t.dated, path.name) for t in from_columns(table, where)]
    return found


def _read_geolife(path: Path, columns: Columns) -> list[Track]:
    """`Data/<user>/Trajectory/*.plt`: six lines of header, then lat, lon, 0, altitude, days, date, time (GMT)."""
    rows = [line.split(",") for line in _text(path).splitlines()[6:] if line.strip()]
    _widths(path, rows, 7, skipped=6)
    table = {"lat": [r[0] for r in rows], "lon": [r[1] for r in rows], "t": [f"{r[5]}T{r[6].strip()}" for r in rows]}
    user = path.parent.parent.name
    return [Track(f"{user}/{path.stem}", t.positions, t.times, True, True, path.name)
            for t in from_columns(table, path.name)]  # fmt: skip


def _read_tdrive(path: Path, columns: Columns) -> list[Track]:
    """`<id>.txt`: id, date and time, longitude, latitude."""
    rows = [line.split(",") for line in _text(path).splitlines() if line.strip()]
    _widths(path, rows, 4)
    table = {"id": [r[0] for r in rows], "t": [r[1].strip() for r in rows]}
    table |= {"lon": [r[2] for r in rows], "lat": [r[3] for r in rows]}
    return from_columns(table, path.name)


def _widths(path: Path, rows: Sequence[Sequence[str]], width: int, skipped: int = 0) -> None:
    if not rows:
        raise BadInput(f"{path.name}: expected lines of {width} fields, got none.")
    for number, row in enumerate(rows, skipped + 1):
        if len(row) != width:
            raise BadInput(f"{path.name}: line {number}: expected {width} fields, got {len(row)}.")


def _read_porto(path: Path, columns: Columns) -> list[Track]:
    """CSV with TRIP_ID, TIMESTAMP (seconds since 1970) and POLYLINE: [longitude, latitude] every 15 s."""
    found = []
    csv.field_size_limit(1 << 28)
    for number, row in enumerate(csv.DictReader(io.StringIO(_text(path))), 2):
        try:
            start, points = float(row["TIMESTAMP"]), json.loads(row["POLYLINE"])
        except (KeyError, TypeError, ValueError):
            raise BadInput(
                f"{path.name}: line {number}: expected the fields TRIP_ID, TIMESTAMP and POLYLINE, got "
                f"{ {k: str(v)[:20] for k, v in list(row.items())[:9]} }."
            ) from None
        if row.get("MISSING_DATA", "False").strip().lower() == "true" or len(points) < 2:
            continue  # the data set itself marks these as incomplete
        table = {"lon": [p[0] for p in points], "lat": [p[1] for p in points]}
        table["t"] = [start + 15.0 * i for i in range(len(points))]
        where = f"{path.name}: line {number}"
        found += [Track(row.get("TRIP_ID") or str(number), t.positions, t.times, True, True, path.name)
                  for t in from_columns(table, where)]  # fmt: skip
    return found


def _read_flights(path: Path, columns: Columns) -> list[Track]:
    """JSON records of aircraft positions: timestamp (ms), latitude, longitude, icao24, callsign; as `traffic` has."""
    rows = json.loads(_text(path))
    if not isinstance(rows, list) or not rows or not isinstance(rows[0], dict):
        raise BadInput(f"{path.name}: expected a list of records, got {type(rows).__name__}.")
    absent = [k for k in ("timestamp", "latitude", "longitude") if k not in rows[0]]
    if absent:
        raise BadInput(f"{path.name}: record 0: expected the field {absent[0]!r}, got {', '.join(rows[0])}.")
    rows = [r for r in rows if r.get("latitude") is not None and r.get("longitude") is not None]
    table = {"id": [f"{r.get('callsign')} {r.get('icao24')}" for r in rows], "t": [r["timestamp"] / 1e3 for r in rows]}
    table |= {"lon": [r["longitude"] for r in rows], "lat": [r["latitude"] for r in rows]}
    return from_columns(table, path.name)


Reader = Callable[[Path, Columns], list[Track]]

FORMATS: dict[str, tuple[tuple[str, ...], Reader]] = {
    "csv": (("*.csv", "*.csv.gz"), _read_csv),
    "geojson": (("*.geojson",), _read_geojson),
    "geolife": (("Data/*/Trajectory/*.plt", "*/Trajectory/*.plt", "*.plt"), _read_geolife),
    "tdrive": (("taxi_log_2008_by_id/*.txt", "*.txt"), _read_tdrive),
    "porto": (("train.csv", "porto*.csv"), _read_porto),
    "flights": (("*.json.gz", "*.json"), _read_flights),
}
"""Format -> where its files are below the root, and how one is read."""


def files_of(root: Path, kind: str, pattern: str | None = None) -> list[Path]:
    """Files of a format below a folder, in order; a file stands for itself."""
    if root.is_file():
        return [root]
    patterns = (pattern,) if pattern else FORMATS[kind][0]
    for one in patterns:
        if found := sorted(p for p in root.glob(one) if p.is_file()):
            return found
    return []


def detect(root: Path) -> str:
    """Which format a folder or file is in.

    Raises:
        BadInput: if there is none of them.
    """
    if not root.exists():
        raise BadInput(f"{root}: there is no such folder. Give one with track files.")
    for kind in ("geolife", "porto", "tdrive", "geojson", "flights", "csv"):
        patterns = FORMATS[kind][0]
        fits = any(root.match(p.rsplit("/", 1)[-1]) for p in patterns) if root.is_file() else files_of(root, kind)
        if fits and (kind != "porto" or _has_polylines(files_of(root, kind)[0])):
            return kind
    raise BadInput(
        f"{root}: no track files. Expected CSV (id, time, lon, lat or x, y), GeoJSON, or the layout of GeoLife, "
        "T-Drive, Porto or traffic's JSON."
    )


def _has_polylines(path: Path) -> bool:
    with path.open("rb") as file:
        return b"POLYLINE" in file.readline(4096)


def read_files(
    root: Path, kind: str, columns: Columns = None, pattern: str | None = None, limit: int | None = None
) -> list[Track]:
    """Read all tracks; every broken file is named.

    Args:
        root: folder, or one file.
        kind: a key of `FORMATS`.
        columns: meaning -> column, for CSV.
        pattern: wildcard of the files instead of the format's own.
        limit: stop after so many tracks.

    Raises:
        BadInput: for an unknown format or no files.
        BadData: listing all broken files.
    """
    if kind not in FORMATS:
        raise BadInput(f"format must be one of {', '.join(FORMATS)}, got {kind!r}.{nearest(kind, FORMATS)}")
    files = files_of(root, kind, pattern)
    if not files:
        raise BadInput(f"{root}: no files {pattern or ' or '.join(FORMATS[kind][0])} of the format {kind}.")
    problems: list[str] = []
    tracks: list[Track] = []
    for path in files:
        try:
            tracks += FORMATS[kind][1](path, columns)
        except BadInput as error:
            problems.append(str(error))
        except (ValueError, EOFError, OSError, AttributeError, TypeError, LookupError, csv.Error) as error:
            reason = str(error)[:80] or type(error).__name__
            problems.append(f"{path.name}: content: expected tracks in the format {kind}, got {reason}")
        if limit is not None and len(tracks) >= limit:
            break
    if problems:
        raise BadData.listing(root, problems)
    return tracks[:limit]
