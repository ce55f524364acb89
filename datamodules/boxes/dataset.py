"""The data set behind all box formats: letterbox, augmentation, and batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import Dataset

from datamodules.boxes.augment import Augment, Sample, apply
from datamodules.boxes.labels import noisy_boxes
from datamodules.boxes.records import Record, read_image
from datamodules.boxes.scenes import Scenes
from zoo.inputs.geometry import STRIDE, letterbox, to_letterbox

__all__ = ["BoxesDataset", "FileSource", "SceneSource", "collate_boxes"]


_Input = tuple[np.ndarray, float, tuple[int, int], tuple[int, int]]


Scoring = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Areas float32 (n,) or 0, ignored boxes float32 (k, 4) in original pixels, their labels int64 (k,)."""


class Source(Protocol):
    """Where images and their objects come from, in original pixels."""

    def __len__(self) -> int: ...

    def image(self, index: int) -> np.ndarray:
        """uint8 RGB (H, W, 3)."""
        ...

    def objects(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Boxes float32 (n, 4) and labels int64 (n,)."""
        ...

    def scoring(self, index: int) -> Scoring:
        """Areas of the objects, and regions that scores ignore."""
        ...

    def image_id(self, index: int) -> int | str:
        """What the data set calls the image."""
        ...


class FileSource:
    """Images in files."""

    in_memory = False

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = list(records)

    def __len__(self) -> int:
        return len(self.records)

    def image(self, index: int) -> np.ndarray:
        """Decode an image."""
        record = self.records[index]
        return read_image(record.path, record.size)

    def objects(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Boxes and labels of an image."""
        return self.records[index].boxes, self.records[index].labels

    def scoring(self, index: int) -> Scoring:
        """Areas of the objects, and regions that scores ignore."""
        record = self.records[index]
        return record.areas, record.ignored, record.ignored_labels

    def image_id(self, index: int) -> int | str:
        """COCO's id, or the file's stem."""
        return self.records[index].image_id

    def path(self, index: int) -> Path:
        """The file of an image."""
        return self.records[index].path


class SceneSource:
    """Rendered scenes, memory-mapped."""

    in_memory = True

    def __init__(self, scenes: Scenes) -> None:
        self.scenes = scenes

    def __len__(self) -> int:
        return len(self.scenes)

    def image(self, index: int) -> np.ndarray:
        """One scene."""
        return np.asarray(self.scenes.images[index])

    def objects(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Boxes and labels of a scene."""
        part = slice(int(self.scenes.offsets[index]), int(self.scenes.offsets[index + 1]))
        return self.scenes.boxes[part], self.scenes.labels[part]

    def scoring(self, index: int) -> Scoring:
        """Boxes count, and nothing is ignored."""
        return _nothing(int(self.scenes.offsets[index + 1] - self.scenes.offsets[index]))

    def image_id(self, index: int) -> int | str:
        """The scene's number."""
        return index


def _nothing(objects: int) -> Scoring:
    return np.zeros(objects, np.float32), np.zeros((0, 4), np.float32), np.zeros(0, np.int64)


class BoxesDataset(Dataset[dict[str, Any]]):
    """Letterboxed images with boxes in input pixels.

    Args:
        source: the images.
        img_size: side of the square input.
        chosen: indices of `source` to use (a training subset); None for all.
        augment: training augmentation; None for a plain split.
        combine_until: epoch from which mosaic and mixup are off; None for never.
        multi_scale: largest change of the input side, in steps of 32, one draw per batch.
        noise: label noise as parsed by `parse_noise`; drawn once per (seed, image), the same in every epoch.
        seed: of augmentation and noise.
        keep: whether to keep letterboxed images in memory.
    """

    def __init__(
        self,
        source: Source,
        img_size: int,
        chosen: np.ndarray | None = None,
        augment: Augment | None = None,
        combine_until: int | None = None,
        multi_scale: int = 0,
        noise: tuple[str, float] | None = None,
        seed: int = 0,
        keep: bool = False,
    ) -> None:
        self.source = source
        self.img_size = img_size
        self.chosen = np.arange(len(source)) if chosen is None else chosen
        self.augment = None if augment == Augment() else augment
        self.combine_until = combine_until
        self.multi_scale = multi_scale
        self.noise = noise
        self.seed = seed
        self.epoch = 0
        self._kept: dict[int, _Input] | None = {} if keep else None

    def __len__(self) -> int:
        return len(self.chosen)

    def set_epoch(self, epoch: int) -> None:
        """Augmentation depends on (seed, epoch, index) only."""
        self.epoch = epoch

    def __getitem__(self, index: int) -> dict[str, Any]:
        number = int(self.chosen[index])
        rng = np.random.default_rng((self.seed, self.epoch, index))
        if self.augment is None:
            image, boxes, labels, scale, pad, size = self._plain(index)
            area, ignored, ignored_labels = self.source.scoring(number)
            ignored = to_letterbox(ignored, scale, pad)
        else:
            combine = self.combine_until is None or self.epoch < self.combine_until
            sample = apply(self.augment, self._sample, index, len(self), rng, combine)
            image, boxes, labels = sample.image, sample.boxes, sample.labels
            # an augmented image has no way back to original pixels: the geometry describes the input itself
            scale, pad, size = 1.0, (0, 0), (self.img_size, self.img_size)
            area, ignored, ignored_labels = _nothing(len(boxes))
        item = {
            "index": index,
            "image": image,
            "boxes": boxes,
            "labels": labels,
            "area": area,
            "ignored": ignored,
            "ignored_labels": ignored_labels,
            "scale": scale,
            "pad": pad,
            "size": size,
            "image_id": self.source.image_id(number),
        }
        if self.multi_scale:
            steps = int(rng.integers(-self.multi_scale, self.multi_scale + 1))
            item["side"] = max(STRIDE, self.img_size + STRIDE * steps)
        return item

    def targets(self, index: int, size: tuple[int, int] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (with label noise) and labels in original pixels, without augmentation.

        Args:
            index: the sample.
            size: (height, width) of the original image if it is known already; saves decoding it for label noise.
        """
        number = int(self.chosen[index])
        boxes, labels = self.source.objects(number)
        if self.noise is not None and len(boxes):
            rng = np.random.default_rng((self.seed, 13, number))
            boxes = noisy_boxes(boxes, self.noise, size or self._input(index)[3], rng)
        return boxes, labels

    def _input(self, index: int) -> _Input:
        """Letterboxed image, scale, margins, original size."""
        if self._kept is not None and index in self._kept:
            return self._kept[index]
        image = self.source.image(int(self.chosen[index]))
        item = (*letterbox(image, self.img_size), (image.shape[0], image.shape[1]))
        if self._kept is not None:
            self._kept[index] = item
        return item

    def _plain(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float, tuple[int, int], tuple[int, int]]:
        image, scale, pad, size = self._input(index)
        boxes, labels = self.targets(index, size)
        return image, to_letterbox(boxes, scale, pad), labels, scale, pad, size

    def _sample(self, index: int) -> Sample:
        image, boxes, labels, scale, (left, top), (height, width) = self._plain(index)
        right, bottom = left + max(1, int(width * scale + 1e-6)), top + max(1, int(height * scale + 1e-6))
        return Sample(image, boxes, labels, (left, top, right, bottom))


def collate_boxes(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Join items into a batch: images as float32 (B, 3, H, W) in 0..1, boxes and labels as lists."""
    images = torch.from_numpy(np.stack([item["image"] for item in items])).permute(0, 3, 1, 2).contiguous()
    batch: dict[str, Any] = {
        "index": torch.tensor([item["index"] for item in items], dtype=torch.int64),
        "image": images.to(torch.float32).div_(255),
        "boxes": _boxes(items, "boxes"),
        "labels": [torch.from_numpy(np.array(item["labels"], dtype=np.int64)) for item in items],
        "scale": torch.tensor([item["scale"] for item in items], dtype=torch.float32),
        "pad": torch.tensor([item["pad"] for item in items], dtype=torch.float32),
        "size": torch.tensor([item["size"] for item in items], dtype=torch.int64),
        "image_id": [item["image_id"] for item in items],
        "area": [torch.from_numpy(np.array(item["area"], dtype=np.float32)) for item in items],
        "ignored": _boxes(items, "ignored"),
        "ignored_labels": [torch.from_numpy(np.array(item["ignored_labels"], dtype=np.int64)) for item in items],
    }
    # one side per batch: the first item's draw decides, so it depends on (seed, epoch, index) alone
    side = int(items[0].get("side", images.shape[-1]))
    return batch if side == images.shape[-1] else _resize(batch, side)


def _boxes(items: Sequence[dict[str, Any]], key: str) -> list[torch.Tensor]:
    return [torch.from_numpy(np.array(item[key], dtype=np.float32).reshape(-1, 4)) for item in items]


def _resize(batch: dict[str, Any], side: int) -> dict[str, Any]:
    factor = side / batch["image"].shape[-1]
    batch["image"] = torch.nn.functional.interpolate(
        batch["image"], size=(side, side), mode="bilinear", align_corners=False, antialias=factor < 1
    )
    for key in ("boxes", "ignored"):
        batch[key] = [boxes * factor for boxes in batch[key]]
    batch["scale"], batch["pad"] = batch["scale"] * factor, batch["pad"] * factor
    return batch
