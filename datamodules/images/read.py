"""Reading image-classification data: idx files and npz archives.

Files are a user's, or came from somewhere: sizes are compared before arrays are made of them.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zoo.errors import BadData
from zoo.inputs import UnreadableError, swollen
from zoo.inputs.arrays import open_arrays

__all__ = [
    "FASHION_NAMES",
    "Pictures",
    "find_idx",
    "find_npz",
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
_MOST_CLASSES = 100_000
_BLOCK = 4096  # images that are converted at a time
SPLIT_WORDS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}


@dataclass
class Pictures:
    """Images of one file set.

    Attributes:
        pixels: uint8 (N, C, H, W).
        labels: int64 (N,).
        groups: names or int64 (N,), which person, flight or machine an image is from; None if that is not known.
        positions: float32 (N, 2), where it was taken; None if unknown.
        class_names: in label order, if the file states them.
    """

    pixels: np.ndarray
    labels: np.ndarray
    groups: np.ndarray | None = None
    positions: np.ndarray | None = None
    class_names: list[str] | None = None

    def checked(self, where: Path, classes: int | None = None) -> Pictures:
        """Itself, after comparing counts and labels.

        Raises:
            BadData: naming the file.
        """
        if len(self.pixels) != len(self.labels):
            raise wrong(where, "labels", f"as many as images ({len(self.pixels)})", len(self.labels))
        most = classes or _MOST_CLASSES
        if len(self.labels) and not 0 <= self.labels.min() <= self.labels.max() < most:
            expected = f"0 to {most - 1}"
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
    arrays = []
    for kind, dimensions in (("images-idx3", 3), ("labels-idx1", 1)):
        path = _idx_file(place, part, kind)
        if path is None:
            name = f"{part}-{kind}-ubyte[.gz]"
            raise BadData(f"{place}: expected the file {name}, got none.", [f"{place}: {name} is missing"])
        arrays.append(_idx_array(path, dimensions))
    images, labels = arrays
    return Pictures(images[:, None], labels.astype(np.int64)).checked(place / f"{part}-labels-idx1-ubyte", classes)


def _idx_array(path: Path, dimensions: int) -> np.ndarray:
    """Bytes of an idx file; as many are read as its header says, if a file of its size can hold them."""
    start = 4 + 4 * dimensions
    try:
        packed = path.suffix == ".gz"
        with gzip.open(path) if packed else path.open("rb") as file:
            head = file.read(start)
            if len(head) < start or head[:4] != bytes([0, 0, 8, dimensions]):
                got = repr(head[:4])
                raise wrong(path, "header", f"an idx file of bytes in {dimensions} dimensions", got)
            shape = [int.from_bytes(head[i : i + 4], "big") for i in range(4, start, 4)]
            size, limit = math.prod(shape), path.stat().st_size
            if size > (swollen(limit) if packed else limit):
                raise wrong(path, "size", f"at most what {limit:,} bytes can hold", f"{size:,} bytes in its header")
            data = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise wrong(path, "file", "a readable idx file", str(error)) from error
    if len(data) != size:
        more = "more" if len(data) > size else f"{len(data)} bytes"
        raise wrong(path, "size", f"{'x'.join(map(str, shape))} bytes as its header says", more)
    return np.frombuffer(data, np.uint8).reshape(shape)


# npz --------------------------------------------------------------------------------------------------------------


def find_npz(root: Path) -> bool:
    """Whether the root is an npz file, or a folder with `train.npz`."""
    return (root.is_file() and root.suffix == ".npz") or (root / "train.npz").is_file()


def read_npz(root: Path, split: str) -> Pictures | None:
    """A split; None if there is no such split.

    One file with `train_images`, `train_labels`, ... or `x_train`, `y_train`, ...; or a file per split with `images`
    and `labels`, or `x` and `y`. Optional: `class_names`, `groups`, `positions`.

    Raises:
        BadData: naming file and key.
    """
    path = root if root.is_file() else next((p for w in SPLIT_WORDS[split] if (p := root / f"{w}.npz").is_file()), None)
    if path is None:
        return None
    try:
        with open_arrays(path) as file:
            keys = _npz_keys(file.names, split, own_file=not root.is_file())
            if keys is None:
                if root.is_file() and split != "train":
                    return None
                wanted = f"{split}_images and {split}_labels, or images and labels"
                raise wrong(path, "keys", wanted, ", ".join(sorted(file.names)[:12]) or "none")
            images, labels = file[keys[0]], file[keys[1]]
            names = _npz_names(file.get("class_names"), path)
            marks = [file.get(key) for key in _mark_keys(keys[0])]
    except UnreadableError as error:
        raise wrong(path, "file", error.expected, error.got) from error
    pixels = to_planes(images, path, keys[0])
    if labels.size != len(pixels) or labels.shape[:1] != (labels.size,) or labels.dtype.kind not in "iu":
        raise wrong(path, keys[1], f"{len(pixels)} whole numbers, one for each image", f"{labels.dtype} {labels.shape}")
    pictures = Pictures(pixels, labels.reshape(-1).astype(np.int64)).checked(path, len(names) if names else None)
    pictures.groups, pictures.positions = _checked_marks(path, len(pixels), *marks)
    pictures.class_names = names
    return pictures


def _npz_names(names: np.ndarray | None, path: Path) -> list[str] | None:
    """Class names in label order, if the file has them."""
    if names is None:
        return None
    if names.ndim != 1 or not 0 < len(names) <= _MOST_CLASSES:
        raise wrong(path, "class_names", f"1 to {_MOST_CLASSES:,} names", f"{names.dtype} {names.shape}")
    texts = [name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in names.tolist()]
    if len(set(texts)) < len(texts):
        twice = next(name for name, times in Counter(texts).items() if times > 1)
        raise wrong(path, "class_names", "distinct names", f"{twice!r} twice")
    return texts


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
        if groups.dtype.kind != "U":  # numbers, or names in bytes, are counted by rising order
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


def to_planes(images: np.ndarray, path: Path, key: str) -> np.ndarray:
    """Any usual array of images as uint8 (N, C, H, W)."""
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[-1] in (1, 3) and images.shape[1] not in (1, 3):
        images = images.transpose(0, 3, 1, 2)
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise wrong(path, key, "images (N, H, W), (N, H, W, C) or (N, C, H, W), C 1 or 3", images.shape)
    if images.dtype.kind == "f":
        low, high = float(images.min(initial=0)), float(images.max(initial=0))
        if not (low >= 0 and high <= 1):
            raise wrong(path, key, "floats in [0, 1], or bytes", f"[{low:g}, {high:g}]")
        scaled = np.empty(images.shape, np.uint8)
        for start in range(0, len(images), _BLOCK):  # a copy as floats would take eight times the memory
            scaled[start : start + _BLOCK] = np.rint(images[start : start + _BLOCK] * 255)
        images = scaled
    if images.dtype != np.uint8:
        raise wrong(path, key, "bytes or floats in [0, 1]", images.dtype)
    return images
