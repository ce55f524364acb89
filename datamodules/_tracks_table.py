"""Tables of positions as tracks: which columns mean what, times, the projection, and what is wrong with the rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.errors import BadInput, nearest

__all__ = ["COLUMNS", "Projection", "Track", "find_columns", "is_geographic", "rows_problem", "seconds_of", "tidy"]

COLUMNS: dict[str, tuple[str, ...]] = {
    "id": ("id", "track_id", "trajectory_id", "traj_id", "trip_id", "user_id", "vehicle_id", "name"),
    "lon": ("lon", "longitude", "lng", "long"),
    "lat": ("lat", "latitude"),
    "x": ("x", "x_m", "easting"),
    "y": ("y", "y_m", "northing"),
    "t": ("t", "time", "timestamp", "datetime", "date_time", "seconds"),
}
"""Meaning of a column -> names by which it is recognised, in lower case."""

EARTH = 6_371_008.8  # mean radius, metres
_MILLISECONDS = 1e11  # seconds since 1970 of the year 5138; milliseconds of 1973


@dataclass(frozen=True)
class Track:
    """One track as read.

    Attributes:
        name: the source's own name.
        positions: (L, 2) float64: longitude and latitude in degrees, or x and y in metres.
        times: (L,) float64 seconds: since 1970 where positions are geographic or times are dates, else as given.
        geographic: whether positions are degrees.
        dated: whether times count from 1970.
        where: file, for messages.
    """

    name: str
    positions: np.ndarray
    times: np.ndarray
    geographic: bool
    dated: bool
    where: str = ""


@dataclass(frozen=True)
class Projection:
    """Metres in a plane around a point, and seconds since an epoch.

    The plane is equirectangular: x = R cos(lat0) (lon - lon0), y = R (lat - lat0). Distances of points next to each
    other are right to 1 % within about 60 km north and south of the centre at 45 degrees, to 4 % within 250 km.

    Attributes:
        lon0, lat0: degrees.
        epoch: seconds since 1970 that are time 0.
    """

    lon0: float
    lat0: float
    epoch: float

    @classmethod
    def around(cls, tracks: Sequence[Track]) -> Projection:
        """Centred on the mean position; the epoch is the first time, rounded down to a minute."""
        points = np.concatenate([t.positions for t in tracks])
        first = min(float(t.times.min()) for t in tracks)
        lon0, lat0 = points.mean(0)
        return cls(round(float(lon0), 6), round(float(lat0), 6), math.floor(first / 60) * 60.0)

    @classmethod
    def of(cls, origin: Sequence[float] | None) -> Projection | None:
        """From `[lon0, lat0, epoch]`; None stays None."""
        if origin is None:
            return None
        if len(origin) != 3 or not all(math.isfinite(v) for v in origin) or not -90 < origin[1] < 90:
            raise BadInput(f"origin: expected [longitude, latitude, seconds since 1970], got {list(origin)}.")
        return cls(*map(float, origin))

    @property
    def origin(self) -> list[float]:
        """`[lon0, lat0, epoch]`."""
        return [self.lon0, self.lat0, self.epoch]

    def metres(self, positions: np.ndarray) -> np.ndarray:
        """(L, 2) degrees as metres."""
        lon = (positions[:, 0] - self.lon0 + 180) % 360 - 180  # the short way round
        scale = math.cos(math.radians(self.lat0))
        return EARTH * np.radians(np.column_stack([scale * lon, positions[:, 1] - self.lat0]))

    def degrees(self, xy: np.ndarray) -> np.ndarray:
        """(L, 2) metres as degrees."""
        angles = np.degrees(np.asarray(xy, dtype=np.float64) / EARTH)
        return np.column_stack([self.lon0 + angles[:, 0] / math.cos(math.radians(self.lat0)), self.lat0 + angles[:, 1]])

    def place(self, track: Track) -> np.ndarray:
        """(L, 3) x, y, t of a geographic track."""
        return np.column_stack([self.metres(track.positions), track.times - self.epoch])


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
    found = {k: v[0] for k, v in usual.items() if v} | wanted
    degrees, metres = [k for k in ("lon", "lat") if k in found], [k for k in ("x", "y") if k in found]
    if degrees and metres and not (set(wanted) & {"lon", "lat", "x", "y"}):
        raise BadInput(
            f"{where}: both degrees ({', '.join(found[k] for k in degrees)}) and metres "
            f"({', '.join(found[k] for k in metres)}). Say which with columns."
        )
    keep = ("lon", "lat") if set(wanted) & {"lon", "lat"} or (degrees and not set(wanted) & {"x", "y"}) else ("x", "y")
    missing = [k for k in (*keep, "t") if k not in found]
    if missing:
        raise BadInput(
            f"{where}: no column for {', '.join(missing)}; found {', '.join(map(str, given)) or 'none'}. Expected time "
            "(t, time, timestamp) and lon and lat, or x and y; other names are given with columns."
        )
    return {k: str(found[k]) for k in ("id", *keep, "t") if k in found}


def is_geographic(columns: Mapping[str, str]) -> bool:
    """Whether the positions are degrees."""
    return "lon" in columns


def seconds_of(values: Sequence[Any] | np.ndarray, where: str) -> tuple[np.ndarray, bool]:
    """Times as seconds, and whether they count from 1970.

    Args:
        values: numbers (seconds), datetimes, or text in ISO 8601; with a zone, or all without (then UTC).
        where: for messages.

    Raises:
        BadInput: for times of which some have a zone and others not, milliseconds, or text that is no time.
    """
    array = np.asarray(values)
    if np.issubdtype(array.dtype, np.datetime64):
        return array.astype("datetime64[us]").astype(np.int64) / 1e6, True
    try:
        numbers = array.astype(np.float64)
    except (TypeError, ValueError):
        return _dates(list(values), where), True
    if len(numbers) and np.nanmax(np.abs(numbers)) > _MILLISECONDS:
        raise BadInput(f"{where}: time {np.nanmax(np.abs(numbers)):.0f} is far too large for seconds. Milliseconds?")
    return numbers, bool(len(numbers) and np.nanmin(numbers) > 1e8)


def _dates(values: Sequence[Any], where: str) -> np.ndarray:
    from datetime import datetime, timezone

    found, zones = [], set()
    for row, value in enumerate(values):
        try:
            text = value.isoformat() if hasattr(value, "isoformat") else str(value).strip()
            date = datetime.fromisoformat(text.replace("Z", "+00:00"))
        except ValueError:
            raise BadInput(f"{where}: row {row}: expected a time, got {str(value)[:40]!r}.") from None
        zones.add(date.tzinfo is not None)
        found.append(date.replace(tzinfo=date.tzinfo or timezone.utc).timestamp())
    if len(zones) > 1:
        raise BadInput(f"{where}: some times have a zone and others not. Give all of them with a zone, or none.")
    return np.array(found, dtype=np.float64)


def rows_problem(positions: np.ndarray, times: np.ndarray, geographic: bool) -> tuple[int, str, str] | None:
    """The first broken row: its number, what was expected, and what it holds; None if all are fine."""
    bad = ~(np.isfinite(positions).all(1) & np.isfinite(times))
    expected = "finite numbers"
    if not bad.any() and geographic:
        bad = (np.abs(positions[:, 1]) > 90) | (np.abs(positions[:, 0]) > 360)
        expected = "longitude and latitude in degrees"
    if not bad.any():
        return None
    row = int(np.flatnonzero(bad)[0])
    return row, expected, f"{positions[row].tolist()} at {times[row]}"


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
