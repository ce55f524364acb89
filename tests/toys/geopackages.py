"""What `pyogrio` returns for a GeoPackage of points, read with sqlite3: a stand-in where it is not installed."""

from __future__ import annotations

import sqlite3
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

_HEAD = 8  # bytes of a shape before its well-known binary: magic, version, flags, reference system


def _rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    base = sqlite3.connect(path)
    try:
        return base.execute(query).fetchall()
    finally:
        base.close()


def list_layers(path: Path) -> np.ndarray:
    """Names and kinds of the layers."""
    rows = _rows(path, "SELECT table_name, geometry_type_name FROM gpkg_geometry_columns")
    return np.array([(name, {"POINT": "Point", "LINESTRING": "LineString"}[kind]) for name, kind in rows], object)


def read(path: Path, *, layer: str, datetime_as_string: bool = False) -> tuple[Any, ...]:
    """Facts, no numbers of rows, shapes, and the values of each field."""
    assert datetime_as_string
    base = f"FROM gpkg_geometry_columns WHERE table_name = '{layer}'"
    ((shape, system),) = _rows(path, f"SELECT column_name, srs_id {base}")
    columns = [row[1] for row in _rows(path, f"PRAGMA table_info({layer})")]
    fields = [name for name in columns if name not in ("fid", shape)]
    rows = _rows(path, f"SELECT {shape}, {', '.join(fields)} FROM {layer} ORDER BY fid")
    shapes = np.array([None if row[0] is None else row[0][_HEAD:] for row in rows], object)
    values = [np.array([row[i] for row in rows], object) for i in range(1, len(fields) + 1)]
    return {"crs": f"EPSG:{system}", "fields": np.array(fields, object)}, None, shapes, values


def stand_in(patch: pytest.MonkeyPatch) -> None:
    """Make the package importable, if it is not."""
    if find_spec("pyogrio") is None:
        package: Any = ModuleType("pyogrio")
        package.list_layers, package.raw = list_layers, SimpleNamespace(read=read)
        patch.setitem(__import__("sys").modules, "pyogrio", package)
