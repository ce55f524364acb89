"""Track files of every layout, what is wrong with them, the plane, and the commuters."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datamodules.tracks import TracksDataModule, pad_tracks
from datamodules.worlds.commuters import CityConfig, traveller
from zoo.errors import BadData, BadInput, ZooError
from zoo.inputs.tracks import FORMATS, Projection, from_columns, seconds_of
from zoo.methods.sts_join.distance import cdds


def csv_of(folder: Path, text: str, name: str = "tracks.csv") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder


def module(root: Path, **options: Any) -> TracksDataModule:
    return TracksDataModule(root=str(root), **options)


# Layouts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS)
def test_each_layout_is_recognised_and_read(kind: str, tmp_path: Path) -> None:
    place = TracksDataModule().fake(tmp_path / kind, format=kind, tracks=9)
    found = module(place)
    tracks = found.dataset("predict").tracks
    assert len(tracks) == 9
    assert (found.projection() is None) == (kind == "csv")
    city = CityConfig(seed=5, blocks=6, hours=0.8, leaders=3, together=1.0)
    for number, (_, _, xyt) in enumerate(tracks if kind not in ("geolife", "tdrive") else []):
        true = traveller(city, "train", number).xyt
        assert (np.diff(xyt[:, 2]) > 0).all()
        length = np.hypot(*np.diff(xyt[:, :2], axis=0).T).sum()
        wanted = np.hypot(*np.diff(true[:, :2], axis=0).T).sum()
        assert length == pytest.approx(wanted, rel=0.35)  # Porto's 15 s cut corners or see more of them


@pytest.mark.parametrize("kind", [k for k in FORMATS if k != "csv"])
def test_degrees_become_the_same_metres_in_every_layout(kind: str, tmp_path: Path) -> None:
    place = TracksDataModule().fake(tmp_path / kind, format=kind, tracks=6)
    found = module(place, origin=[4.9, 52.37, 1_600_000_000.0])
    tracks = {len(t[2]): t[2] for t in found.dataset("predict").tracks}
    city = CityConfig(seed=5, blocks=6, hours=0.8, leaders=2, together=1.0)
    for number in range(6):
        true = traveller(city, "train", number).xyt
        if kind == "porto" or len(true) not in tracks:
            continue
        atol = 2.0 if kind == "tdrive" else 0.3  # five decimals of a degree
        np.testing.assert_allclose(tracks[len(true)][:, :2], true[:, :2], atol=atol)
        np.testing.assert_allclose(tracks[len(true)][:, 2], true[:, 2], atol=1.1)  # whole seconds


def test_named_columns_and_dates(tmp_path: Path) -> None:
    text = "wer,wann,laenge,breite\n" + "".join(f"a,2024-05-01T10:0{i}:00Z,4.{i},52.0\n" for i in range(3))
    place = csv_of(tmp_path / "d", text)
    columns = {"id": "wer", "t": "wann", "lon": "laenge", "lat": "breite"}
    track = module(place, columns=columns).tracks()[0]
    assert track.name == "a"
    assert np.diff(track.times).tolist() == [60.0, 60.0]
    with pytest.raises(ZooError, match="no column for x, y, t"):
        module(place).tracks()
    with pytest.raises(ZooError, match=r"there is no column 'breit'.*breite"):
        module(place, columns={**columns, "lat": "breit"}).tracks()
    with pytest.raises(ZooError, match="'laat' is no meaning"):
        module(place, columns={"laat": "breite"}).tracks()


def test_sorting_duplicates_and_single_points_are_counted(tmp_path: Path) -> None:
    text = "id,x,y,t\na,0,0,20\na,1,0,10\na,2,0,20\nb,0,0,5\nc,0,0,0\nc,1,1,5\n"
    found = module(csv_of(tmp_path / "d", text))
    tracks = found.tracks()
    assert [t.name for t in tracks] == ["a", "c"]
    assert tracks[0].times.tolist() == [10.0, 20.0]
    assert tracks[0].positions[:, 0].tolist() == [1.0, 0.0]
    assert {k: v for k, v in found.cleaned.items() if v} == {"unsorted": 1, "duplicates": 1, "too_short": 1}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("id,x,y,t\na,0,0,0\na,1,oops,5\n", r"tracks\.csv: row 1: y: expected a number, got 'oops'"),
        ("id,x,y,t\na,0,0,0\na,1,nan,5\n", r"tracks\.csv: row 1: expected finite numbers"),
        ("id,x,y,t\na,0,0,0\na,1,5\n", r"tracks\.csv: line 3: expected 4 fields, got 3"),
        ("id,lon,lat,t\na,4,52,0\na,5,152,5\n", r"row 1: expected longitude and latitude in degrees"),
        ("id,x,y,lon,lat,t\na,0,0,4,52,0\na,0,0,4,52,1\n", "both degrees"),
        ("id,x,y,t\na,0,0,2024-05-01T10:00:00Z\na,1,1,2024-05-01T10:01:00\n", "some times have a zone and others not"),
        ("id,x,y,t\na,0,0,soon\na,1,1,later\n", "row 0: expected a time as in 2024-05-01T10:00:00Z, got 'soon'"),
        ("id,x,y,t\na,0,0,1700000000000\na,1,1,1700000001000\n", "Milliseconds"),
        ("id,x,y,t\n", "expected a header and at least one row"),
        ("id,x,y,t\na,0,0,1\n", "no track has two points"),
    ],
)
def test_broken_rows_are_named(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=told):
        module(csv_of(tmp_path / "d", text)).tracks()


def test_all_broken_files_are_told_at_once(tmp_path: Path) -> None:
    csv_of(tmp_path / "d", "id,x,y,t\na,0,0,0\na,1,b,5\n", "one.csv")
    csv_of(tmp_path / "d", "id,x,y,t\na,0,0,0\na,1,nan,5\n", "two.csv")
    with pytest.raises(BadData, match=r"one\.csv") as told:
        module(tmp_path / "d").tracks()
    assert "two.csv" in str(told.value)
    assert len(told.value.problems) == 2


def test_mixed_units_and_times_over_files(tmp_path: Path) -> None:
    csv_of(tmp_path / "d", "id,x,y,t\na,0,0,0\na,1,1,5\n", "one.csv")
    csv_of(tmp_path / "d", "id,lon,lat,t\nb,4,52,0\nb,4.1,52,5\n", "two.csv")
    with pytest.raises(BadData, match=r"two\.csv: track b is in degrees"):
        module(tmp_path / "d").tracks()
    csv_of(tmp_path / "e", "id,x,y,t\na,0,0,0\na,1,1,5\n", "one.csv")
    csv_of(tmp_path / "e", "id,x,y,t\nb,0,0,2024-05-01T10:00:00\nb,1,1,2024-05-01T10:00:05\n", "two.csv")
    with pytest.raises(BadData, match="in dates"):
        module(tmp_path / "e").tracks()


@pytest.mark.parametrize(
    ("kind", "name", "content", "told"),
    [
        ("geojson", "a.geojson", '{"features": [{"geometry": {"type": "Point"}}]}', "LineString"),
        (
            "geojson",
            "a.geojson",
            json.dumps({"type": "Feature", "geometry": {"type": "LineString", "coordinates": [[4, 52], [4, 53]]}}),
            "one time per point",
        ),
        ("tdrive", "1.txt", "1,2008-02-02 15:36:08,116.5\n", "line 1: expected 4 fields, got 3"),
        ("geolife", "a.plt", "h\n" * 6 + "39.9,116.3,0,492\n", "line 7: expected 7 fields, got 4"),
        ("porto", "train.csv", '"TRIP_ID","POLYLINE"\n"1","[[1,2]]"\n', "line 2: expected the fields"),
        ("flights", "a.json.gz", '[{"timestamp": 1}]', "expected the field 'latitude'"),
        ("flights", "a.json.gz", "{}", "expected a list of records"),
    ],
)  # fmt: skip
def test_broken_layouts_are_named(kind: str, name: str, content: str, told: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(BadData, match=told) as error:
        module(tmp_path, format=kind).tracks()
    assert name in str(error.value)


def test_folders_without_tracks(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no track files"):
        module(tmp_path).tracks()
    with pytest.raises(BadInput, match="no such folder"):
        module(tmp_path / "nowhere").tracks()
    with pytest.raises(BadInput, match="Did you mean 'geojson'"):
        module(tmp_path, format="geojsn")
    with pytest.raises(BadInput, match="every"):
        module(tmp_path, every=0.0)


def test_thinning_keeps_the_first_point_of_each_stretch(tmp_path: Path) -> None:
    rows = "".join(f"a,{i},0,{i * 3}\n" for i in range(20))
    track = module(csv_of(tmp_path / "d", "id,x,y,t\n" + rows), every=10.0).tracks()[0]
    assert track.times.tolist() == [0.0, 12.0, 21.0, 30.0, 42.0, 51.0]


def test_shares_of_zero_make_the_indexed_tracks_the_queries(tmp_path: Path) -> None:
    place = TracksDataModule().fake(tmp_path / "d", tracks=8)
    found = module(place, val_share=0, test_share=0)
    numbers = {split: [t[0] for t in found.dataset(split).tracks] for split in ("train", "val", "test", "predict")}
    assert numbers["train"] == numbers["val"] == numbers["test"] == numbers["predict"] == list(range(8))


def test_every_track_of_a_file_is_indexed(tmp_path: Path) -> None:
    """Nothing is learned from a track: one that is kept out of the index would only be missed."""
    place = TracksDataModule().fake(tmp_path / "d", tracks=9)
    for options in ({}, {"val_share": 0.25, "test_share": 0.25}):
        parts = module(place, **options)
        numbers = {split: [t[0] for t in parts.dataset(split).tracks] for split in ("train", "val", "test")}
        assert numbers["train"] == list(range(9))
        assert len(numbers["val"]) == len(numbers["test"]) == (2 if options else 1)
        assert not set(numbers["val"]) & set(numbers["test"])
    one = TracksDataModule().fake(tmp_path / "one", tracks=1)
    assert [len(module(one).dataset(split)) for split in ("train", "val", "test")] == [1, 1, 1]


# Tables and the plane ---------------------------------------------------------------------------------------------


def test_plane_goes_forth_and_back() -> None:
    plane = Projection(4.9, 52.37, 0.0)
    degrees = np.array([[4.9, 52.37], [5.0, 52.4], [4.7, 52.2]])
    np.testing.assert_allclose(plane.degrees(plane.metres(degrees)), degrees, atol=1e-9)
    one = plane.metres(np.array([[4.9, 53.37]]))
    assert one[0, 1] == pytest.approx(111_195, rel=1e-4)  # a degree of latitude
    across = Projection(179.9, 0.0, 0.0).metres(np.array([[-179.9, 0.0]]))
    assert across[0, 0] == pytest.approx(0.2 * 111_195, rel=1e-4)


def test_a_plane_across_the_date_line() -> None:
    """The plain mean of 179.9999 and -179.9999 degrees is 0, on the other side of the earth."""
    boats = {"id": ["a", "a", "b", "b"], "lon": [179.9999, 179.9999, -179.9999, -179.9999], "lat": [0, 0.1] * 2}
    tracks = from_columns({**boats, "t": [0, 60] * 2}, "boats")
    plane = Projection.around(tracks)
    assert abs(plane.lon0) == pytest.approx(180)
    first, second = plane.place(tracks[0]), plane.place(tracks[1])
    np.testing.assert_allclose(np.hypot(*(first - second)[:, :2].T), 22.24, atol=0.01)
    assert Projection.around(from_columns({**boats, "lon": [4.1, 4.2, 5.3, 5.4], "t": [0, 60] * 2}, "x")).lon0 == 4.75


def test_bad_origin_is_named() -> None:
    for origin in ([1.0], [0.0, 95.0, 0.0], [0.0, float("nan"), 0.0]):
        with pytest.raises(BadInput, match="origin"):
            Projection.of(origin)


def test_times() -> None:
    assert seconds_of([0, 5], "x")[1] is False
    values, dated = seconds_of(["2024-05-01T10:00:00+02:00", "2024-05-01T08:01:00Z"], "x")
    assert dated
    assert np.diff(values).tolist() == [60.0]
    numbers, dated = seconds_of(np.array(["2024-05-01T10:00", "2024-05-01T10:01"], dtype="datetime64[s]"), "x")
    assert dated
    assert np.diff(numbers).tolist() == [60.0]


@pytest.mark.parametrize("unit", ["ns", "us", "ms", "s"])
def test_time_differences_are_seconds_in_any_unit(unit: str) -> None:
    """Microseconds were taken for seconds, so that every step was longer than gap and nothing was found."""
    dates = np.array(["2024-05-01T10:00", "2024-05-01T10:01", "2024-05-01T10:03"], dtype=f"datetime64[{unit}]")
    numbers, dated = seconds_of(dates - dates.min(), "x")
    assert numbers.tolist() == [0.0, 60.0, 180.0]
    assert not dated
    steps = [timedelta(seconds=s) for s in (0, 60, 180)]
    assert seconds_of(steps, "x")[0].tolist() == [0.0, 60.0, 180.0]


def test_missing_times_are_named() -> None:
    """NaT was -9.2e12 s; as first row it moved the index's epoch there."""
    for kind in ("datetime64[us]", "timedelta64[us]"):
        times = np.array([0, 5, 9], dtype="int64").astype(kind)
        times[0] = np.datetime64("NaT") if kind.startswith("date") else np.timedelta64("NaT")
        with pytest.raises(BadInput, match=r"table: row 0: expected finite numbers, got .* at nan"):
            from_columns({"x": [0, 1, 2], "y": [0, 0, 0], "t": times}, "table")


def test_columns_of_several_tracks_in_any_order() -> None:
    table = {"name": ["b", "a", "b", "a"], "x": [0, 1, 2, 3], "y": [0] * 4, "time": [0, 0, 1, 1]}
    tracks = from_columns(table, "table")
    assert [t.name for t in tracks] == ["b", "a"]
    assert tracks[0].positions[:, 0].tolist() == [0.0, 2.0]


def test_padding() -> None:
    xyt, length = pad_tracks([np.ones((2, 3)), np.ones((4, 3))])
    assert xyt.shape == (2, 4, 3)
    assert xyt.dtype == torch.float64
    assert length.tolist() == [2, 4]
    assert not xyt[0, 2:].any()


# Commuters --------------------------------------------------------------------------------------------------------


def test_travellers_are_seeded_one_by_one() -> None:
    city = CityConfig()
    first, again = traveller(city, "test", 7), traveller(city, "test", 7)
    assert np.array_equal(first.xyt, again.xyt)
    assert not np.array_equal(first.xyt[:2], traveller(city, "test", 8).xyt[:2])
    assert not np.array_equal(first.xyt[:2], traveller(CityConfig(seed=1), "test", 7).xyt[:2])


def test_travellers_move_as_the_city_says() -> None:
    city = CityConfig(noise=0.0)
    for index in range(40):
        track = traveller(city, "train", index)
        steps = np.diff(track.xyt[:, 2])
        assert (steps >= 1.0 - 1e-9).all()
        speed = np.hypot(*np.diff(track.xyt[:, :2], axis=0).T) / steps
        assert speed.max() < 25
        assert track.leader < 0 or (track.leader % 3 == 0 and track.until > track.since)
    assert any((np.diff(traveller(city, "train", i).xyt[:, 2]) > 120).any() for i in range(40)), "there are gaps"


def test_planted_companions_are_together() -> None:
    city = CityConfig(gaps=0.0, interval=(1.0, 5.0))
    followers = [t for t in (traveller(city, "val", i) for i in range(60)) if t.leader >= 0]
    assert len(followers) > 15
    for track in followers:
        leader = traveller(city, "train", track.leader)
        a, b = torch.from_numpy(track.xyt)[None], torch.from_numpy(leader.xyt)[None]
        # at most 8 m beside on each axis, up to 4 s behind at up to 17 m/s, and corners cut between two sightings
        seconds = float(cdds(a, b, 11.4 + 4 * 17 + 5 * 17))
        assert seconds >= track.until - track.since - 10


@pytest.mark.parametrize(
    "change", [{"blocks": 1}, {"interval": (0.0, 5.0)}, {"together": 2.0}, {"noise": -1.0}, {"leaders": 0}]
)
def test_impossible_cities_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        CityConfig(**change)
    with pytest.raises(BadInput, match="split"):
        traveller(CityConfig(), "training", 0)
