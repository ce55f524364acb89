"""Images in memory as bytes, and batches made from them without a Python loop over samples."""

from __future__ import annotations

import copy
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import Dataset

from zoo.errors import BadData, BadInput
from zoo.inputs.images import fit_square, read_image

__all__ = ["ArraySource", "Augment", "CutMix", "FileSource", "ImageSet", "Source", "stratified", "uniforms"]

_MIXING = 7_919
"""Added to the seed for the numbers of mixing, which are then others than those of augmentation."""

RAM_LIMIT = 1_000_000_000
"""Bytes of decoded image files that are kept."""


class Source(Protocol):
    """Where pixels come from."""

    labels: np.ndarray | None

    def __len__(self) -> int: ...

    def take(self, indices: np.ndarray) -> np.ndarray:
        """Pixels of some images, uint8 (n, C, S, S)."""
        ...


class ArraySource:
    """All images in one array.

    Args:
        pixels: uint8 (N, C, S, S).
        labels: int64 (N,); None for images without.
    """

    def __init__(self, pixels: np.ndarray, labels: np.ndarray | None) -> None:
        self.pixels, self.labels = pixels, labels

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, indices: np.ndarray) -> np.ndarray:
        """Pixels of some images, uint8 (n, C, S, S)."""
        return self.pixels[indices]


class FileSource:
    """Images in files, brought to one size when they are first used, and kept while they fit into memory.

    Args:
        paths: the files.
        labels: int64 (N,); None for images without.
        size: S.
        channels: 1 or 3.
        keep: hold decoded images; loader processes forget theirs after each epoch. Processes that are forked from
            this one share what any of them decodes.
        boxes: (left, top, right, bottom) in pixels, what is cut out of each image; None for whole ones.
    """

    def __init__(
        self, paths: Sequence[Path], labels: np.ndarray | None, size: int, channels: int, keep: bool = True,
        boxes: Sequence[tuple[int, int, int, int]] | None = None,
    ) -> None:  # fmt: skip
        self.boxes = boxes
        self.paths, self.labels, self.size, self.channels = list(paths), labels, size, channels
        shape = (len(self.paths), channels, size, size)
        self.kept = _shared(shape) if keep and np.prod(shape) <= RAM_LIMIT else None
        self.decoded = _shared(shape[:1])

    def __len__(self) -> int:
        return len(self.paths)

    def _decode(self, index: int) -> np.ndarray:
        try:
            pixels = read_image(self.paths[index])
            if self.boxes is not None:
                left, top, right, bottom = self.boxes[index]
                if right > pixels.shape[1] or bottom > pixels.shape[0]:
                    size = f"{pixels.shape[1]}x{pixels.shape[0]}"
                    raise BadInput(f"{self.paths[index]}: expected a box inside of {size}, got up to {right}x{bottom}.")
                pixels = pixels[top:bottom, left:right]
            return fit_square(pixels, self.size, self.channels)
        except BadInput as error:
            raise BadData(str(error), [str(error)]) from error

    def take(self, indices: np.ndarray) -> np.ndarray:
        """Pixels of some images, uint8 (n, C, S, S).

        Raises:
            BadData: naming a file that is no image.
        """
        if self.kept is None:
            return np.stack([self._decode(i) for i in indices.tolist()])
        for i in np.unique(indices[self.decoded[indices] == 0]).tolist():
            self.kept[i] = self._decode(i)
            self.decoded[i] = 1
        return self.kept[indices]


def _shared(shape: tuple[int, ...]) -> np.ndarray:
    """Zeros, uint8, which a forked process shares instead of getting a copy; memory is taken when it is written to."""
    count = int(np.prod(shape))
    return np.frombuffer(mmap.mmap(-1, max(1, count)), np.uint8, count).reshape(shape)


def uniforms(seed: int, epoch: int, indices: np.ndarray, count: int) -> np.ndarray:
    """Numbers in [0, 1) that depend on (seed, epoch, index) alone, for all samples of a batch at once.

    splitmix64 over a counter: one generator object per sample would cost more than the augmentation.

    Args:
        seed: of the data module.
        epoch: of training.
        indices: int (n,).
        count: numbers per sample.

    Returns:
        float64 (n, count).
    """
    with np.errstate(over="ignore"):
        state = _mix(np.uint64(seed) + np.uint64(0x9E3779B97F4A7C15))
        state = _mix(state ^ _mix(np.uint64(epoch) + np.uint64(0xD1B54A32D192ED03)))
        rows = _mix(state ^ _mix(indices.astype(np.uint64)))[:, None]
        drawn = _mix(rows + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    return (drawn >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(value: Any) -> Any:
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@dataclass(frozen=True)
class Augment:
    """Random crop after zero padding, random horizontal flip, and cutout.

    Attributes:
        crop: pixels of padding on each side; 0 for none.
        flip: probability.
        cutout: side of a black square, whose middle is a random pixel (DeVries and Taylor 2017); 0 for none.
    """

    crop: int = 0
    flip: float = 0.0
    cutout: int = 0

    def __bool__(self) -> bool:
        return self.crop > 0 or self.flip > 0 or self.cutout > 0

    def __call__(self, pixels: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """Augment a batch.

        Args:
            pixels: uint8 (n, C, H, W).
            draws: numbers in [0, 1), (n, 5): row, column, flip, and row and column of the cutout; 3 without cutout.

        Returns:
            A new array of the same shape.
        """
        n, _, height, width = pixels.shape
        if self.crop:
            edge = self.crop
            padded = np.pad(pixels, ((0, 0), (0, 0), (edge, edge), (edge, edge)))
            windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))
            row, column = (draws[:, :2] * (2 * edge + 1)).astype(np.int64).T
            pixels = windows[np.arange(n), :, row, column]
        mirrored = draws[:, 2] < self.flip
        pixels = np.where(mirrored[:, None, None, None], pixels[..., ::-1], pixels)
        if self.cutout:
            half, even = (self.cutout - 1) / 2, (self.cutout % 2 == 0) / 2
            middle = (draws[:, 3:] * [height, width]).astype(np.int64) - even
            inside = [np.abs(np.arange(n) - middle[:, [axis]]) <= half for axis, n in enumerate((height, width))]
            hole = inside[0][:, :, None] & inside[1][:, None, :]
            pixels = np.where(hole[:, None], np.uint8(0), pixels)
        return pixels


@dataclass(frozen=True)
class CutMix:
    """A rectangle of another image in place of one's own, and labels in proportion (Yun et al. 2019).

    The rectangle's share of the area is uniform in [0, 1), its middle a random pixel; what lies outside is cut off.

    Attributes:
        probability: that an image is mixed.
        classes: K.
    """

    probability: float
    classes: int

    def __call__(self, pixels: np.ndarray, others: np.ndarray, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mix a batch.

        Args:
            pixels: uint8 (n, C, H, W).
            others: the same of the other images.
            draws: numbers in [0, 1), (n, 4): whether, area, and row and column of the middle.

        Returns:
            pixels, and the share of the area that is one's own, float32 (n,).
        """
        height, width = pixels.shape[2:]
        inside = []
        for axis, length in enumerate((height, width)):
            middle, half = draws[:, 2 + axis] * length, np.sqrt(draws[:, 1]) * length / 2
            low, high = np.floor(middle - half + 0.5)[:, None], np.floor(middle + half + 0.5)[:, None]
            places = np.arange(length)
            inside.append((places >= low) & (places < high))
        cut = inside[0][:, :, None] & inside[1][:, None, :]
        cut &= (draws[:, 0] < self.probability)[:, None, None]
        return np.where(cut[:, None], others, pixels), (1 - cut.mean((1, 2))).astype(np.float32)

    def labels(self, own: np.ndarray, others: np.ndarray, share: np.ndarray) -> np.ndarray:
        """Distributions of labels, float32 (n, K).

        Args:
            own: int64 (n,).
            others: int64 (n,), of the other images.
            share: of one's own (n,).
        """
        mixed = np.zeros((len(own), self.classes), np.float32)
        rows = np.arange(len(own))
        np.add.at(mixed, (rows, own), share)
        np.add.at(mixed, (rows, others), 1 - share)
        return mixed


class ImageSet(Dataset[dict[str, Any]]):
    """Images of a split. An item is a dict; `__getitems__` makes a whole batch at once, which loaders prefer.

    Args:
        source: pixels and labels.
        chosen: which of its images, in order; None for all.
        augment: what training images go through.
        seed: of the augmentation.
        labelled: whether items have a `label`.
        cutmix: mixes training images; items then have `mixed` (K,).
    """

    def __init__(
        self,
        source: Source,
        chosen: np.ndarray | None = None,
        augment: Augment | None = None,
        seed: int = 0,
        labelled: bool = True,
        cutmix: CutMix | None = None,
    ) -> None:
        self.source, self.cutmix = source, cutmix
        self.chosen = np.arange(len(source)) if chosen is None else chosen
        self.augment, self.seed, self.epoch = augment, seed, 0
        self.labels = None if source.labels is None or not labelled else source.labels[self.chosen]

    def set_epoch(self, epoch: int) -> None:
        """Number of the epoch, from which augmentation is drawn."""
        self.epoch = epoch

    def without_augmentation(self) -> ImageSet:
        """The same pictures as they are."""
        plain = copy.copy(self)
        plain.augment = plain.cutmix = None
        return plain

    def origins(self, indices: Sequence[int]) -> list[str] | list[int]:
        """Files of some samples; of pictures that have none of their own, their numbers in the file of all.

        Samples are numbered within their split, which may be any part of what was read.
        """
        places = self.chosen[np.asarray(indices, dtype=np.int64)].tolist()
        paths = getattr(self.source, "paths", None)
        return places if paths is None else [str(paths[place]) for place in places]

    def __len__(self) -> int:
        return len(self.chosen)

    def _pixels(self, index: np.ndarray) -> np.ndarray:
        """Augmented pixels of some images."""
        pixels = self.source.take(self.chosen[index])
        if self.augment:
            pixels = self.augment(pixels, uniforms(self.seed, self.epoch, index, 5 if self.augment.cutout else 3))
        return pixels

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Any]:
        """A batch: index int64 (n,), image float32 (n, C, S, S) in 0..1, label int64 (n,).

        Where pictures are flipped at random, `mirrored` bool (n,) says which: maps of them must be flipped, too.
        """
        index = np.asarray(indices, dtype=np.int64)
        pixels, mixed = self._pixels(index), None
        if self.cutmix and self.labels is not None:
            draws = uniforms(self.seed + _MIXING, self.epoch, index, 5)
            other = (draws[:, 4] * len(self)).astype(np.int64)
            pixels, share = self.cutmix(pixels, self._pixels(other), draws)
            mixed = self.cutmix.labels(self.labels[index], self.labels[other], share)
        image = torch.from_numpy(np.ascontiguousarray(pixels)).float().div_(255)
        batch: dict[str, Any] = {"index": torch.from_numpy(index), "image": image}
        if self.augment and self.augment.flip > 0:
            batch["mirrored"] = torch.from_numpy(uniforms(self.seed, self.epoch, index, 3)[:, 2] < self.augment.flip)
        if self.labels is not None:
            batch["label"] = torch.from_numpy(self.labels[index])
        if mixed is not None:
            batch["mixed"] = torch.from_numpy(mixed)
        return batch

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(index)  # iteration over a data set ends with this
        return {key: value[0] for key, value in self.__getitems__([index % len(self)]).items()}


def stratified(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Choose samples at random with the shares of the classes kept, by largest remainder.

    Args:
        labels: int (N,).
        count: how many, at most N.
        seed: of the draw.

    Returns:
        int64 (count,), rising. A smaller count chooses a subset of what a larger one chooses wherever the shares allow.
    """
    kinds, sizes = np.unique(labels, return_counts=True)
    exact = sizes * count / len(labels)
    shares = np.floor(exact).astype(np.int64)
    for i in np.argsort(shares - exact, kind="stable")[: count - int(shares.sum())]:
        shares[i] += 1
    rows = []
    for kind, share in zip(kinds, shares, strict=True):
        members = np.flatnonzero(labels == kind)
        order = np.random.default_rng([seed, int(kind)]).permutation(len(members))
        rows.append(members[order[:share]])
    return np.sort(np.concatenate(rows)) if rows else np.empty(0, np.int64)


def resized(pixels: np.ndarray, size: int, channels: int) -> np.ndarray:
    """Images with another side or number of channels, by the function that `predict` uses.

    Args:
        pixels: uint8 (N, C, H, W).
        size: S.
        channels: 1 or 3.

    Returns:
        uint8 (N, channels, S, S).
    """
    if pixels.shape[1:] == (channels, size, size):
        return pixels
    colour = pixels if pixels.shape[1] == 3 else np.repeat(pixels, 3, axis=1)
    return np.stack([fit_square(image.transpose(1, 2, 0), size, channels) for image in colour])
