"""Inputs and outputs as arrays: `train.npz`, `val.npz` and `test.npz`, each with `x` (n, d) and `y` (n, m).

`predict.npz`, if it is there, has `x` alone; otherwise the test inputs are predicted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.base import Problems, ZooDataModule
from zoo.errors import BadInput
from zoo.inputs import UnreadableError
from zoo.inputs.arrays import open_arrays

__all__ = ["ArrayDataset", "ArraysDataModule"]

SIZES = {"train": 120, "val": 41, "test": 41}


class ArrayDataset(Dataset[dict[str, Any]]):
    """Samples of one split: `x` float32 (d,), and `y` float32 (m,) where there are outputs.

    Args:
        x: (n, d).
        y: (n, m), or None.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray | None) -> None:
        self.x = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))
        self.y = None if y is None else torch.from_numpy(np.ascontiguousarray(y, dtype=np.float32))

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample: dict[str, Tensor | int] = {"index": index, "x": self.x[index]}
        return sample if self.y is None else {**sample, "y": self.y[index]}


class ArraysDataModule(ZooDataModule):
    """Arrays of numbers: (n, d) in, (n, m) out.

    Batch: `index` int64 (B,), `x` float32 (B, d), `y` float32 (B, m); `predict` batches have no `y`.

    Args:
        root: folder of the npz files; None for an embedded noisy linear map.
        batch_size: samples per batch and process.
        num_workers: loader processes; data in memory need none.
        seed: order of the training samples.
        inputs: d of the embedded data.
        outputs: m of the embedded data.
    """

    def __init__(
        self,
        root: str | None = None,
        batch_size: int = 16,
        num_workers: int = 0,
        seed: int = 0,
        inputs: int = 8,
        outputs: int = 16,
    ) -> None:
        super().__init__(root, batch_size, num_workers, seed)
        if min(inputs, outputs) < 1:
            raise BadInput(f"inputs and outputs must be at least 1, got {inputs} and {outputs}.")

    def read_facts(self) -> dict[str, Any]:
        """`inputs` d and `outputs` m."""
        if self.root is None:
            return {"inputs": int(self.hparams["inputs"]), "outputs": int(self.hparams["outputs"])}
        x, y = self._read("train")
        assert y is not None
        return {"inputs": x.shape[1], "outputs": y.shape[1]}

    def dataset(self, split: str) -> ArrayDataset:
        """Samples of a split.

        Raises:
            BadData: naming the file and the array that cannot be used.
        """
        if self.root is not None:
            alone = split == "predict" and (self.root / "predict.npz").is_file()
            x, y = self._read(split if alone or split != "predict" else "test")
        else:
            x, y = self._draw("test" if split == "predict" else split)
        return ArrayDataset(x, None if split == "predict" else y)

    def _read(self, split: str) -> tuple[np.ndarray, np.ndarray | None]:
        """Both arrays of a file, checked."""
        assert self.root is not None
        path, problems = self.root / f"{split}.npz", Problems(self.root)
        arrays: dict[str, np.ndarray | None] = {"x": None, "y": None}
        try:
            with open_arrays(path) as file:
                arrays = {name: file.get(name) for name in arrays}
        except (UnreadableError, OSError) as error:
            problems.add(path.name, "file", "an npz archive with the arrays x and y", str(error))
            problems.raise_if_any()
        for name, array in arrays.items():
            if array is None:
                if name == "x" or split != "predict":
                    problems.add(path.name, name, "an array of numbers (n, numbers)", "none")
            elif array.ndim != 2 or array.dtype.kind not in "biuf" or 0 in array.shape:
                problems.add(path.name, name, "numbers (n, numbers)", f"{array.dtype} {array.shape}")
            elif not np.isfinite(array).all():
                problems.add(path.name, name, "finite numbers", "NaN or infinity")
        x, y = arrays["x"], arrays["y"]
        if x is not None and y is not None and len(x) != len(y):
            problems.add(path.name, "y", f"{len(x)} rows, as in x", len(y))
        problems.raise_if_any()
        assert x is not None
        return x, y

    def fake(self, folder: str | Path) -> Path:
        """Write a few samples of the embedded data."""
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        for split in SIZES:
            x, y = self._draw(split)
            np.savez(place / f"{split}.npz", x=x[:24], y=y[:24])
        return place

    def _draw(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """A linear map of normal inputs, with noise; the same one in all splits."""
        inputs, outputs = int(self.hparams["inputs"]), int(self.hparams["outputs"])
        slope = np.random.default_rng(5).normal(size=(inputs, outputs)) / np.sqrt(inputs)
        random = np.random.default_rng([5, list(SIZES).index(split)])
        x = random.normal(size=(SIZES[split], inputs))
        return x, x @ slope + 0.1 * random.normal(size=(SIZES[split], outputs))
