"""Further training images with labels that a classifier gave them, and batches of which they are one half.

A file as it is published: `ti_500K_pseudo_labeled.pickle` (Carmon et al. 2019), a pickled dict with `data` uint8
(N, S, S, 3) and `extrapolated_targets` int64 (N,), read without running it; or an npz file with `images` and `labels`.
"""

from __future__ import annotations

from collections.abc import Sequence, Sized
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datamodules.base import TrainSampler
from datamodules.images.cifar_pickle import NotCifarError, read_cifar_pickle
from datamodules.images.dataset import ArraySource, Source
from datamodules.images.read import Pictures, read_npz, wrong
from zoo.errors import BadData, BadInput

__all__ = ["HalfSampler", "JoinedSource", "find_extra", "read_extra", "with_extra"]

_SIZE_LIMIT = 2_500_000_000
"""Bytes of a pickled file; the published one has 1.5 billion."""


def find_extra(name: str, root: Path | None) -> Path:
    """The file: below the folder of the data, or a path of its own.

    Raises:
        BadInput: if there is none.
    """
    path = Path(name).expanduser()
    places = [path] if root is None or path.is_absolute() else [root / path, path]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        looked = " and ".join(str(place) for place in places)
        raise BadInput(f"extra: expected a file of further training images, got none at {looked}.")
    return file


def read_extra(path: Path, classes: int, channels: int, side: int) -> Pictures:
    """Images and labels of such a file.

    Args:
        path: the file, pickled or npz.
        classes: labels are below it.
        channels: of the images they are added to.
        side: of the images they are added to.

    Raises:
        BadData: naming file and key.
    """
    pictures = _npz(path) if path.suffix == ".npz" else _pickled(path)
    pictures = pictures.checked(path, classes)
    if pictures.pixels.shape[1:] != (channels, side, side):
        expected = f"images of shape ({channels}, {side}, {side}), as those that they are added to"
        raise wrong(path, "images", expected, pictures.pixels.shape[1:])
    return pictures


def _npz(path: Path) -> Pictures:
    pictures = read_npz(path, "train")
    if pictures is None:
        raise BadData(f"{path}: expected images and labels, got none.")
    return pictures


def _pickled(path: Path) -> Pictures:
    try:
        with path.open("rb") as file:
            data = file.read(_SIZE_LIMIT + 1)
        if len(data) > _SIZE_LIMIT:
            raise NotCifarError(f"it has more than {_SIZE_LIMIT:,} bytes")
        content = read_cifar_pickle(data, ("u1", "i8"))
    except (OSError, NotCifarError) as error:
        expected = "an npz file, or a pickled dict of data and extrapolated_targets"
        raise wrong(path, "file", expected, f"another one: {error}") from error
    images, labels = content.get("data"), content.get("extrapolated_targets")
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise wrong(path, "data", "bytes (N, S, S, 3)", getattr(images, "shape", type(images).__name__))
    if isinstance(labels, list) and all(type(v) is int for v in labels):
        labels = np.array(labels, np.int64)
    if not isinstance(labels, np.ndarray) or labels.ndim != 1 or labels.dtype.kind != "i":
        raise wrong(path, "extrapolated_targets", "whole numbers (N,)", getattr(labels, "dtype", type(labels).__name__))
    return Pictures(images.transpose(0, 3, 1, 2), labels.astype(np.int64))


class JoinedSource:
    """The images of several sources, one after the other.

    Args:
        parts: with labels, of one shape.
    """

    def __init__(self, parts: Sequence[Source]) -> None:
        self.parts = list(parts)
        self.starts = np.cumsum([0, *(len(part) for part in parts)])
        self.labels: np.ndarray | None = np.concatenate([np.asarray(part.labels) for part in parts])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def take(self, indices: np.ndarray) -> np.ndarray:
        """Pixels of some images, uint8 (n, C, S, S)."""
        which = np.searchsorted(self.starts, indices, side="right") - 1
        taken: np.ndarray | None = None
        for number, part in enumerate(self.parts):
            rows = np.flatnonzero(which == number)
            if not len(rows):
                continue
            pixels = part.take(indices[rows] - self.starts[number])
            if taken is None:
                taken = np.empty((len(indices), *pixels.shape[1:]), np.uint8)
            taken[rows] = pixels
        return self.parts[0].take(indices) if taken is None else taken


def with_extra(
    source: Source, chosen: np.ndarray, path: Path, facts: dict[str, Any]
) -> tuple[JoinedSource, np.ndarray]:
    """Add the images of a file.

    Args:
        source: of the labelled images.
        chosen: which of them are used.
        path: the file.
        facts: of the data, see `ZooDataModule.facts`.

    Returns:
        All images, and which of them are used: the chosen ones, then all further ones.

    Raises:
        BadData: naming file and key.
    """
    further = read_extra(path, facts["num_classes"], facts["channels"], facts["img_size"])
    joined = JoinedSource([source, ArraySource(further.pixels, further.labels)])
    return joined, np.concatenate([chosen, len(source) + np.arange(len(further.labels))])


class HalfSampler(TrainSampler):
    """Labelled and further samples in turn, on each rank; an epoch is as long as the labelled ones alone.

    So each batch of an even size holds as many of either, and an epoch shows half of the labelled ones, other ones each
    time. Further samples repeat within an epoch only if there are fewer than needed.

    Args:
        dataset: labelled samples first, then the further ones.
        num_replicas: number of processes.
        rank: this process.
        seed: of the order.
        labelled: how many are labelled.
    """

    def __init__(
        self, dataset: Sized, num_replicas: int = 1, rank: int = 0, seed: int = 0, *, labelled: int, **options: Any
    ) -> None:
        super().__init__(dataset, num_replicas, rank, seed, **options)
        self.labelled, self.further = labelled, len(dataset) - labelled

    def order(self) -> list[int]:
        """Indices of all ranks together: as many labelled ones as there are ranks, then as many further ones."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        own = torch.randperm(self.labelled, generator=generator)
        rounds = -(-self.labelled // self.further)
        others = torch.cat([torch.randperm(self.further, generator=generator) for _ in range(rounds)])
        world = self.num_replicas
        blocks = self.labelled // (2 * world) + 1
        pairs = [torch.split(part[: blocks * world], world) for part in (own, self.labelled + others)]
        turns = [block for pair in zip(*pairs, strict=False) for block in pair]
        return torch.cat(turns)[: self.labelled].tolist()

    def __len__(self) -> int:
        return self.labelled // self.num_replicas
