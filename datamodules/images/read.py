"""Reading image-classification data: idx files, npz archives, class folders.

Files are a user's, or came from somewhere: sizes are compared before arrays are made of them.
"""

from __future__ import annotations

import gzip
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zoo.errors import BadData
from zoo.inputs.images import SUFFIXES

__all__ = [
    "FASHION_NAMES",
    "Pictures",
    "class_folders",
    "find_eurosat",
    "find_idx",
    "find_npz",
    "image_files",
    "read_idx",
    "read_npz",
]

FASHION_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
SPLIT_WORDS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}


@dataclass
class Pictures:
    """Images of one file set.

    Attributes:
        pixels: uint8 (N, C, H, W).
        labels: int64 (N,).
        groups: int64 (N,), which person, flight or machine an image is from; None if that is not known.
        positions: float32 (N, 2), where it was taken; None likewise.
    """

    pixels: np.ndarray
    labels: np.ndarray
    groups: np.ndarray | None = None
    positions: np.ndarray | None = None

    def checked(self, where: Path, classes: int | None = None) -> Pictures:
        """Itself, after comparing counts and labels.

        Raises:
            BadData: naming the file.
        """
        if len(self.pixels) != len(self.labels):
            raise wrong(where, "labels", f"as many as images ({len(self.pixels)})", len(self.labels))
        if len(self.labels) and (self.labels.min() < 0 or (classes is not None and self.labels.max() >= classes)):
            expected = f"0 to {classes - 1}" if classes is not None else "0 and above"
            raise wrong(where, "labels", expected, f"{self.labels.min()} to {self.labels.max()}")
        if not len(self.labels):
            raise wrong(where, "images", "at least one", "none")
        return self


def wrong(where: Path, field: str, expected: str, got: object) -> BadData:
    """An error about one file."""
    message = f"{where}: {field}: expected {expected}, got {got}."
    return BadData(message, [message])


# MNIST and Fashion-MNIST ------------------------------------------------------------------------------------------


def find_idx(root: Path, folder: str) -> Path | None:
    """The folder with idx files: torchvision's `folder/raw`, `raw`, or the root itself (as Debian installs them)."""
    for place in (root / folder / "raw", root / folder, root / "raw", root):
        if any(_idx_file(place, part, "images-idx3") for part in ("train", "t10k")):
            return place
    return None


def _idx_file(place: Path, part: str, kind: str) -> Path | None:
    for ending in ("ubyte", "ubyte.gz"):
        for dash in ("-", "."):
            path = place / f"{part}-{kind.replace('-idx', dash + 'idx')}-{ending}"
            if path.is_file():
                return path
    return None


def read_idx(place: Path, split: str, classes: int | None = None) -> Pictures:
    """Training or test part of four idx files, plain or gzipped.

    Raises:
        BadData: if one is missing or not what its header says.
    """
    part = "train" if split == "train" else "t10k"
    found = []
    for kind, dimensions in (("images-idx3", 3), ("labels-idx1", 1)):
        path = _idx_file(place, part, kind)
        if path is None:
            name = f"{part}-{kind}-ubyte[.gz]"
            raise BadData(f"{place}: expected the file {name}, found none.", [f"{place}: {name} is missing"])
        found.append(_idx_array(path, dimensions))
    images, labels = found
    return Pictures(images[:, None], labels.astype(np.int64)).checked(place / f"{part}-labels-idx1-ubyte", classes)


def _idx_array(path: Path, dimensions: int) -> np.ndarray:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read(1 << 31)
    except (OSError, EOFError, zlib.error) as error:
        raise wrong(path, "file", "a readable idx file", str(error)) from error
    start = 4 + 4 * dimensions
    if len(data) < start or data[:4] != bytes([0, 0, 8, dimensions]):
        raise wrong(path, "header", f"an idx file of bytes in {dimensions} dimensions", repr(data[:4]))
    shape = [int.from_bytes(data[i : i + 4], "big") for i in range(4, start, 4)]
    if int(np.prod(shape, dtype=object)) != len(data) - start:
        raise wrong(path, "size", f"{'x'.join(map(str, shape))} bytes as its header says", f"{len(data) - start} bytes")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


# npz --------------------------------------------------------------------------------------------------------------


def find_npz(root: Path) -> bool:
    """Whether the root is an npz file, or a folder with `train.npz`."""
    return (root.is_file() and root.suffix == ".npz") or (root / "train.npz").is_file()


def read_npz(root: Path, split: str) -> tuple[Pictures, list[str] | None] | None:
    """Images, labels and class names of a split; None if there is no such split.

    One file with `train_images`, `train_labels`, ... or `x_train`, `y_train`, ...; or a file per split with `images`
    and `labels`, or `x` and `y`. Optional: `class_names`, `groups`, `positions`.

    Raises:
        BadData: naming file and key.
    """
    path = root if root.is_file() else next((p for w in SPLIT_WORDS[split] if (p := root / f"{w}.npz").is_file()), None)
    if path is None:
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            keys = _npz_keys(list(file), split, own_file=not root.is_file())
            if keys is None:
                if root.is_file() and split != "train":
                    return None
                raise wrong(path, "keys", f"{split}_images and {split}_labels, or images and labels", sorted(file))
            images, labels = file[keys[0]], file[keys[1]]
            names = [str(n) for n in file["class_names"].tolist()] if "class_names" in file else None
            marks = [file.get(key) for key in _mark_keys(keys[0])]
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise wrong(path, "file", "an npz archive of plain arrays", str(error)) from error
    pixels = _to_planes(images, path, keys[0])
    if labels.size != len(labels) or not np.issubdtype(labels.dtype, np.integer):
        raise wrong(path, keys[1], "whole numbers (N,)", f"{labels.dtype} {labels.shape}")
    count = len(names) if names else None
    found = Pictures(pixels, labels.reshape(-1).astype(np.int64)).checked(path, count)
    found.groups, found.positions = _checked_marks(path, len(pixels), *marks)
    return found, names


def _mark_keys(images: str) -> tuple[str, str]:
    """Keys of groups and positions beside that of the images: `train_groups`, `groups_train` or `groups`."""
    if images.startswith("x_"):
        return f"groups_{images[2:]}", f"positions_{images[2:]}"
    before = images[: -len("images")] if images.endswith("images") else ""
    return f"{before}groups", f"{before}positions"


def _checked_marks(
    path: Path, images: int, groups: np.ndarray | None, positions: np.ndarray | None
) -> tuple[np.ndarray | None, np.ndarray | None]:
    if groups is not None:
        if groups.shape != (images,) or groups.dtype.kind not in "iuSU":
            raise wrong(path, "groups", f"whole numbers or names ({images},)", f"{groups.dtype} {groups.shape}")
        groups = np.unique(groups, return_inverse=True)[1].reshape(-1).astype(np.int64)
    if positions is not None:
        if positions.shape != (images, 2) or positions.dtype.kind not in "iuf" or not np.isfinite(positions).all():
            raise wrong(path, "positions", f"finite numbers ({images}, 2)", f"{positions.dtype} {positions.shape}")
        positions = positions.astype(np.float64)
    return groups, positions


def _npz_keys(keys: list[str], split: str, own_file: bool) -> tuple[str, str] | None:
    tried = [(f"{w}_images", f"{w}_labels") for w in SPLIT_WORDS[split]]
    tried += [(f"x_{w}", f"y_{w}") for w in SPLIT_WORDS[split]]
    tried += [("images", "labels"), ("x", "y")] if own_file or split == "train" else []
    return next((pair for pair in tried if pair[0] in keys and pair[1] in keys), None)


def _to_planes(images: np.ndarray, path: Path, key: str) -> np.ndarray:
    """Any usual array of images as uint8 (N, C, H, W)."""
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[-1] in (1, 3) and images.shape[1] not in (1, 3):
        images = images.transpose(0, 3, 1, 2)
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise wrong(path, key, "images (N, H, W), (N, H, W, C) or (N, C, H, W), C 1 or 3", images.shape)
    if np.issubdtype(images.dtype, np.floating):
        low, high = float(images.min(initial=0)), float(images.max(initial=0))
        if not (low >= 0 and high <= 1):
            raise wrong(path, key, "floats in [0, 1], or bytes", f"[{low:g}, {high:g}]")
        images = np.rint(images * 255).astype(np.uint8)
    if images.dtype != np.uint8:
        raise wrong(path, key, "bytes or floats in [0, 1]", images.dtype)
    return images


# Class folders ----------------------------------------------------------------------------------------------------


def image_files(folder: Path) -> list[Path]:
    """Image files at any depth, in order; hidden ones and links that lead nowhere are left out."""
    found = (p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    return sorted(p for p in found if p.is_file())


def _folders(place: Path) -> Iterator[Path]:
    if place.is_dir():
        yield from sorted(p for p in place.iterdir() if p.is_dir() and not p.name.startswith("."))


def find_eurosat(root: Path) -> Path | None:
    """The folder of EuroSAT's classes: as in its archive, or as torchvision unpacks it."""
    for name in ("EuroSAT/2750", "eurosat/2750", "2750"):
        if (root / name).is_dir():
            return root / name
    return None


def class_folders(root: Path, split: str) -> dict[str, Path] | None:
    """Class name -> folder, of `root/SPLIT/CLASS` or, for training without any such split, `root/CLASS`."""
    for word in SPLIT_WORDS[split]:
        if found := {p.name: p for p in _folders(root / word)}:
            return found
    words = {word for all_words in SPLIT_WORDS.values() for word in all_words}
    inside = list(_folders(root))
    if split == "train" and inside and not any(p.name in words for p in inside):
        return {p.name: p for p in inside}
    return None
