"""Rows of numbers with a target, embedded or from `train.csv`, `val.csv`, `test.csv` and `predict.csv`."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from datamodules.base import Problems, ZooDataModule

SIZES = {"train": 45, "val": 17, "test": 13, "predict": 5}
CLASSES = 3
FEATURES = 4


def synthetic(split: str, kind: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, 4) and targets (n,): a noisy plane, or three well separated clouds."""
    rng = np.random.default_rng([seed, list(SIZES).index(split)])
    count = SIZES[split]
    if kind == "regression":
        rows = rng.normal(size=(count, FEATURES))
        target = rows @ np.array([1.0, -2.0, 0.5, 3.0]) + 0.7 + 0.05 * rng.normal(size=count)
    else:
        target = np.arange(count) % CLASSES
        centres = 2.0 * np.eye(CLASSES, FEATURES)
        rows = centres[target] + 0.5 * rng.normal(size=(count, FEATURES))
    return rows.astype(np.float32), target


class Rows(Dataset[dict[str, Any]]):
    """Rows as items; `jitter` adds noise that depends on (seed, epoch, index) alone."""

    def __init__(self, rows: np.ndarray, target: np.ndarray, kind: str, seed: int, jitter: float) -> None:
        self.rows, self.target, self.kind, self.seed, self.jitter = rows, target, kind, seed, jitter
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        if self.jitter:
            noise = np.random.default_rng((self.seed, self.epoch, index)).normal(size=row.shape)
            row = row + (self.jitter * noise).astype(np.float32)
        wanted = self.target[index]
        item: dict[str, Any] = {"index": index, "row": torch.from_numpy(row.astype(np.float32))}
        if self.kind == "regression":
            return item | {"value": torch.tensor(wanted, dtype=torch.float32)}
        return item | {"label": torch.tensor(int(wanted))}


class TableDataModule(ZooDataModule):
    """Tables; `kind` is `regression` or `classes`."""

    def __init__(
        self,
        root: str | None = None,
        batch_size: int = 8,
        num_workers: int = 0,
        seed: int = 0,
        kind: str = "classes",
        jitter: float = 0.05,
    ) -> None:
        super().__init__(root, batch_size, num_workers, seed)
        self.kind = kind
        self.jitter = jitter

    def read_facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = {"features": FEATURES}
        if self.kind == "regression":
            return facts
        count = CLASSES if self.root is None else int(self._read("train")[1].max()) + 1
        return facts | {"num_classes": count, "class_names": [f"class {i}" for i in range(count)]}

    def dataset(self, split: str) -> Rows:
        rows, target = synthetic(split, self.kind) if self.root is None else self._read(split)
        return Rows(rows, target, self.kind, self.seed, self.jitter if split == "train" else 0.0)

    def fake(self, folder: str | Path) -> Path:
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        for split in SIZES:
            rows, target = synthetic(split, self.kind, seed=1)
            with (place / f"{split}.csv").open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow([*(f"x{i}" for i in range(FEATURES)), "target"])
                writer.writerows([*map(float, row), float(wanted)] for row, wanted in zip(rows, target, strict=True))
        return place

    def _read(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        assert self.root is not None
        path = self.root / f"{split}.csv"
        problems = Problems(path)
        table: list[list[float]] = []
        lines = path.read_bytes().decode("utf-8", errors="replace").splitlines() if path.is_file() else []
        if len(lines) < 2:
            problems.add(path, "file", "a header and at least one row", f"{len(lines)} lines")
        for number, line in enumerate(lines[1:], start=2):
            try:
                values = [float(v) for v in line.split(",")]
            except ValueError:
                values = []
            if len(values) != FEATURES + 1:
                problems.add(path, f"line {number}", f"{FEATURES + 1} numbers", repr(line[:40]))
            table.append(values)
        problems.raise_if_any()
        array = np.asarray(table)
        return array[:, :-1].astype(np.float32), array[:, -1]
