"""Tracks in nested files: GeoJSON, JSON of aircraft positions, GPX and KML."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from zoo.errors import BadInput
from zoo.inputs.json_files import read_json
from zoo.inputs.tracks.sieve import Sieve
from zoo.inputs.tracks.table import Columns, Track, from_columns
from zoo.inputs.xml_files import read_xml

__all__ = ["read_flights", "read_geojson", "read_gpx", "read_kml"]

_MOST_XML = 64 << 20
_TIMES = ("times", "coordTimes", "timestamps")


def read_geojson(path: Path, columns: Columns, sieve: Sieve) -> list[Track]:
    """LineStrings with one time per point in `properties.times` (or `coordTimes`), or as the fourth coordinate."""
    whole = read_json(path)
    kind = whole.get("type") if isinstance(whole, dict) else type(whole).__name__
    features = whole.get("features", [whole] if kind == "Feature" else None) if isinstance(whole, dict) else None
    if not isinstance(features, list):
        got = f"{kind!r:.60}"
        raise BadInput(f"{path.name}: expected a GeoJSON FeatureCollection of LineStrings, got {got}.")
    tracks: list[Track] = []
    for number, feature in enumerate(features):
        feature = feature if isinstance(feature, dict) else {}
        about, shape = (feature.get(key) for key in ("properties", "geometry"))
        about, shape = (part if isinstance(part, dict) else {} for part in (about, shape))
        name = str(feature.get("id", about.get("id", about.get("name", number))))[:200]
        where = f"{path.name}: feature {name}"
        if shape.get("type") != "LineString":
            sieve.rows(where, "a LineString", f"{shape.get('type')!r:.60}")
            continue
        points = shape.get("coordinates")
        points = points if isinstance(points, list) else []
        times = next((about[key] for key in _TIMES if key in about), None)
        try:
            if times is None and points and all(len(p) >= 4 for p in points):
                times = [p[3] for p in points]
            table = {"lon": [p[0] for p in points], "lat": [p[1] for p in points]}
        except (TypeError, LookupError):
            sieve.rows(where, "coordinates [longitude, latitude]", "others")
            continue
        if not isinstance(times, list) or len(times) != len(points):
            got = f"{len(times) if isinstance(times, list) else 'none'} for {len(points)} points"
            sieve.rows(where, "one time per point in properties.times (or coordTimes)", got)
            continue
        parts = from_columns({**table, "t": times}, where, None, sieve)
        tracks += [Track(name, t.positions, t.times, True, t.dated, path.name) for t in parts]
    return tracks


def read_flights(path: Path, columns: Columns, sieve: Sieve) -> list[Track]:
    """JSON records of aircraft positions: timestamp (ms), latitude, longitude, icao24, callsign; as `traffic` has."""
    rows = read_json(path)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BadInput(f"{path.name}: expected a list of records, got {type(rows).__name__}.")
    if not rows:
        return []
    wanted = ("timestamp", "latitude", "longitude")
    absent = [k for k in wanted if k not in rows[0]]
    if absent:
        shown = ", ".join(rows[0])[:200]
        raise BadInput(f"{path.name}: record 0: expected the field {absent[0]!r}, got {shown}.")
    kept = []
    for number, row in enumerate(rows):
        if row.get("latitude") is None or row.get("longitude") is None:
            continue
        if all(type(row.get(key)) in (int, float) for key in wanted):
            kept.append(row)
        else:
            shown = f"{ {key: row.get(key) for key in wanted}!r:.100}"
            sieve.rows(f"{path.name}: record {number}", "numbers as timestamp, latitude and longitude", shown)
    table: dict[str, list[Any]] = {"id": [f"{r.get('callsign')} {r.get('icao24')}" for r in kept]}
    table |= {"t": [r["timestamp"] / 1e3 for r in kept]}
    table |= {"lon": [r["longitude"] for r in kept], "lat": [r["latitude"] for r in kept]}
    return from_columns(table, path.name, None, sieve)


def read_gpx(path: Path, columns: Columns, sieve: Sieve) -> list[Track]:
    """Segments of the tracks of a GPX file: points with `lat`, `lon` and a `time`."""
    tracks: list[Track] = []
    for number, track in enumerate(_elements(read_xml(path, _MOST_XML), "trk")):
        name = _text(track, "name") or (path.stem if number == 0 else f"{path.stem} {number + 1}")
        for segment in _elements(track, "trkseg"):
            points = list(_elements(segment, "trkpt"))
            table: dict[str, list[Any]] = {key: [p.get(key) for p in points] for key in ("lon", "lat")}
            table["t"] = [_text(p, "time") for p in points]
            tracks += _track(table, name, path, sieve)
    return tracks


def read_kml(path: Path, columns: Columns, sieve: Sieve) -> list[Track]:
    """Placemarks of a KML file with a `gx:Track`: a `when` and a `gx:coord` for each point."""
    tracks: list[Track] = []
    for number, place in enumerate(_elements(read_xml(path, _MOST_XML), "Placemark")):
        name = _text(place, "name") or (path.stem if number == 0 else f"{path.stem} {number + 1}")
        for track in _elements(place, "Track"):
            times = [(e.text or "").strip() for e in _elements(track, "when")]
            points = [(e.text or "").split() for e in _elements(track, "coord")]
            if len(times) != len(points) or any(len(point) < 2 for point in points):
                got = f"{len(times)} times and {len(points)} points"
                sieve.rows(f"{path.name}: {name}", "a when for each gx:coord (longitude latitude altitude)", got)
                continue
            table = {"lon": [p[0] for p in points], "lat": [p[1] for p in points], "t": times}
            tracks += _track(table, name, path, sieve)
    return tracks


def _track(table: dict[str, Sequence[Any]] | dict[str, list[Any]], name: str, path: Path, sieve: Sieve) -> list[Track]:
    if not table["t"]:
        return []
    if not any(table["t"]):
        sieve.rows(f"{path.name}: {name}", "a time for each point", "a drawn line without times", len(table["t"]))
        return []
    parts = from_columns(table, f"{path.name}: {name}", None, sieve)
    return [Track(name, t.positions, t.times, True, True, path.name) for t in parts]


def _elements(within: Element, name: str) -> Iterator[Element]:
    """Elements of a name, whatever the version's namespace, at any depth."""
    return (each for each in within.iter() if str(each.tag).rpartition("}")[2] == name)


def _text(within: Element, name: str) -> str:
    """Text of the first direct child of a name."""
    child = next((each for each in within if str(each.tag).rpartition("}")[2] == name), None)
    return "" if child is None or child.text is None else child.text.strip()
