"""Data modules that `zoo new` writes where there is none of that format yet."""

from __future__ import annotations

__all__ = ["DATA"]

_ROWS = '''\
"""Rows of numbers with a target: `train.csv`, `val.csv`, `test.csv`, and `predict.csv` without the last column.

A header line, then one sample a line; the last column is the class (a name) or the value (a number).
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.base import Problems, ZooDataModule
from zoo.errors import BadInput

SIZES = {"train": 120, "val": 41, "test": 41, "predict": 5}
NAMES = ("north", "east", "south")


def as_row(item: Any, features: int) -> Tensor:
    """A user's input as one row: a list, array, tensor, or the path of a CSV file with one row below its header.

    Raises:
        BadInput: if it is none of these, or of another length, or a file of several rows.
    """
    try:
        if isinstance(item, (str, Path)):
            with Path(item).open(newline="", encoding="utf-8") as file:
                lines = [cells for cells in csv.reader(file) if cells]
            rows = [cells[:features] for cells in lines if all(_is_number(cell) for cell in cells[:features])]
            if len(rows) != 1:
                raise BadInput(f"{item}: expected one row of numbers, got {len(rows)}. Give the rows one by one.")
            item = [float(cell) for cell in rows[0]]
        row = torch.as_tensor(item, dtype=torch.float32)
    except (OSError, ValueError, TypeError, IndexError, RuntimeError) as error:
        raise BadInput(f"Expected {features} numbers or a CSV file of them, got {item!r:.80} ({error}).") from error
    if row.shape != (features,):
        raise BadInput(f"Expected {features} numbers per input, got the shape {tuple(row.shape)}.")
    return row


class Rows(Dataset[dict[str, Any]]):
    """Samples of one split."""

    def __init__(self, rows: np.ndarray, target: np.ndarray, key: str) -> None:
        self.rows = torch.from_numpy(rows.astype(np.float32))
        self.target = torch.from_numpy(target)
        self.key = key

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"index": index, "row": self.rows[index], self.key: self.target[index]}


class RowsDataModule(ZooDataModule):
    """Tables in CSV files; without `root`, three clouds of points or a noisy plane.

    Args:
        root: folder with the CSV files; None draws synthetic rows.
        batch_size: samples per batch and process.
        num_workers: loader processes.
        seed: order of the training samples.
        kind: `classes` or `values`.
    """

    def __init__(
        self,
        root: str | None = None,
        batch_size: int = 16,
        num_workers: int = 0,
        seed: int = 0,
        kind: str = "classes",
    ) -> None:
        super().__init__(root, batch_size, num_workers, seed)
        if kind not in ("classes", "values"):
            raise BadInput(f"kind must be classes or values, got {kind!r}.")
        self.kind = kind

    def read_facts(self) -> dict[str, Any]:
        """Number of features, and the classes in alphabetical order."""
        if self.root is None:
            features, names = 4, sorted(NAMES)
        else:
            table = self._read("train")
            features, names = len(table[0]) - 1, sorted({row[-1] for row in table})
        if self.kind == "values":
            return {"features": features}
        return {"features": features, "num_classes": len(names), "class_names": names}

    def dataset(self, split: str) -> Rows:
        """Rows of a split; `predict` may lack the last column."""
        features = self.facts()["features"]
        table = self._synthetic(split) if self.root is None else self._read(split)
        rows = np.array([[float(v) for v in row[:features]] for row in table])
        if self.kind == "values":
            return Rows(rows, np.array([float(row[-1]) for row in table], dtype=np.float32), "value")
        names = self.facts()["class_names"]
        problems = Problems(self.root or "the embedded rows")
        for number, row in enumerate(table, start=2):
            if row[-1] not in names:
                problems.add(f"{split}.csv", f"line {number}", f"one of {names}", row[-1])
        problems.raise_if_any()
        return Rows(rows, np.array([names.index(row[-1]) for row in table]), "label")

    def fake(self, folder: str | Path) -> Path:
        """Write a few rows per split."""
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        for split in SIZES:
            with (place / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(["x0", "x1", "x2", "x3", "target"])
                writer.writerows(self._synthetic(split)[:24])
        return place

    def _synthetic(self, split: str) -> list[list[str]]:
        draw = np.random.default_rng([7, list(SIZES).index(split)])
        x = draw.normal(size=(SIZES[split], 4))
        if self.kind == "values":
            y = x @ np.array([1.0, -2.0, 0.5, 3.0]) + 0.1 * draw.normal(size=len(x))
            return [[*(f"{v:.6f}" for v in row), f"{value:.6f}"] for row, value in zip(x, y, strict=True)]
        label = np.arange(len(x)) % len(NAMES)
        x = 0.5 * x + 2 * np.eye(len(NAMES), 4)[label]
        return [[*(f"{v:.6f}" for v in row), NAMES[i]] for row, i in zip(x, label, strict=True)]

    def _read(self, split: str) -> list[list[str]]:
        assert self.root is not None
        path = self.root / f"{split}.csv"
        problems = Problems(self.root)
        if not path.is_file():
            problems.add(path.name, "file", "a CSV file with a header", "nothing")
            problems.raise_if_any()
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            header, *table = list(csv.reader(file)) or [[]]
        if not table:
            problems.add(path.name, "file", "a header and at least one row", "none")
        for number, row in enumerate(table, start=2):
            if len(row) != len(header):
                problems.add(path.name, f"line {number}", f"{len(header)} columns", len(row))
            else:
                numbers = row if self.kind == "values" else row[:-1]
                for name, text in zip(header, numbers, strict=False):
                    if not _is_number(text):
                        problems.add(path.name, f"line {number}, {name}", "a finite number", repr(text))
        problems.raise_if_any()
        return table


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False
'''

_PICTURES = '''\
"""Pictures in one folder per class: `train/NAME/*.png`, also `val` and `test`; `predict/*.png` has no classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.base import Problems, ZooDataModule
from zoo.errors import BadData, BadInput
from zoo.inputs.images import to_pixels

SIZES = {"train": 120, "val": 41, "test": 41, "predict": 5}
NAMES = ("horizontal", "vertical")
ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


def as_picture(item: Any) -> Image.Image:
    """A user's input as an RGB picture: a path, a PIL image, an array (H, W, 3) or a tensor (3, H, W).

    Raises:
        BadInput: if it is none of these, or a file that cannot be read.
    """
    return Image.fromarray(to_pixels(item))


def to_square(item: Any, size: int) -> Tensor:
    """From a picture to the network's input, in training and prediction alike: float (3, size, size) in [0, 1]."""
    picture = as_picture(item).resize((size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1).float() / 255


class Pictures(Dataset[dict[str, Any]]):
    """Samples of one split: pictures or their files."""

    def __init__(self, pictures: list[Any], labels: list[int], size: int) -> None:
        self.pictures, self.labels, self.size = pictures, labels, size

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> dict[str, Any]:
        try:
            image = to_square(self.pictures[index], self.size)
        except BadInput as error:
            raise BadData(str(error), [str(error)]) from error
        return {"index": index, "image": image, "label": self.labels[index]}


class PicturesDataModule(ZooDataModule):
    """One folder per class; without `root`, stripes in two directions.

    Args:
        root: folder with train, val and test; None draws stripes.
        batch_size: samples per batch and process.
        num_workers: loader processes.
        seed: order of the training samples.
        size: pixels per side.
    """

    def __init__(
        self,
        root: str | None = None,
        batch_size: int = 16,
        num_workers: int = 0,
        seed: int = 0,
        size: int = 16,
    ) -> None:
        super().__init__(root, batch_size, num_workers, seed)
        self.size = size

    def read_facts(self) -> dict[str, Any]:
        """The classes in alphabetical order."""
        if self.root is None:
            names = sorted(NAMES)
        else:
            place = self.root / "train"
            names = sorted(p.name for p in place.iterdir() if p.is_dir()) if place.is_dir() else []
            if not names:
                problems = Problems(self.root)
                problems.add("train", "folder", "one folder per class", "none")
                problems.raise_if_any()
        return {"num_classes": len(names), "class_names": names, "size": self.size}

    def dataset(self, split: str) -> Pictures:
        """Pictures of a split, in the order of their file names."""
        names = self.facts()["class_names"]
        if self.root is None:
            numbers = range(SIZES[split])
            return Pictures([_stripes(split, i) for i in numbers], [i % 2 for i in numbers], self.size)
        place = self.root / split
        if split == "predict":
            files = _files(place)
            return Pictures(files, [0] * len(files), self.size)
        problems = Problems(self.root)
        files = [(path, names.index(name)) for name in names for path in _files(place / name)]
        if not files:
            problems.add(split, "folder", f"pictures in folders {', '.join(names)}", "none")
        for extra in sorted({p.name for p in place.iterdir() if p.is_dir()} - set(names)) if place.is_dir() else ():
            problems.add(f"{split}/{extra}", "class", f"one of {', '.join(names)} (the folders of train)", extra)
        problems.raise_if_any()
        return Pictures([path for path, _ in files], [label for _, label in files], self.size)

    def fake(self, folder: str | Path) -> Path:
        """Write a few pictures per class and split."""
        for split in SIZES:
            for i in range(9):
                place = Path(folder) / split / ("" if split == "predict" else sorted(NAMES)[i % 2])
                place.mkdir(parents=True, exist_ok=True)
                _stripes(split, i).save(place / f"{i:03d}.png")
        return Path(folder)


def _files(place: Path) -> list[Path]:
    return sorted(p for p in place.glob("*") if p.suffix.lower() in ENDINGS) if place.is_dir() else []


def _stripes(split: str, number: int) -> Image.Image:
    """Noisy stripes: along the rows for even numbers, along the columns for odd ones."""
    draw = np.random.default_rng([11, list(SIZES).index(split), number])
    wave = 0.5 + 0.4 * np.sin(np.arange(24) * draw.uniform(1.0, 2.0) + draw.uniform(0, 6))
    field = np.repeat(wave[:, None], 24, axis=1) if number % 2 == 0 else np.repeat(wave[None], 24, axis=0)
    noisy = (field[..., None] + 0.1 * draw.normal(size=(24, 24, 3))).clip(0, 1)
    return Image.fromarray((noisy * 255).astype(np.uint8))
'''

DATA = {"rows": _ROWS, "pictures": _PICTURES}
