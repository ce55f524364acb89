"""What the layouts are: one table of those that are arrays, and how a layout is recognised."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datamodules import assets
from datamodules.images.celeba import find_celeba
from datamodules.images.cifar import find_cifar, read_cifar, read_cifar_names
from datamodules.images.folders import class_folders, find_eurosat
from datamodules.images.gtsrb import find_gtsrb
from datamodules.images.read import FASHION_NAMES, Pictures, find_idx, find_npz, read_idx
from datamodules.images.svhn import find_svhn, read_svhn
from zoo.errors import BadData

__all__ = ["ARRAYS", "EMBEDDED", "FORMATS", "ArrayFormat", "detected", "embedded"]

FORMATS = (
    "auto", "fashion-mnist", "mnist", "cifar-10", "cifar-100", "svhn", "eurosat", "celeba", "gtsrb", "gtsrb-roi",
    "folders", "npz",
)  # fmt: skip
EMBEDDED = ("fashion-mnist", "mnist", "land-cover")
DIGITS = [str(i) for i in range(10)]


class ArrayFormat(NamedTuple):
    """A layout whose files hold whole arrays.

    Attributes:
        find: root -> folder of its files, or None.
        names: that folder -> class names; without a folder, those that are known beforehand.
        read: (folder, split) -> pictures of `train` or `test`.
        channels: of the pictures.
        side: of the pictures.
        holds: what is looked for, in words.
    """

    find: Callable[[Path], Path | None]
    names: Callable[[Path | None], list[str]]
    read: Callable[[Path, str], Pictures]
    channels: int
    side: int
    holds: str

    def place(self, root: Path) -> Path:
        """The folder of its files.

        Raises:
            BadData: if there is none.
        """
        if (place := self.find(root)) is None:
            raise BadData(f"{root}: expected {self.holds}, got none.")
        return place


def _idx(folder: str, kind: str, names: list[str]) -> ArrayFormat:
    holds = f"{folder}/raw with idx files (`zoo data fetch {kind}`)"
    read = partial(_read_idx, 10)
    return ArrayFormat(partial(_find_idx, folder), lambda _: list(names), read, 1, 28, holds)


def _find_idx(folder: str, root: Path) -> Path | None:
    return find_idx(root, folder)


def _read_idx(classes: int, place: Path, split: str) -> Pictures:
    return read_idx(place, split, classes)


def _cifar(folder: str, kind: str) -> ArrayFormat:
    holds = f"the folder {folder}" + (" (`zoo data fetch cifar-10`)" if kind == "cifar-10" else "")

    def names(place: Path | None) -> list[str]:
        assert place is not None
        return read_cifar_names(place, kind)

    def read(place: Path, split: str) -> Pictures:
        return read_cifar(place, kind, split)

    return ArrayFormat(lambda root: find_cifar(root, kind), names, read, 3, 32, holds)


ARRAYS: dict[str, ArrayFormat] = {
    "fashion-mnist": _idx("FashionMNIST", "fashion-mnist", list(FASHION_NAMES)),
    "mnist": _idx("MNIST", "mnist", DIGITS),
    "cifar-10": _cifar("cifar-10-batches-py", "cifar-10"),
    "cifar-100": _cifar("cifar-100-python", "cifar-100"),
    "svhn": ArrayFormat(
        find_svhn, lambda _: list(DIGITS), read_svhn, 3, 32, "train_32x32.mat and test_32x32.mat of SVHN"
    ),
}
"""Layout -> how it is read."""

_IDX = {"fashion-mnist": "FashionMNIST", "mnist": "MNIST"}


def detected(root: Path) -> str:
    """The layout of a folder or file.

    Raises:
        BadData: if there is none, or several.
    """
    layouts = ["npz"] if find_npz(root) else []
    if root.is_dir():
        layouts += [kind for kind, about in ARRAYS.items() if kind not in _IDX and about.find(root) is not None]
        own = [kind for kind, folder in _IDX.items() if (root / folder).is_dir() and find_idx(root, folder)]
        if not own and find_idx(root, "raw"):  # idx files alone: only their folder's name tells which
            own = ["fashion-mnist" if "fashion" in str(root).lower() else "mnist"]
        layouts += own
        others = {"eurosat": find_eurosat, "celeba": find_celeba, "gtsrb": find_gtsrb}
        layouts += [kind for kind, find in others.items() if find(root) is not None]
        layouts += ["folders"] if not layouts and class_folders(root, "train") else []
    if len(layouts) == 1:
        return layouts[0]
    if layouts:
        raise BadData(f"{root} holds {' and '.join(layouts)}: say which with format=.")
    seen = ", ".join(sorted(p.name for p in root.iterdir())[:12]) if root.is_dir() else root.name
    raise BadData(
        f"{root}: no layout recognised. Looked for FashionMNIST/raw or MNIST/raw with idx files, "
        "cifar-10-batches-py, cifar-100-python, train_32x32.mat, EuroSAT/2750, celeba/img_align_celeba, "
        "GTSRB/Training, train.npz, and train/CLASS/ or CLASS/ with images. "
        f"There is: {seen or 'nothing'}. fake(folder, format=...) writes an example of each."
    )


def embedded(kind: str, split: str) -> Pictures:
    """Pictures that the package brings: of Fashion-MNIST, or digits."""
    if kind == "fashion-mnist":
        images, labels = assets.fashion(split)
    else:
        images, labels = assets.digits()
    return Pictures(images[:, None], labels.astype(np.int64))
