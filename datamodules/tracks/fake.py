"""Miniatures of the layouts of track files, for tests and to look at."""

from __future__ import annotations

import gzip
import json
import sqlite3
import struct
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from datamodules.worlds.commuters import CityConfig, traveller
from zoo.inputs.tracks import Projection

__all__ = ["write_fake"]

_PLACE = Projection(4.9, 52.37, 1_600_000_000.0)  # degrees and dates, for the layouts that have no metres


def write_fake(folder: Path, kind: str, tracks: int) -> Path:
    """Write travellers of the simulator in one of the formats of `datamodules.tracks`."""
    folder.mkdir(parents=True, exist_ok=True)
    city = CityConfig(seed=5, blocks=6, hours=0.8, leaders=max(1, tracks // 3), together=1.0)
    made = [traveller(city, "train", i) for i in range(tracks)]
    named = [(t.name, np.column_stack([t.xyt[:, :2].round(2), t.xyt[:, 2].round(1)])) for t in made]
    {
        "csv": _csv,
        "geojson": _geojson,
        "geolife": _geolife,
        "tdrive": _tdrive,
        "porto": _porto,
        "flights": _flights,
        "gpx": _gpx,
        "kml": _kml,
        "gpkg": _gpkg,
    }[kind](folder, named)
    return folder


Named = Sequence[tuple[str, np.ndarray]]


def _degrees(xyt: np.ndarray) -> list[tuple[float, float, float]]:
    place = _PLACE.degrees(xyt[:, :2])
    return [(round(lon, 7), round(lat, 7), _PLACE.epoch + t) for (lon, lat), t in zip(place.tolist(), xyt[:, 2])]  # noqa: B905


def _date(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)


def _csv(folder: Path, tracks: Named) -> None:
    lines = ["id,x,y,t"]
    lines += [f"{name},{x:.2f},{y:.2f},{t:.1f}" for name, xyt in tracks for x, y, t in xyt.tolist()]
    (folder / "tracks.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _geojson(folder: Path, tracks: Named) -> None:
    features = []
    for name, xyt in tracks:
        points = _degrees(xyt)
        shape = {"type": "LineString", "coordinates": [[lon, lat] for lon, lat, _ in points]}
        times = [_date(t).isoformat() for _, _, t in points]
        features.append({"type": "Feature", "id": name, "properties": {"times": times}, "geometry": shape})
    text = json.dumps({"type": "FeatureCollection", "features": features})
    (folder / "tracks.geojson").write_text(text, encoding="utf-8")


def _geolife(folder: Path, tracks: Named) -> None:
    for number, (_, xyt) in enumerate(tracks):
        place = folder / "Data" / f"{number % 3:03d}" / "Trajectory"
        place.mkdir(parents=True, exist_ok=True)
        lines = ["Geolife trajectory", "WGS 84", "Altitude is in Feet", "Reserved 3", "0,2,255,My Track,0,0,2,8421376"]
        lines.append("0")
        for lon, lat, t in _degrees(xyt):
            days = t / 86400 + 25569  # days since 1899-12-30
            lines.append(f"{lat:.6f},{lon:.6f},0,100,{days:.10f},{_date(t):%Y-%m-%d,%H:%M:%S}")
        (place / f"{number:014d}.plt").write_text("\r\n".join(lines) + "\r\n", encoding="utf-8")


def _tdrive(folder: Path, tracks: Named) -> None:
    place = folder / "taxi_log_2008_by_id"
    place.mkdir(exist_ok=True)
    for number, (_, xyt) in enumerate(tracks, 1):
        rows = [f"{number},{_date(t):%Y-%m-%d %H:%M:%S},{lon:.5f},{lat:.5f}" for lon, lat, t in _degrees(xyt)]
        (place / f"{number}.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")


def _porto(folder: Path, tracks: Named) -> None:
    lines = ['"TRIP_ID","CALL_TYPE","TAXI_ID","TIMESTAMP","MISSING_DATA","POLYLINE"']
    for number, (_, xyt) in enumerate(tracks):
        times = np.arange(xyt[0, 2], xyt[-1, 2], 15.0)
        even = np.column_stack([*(np.interp(times, xyt[:, 2], xyt[:, i]) for i in (0, 1)), times])
        points = json.dumps([[lon, lat] for lon, lat, _ in _degrees(even)])
        lines.append(f'"{number}","B","{number % 4}","{int(_PLACE.epoch + xyt[0, 2])}","False","{points}"')
    (folder / "train.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _flights(folder: Path, tracks: Named) -> None:
    rows = []
    for number, (_, xyt) in enumerate(tracks):
        about = {"icao24": f"{number:06x}", "callsign": f"FAKE{number}", "altitude": 30000.0}
        rows += [
            {"timestamp": round(t * 1000), "latitude": lat, "longitude": lon, **about} for lon, lat, t in _degrees(xyt)
        ]
    packed = gzip.compress(json.dumps(rows).encode(), mtime=0)
    (folder / "quickstart.json.gz").write_bytes(packed)


def _gpx(folder: Path, tracks: Named) -> None:
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', '<gpx version="1.1" xmlns="http://www.topografix.com/GPX/1/1">']
    for name, xyt in tracks:
        lines.append(f"<trk><name>{name}</name><trkseg>")
        points = _degrees(xyt)
        lines += [
            f'<trkpt lat="{lat}" lon="{lon}"><time>{_date(t).isoformat()}</time></trkpt>' for lon, lat, t in points
        ]
        lines.append("</trkseg></trk>")
    (folder / "tracks.gpx").write_text("\n".join([*lines, "</gpx>"]) + "\n", encoding="utf-8")


def _kml(folder: Path, tracks: Named) -> None:
    spaces = 'xmlns="http://www.opengis.net/kml/2.2" xmlns:gx="http://www.google.com/kml/ext/2.2"'
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', f"<kml {spaces}><Document>"]
    for name, xyt in tracks:
        lines.append(f"<Placemark><name>{name}</name><gx:Track>")
        points = _degrees(xyt)
        lines += [f"<when>{_date(t).isoformat()}</when>" for _, _, t in points]
        lines += [f"<gx:coord>{lon} {lat} 0</gx:coord>" for lon, lat, _ in points]
        lines.append("</gx:Track></Placemark>")
    (folder / "tracks.kml").write_text("\n".join([*lines, "</Document></kml>"]) + "\n", encoding="utf-8")


_TABLES = """
PRAGMA application_id = 1196444487;
PRAGMA user_version = 10300;
CREATE TABLE gpkg_spatial_ref_sys (srs_name TEXT NOT NULL, srs_id INTEGER PRIMARY KEY, organization TEXT NOT NULL,
    organization_coordsys_id INTEGER NOT NULL, definition TEXT NOT NULL, description TEXT);
CREATE TABLE gpkg_contents (table_name TEXT PRIMARY KEY, data_type TEXT NOT NULL, identifier TEXT UNIQUE,
    description TEXT DEFAULT '', last_change DATETIME NOT NULL DEFAULT '2020-09-13T12:26:40.000Z', min_x DOUBLE,
    min_y DOUBLE, max_x DOUBLE, max_y DOUBLE, srs_id INTEGER);
CREATE TABLE gpkg_geometry_columns (table_name TEXT NOT NULL, column_name TEXT NOT NULL,
    geometry_type_name TEXT NOT NULL, srs_id INTEGER NOT NULL, z TINYINT NOT NULL, m TINYINT NOT NULL,
    PRIMARY KEY (table_name, column_name));
INSERT INTO gpkg_spatial_ref_sys VALUES ('WGS 84', 4326, 'EPSG', 4326, 'GEOGCS["WGS 84",DATUM["WGS_1984",
SPHEROID["WGS 84",6378137,298.257223563]],PRIMEM["Greenwich",0],UNIT["degree",0.0174532925199433]]', NULL);
INSERT INTO gpkg_contents (table_name, data_type, identifier, srs_id) VALUES ('points', 'features', 'points', 4326);
INSERT INTO gpkg_geometry_columns VALUES ('points', 'geom', 'POINT', 4326, 0, 0);
CREATE TABLE points (fid INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, geom POINT, id TEXT, time DATETIME);
"""


def _gpkg(folder: Path, tracks: Named) -> None:
    head = b"GP\0\1" + struct.pack("<i", 4326) + struct.pack("<BI", 1, 1)  # little-endian, a point
    rows = [
        (head + struct.pack("<dd", lon, lat), name, f"{_date(t):%Y-%m-%dT%H:%M:%S}.{_date(t).microsecond // 1000:03d}Z")
        for name, xyt in tracks
        for lon, lat, t in _degrees(xyt)
    ]
    (folder / "tracks.gpkg").unlink(missing_ok=True)
    base = sqlite3.connect(folder / "tracks.gpkg")
    try:
        base.executescript(_TABLES)
        base.executemany("INSERT INTO points (geom, id, time) VALUES (?, ?, ?)", rows)
        base.commit()
    finally:
        base.close()
