"""Reading CIFAR-10 and CIFAR-100 as they are published: folders of pickled batches.

cifar-10-batches-py/{data_batch_1..5,test_batch,batches.meta}
cifar-100-python/{train,test,meta}
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from datamodules.images.cifar_pickle import NotCifarError, read_cifar_pickle
from datamodules.images.read import Pictures, wrong
from zoo.errors import BadData

__all__ = ["find_cifar", "read_cifar", "read_cifar_names"]

_FILES = {
    "cifar-10": ("cifar-10-batches-py", [f"data_batch_{i}" for i in range(1, 6)], ["test_batch"], "batches.meta"),
    "cifar-100": ("cifar-100-python", ["train"], ["test"], "meta"),
}
_KEYS = {"cifar-10": ("labels", "label_names", 10), "cifar-100": ("fine_labels", "fine_label_names", 100)}
_SIZE_LIMIT = 400_000_000  # bytes of a file; the largest, of CIFAR-100, has 155 million


def find_cifar(root: Path, kind: str) -> Path | None:
    """The folder of the batches: torchvision's, below the root or the root itself."""
    name, train, test, meta = _FILES[kind]
    for place in (root / name, root):
        # `train` and `test` may be anything; CIFAR-100 has a `meta`
        if (place / (train + test)[0]).is_file() and (place.name == name or (place / meta).is_file()):
            return place
    return None


def _content(path: Path) -> dict[str, Any]:
    """The dict in a file, or what is wrong with it."""
    if not path.is_file():
        raise BadData(f"{path}: expected this file of CIFAR, got none.", [f"{path} is missing"])
    try:
        with path.open("rb") as file:
            data = file.read(_SIZE_LIMIT + 1)
        if len(data) > _SIZE_LIMIT:
            raise NotCifarError(f"it has more than {_SIZE_LIMIT:,} bytes")
        return read_cifar_pickle(data)
    except (OSError, NotCifarError) as error:
        raise wrong(path, "file", "a pickled batch of CIFAR", f"another one: {error}") from error


def read_cifar_names(place: Path, kind: str) -> list[str]:
    """Class names in label order.

    Raises:
        BadData: naming the file.
    """
    path, (_, key, count) = place / _FILES[kind][3], _KEYS[kind]
    names = _content(path).get(key)
    if not isinstance(names, list) or len(names) != count or not all(isinstance(n, str) for n in names):
        got = f"{len(names)} values" if isinstance(names, list) else type(names).__name__
        raise wrong(path, key, f"{count} names", got)
    return list(names)


def read_cifar(place: Path, kind: str, split: str) -> Pictures:
    """Training or test part.

    Raises:
        BadData: naming the file.
    """
    _, train, test, _ = _FILES[kind]
    key, _, classes = _KEYS[kind]
    parts = []
    for name in train if split == "train" else test:
        path = place / name
        batch = _content(path)
        data, labels = batch.get("data"), batch.get(key)
        if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[1] != 3072:
            raise wrong(path, "data", "bytes (N, 3072)", getattr(data, "shape", type(data).__name__))
        if not isinstance(labels, list) or not all(type(v) is int for v in labels):
            raise wrong(path, key, "a list of whole numbers", type(labels).__name__)
        parts.append(Pictures(data.reshape(-1, 3, 32, 32), np.array(labels, np.int64)).checked(path, classes))
    return Pictures(np.concatenate([p.pixels for p in parts]), np.concatenate([p.labels for p in parts]))
