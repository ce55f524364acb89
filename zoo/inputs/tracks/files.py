"""Formats of track files: where their files are, which one a folder is in, and reading all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from zoo.errors import BadData, BadInput, MissingExtra, ZooError, nearest
from zoo.inputs import UnreadableError
from zoo.inputs.text_files import read_head
from zoo.inputs.tracks.geopackage import read_geopackage
from zoo.inputs.tracks.shapes import read_flights, read_geojson, read_gpx, read_kml
from zoo.inputs.tracks.sieve import Sieve
from zoo.inputs.tracks.table import Columns, Track
from zoo.inputs.tracks.tables import read_csv, read_geolife, read_porto, read_tdrive

__all__ = ["FORMATS", "detect", "read_files"]

Reader = Callable[[Path, Columns, Sieve], list[Track]]

FORMATS: dict[str, tuple[tuple[str, ...], Reader]] = {
    "csv": (("*.csv", "*.csv.gz", "*.tsv"), read_csv),
    "geojson": (("*.geojson", "*.geojson.gz", "*.json"), read_geojson),
    "geolife": (("Data/*/Trajectory/*.plt", "*/Trajectory/*.plt", "*.plt"), read_geolife),
    "tdrive": (("taxi_log_2008_by_id/*.txt", "[0-9]*.txt", "*.txt"), read_tdrive),
    "porto": (("train.csv", "porto*.csv"), read_porto),
    "flights": (("*.json.gz", "*.json"), read_flights),
    "gpx": (("*.gpx", "*.gpx.gz"), read_gpx),
    "kml": (("*.kml",), read_kml),
    "gpkg": (("*.gpkg",), read_geopackage),
}
"""Format -> where its files are below the root, and how one is read."""


def files_of(root: Path, kind: str, pattern: str | None = None) -> list[Path]:
    """Files of a format below a folder, in order; a file stands for itself."""
    if root.is_file():
        return [root]
    patterns = (pattern,) if pattern else FORMATS[kind][0]
    for one in patterns:
        if paths := sorted(p for p in root.glob(one) if p.is_file() and not p.name.startswith(".")):
            return paths
    return []


def detect(root: Path) -> str:
    """Which format a folder or file is in.

    Raises:
        BadInput: if there is none of them.
    """
    if not root.exists():
        raise BadInput(f"{root}: there is no such folder. Give one with track files.")
    for kind in ("geolife", "porto", "gpx", "kml", "gpkg", "tdrive", "geojson", "flights", "csv"):
        patterns = FORMATS[kind][0]
        fits = any(root.match(p.rsplit("/", 1)[-1]) for p in patterns) if root.is_file() else files_of(root, kind)
        if fits and _looks_like(kind, files_of(root, kind)[0]):
            return kind
    raise BadInput(
        f"{root}: no track files. Expected CSV (id, time, lon, lat or x, y), GeoJSON, GPX, KML, GeoPackage, or the "
        "layout of GeoLife, T-Drive, Porto or traffic's JSON."
    )


def _looks_like(kind: str, path: Path) -> bool:
    """Whether the content may be of a format whose endings others have, too."""
    if kind == "porto":
        return b"POLYLINE" in read_head(path).partition(b"\n")[0]
    if kind == "tdrive":
        return read_head(path).lstrip().partition(b"\n")[0].count(b",") == 3
    if kind == "geojson" and path.suffix == ".json":
        return b'"Feature' in read_head(path)
    return True


def read_files(
    root: Path,
    kind: str,
    columns: Columns = None,
    pattern: str | None = None,
    limit: int | None = None,
    sieve: Sieve | None = None,
) -> list[Track]:
    """Read all tracks; every broken file is named, or left out and counted.

    Args:
        root: folder, or one file.
        kind: a key of `FORMATS`.
        columns: meaning -> column, for CSV.
        pattern: wildcard of the files instead of the format's own.
        limit: stop after so many tracks.
        sieve: what becomes of broken rows and files; they are named if None.

    Raises:
        BadInput: for an unknown format or no files.
        BadData: listing all broken files.
    """
    if kind not in FORMATS:
        raise BadInput(f"format must be one of {', '.join(FORMATS)}, got {kind!r}.{nearest(kind, FORMATS)}")
    files = files_of(root, kind, pattern)
    if not files:
        raise BadInput(f"{root}: no files {pattern or ' or '.join(FORMATS[kind][0])} of the format {kind}.")
    sieve = sieve or Sieve()
    tracks: list[Track] = []
    for path in files:
        if path.stat().st_size == 0:
            sieve.counts["empty_files"] += 1
            continue
        tracks += _read_file(path, kind, columns, sieve)
        if limit is not None and len(tracks) >= limit:
            break
    if sieve.problems:
        advice = "Correct or remove these entries and run again, or leave broken rows and files out: on_error=skip."
        raise BadData.listing(root, sieve.problems, advice)
    return tracks[:limit]


def _read_file(path: Path, kind: str, columns: Columns, sieve: Sieve) -> list[Track]:
    try:
        return FORMATS[kind][1](path, columns, sieve)
    except MissingExtra:  # of the machine, and no fault of the file
        raise
    except UnreadableError as error:
        sieve.file(f"{path.name}: expected {error.expected}, got {error.got}")
    except ZooError as error:
        sieve.file(str(error))
    except (ArithmeticError, AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError) as error:
        # values of other kinds than a format has, deep in nested ones
        reason = f"{error}"[:80] or type(error).__name__
        sieve.file(f"{path.name}: content: expected tracks in the format {kind}, got {reason}")
    return []
