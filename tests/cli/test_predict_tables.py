"""`zoo predict` on series, steel sections and tracks: the files of the data modules, and tables and arrays."""

from __future__ import annotations

import csv
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toys.cli import failure, run

import zoo
from zoo import index
from zoo.errors import BadInput, MissingExtra
from zoo.inputs import tables

SERIES, STEEL, TRACKS = "soft-rocket:gunpoint", "steel-roughness:sim-rocket", "sts-join"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def results(*words: Any) -> list[dict[str, Any]]:
    """What a run writes."""
    assert run("predict", *words, "--out", "out", "--no-pictures") == 0
    found: list[dict[str, Any]] = json.loads(Path("out/results.json").read_text())
    return found


class Parquet(types.ModuleType):
    """pyarrow.parquet, as far as it is used: its files hold the columns as an npz archive."""

    def ParquetFile(self, path: str) -> Any:  # noqa: N802
        held = dict(np.load(path))

        class Table:
            column_names = list(held)

            def column(self, name: str) -> Any:
                return types.SimpleNamespace(to_numpy=lambda: held[name])

        rows = len(next(iter(held.values())))
        return types.SimpleNamespace(
            metadata=types.SimpleNamespace(num_rows=rows, num_columns=len(held)), read=lambda: Table()
        )


@pytest.fixture
def parquet(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes a file that `Parquet` reads."""
    monkeypatch.setitem(sys.modules, "pyarrow", types.ModuleType("pyarrow"))
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", Parquet("pyarrow.parquet"))

    def write(path: Path, **columns: Any) -> Path:
        with path.open("wb") as file:
            np.savez(file, **columns)
        return path

    return write


@pytest.mark.parametrize("name", [SERIES, STEEL])
def test_files_of_the_data_module(name: str, place: Path) -> None:
    """Every file of the fake folder that holds inputs, by its folder."""
    model = zoo.load(name)
    data = index.entry_of(type(model)).data_class()(**({"length": 150} if name == SERIES else {}))
    folder = data.fake(place / "fake")
    files = [p for p in sorted(folder.rglob("*")) if p.suffix in (".ts", ".npz")]
    assert files
    if name == STEEL:
        read = [model.predict(str(path)) for path in files[:2]]
        found = results(name, *files[:2])
        assert [row["value"] for row in found] == pytest.approx([float(r[0]["value"]) for r in read], rel=1e-4)
    else:
        found = results(name, folder)
        assert {row["input"] for row in found} == {str(path) for path in files}
        assert [row["series"] for row in found if row["input"] == str(files[0])] == list(
            range(sum(row["input"] == str(files[0]) for row in found))
        )


def test_series_in_tables_and_arrays(place: Path, parquet: Any) -> None:
    draw = np.random.default_rng(0)
    series = draw.normal(size=(3, 1, 150))
    expected = [row["name"] for row in zoo.load(SERIES).predict(series)]
    logits = np.stack([row["logits"].numpy() for row in zoo.load(SERIES).predict(series)])
    np.save("all.npy", series)
    np.savez("all.npz", x=series)
    np.savetxt("rows.csv", series[:, 0], delimiter=",")
    np.savetxt("one.csv", series[0, 0], header="level", comments="")
    (place / "dated.csv").write_text(
        "date;level\n" + "".join(f"2024-01-{i};{v:.17g}\n".replace(".", ",") for i, v in enumerate(series[0, 0]))
    )
    parquet(place / "one.parquet", level=series[0, 0])
    for file in ("all.npy", "all.npz", "rows.csv"):
        found = results(SERIES, file)
        assert [row["name"] for row in found] == expected
        assert [row["series"] for row in found] == [0, 1, 2]
        assert np.allclose([row["logits"] for row in found], logits, atol=1e-3)
    for file in ("one.csv", "dated.csv", "one.parquet"):
        (row,) = results(SERIES, file)
        assert "series" not in row
        assert np.allclose(row["logits"], logits[0], atol=1e-3), file


def test_sections_in_tables_and_arrays(place: Path, parquet: Any) -> None:
    model = zoo.load(STEEL)
    section = model.example_input()[0][0].numpy()
    expected = float(model.predict(section)[0]["value"])
    np.save("one.npy", section)
    np.save("two.npy", np.stack([section, section]))
    np.savetxt("one.csv", section.T, delimiter=";", header=";".join(f"d{i}" for i in range(len(section))), comments="")
    parquet(place / "one.parquet", **{f"d{i}": row for i, row in enumerate(section)})
    for file in ("one.npy", "one.csv", "one.parquet"):
        (row,) = results(STEEL, file)
        assert row["value"] == pytest.approx(expected, rel=1e-4)
    assert [row["section"] for row in results(STEEL, "two.npy")] == [0, 1]


def test_tracks_in_tables_and_arrays(place: Path, parquet: Any) -> None:
    model = zoo.load(TRACKS)
    table = model.table
    own = np.asarray(model.example_input()[0][0])
    expected = int(model.predict(own)[0]["pairs"].shape[0])
    assert len(table)
    np.save("one.npy", own)
    np.savez("two.npz", a=own, b=own)
    parquet(place / "one.parquet", x=own[:, 0], y=own[:, 1], t=own[:, 2])
    for file, count in (("one.npy", 1), ("two.npz", 2), ("one.parquet", 1)):
        assert [len(row["pairs"]) for row in results(TRACKS, file)] == [expected] * count


def test_tracks_on_a_map(place: Path) -> None:
    """An index in degrees: a table and GeoJSON of the pieces on which tracks were together."""
    lines = ["id,time,lon,lat"]
    for name, shift in (("a", 0.0), ("b", 1e-5), ("far", 0.5)):
        lines += [f"{name},{60 * i},{8.4 + shift + 1e-4 * i},{49.0}" for i in range(30)]
    (place / "tracks.csv").write_text("\n".join(lines) + "\n")
    model = zoo.load(TRACKS, weights=False).index([str(place / "tracks.csv")])
    zoo.save(model, place / "saved")
    (place / "query.csv").write_text("\n".join([lines[0], *(line for line in lines if line.startswith("a,"))]) + "\n")
    found = results("saved", "query.csv", "--save", "csv,geojson")
    assert len(found[0]["pairs"]) >= 2
    with Path("out/results.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(len(spans) for spans in found[0]["intervals"])
    assert {row["track_name"] for row in rows} >= {"a", "b"}
    held = json.loads(Path("out/results.geojson").read_text())
    assert held["type"] == "FeatureCollection"
    assert len(held["features"]) == len(rows)
    points = np.array(held["features"][0]["geometry"]["coordinates"])
    assert np.abs(points - [8.4, 49.0]).max() < 0.01
    assert held["features"][0]["properties"]["start"].startswith("1970-01-01T00:")


def test_an_index_in_metres_has_no_place_on_a_map(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("one.npy", np.asarray(zoo.load(TRACKS).example_input()[0][0]))
    told = failure(capsys, "predict", TRACKS, "one.npy", "--out", "out", "--save", "geojson")
    assert "the index is in metres, not in degrees" in told.lower()


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", "1,2\n3,x\n", "a.csv: row 1, column 1: expected a number, got 'x'"),
        ("a.csv", "u,v\n1,2\n3\n", "a.csv: row 1: expected 2 cells, got 1"),
        ("a.csv", "", "a.csv: expected a table of numbers, got an empty file"),
        ("a.csv", "u,v\n", "a.csv: expected numbers below the header, got none"),
        ("a.npy", "no array", "a.npy: expected an array of numbers"),
        ("a.npz", "no archive", "a.npz: expected an .npz file of plain arrays x and y"),
        ("a.xlsx", "x", "expected series in a file ending in .ts"),
    ],
)
def test_tables_that_cannot_be_used(
    name: str, content: str, expected: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / name).write_text(content)
    assert expected in failure(capsys, "predict", SERIES, name)


def test_arrays_never_execute_and_take_no_memory(place: Path) -> None:
    np.save("objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(BadInput, match="expected an array of numbers"):
        tables.read_array(place / "objects.npy")
    np.save("long.npy", np.zeros(4))
    data = bytearray((place / "long.npy").read_bytes())
    at = data.index(b"(4,)")
    data[at : at + 15] = b"(900000000000,)"
    (place / "long.npy").write_bytes(bytes(data))
    with pytest.raises(BadInput, match=r"long\.npy"):
        tables.read_array(place / "long.npy")


def test_a_parquet_file_without_its_reader_names_the_extra(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (place / "a.parquet").write_text("x")
    with pytest.raises(MissingExtra, match=r"lightning-method-zoo\[tables\]"):
        tables.read_parquet(place / "a.parquet")
