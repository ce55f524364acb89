"""Rendered DigitScenes splits in the data cache: memory-mapped, checked, safe to write from several processes."""

from __future__ import annotations

import hashlib
import json
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datamodules import assets
from datamodules.cache import checksum, remove_stale
from datamodules.worlds import digit_scenes
from datamodules.worlds.digit_scenes import SceneConfig
from zoo.files import write_whole

__all__ = ["Scenes", "load_scenes", "scenes_path"]


@dataclass
class Scenes:
    """A rendered split: images uint8 (n, size, size, 3), boxes of scene i in `boxes[offsets[i]:offsets[i + 1]]`."""

    images: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.images)


def scenes_path(config: SceneConfig, split: str, count: int, folder: Path) -> Path:
    """Stem of a split's two cache files: the hash covers all parameters, the generator's version and the assets."""
    key: dict[str, Any] = asdict(config) | {"split": split, "count": count, "version": digit_scenes.VERSION}
    key["assets"] = assets.file_hashes()
    if config.extra_photos and split == "train":
        key["extra"] = {name: path.stat().st_size for name, path in assets.extra_photographs().items()}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:20]
    return folder / "digit-scenes" / f"{split}-{config.size}px-{count}-{digest}"


def load_scenes(
    config: SceneConfig,
    split: str,
    count: int,
    folder: Path | None,
    say: Callable[[str], None] = lambda message: None,
) -> Scenes:
    """Return a split from the cache, rendering it first if it is not there or damaged.

    Args:
        config: what the scenes contain.
        split: train, val or test.
        count: number of scenes.
        folder: the data cache; None keeps everything in memory. A folder that cannot be written is no error.
        say: called before a rendering that takes seconds.
    """
    if folder is None:
        return _render(config, split, count)
    stem = scenes_path(config, split, count, folder)
    cached = _read(stem, config, count)
    if cached is not None:
        return cached
    if count > 500:
        say(f"Rendering {count} DigitScenes ({split}), about {count * 0.004:.0f} s; kept in {stem.parent}")
    scenes = _render(config, split, count)
    try:
        _write(stem, scenes)
    except OSError as error:
        warnings.warn(
            f"The data cache {stem.parent} cannot be written ({error}); the scenes stay in memory "
            "and are rendered again next time. Set ZOO_CACHE to a folder with room.",
            stacklevel=2,
        )
        return scenes
    return _read(stem, config, count) or scenes


def _render(config: SceneConfig, split: str, count: int) -> Scenes:
    images = np.empty((count, config.size, config.size, 3), dtype=np.uint8)
    boxes, labels = [np.zeros((0, 4), np.float32)], [np.zeros(0, np.int64)]
    offsets = np.zeros(count + 1, dtype=np.int64)
    for index in range(count):
        images[index], placed, classes = digit_scenes.render(config, split, index)
        boxes.append(placed)
        labels.append(classes)
        offsets[index + 1] = offsets[index] + len(placed)
    return Scenes(images, np.concatenate(boxes), np.concatenate(labels), offsets)


def _write(stem: Path, scenes: Scenes) -> None:
    """Write both files under temporary names, then rename: a reader sees a whole file or none.

    Two processes that render at once write equal bytes, so it does not matter whose file wins.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    remove_stale(stem.parent)
    arrays: dict[str, Any] = {"boxes": scenes.boxes, "labels": scenes.labels, "offsets": scenes.offsets}
    checks = np.array([checksum(scenes.images)] + [checksum(array) for array in arrays.values()], dtype=np.uint32)
    write_whole(stem.with_name(stem.name + ".npy"), lambda file: np.save(file, scenes.images))
    write_whole(stem.with_name(stem.name + ".npz"), lambda file: np.savez(file, checks=checks, **arrays))


def _read(stem: Path, config: SceneConfig, count: int) -> Scenes | None:
    """Open a cached split; None if a file is missing, damaged or not ours."""
    try:
        with np.load(stem.with_name(stem.name + ".npz"), allow_pickle=False) as data:
            checks = data["checks"]
            boxes, labels, offsets = data["boxes"], data["labels"], data["offsets"]
        images = np.load(stem.with_name(stem.name + ".npy"), mmap_mode="r", allow_pickle=False)
        shape = (count, config.size, config.size, 3)
        whole = images.shape == shape and images.dtype == np.uint8 and offsets.shape == (count + 1,)
        if whole and [checksum(array) for array in (images, boxes, labels, offsets)] == checks.tolist():
            return Scenes(images, boxes, labels, offsets)
    except (OSError, ValueError, KeyError, EOFError, zlib.error, zipfile.BadZipFile):
        pass
    return None
