"""Track files with single broken rows, files and neighbours: left out and counted, or named with their cause."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

import zoo
from datamodules.tracks import TracksDataModule
from zoo import cli
from zoo.errors import BadData, BadInput, ZooError

HEADER = "h\n" * 6
LINE = {"type": "LineString", "coordinates": [[1, 2], [1, 3]]}


def module(root: Path, **options: Any) -> TracksDataModule:
    return TracksDataModule(root=str(root), val_share=0, test_share=0, **options)


def counted(data: TracksDataModule) -> dict[str, int]:
    return {key: count for key, count in data.cleaned.items() if count}


def plt(*latitudes: float) -> str:
    rows = [f"{lat},116.3,0,492,39744.1,2008-10-23,02:53:{i:02}\n" for i, lat in enumerate(latitudes)]
    return HEADER + "".join(rows)


def test_geolife_holds_an_impossible_latitude(tmp_path: Path) -> None:
    """GeoLife 1.3 itself has one of 400.17."""
    place = tmp_path / "Data/020/Trajectory"
    place.mkdir(parents=True)
    (place / "1.plt").write_text(plt(39.9, 400.166666666667, 39.91, 39.92))
    (place / "2.plt").write_text(plt(39.9, 39.91))
    with pytest.raises(BadData, match=r"1\.plt: row 1: expected longitude and latitude in degrees.*400\.1") as told:
        module(tmp_path).tracks()
    assert len(told.value.problems) == 1
    data = module(tmp_path, on_error="skip")
    assert [(t.name, len(t.times)) for t in data.tracks()] == [("020/1", 3), ("020/2", 2)]
    assert counted(data) == {"broken_rows": 1}


GPX = (
    "<gpx><trk><trkseg><trkpt lat='1' lon='2'><time>2024-05-01T10:00:00Z</time></trkpt>"
    "<trkpt lat='x' lon='2'><time>2024-05-01T10:00:10Z</time></trkpt>"
    "<trkpt lat='1' lon='3'><time>2024-05-01T10:00:20Z</time></trkpt></trkseg></trk></gpx>"
)

BROKEN = {
    "csv": ("a.csv", "id,x,y,t\na,0,0,0\na,oops,0,1\na,2,0,soon\na,3,0\na,4,0,4\n\n", 3),
    "tdrive": ("1.txt", "1,2008-02-02 15:36:08,116.5,39.9\n1,x,116.5,39.9\n1,2\n1,2008-02-02 15:38:08,116.6,39.9\n", 2),
    "porto": (
        "train.csv",
        'TRIP_ID,TIMESTAMP,POLYLINE\n1,1372636858,"[[1,2],[1,2.1]]"\n2,soon,"[[1,2],[1,3]]"\n3,1,"[[1,2"\n4,5,"[1,2]"\n',
        3,
    ),
    "flights": (
        "a.json",
        json.dumps([{"timestamp": t, "latitude": 52, "longitude": 4.5} for t in (1e12, "x", 1.00001e12)]),
        1,
    ),
    "geojson": (
        "a.geojson",
        json.dumps(
            {
                "features": [
                    {"geometry": {"type": "Point"}},
                    7,
                    {"properties": {"times": [0, 1]}, "geometry": LINE | {"coordinates": [[1, 2], 3]}},
                    {"properties": {"times": [0, 1]}, "geometry": LINE},
                ]
            }
        ),
        3,
    ),
    "gpx": (
        "a.gpx",
        GPX,
        1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_rows_are_left_out_and_counted(kind: str, tmp_path: Path) -> None:
    name, content, rows = BROKEN[kind]
    (tmp_path / name).write_text(content)
    data = module(tmp_path, on_error="skip")
    assert [len(t.times) for t in data.tracks()] == [2]
    assert counted(data) == {"broken_rows": rows}
    with pytest.raises(BadData, match=name):
        module(tmp_path).tracks()


def test_a_broken_file_is_left_out_and_counted(tmp_path: Path) -> None:
    (tmp_path / "good.csv").write_text("x,y,t\n0,0,0\n1,1,5\n")
    (tmp_path / "bad.csv").write_bytes(b"\xff\xfe\x00\xd8x")
    (tmp_path / "headless.csv").write_text("1,2,3\n4,5,6\n")
    (tmp_path / "empty.csv").write_text("")
    data = module(tmp_path, on_error="skip")
    assert [t.name for t in data.tracks()] == ["good"]
    assert counted(data) == {"broken_files": 2, "empty_files": 1}
    with pytest.raises(BadData, match="2 problems") as told:
        module(tmp_path).tracks()
    assert len(told.value.problems) == 2
    with pytest.raises(BadInput, match="on_error"):
        module(tmp_path, on_error="ignore")


def test_an_empty_file_refuses_nothing(tmp_path: Path) -> None:
    """T-Drive has some."""
    row = "1,2008-02-02 15:3{}:08,116.5,39.9\n"
    (tmp_path / "1.txt").write_text(row.format(6) + row.format(7))
    (tmp_path / "2.txt").write_text("")
    (tmp_path / "README.txt").write_text("Taxis\nof a week\n")
    data = module(tmp_path)
    assert len(data.tracks()) == 1
    assert counted(data) == {"empty_files": 1}
    assert module(tmp_path, format="tdrive").tracks()[0].name == "1"


def test_a_note_beside_the_tracks_is_no_format(tmp_path: Path) -> None:
    (tmp_path / "tracks.csv").write_text("id,x,y,t\na,0,0,0\na,1,1,5\n \n")
    (tmp_path / "README.txt").write_text("My tracks\n")
    assert len(module(tmp_path).tracks()) == 1


def test_geojson_with_the_ending_json(tmp_path: Path) -> None:
    shape = {"type": "LineString", "coordinates": [[4, 52], [4, 53]]}
    whole = {
        "type": "FeatureCollection",
        "features": [{"type": "Feature", "properties": {"times": [0, 9]}, "geometry": shape}],
    }
    (tmp_path / "walks.json").write_text(json.dumps(whole))
    assert module(tmp_path).tracks()[0].geographic
    assert module(tmp_path / "walks.json").tracks()[0].geographic


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("t;x;y\n01.05.2024 10:00;4.1;52\n01.05.2024 10:01;4.1;52\n", "a date with the day first: write 2024-05-01 10"),
        ("t\tlon\tlat\n5/1/2024 10:00\t4.1\t52\n5/1/2024 10:01\t4\t52\n", "day and month would be a guess"),
        ("t;lon;lat\n1;4,1;52\n2;4,1;52\n", r"lon: expected a number, got '4,1' \(a decimal comma: write 4\.1\)"),
    ],
)  # fmt: skip
def test_tables_of_other_countries_are_told_the_cause(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(BadData, match=told):
        module(tmp_path).tracks()


def test_semicolons_and_tabs_part_cells(tmp_path: Path) -> None:
    for name, part in (("a.csv", ";"), ("b.csv", "\t")):
        (tmp_path / name).write_text("t,x,y\n0,0,0\n5,1,1\n".replace(",", part), encoding="utf-8-sig")
    assert len(module(tmp_path).tracks()) == 2


PORTO = b"TRIP_ID,TIMESTAMP,POLYLINE\n"

HOSTILE = {
    "damaged gzip": ("a.json.gz", bytes([*gzip.compress(b"[" + b"1," * 500 + b"1]")[:-9], 0, *b"12345678"])),
    "cut gzip": ("a.json.gz", gzip.compress(b'[{"timestamp": 1}]' * 50)[:-20]),
    "gzip that swells": ("a.json.gz", gzip.compress(b" " * (80 << 20))),
    "deep": ("a.geojson", b"[" * 100_000),
    "deep objects": ("a.geojson", b'{"a":' * 100_000),
    "deep and balanced": ("a.geojson", b"[" * 500 + b"]" * 500),
    "a giant number in a polyline": ("train.csv", PORTO + b'1,0,"[[1%s,2],[1,2]]"\n' % (b"0" * 400)),
    "a number of many digits": ("a.geojson", b'{"features": [{"id": 1%s}]}' % (b"0" * 5000)),
    "records of others": ("a.json", b'[{"timestamp": [], "latitude": {}, "longitude": "x"}]'),
    "numbers": ("a.json", b"[1, 2]"),
    "infinite time": ("a.json", b'[{"timestamp": 1e999, "latitude": 1, "longitude": 2}]'),
    "entities": ("a.gpx", b'<!DOCTYPE a [<!ENTITY b "c">]><gpx>&b;</gpx>'),
    "no points": ("a.gpx", b"<gpx><trk><trkseg></trkseg></trk></gpx>"),
    "odd coordinates": ("a.kml", b"<kml><Placemark><Track><when>1</when><coord>1</coord></Track></Placemark></kml>"),
    "no text": ("a.csv", bytes(range(256))),
    "quotes without end": ("a.csv", b'x,y,t\n"1,2,3\n' * 5),
}  # fmt: skip


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_named(case: str, on_error: str, tmp_path: Path) -> None:
    name, content = HOSTILE[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ZooError, match=rf"{name}|no track has two points"):
        module(tmp_path, on_error=on_error).tracks()


OTHERS = "wer,wann,laenge,breite\n" + "".join(f"a,2024-05-01T10:0{i}:00Z,4.{i},52.0\n" for i in range(4))
COLUMNS = {"id": "wer", "t": "wann", "lon": "laenge", "lat": "breite"}


def test_the_command_checks_one_file_with_columns_of_other_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "walks.csv"
    path.write_text(OTHERS + "a,soon,4,52\n")
    shares = ["--data.val_share", "0", "--data.test_share=0"]
    assert cli.main(["data", "check", "sts-join", str(path), *shares]) == 1
    assert "no column for x, y, t" in capsys.readouterr().out
    given = ["--data.columns", json.dumps(COLUMNS), *shares]
    assert cli.main(["data", "check", "sts-join", str(path), *given]) == 1
    assert "row 4: expected a time" in capsys.readouterr().out
    assert cli.main(["data", "check", "sts-join", str(path), *given, "--data.on_error", "skip"]) == 0
    assert "1 samples" in capsys.readouterr().out
    for words, told in (
        (["--data.columnz", "{}"], "columns"),
        (["--columns", "x"], "--columns"),
        (["--data.every"], "value"),
    ):
        assert cli.main(["data", "check", "sts-join", str(path), *words]) == 2
        assert told in capsys.readouterr().err
    assert cli.main(["data", "check", "sts-join", str(tmp_path / "none.csv")]) == 2
    assert "no folder" in capsys.readouterr().err


def test_columns_of_other_names_are_joined(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "walks.csv"
    path.write_text(OTHERS)
    model = zoo.load("sts-join").index(str(path), reading={"columns": COLUMNS})
    results = model.predict(str(path), columns=COLUMNS, eps=10.0, delta=5.0)
    assert len(results.pairs) == 1
    assert model.show(str(path), results[0]).size
    table = {name: [row.split(",")[i] for row in OTHERS.split()[1:]] for i, name in enumerate(COLUMNS.values())}
    assert len(model.predict(table, columns=COLUMNS, eps=10.0, delta=5.0).pairs) == 1
    with pytest.raises(BadInput, match="columns"):
        model.predict(table)
    zoo.save(model, tmp_path / "index")
    words = ["predict", str(tmp_path / "index"), str(path), "--eps", "10", "--json"]
    assert cli.main([*words, "--columns", json.dumps(COLUMNS)]) == 0
    assert '"pairs"' in capsys.readouterr().out
    assert cli.main(words) != 0


def test_broken_rows_of_what_is_joined(tmp_path: Path) -> None:
    path = tmp_path / "walks.csv"
    path.write_text("x,y,t\n0,0,0\n1,oops,5\n2,0,9\n")
    model = zoo.load("sts-join")
    with pytest.raises(ZooError, match="oops"):
        model.predict(str(path))
    assert len(model.predict(str(path), on_error="skip")) == 1
