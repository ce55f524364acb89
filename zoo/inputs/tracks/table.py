"""Tables of positions as tracks: which columns mean what, times, and what is wrong with the rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.errors import BadInput, nearest
from zoo.inputs.tracks.sieve import Sieve

__all__ = ["COLUMNS", "Columns", "Track", "find_columns", "from_columns", "seconds_of", "tidy"]

Columns = Mapping[str, str] | None
"""Meaning of a column (id, lon, lat, x, y, t) -> its name."""

COLUMNS: dict[str, tuple[str, ...]] = {
    "id": ("id", "track_id", "trajectory_id", "traj_id", "trip_id", "user_id", "vehicle_id", "name"),
    "lon": ("lon", "longitude", "lng", "long"),
    "lat": ("lat", "latitude"),
    "x": ("x", "x_m", "easting"),
    "y": ("y", "y_m", "northing"),
    "t": ("t", "time", "timestamp", "datetime", "date_time", "seconds"),
}
"""Meaning of a column -> names by which it is recognised, in lower case."""

_ISO = "a time as in 2024-05-01T10:00:00Z"
_MILLISECONDS = 1e11  # seconds since 1970 of the year 5138; milliseconds of 1973


@dataclass(frozen=True)
class Track:
    """One track as read.

    Attributes:
        name: the source's own name.
        positions: (L, 2) float64: longitude and latitude in degrees, or x and y in metres.
        times: (L,) float64 seconds: since 1970 where positions are geographic or times are dates, else as given.
        geographic: whether positions are degrees; None for plain numbers, which are metres of the plane at hand.
        dated: whether times count from 1970.
        where: file, for messages.
    """

    name: str
    positions: np.ndarray
    times: np.ndarray
    geographic: bool | None
    dated: bool
    where: str = ""


def find_columns(given: Sequence[str], wanted: Mapping[str, str] | None, where: str) -> dict[str, str]:
    """Which column holds what.

    Args:
        given: names of the columns.
        wanted: meaning -> name, as the user says; the rest is recognised by common names.
        where: for messages.

    Returns:
        meaning -> name, for time and either lon and lat or x and y, and for id where there is one.

    Raises:
        BadInput: for unknown names, a missing column, or degrees next to metres.
    """
    wanted = dict(wanted or {})
    for key, name in wanted.items():
        if key not in COLUMNS:
            raise BadInput(f"columns: {key!r} is no meaning of a column.{nearest(key, COLUMNS)} Known: {list(COLUMNS)}")
        if name not in given:
            raise BadInput(f"{where}: there is no column {name!r}.{nearest(name, given)} Columns: {', '.join(given)}")
    lower = {str(name).strip().lower(): name for name in reversed(given)}
    usual = {k: [lower[n] for n in names if n in lower] for k, names in COLUMNS.items()}
    columns_by_key = {k: v[0] for k, v in usual.items() if v} | wanted
    degrees, metres = [k for k in ("lon", "lat") if k in columns_by_key], [k for k in ("x", "y") if k in columns_by_key]
    if degrees and metres and not (set(wanted) & {"lon", "lat", "x", "y"}):
        raise BadInput(
            f"{where}: both degrees ({', '.join(columns_by_key[k] for k in degrees)}) and metres "
            f"({', '.join(columns_by_key[k] for k in metres)}). Say which with columns."
        )
    keep = ("lon", "lat") if set(wanted) & {"lon", "lat"} or (degrees and not set(wanted) & {"x", "y"}) else ("x", "y")
    missing = [k for k in (*keep, "t") if k not in columns_by_key]
    if missing:
        raise BadInput(
            f"{where}: no column for {', '.join(missing)}; got {', '.join(map(str, given)) or 'none'}. Expected time "
            "(t, time, timestamp) and lon and lat, or x and y; other names are given with columns, as in "
            "{t: when, lon: x_deg, lat: y_deg}."
        )
    return {k: str(columns_by_key[k]) for k in ("id", *keep, "t") if k in columns_by_key}


def is_geographic(columns: Mapping[str, str]) -> bool:
    """Whether the positions are degrees."""
    return "lon" in columns


def seconds_of(values: Sequence[Any] | np.ndarray, where: str, sieve: Sieve | None = None) -> tuple[np.ndarray, bool]:
    """Times as seconds, and whether they count from 1970.

    Args:
        values: numbers (seconds), time differences, datetimes, or text in ISO 8601; with a zone, or all without (then
            UTC). Missing ones become NaN.
        where: for messages.
        sieve: lets single values pass that are no times, as NaN, if it skips.

    Raises:
        BadInput: for times of which some have a zone and others not, milliseconds, or text that is no time.
    """
    array = np.asarray(values)
    skip = sieve is not None and sieve.skip
    if np.issubdtype(array.dtype, np.datetime64):
        seconds = array.astype("datetime64[us]").astype(np.int64) / 1e6
        seconds[np.isnat(array)] = np.nan
        return seconds, True
    if np.issubdtype(array.dtype, np.timedelta64):
        return array / np.timedelta64(1, "s"), False
    if array.dtype == object and len(array) and all(hasattr(value, "total_seconds") for value in array):
        return np.array([value.total_seconds() for value in array], dtype=np.float64), False
    try:
        numbers = array.astype(np.float64)
    except (TypeError, ValueError, OverflowError):
        numbers = _some_numbers(array) if skip else np.full(array.shape, np.nan)
        if 2 * np.isfinite(numbers).sum() <= len(numbers):
            return _dates(list(values), where, skip), True
    known = numbers[np.isfinite(numbers)]
    if len(known) and np.abs(known).max() > _MILLISECONDS:
        if not skip or np.median(np.abs(known)) > _MILLISECONDS:
            raise BadInput(f"{where}: time {np.abs(known).max():.0f} is far too large for seconds. Milliseconds?")
        numbers = np.where(np.abs(numbers) > _MILLISECONDS, np.nan, numbers)
        known = numbers[np.isfinite(numbers)]
    begin = (np.median(known) if skip else known.min()) if len(known) else 0.0
    return numbers, bool(begin > 1e8)


def _some_numbers(values: np.ndarray) -> np.ndarray:
    """Values as numbers, NaN for what is none."""
    return np.array([_number(value) for value in values.tolist()], dtype=np.float64)


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return float("nan")


def _dates(values: Sequence[Any], where: str, skip: bool) -> np.ndarray:
    from datetime import datetime, timezone

    seconds, zones = [], set()
    for row, value in enumerate(values):
        try:
            text = value.isoformat() if hasattr(value, "isoformat") else str(value).strip()
            date = datetime.fromisoformat(text.replace("Z", "+00:00"))
            seconds.append(date.replace(tzinfo=date.tzinfo or timezone.utc).timestamp())
        except (ValueError, OverflowError):
            if not skip:
                raise BadInput(f"{where}: row {row}: expected {_ISO}, got {_shown_time(value)}.") from None
            seconds.append(float("nan"))
            continue
        zones.add(date.tzinfo is not None)
    if len(zones) > 1:
        raise BadInput(f"{where}: some times have a zone and others not. Give all of them with a zone, or none.")
    return np.array(seconds, dtype=np.float64)


def _shown_time(value: Any) -> str:
    """What was given as a time, and what may be the matter with it."""
    shown = f"{str(value)[:40]!r}"
    local = re.match(r"\s*(\d{1,2})([./-])(\d{1,2})\2(\d{4})(.*)", str(value)[:40])
    if local is None:
        return shown
    day, _, month, year, rest = local.groups()
    if local[2] != ".":
        return f"{shown}, a date with the year at the end, of which day and month would be a guess"
    return f"{shown}, a date with the day first: write {year}-{int(month):02}-{int(day):02}{rest}"


def rows_problem(positions: np.ndarray, times: np.ndarray, geographic: bool) -> tuple[np.ndarray, str, str] | None:
    """The broken rows as a mask, what was expected of the first, and what it holds; None if all are fine."""
    bad = ~(np.isfinite(positions).all(1) & np.isfinite(times))
    expected = "finite numbers"
    if geographic and not bad.any():
        bad = (np.abs(positions[:, 1]) > 90) | (np.abs(positions[:, 0]) > 360)
        expected = "longitude and latitude in degrees"
    if not bad.any():
        return None
    row = int(np.flatnonzero(bad)[0])
    return bad, expected, f"{positions[row].tolist()} at {times[row]}"


def from_columns(
    table: Mapping[str, Sequence[Any]], where: str, columns: Columns = None, sieve: Sieve | None = None
) -> list[Track]:
    """Tracks of a table, in the order in which their ids first appear.

    Args:
        table: column -> values.
        where: for messages.
        columns: meaning -> column, where common names do not tell.
        sieve: what becomes of broken rows; they are named if None.

    Raises:
        BadInput: for missing columns, rows that are no positions, or times that do not fit together.
    """
    sieve = sieve or Sieve()
    used = find_columns(list(table), columns, where)
    geographic = is_geographic(used)
    pair = ("lon", "lat") if geographic else ("x", "y")
    try:
        positions = np.column_stack([np.asarray(table[used[k]], dtype=np.float64) for k in pair])
    except (TypeError, ValueError, OverflowError):
        positions = np.column_stack([_numbers(table[used[k]], used[k], where, sieve.skip) for k in pair])
    times, dated = seconds_of(table[used["t"]], where, sieve)
    if len(times) != len(positions):
        raise BadInput(f"{where}: {len(positions)} positions and {len(times)} times.")
    names = np.asarray(table[used["id"]]).astype(str) if "id" in used else np.full(len(times), "0")
    while broken := rows_problem(positions, times, geographic):
        bad, expected, got = broken
        sieve.rows(f"{where}: row {int(np.flatnonzero(bad)[0])}", expected, got, int(bad.sum()))
        positions, times, names = positions[~bad], times[~bad], names[~bad]
    first: dict[str, int] = {}
    number = np.array([first.setdefault(n, len(first)) for n in names.tolist()], dtype=np.int64)
    order = np.argsort(number, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(number, minlength=len(first)))[:-1]) if len(first) else []
    return [
        Track(name, positions[rows], times[rows], geographic, dated, where)
        for name, rows in zip(first, parts, strict=True)
    ]


def _numbers(values: Sequence[Any], name: str, where: str, skip: bool) -> np.ndarray:
    numbers = np.array([_number(value) for value in values], dtype=np.float64)
    if not skip:
        for row, (value, number) in enumerate(zip(values, numbers.tolist(), strict=True)):
            if number != number and str(value).strip().lower() not in ("nan", "+nan", "-nan"):
                comma = re.fullmatch(r"\s*[-+]?\d+,\d+\s*", str(value))
                hint = f" (a decimal comma: write {str(value).strip().replace(',', '.')})" if comma else ""
                raise BadInput(
                    f"{where}: row {row}: {name}: expected a number, got {str(value)[:40]!r}{hint}."
                ) from None
    return numbers


def tidy(track: Track) -> tuple[Track | None, dict[str, int]]:
    """Sort by time and keep the first row of each time; None for a track of fewer than two points.

    Returns:
        the track, and what was done: `unsorted`, `duplicates`, `too_short`, each a count.
    """
    done = {"unsorted": 0, "duplicates": 0, "too_short": 0}
    order = np.argsort(track.times, kind="stable")
    done["unsorted"] = int((np.diff(track.times) < 0).any())
    times = track.times[order]
    first = np.ones(len(times), dtype=bool)
    first[1:] = np.diff(times) > 0
    done["duplicates"] = int((~first).sum())
    order = order[first]
    if len(order) < 2:
        return None, done | {"too_short": 1}
    fresh = Track(track.name, track.positions[order], track.times[order], track.geographic, track.dated, track.where)
    return fresh, done
