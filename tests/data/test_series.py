"""SeriesDataModule: formats (against aeon's loader), splits, unequal lengths, missing values, broken files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from datamodules.series import SeriesDataModule
from datamodules.series.files import read_series
from datamodules.worlds.cylinder_bell_funnel import CLASS_NAMES, cylinder_bell_funnel
from zoo.errors import BadData, BadInput, RepositoryNotFound
from zoo.methods.soft_rocket.module import SoftRocket
from zoo.nn.rocket import standardise_series

TS = Path(__file__).parent / "ts"
ORACLE = Path(__file__).parents[1] / "nn" / "oracles" / "rocket_aeon.npz"


def write(folder: Path, train: str, test: str | None = None, ending: str = ".ts") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"Own_TRAIN{ending}").write_text(train, encoding="utf-8")
    (folder / f"Own_TEST{ending}").write_text(train if test is None else test, encoding="utf-8")
    return folder


def ts(*rows: str, header: str = "@classLabel true a b") -> str:
    return "\n".join(["# a remark", "@problemName Own", "@timeStamps false", header, "@data", *rows]) + "\n"


def tensors(data: SeriesDataModule, split: str = "train") -> dict[str, torch.Tensor]:
    dataset: Any = data.split(split)
    return data.collate([dataset[i] for i in range(len(dataset))])


@pytest.mark.parametrize("name", ["covid", "gesture", "gun", "motions", "vowels"])
def test_ts_files_equal_aeons(name: str) -> None:
    found = read_series(TS / f"{name}.ts")
    with np.load(ORACLE) as file:
        assert len(found.series) == int(file[f"ts.{name}.count"])
        for i, row in enumerate(found.series):
            np.testing.assert_allclose(row, file[f"ts.{name}.{i}"], rtol=1e-6, atol=1e-6)
        targets = file[f"ts.{name}.y"]
    if found.regression:
        np.testing.assert_allclose(np.array(found.targets, float), targets)
    else:
        assert [t.lower() for t in found.targets] == [str(t).lower() for t in targets]


@pytest.mark.parametrize("format", ["ts", "tsv", "npz"])
def test_formats_hold_the_same(tmp_path: Path, format: str) -> None:
    data = SeriesDataModule(root=str(SeriesDataModule(length=32).fake(tmp_path, format)), val_share=0)
    batch = tensors(data)
    series, labels = cylinder_bell_funnel(30, 32, (7, 0))
    np.testing.assert_allclose(batch["series"].numpy(), series, atol=1e-5)
    assert batch["label"].tolist() == labels.tolist()
    assert data.facts()["length"] == 32
    names = {"ts": list(CLASS_NAMES), "tsv": ["1", "2", "3"], "npz": ["0", "1", "2"]}
    assert data.facts()["class_names"] == names[format]


def test_regression_is_told_by_the_header(tmp_path: Path) -> None:
    rows = [f"{i},2,3,4,5,6,7,8:{i / 4}" for i in range(8)]
    data = SeriesDataModule(root=str(write(tmp_path, ts(*rows, header="@targetlabel true"))))
    assert data.facts() == {"num_classes": 0, "targets": 1, "channels": 1, "length": 8}
    assert tensors(data, "test")["value"].tolist() == [i / 4 for i in range(8)]
    assert SeriesDataModule(root=str(tmp_path), target="value").facts()["num_classes"] == 0


def test_splits_keep_the_classes(tmp_path: Path) -> None:
    rows = [f"{i},{i % 7},1,2,3:{'ab'[i % 5 == 0]}" for i in range(50)]
    root = str(write(tmp_path, ts(*rows), ts(*[r.replace(":", ",9:") for r in rows]).replace("1,2,3,9", "1,2,4")))
    data = SeriesDataModule(root=root, val_share=0.2)
    train, val, test = (tensors(data, s) for s in ("train", "val", "test"))
    assert (len(train["label"]), len(val["label"]), len(test["label"])) == (40, 10, 50)
    assert int(val["label"].sum()) == 2
    again = SeriesDataModule(root=root, val_share=0.2, seed=5)
    assert torch.equal(tensors(again, "val")["series"], val["series"]), "the split does not depend on seed"
    other = SeriesDataModule(root=root, val_share=0.2, split_seed=5)
    assert not torch.equal(tensors(other, "val")["series"], val["series"])
    joined = SeriesDataModule(root=root, resplit=0.5, val_share=0.2)
    sizes = [len(tensors(joined, s)["label"]) for s in ("train", "val", "test")]
    assert sizes == [40, 10, 50]
    assert int(tensors(joined, "test")["label"].sum()) == 10
    assert "label" not in tensors(data, "predict")


def test_no_validation_share_validates_on_test(tmp_path: Path) -> None:
    root = str(SeriesDataModule(length=32).fake(tmp_path))
    data = SeriesDataModule(root=root, val_share=0)
    assert torch.equal(tensors(data, "val")["series"], tensors(data, "test")["series"])
    assert len(tensors(data)["label"]) == 30


def test_unequal_lengths(tmp_path: Path) -> None:
    root = str(write(tmp_path, ts("1,2,3,4,5,6:a", "1,2,3:b", "4,5,6,7:a", "1,2,3,4:b")))
    data = SeriesDataModule(root=root, val_share=0)
    batch = tensors(data)
    assert batch["length"].tolist() == [6, 3, 4, 4]
    assert batch["series"][1, 0].tolist() == [1, 2, 3, 0, 0, 0]
    assert data.facts()["length"] == 3
    with pytest.raises(BadData, match="3 to 6"):
        SeriesDataModule(root=root, unequal="refuse").facts()
    tabs = write(tmp_path / "tabs", "1\t1\t2\t3\n2\t4\tNaN\tNaN\n1\t1\t2\tnan\n", ending=".tsv")
    assert tensors(SeriesDataModule(root=str(tabs), val_share=0))["length"].tolist() == [3, 1, 2]


def test_missing_values_are_named_or_filled(tmp_path: Path) -> None:
    root = str(write(tmp_path, ts("1,?,3,4:a", "1,2,NaN,?:b", "?,1,2,3:a")))
    with pytest.raises(BadData, match=r"(?s)line 6, channel 0, point 1.*line 7, channel 0, point 2") as told:
        SeriesDataModule(root=root).facts()
    assert "Own_TRAIN.ts" in str(told.value).replace("\n", " ")
    filled = tensors(SeriesDataModule(root=root, missing="interpolate", val_share=0))["series"][:, 0]
    assert filled.tolist() == [[1, 2, 3, 4], [1, 2, 2, 2], [1, 1, 2, 3]]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (("1,2,x:a", "1,2,3:b"), "line 6: expected numbers"),
        (("1,2,3:a", "1,2,3:c"), "line 7: expected one of the classes a, b, got 'c'"),
        (("1,2:3,4:a", "1,2:b"), "line 7: expected 2 channels"),
        (("1,2:3,4,5:a",), "line 6: expected 1? ?2? ?channels of equal length|equal length"),
        ((), "at least one series"),
        (("1,2,3:a", "1,2,4:a"), "at least two classes"),
    ],
)
def test_broken_ts_is_named(tmp_path: Path, rows: tuple[str, ...], message: str) -> None:
    root = write(tmp_path, ts(*rows), ts("1,2,3:a", "1,2,3:b"))
    with pytest.raises(BadData) as told:
        SeriesDataModule(root=str(root)).facts()
    assert "Own_TRAIN.ts" in str(told.value)
    assert __import__("re").search(message, str(told.value)), str(told.value)


def test_headers_that_cannot_be_read(tmp_path: Path) -> None:
    root = write(tmp_path, ts("(0,1),(1,2):a").replace("@timeStamps false", "@timeStamps true"))
    with pytest.raises(BadData, match="time stamps"):
        SeriesDataModule(root=str(root)).facts()
    root = write(tmp_path / "none", "1,2,3\n")
    with pytest.raises(BadData, match="@data"):
        SeriesDataModule(root=str(root)).facts()
    root = write(tmp_path / "text", "1\ta\t2\n2\t1\t2\n", ending=".tsv")
    with pytest.raises(BadData, match="line 1: expected a target and numbers"):
        SeriesDataModule(root=str(root)).facts()


def test_channels_must_agree(tmp_path: Path) -> None:
    root = write(tmp_path, ts("1,2:3,4:a", "1,2:3,5:b"), ts("1,2:a", "1,3:b"))
    with pytest.raises(BadData, match=r"Own_TEST\.ts: line 6: expected 2 channels as in the first series, got 1"):
        SeriesDataModule(root=str(root)).facts()


def test_npz_is_checked(tmp_path: Path) -> None:
    for name in ("TRAIN", "TEST"):
        np.savez(tmp_path / f"Own_{name}.npz", x=np.zeros((4, 5)), y=np.zeros(3))
    with pytest.raises(BadData, match="expected 4 targets"):
        SeriesDataModule(root=str(tmp_path)).facts()
    np.savez(tmp_path / "Own_TRAIN.npz", x=np.array([{"a": 1}], dtype=object), y=np.zeros(1))
    with pytest.raises(BadData, match="plain arrays"):
        SeriesDataModule(root=str(tmp_path)).facts()


def test_finding_the_set(tmp_path: Path) -> None:
    with pytest.raises(RepositoryNotFound, match="nowhere"):
        SeriesDataModule(root=str(tmp_path / "nowhere")).facts()
    with pytest.raises(RepositoryNotFound, match="NAME_TRAIN"):
        SeriesDataModule(root=str(tmp_path)).facts()
    for name in ("One", "Two"):
        SeriesDataModule(length=32).fake(tmp_path / name, name=name)
    with pytest.raises(BadInput, match=r"data\.name to one of One, Two"):
        SeriesDataModule(root=str(tmp_path)).facts()
    assert SeriesDataModule(root=str(tmp_path), name="Two").facts()["num_classes"] == 3
    (tmp_path / "One" / "One_TEST.ts").unlink()
    with pytest.raises(RepositoryNotFound, match=r"One_TEST\.ts"):
        SeriesDataModule(root=str(tmp_path), name="One").facts()
    with pytest.raises(BadInput, match=r"set data\.root"):
        SeriesDataModule(format="ts").facts()


def test_arrays() -> None:
    series, labels = cylinder_bell_funnel(30, 40)
    data = SeriesDataModule.from_arrays((series, np.array(CLASS_NAMES)[labels]), batch_size=4)
    assert data.facts() == {
        "num_classes": 3,
        "class_names": sorted(CLASS_NAMES),
        "channels": 1,
        "length": 40,
    }
    sizes = [len(data.split(s)) for s in ("train", "val", "test")]  # type: ignore[arg-type]
    assert sum(sizes) == 30
    assert sizes[2] in (9, 10, 12)
    rows = [np.arange(12.0), np.arange(15.0) ** 2] * 3
    regression = SeriesDataModule.from_arrays((rows, np.arange(6) / 3), (rows, np.arange(6) / 3))
    assert regression.facts()["num_classes"] == 0
    with pytest.raises(BadInput, match="6 targets"):
        SeriesDataModule.from_arrays((rows, [1, 2]))
    with pytest.raises(BadInput, match="series 0: expected numbers"):
        SeriesDataModule.from_arrays((["a", "b"], [1, 2]))


def test_frames() -> None:
    """One frame has a series per row; of several, each has a row per point and a column per channel."""
    series, labels = cylinder_bell_funnel(30, 40)
    targets = pd.Series(np.array(CLASS_NAMES)[labels], dtype="category")
    options: dict[str, Any] = {"val_share": 0}
    wanted: Any = SeriesDataModule.from_arrays((series, targets), (series, targets), **options).split("train")
    wide = pd.DataFrame(series[:, 0])
    found: Any = SeriesDataModule.from_arrays((wide, targets), (wide, targets), **options).split("train")
    assert torch.equal(found.series, wanted.series)
    assert torch.equal(found.targets, wanted.targets)
    both = [pd.DataFrame({"a": row[0], "b": -row[0]}) for row in series]
    data = SeriesDataModule.from_arrays((both, targets), (both, targets), **options)
    assert data.facts()["channels"] == 2
    train: Any = data.split("train")
    assert torch.equal(train.series[:, 1], -wanted.series[:, 0])
    with pytest.raises(BadInput, match="train: the column 'name' does not hold numbers, such as 'x' in row 0"):
        SeriesDataModule.from_arrays((wide.assign(name="x"), targets))
    with pytest.raises(BadInput, match="train: series 2: the column 'b'"):
        SeriesDataModule.from_arrays(([*both[:2], both[2].assign(b="x")], targets[:3]))
    with pytest.raises(BadInput, match="series 1 has no target"):
        SeriesDataModule.from_arrays((series, [targets[0], None, *targets[2:]]))
    with pytest.raises(BadData, match="at least two classes, got 1"):
        SeriesDataModule.from_arrays((series, ["one"] * 30))


def test_world_has_three_shapes() -> None:
    series, labels = cylinder_bell_funnel(300, 128)
    assert series.shape == (300, 1, 128)
    assert np.bincount(labels).tolist() == [100, 100, 100]
    smooth = np.apply_along_axis(lambda row: np.convolve(row, np.ones(9) / 9, "same"), 1, series[:, 0])
    peak = smooth.argmax(1)
    inside = [np.flatnonzero(row > 1.5) for row in smooth]
    late = np.array([(p - i[0]) / max(1, i[-1] - i[0]) for p, i in zip(peak, inside, strict=True)])
    assert np.median(late[labels == 1]) > 0.7  # bells rise
    assert np.median(late[labels == 2]) < 0.3  # funnels fall
    again, _ = cylinder_bell_funnel(300, 128)
    assert np.array_equal(series, again)


UNITS = {"tesla": (1e-12, 0.0), "northing": (1.0, 5.8e6), "both": (1e-3, 1e4), "huge": (1e20, 0.0), "usual": (1.0, 0.0)}


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("format", ["ts", "tsv", "npz", "arrays", "frame"])
def test_no_unit_loses_what_varies(unit: str, format: str, tmp_path: Path) -> None:
    """Standardised, series are the same in every unit; float32 is kept wherever it will do."""
    factor, level = UNITS[unit]
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 24)), [0, 1] * 4
    scaled = x * factor + level
    if format in ("arrays", "frame"):
        given = pd.DataFrame(scaled) if format == "frame" else scaled
        data = SeriesDataModule.from_arrays((given, y), (given, y), val_share=0)
    else:
        for part in ("TRAIN", "TEST"):
            if format == "npz":
                np.savez(tmp_path / f"A_{part}.npz", x=scaled, y=y)
                continue
            rows = [",".join(repr(float(v)) for v in row) for row in scaled]
            lines = [f"{r}:{t}" for r, t in zip(rows, y, strict=True)] if format == "ts" else []
            lines = ["@classLabel true 0 1", "@data", *lines] if format == "ts" else lines
            lines = lines or [f"{t}\t{r.replace(',', chr(9))}" for r, t in zip(rows, y, strict=True)]
            (tmp_path / f"A_{part}.{format}").write_text("\n".join(lines) + "\n")
        data = SeriesDataModule(str(tmp_path), val_share=0)
    series = tensors(data)["series"]
    assert series.dtype == (torch.float32 if unit in ("usual", "tesla") else torch.float64)
    expected = (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)
    assert np.abs(standardise_series(series)[:, 0].numpy() - expected).max() < 1e-4


@pytest.mark.parametrize("kind", [np.int16, np.int64, np.uint8, np.float16])
def test_whole_numbers_are_series_too(kind: Any, tmp_path: Path) -> None:
    """Arrays of an instrument are often whole numbers, at a level of their own."""
    x, y = np.random.default_rng(0).integers(0, 100, (8, 24)), [0, 1] * 4
    scaled = (x + (1_700_000_000_000 if kind is np.int64 else 0)).astype(kind)
    for part in ("TRAIN", "TEST"):
        np.savez(tmp_path / f"A_{part}.npz", x=scaled, y=y)
    for data in (
        SeriesDataModule(str(tmp_path), val_share=0),
        SeriesDataModule.from_arrays((scaled, y), (scaled, y), val_share=0),
    ):
        expected = (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)
        assert np.abs(standardise_series(tensors(data)["series"])[:, 0].numpy() - expected).max() < 1e-3


def stacked(x: np.ndarray) -> pd.DataFrame:
    """Series (M, C, L) one below the other, as sktime has them."""
    index = pd.MultiIndex.from_product([range(len(x)), range(x.shape[2])], names=["case", "time"])
    return pd.DataFrame(x.transpose(0, 2, 1).reshape(-1, x.shape[1]), index=index, columns=["a", "b"][: x.shape[1]])


def long(x: np.ndarray, *names: str) -> pd.DataFrame:
    """A row for each value."""
    case, channel, time = (axis.reshape(-1) for axis in np.indices(x.shape))
    return pd.DataFrame(dict(zip(names, (case, channel, time, x.reshape(-1)), strict=True)))


LONG = [("case_id", "dim_id", "reading_id", "value"), ("index", "column", "time_index", "value")]


@pytest.mark.parametrize("channels", [1, 2])
def test_frames_of_several_series(channels: int) -> None:
    x = np.random.default_rng(0).normal(size=(6, channels, 20))
    y = ["a", "b"] * 3
    expected = tensors(SeriesDataModule.from_arrays((x, y), (x, y), val_share=0))["series"]
    model = SoftRocket(num_classes=2, num_kernels=8, length=20, channels=channels)
    probs = [found["probs"] for found in model.predict(list(x))]
    turned = [part[::-1] for _, part in stacked(x).groupby(level=0)]
    rows = pd.concat(turned)
    assert not rows.index.is_monotonic_increasing
    for frame in (stacked(x), rows, *(long(x, *names).sample(frac=1, random_state=0) for names in LONG)):
        data = SeriesDataModule.from_arrays((frame, y), (frame, y), val_share=0)
        assert torch.equal(tensors(data)["series"], expected)
        results = model.predict(frame)
        assert len(results) == 6
        assert torch.equal(torch.stack([r["probs"] for r in results]), torch.stack(probs))


def test_frames_that_are_none() -> None:
    x = np.random.default_rng(0).normal(size=(4, 1, 20))
    model = SoftRocket(num_classes=2, num_kernels=8, length=20)
    three = pd.concat({"site": stacked(x)})
    with pytest.raises(BadInput, match="two levels, series and time, got 3"):
        model.predict(three)
    twice = pd.concat([long(x, *LONG[0])] * 2)
    with pytest.raises(BadInput, match="one value for each case_id, dim_id and reading_id"):
        model.predict(twice)
    with pytest.raises(BadInput, match=r"train: expected a pair .* from_arrays\(\(X, y\)\), got ndarray"):
        SeriesDataModule.from_arrays(x, [0, 1, 0, 1])  # type: ignore[arg-type]
