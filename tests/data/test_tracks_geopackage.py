"""Tracks in GeoPackages, read by pyogrio."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path

import pytest

from datamodules.tracks import TracksDataModule
from zoo.cli import main
from zoo.errors import BadData, MissingExtra


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return TracksDataModule().fake(tmp_path / "own", format="gpkg", tracks=6) / "tracks.gpkg"


def change(file: Path, *statements: str) -> None:
    base = sqlite3.connect(file)
    for statement in statements:
        base.execute(statement)
    base.commit()
    base.close()


def test_a_file_is_checked_and_read(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tracks = TracksDataModule(root=str(package)).tracks()
    assert len(tracks) == 6
    assert all(track.geographic and track.dated for track in tracks)
    assert main(["data", "check", "sts-join", str(package.parent)]) == 0
    capsys.readouterr()


def test_a_layer_without_ids_is_one_track(package: Path) -> None:
    change(package, "DELETE FROM points WHERE id != (SELECT id FROM points LIMIT 1)")
    change(package, "ALTER TABLE points DROP COLUMN id")
    (track,) = TracksDataModule(root=str(package)).tracks()
    assert track.name == "points"


def test_rows_without_a_shape_are_named_or_left_out(package: Path) -> None:
    change(package, "UPDATE points SET geom = NULL WHERE fid = 3")
    with pytest.raises(BadData, match=r"tracks\.gpkg: row 2: expected a point, got no shape"):
        TracksDataModule(root=str(package)).tracks()
    data = TracksDataModule(root=str(package), on_error="skip")
    assert len(data.tracks()) == 6


def test_other_coordinates_shapes_and_files_are_refused(package: Path) -> None:
    change(package, "UPDATE gpkg_geometry_columns SET geometry_type_name = 'LINESTRING'")
    with pytest.raises(BadData, match=r"expected a layer of points with a time each, got points \(LineString\)"):
        TracksDataModule(root=str(package)).tracks()
    package.write_text("<OGRVRTDataSource/>")
    with pytest.raises(BadData, match="got a file that is no SQLite database"):
        TracksDataModule(root=str(package)).tracks()


def test_metres_of_a_country_are_no_degrees(package: Path) -> None:
    change(
        package,
        "INSERT INTO gpkg_spatial_ref_sys SELECT 'RD', 28992, 'EPSG', 28992, definition, NULL FROM "
        "gpkg_spatial_ref_sys",
        "UPDATE gpkg_geometry_columns SET srs_id = 28992",
        "UPDATE gpkg_contents SET srs_id = 28992",
    )
    with pytest.raises(BadData, match=r"expected longitude and latitude \(EPSG:4326\), got .*Convert it: ogr2ogr"):
        TracksDataModule(root=str(package)).tracks()


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_without_the_package_its_extra_is_named(on_error: str, package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyogrio", None)
    with pytest.raises(MissingExtra, match=r'pip install "lightning-method-zoo\[tracks\]"'):
        TracksDataModule(root=str(package), on_error=on_error).tracks()
