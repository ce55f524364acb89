"""Tracks in lines of text: CSV with named columns, GeoLife, T-Drive and Porto."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from zoo.errors import BadInput
from zoo.inputs import UnreadableError
from zoo.inputs.json_files import parse_json
from zoo.inputs.text_files import read_rows, read_text
from zoo.inputs.tracks.sieve import Sieve
from zoo.inputs.tracks.table import Columns, Track, find_columns, from_columns

__all__ = ["MOST", "read_csv", "read_geolife", "read_porto", "read_tdrive"]

MOST = 8 << 30
"""Bytes of a file of tracks: Porto's has two gigabytes."""

Rows = Sequence[tuple[int, Sequence[str]]]


def _even(path: Path, rows: Rows, width: int, sieve: Sieve) -> list[Sequence[str]]:
    """Cells of the rows that have as many as they should."""
    kept = []
    for number, row in rows:
        if len(row) == width:
            kept.append(row)
        else:
            sieve.rows(f"{path.name}: line {number}", f"{width} fields", str(len(row)))
    return kept


def _lines(path: Path, skipped: int = 0) -> Rows:
    """Lines that are not empty, as (number, cells)."""
    lines = read_text(path, MOST).splitlines()[skipped:]
    return [(number, line.split(",")) for number, line in enumerate(lines, skipped + 1) if line.strip()]


def read_csv(path: Path, columns: Columns, sieve: Sieve) -> list[Track]:
    """A header and rows; commas, semicolons or tabs part them, as the header says."""
    rows = read_rows(path, MOST)
    if not rows:
        return []
    head = [name.strip() for name in rows[0][1]]
    used = find_columns(head, columns, path.name)
    if len(rows) < 2:
        raise BadInput(f"{path.name}: expected a header and at least one row, got {len(rows)} lines.")
    even = _even(path, rows[1:], len(head), sieve)
    if not even:
        return []
    table = {name: [row[i] for row in even] for i, name in enumerate(head)}
    tracks = from_columns(table, path.name, columns, sieve)
    if "id" in used:
        return tracks
    return [Track(path.stem, t.positions, t.times, t.geographic, t.dated, t.where) for t in tracks]


def read_geolife(path: Path, columns: Columns, sieve: Sieve) -> list[Track]:
    """`Data/<user>/Trajectory/*.plt`: six lines of header, then lat, lon, 0, altitude, days, date, time (GMT)."""
    rows = _even(path, _lines(path, skipped=6), 7, sieve)
    if not rows:
        return []
    table = {"lat": [r[0] for r in rows], "lon": [r[1] for r in rows], "t": [f"{r[5]}T{r[6].strip()}" for r in rows]}
    name = f"{path.parent.parent.name}/{path.stem}"
    tracks = from_columns(table, path.name, None, sieve)
    return [Track(name, t.positions, t.times, True, True, path.name) for t in tracks]


def read_tdrive(path: Path, columns: Columns, sieve: Sieve) -> list[Track]:
    """`<id>.txt`: id, date and time, longitude, latitude."""
    rows = _even(path, _lines(path), 4, sieve)
    if not rows:
        return []
    table = {"id": [r[0] for r in rows], "t": [r[1].strip() for r in rows]}
    table |= {"lon": [r[2] for r in rows], "lat": [r[3] for r in rows]}
    return from_columns(table, path.name, None, sieve)


def read_porto(path: Path, columns: Columns, sieve: Sieve) -> list[Track]:
    """CSV with TRIP_ID, TIMESTAMP (seconds since 1970) and POLYLINE: [longitude, latitude] every 15 s."""
    tracks: list[Track] = []
    rows = read_rows(path, MOST)
    head = [name.strip() for name in rows[0][1]] if rows else []
    for number, cells in rows[1:]:
        row, where = dict(zip(head, cells, strict=False)), f"{path.name}: line {number}"
        try:
            start, points = float(row["TIMESTAMP"]), parse_json(row["POLYLINE"])
            pairs = [(point[0], point[1]) for point in points]
        except (LookupError, TypeError, ValueError, UnreadableError):
            shown = f"{ {k: v[:20] for k, v in list(row.items())[:9]} }"
            sieve.rows(where, "the fields TRIP_ID, TIMESTAMP and POLYLINE", shown)
            continue
        if row.get("MISSING_DATA", "False").strip().lower() == "true" or len(pairs) < 2:
            continue  # the data set itself marks these as incomplete
        table = {"lon": [p[0] for p in pairs], "lat": [p[1] for p in pairs]}
        table["t"] = [start + 15.0 * i for i in range(len(pairs))]
        name = row.get("TRIP_ID") or str(number)
        parts = from_columns(table, where, None, sieve)
        tracks += [Track(name, t.positions, t.times, True, True, path.name) for t in parts]
    return tracks
