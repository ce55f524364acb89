"""The plane: longitude and latitude as metres around a point, dates as seconds since an epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zoo.errors import BadInput
from zoo.inputs.tracks.table import Track

__all__ = ["Projection"]

EARTH = 6_371_008.8  # mean radius, metres


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
        if np.ptp(points[:, 0]) > 180:  # around the date line the mean is on the other side of the earth
            angles = np.radians(points[:, 0])
            lon0 = np.degrees(np.arctan2(np.sin(angles).mean(), np.cos(angles).mean()))
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
