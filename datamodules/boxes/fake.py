"""Miniatures of the real on-disk layouts, for tests and for people who want to see what a folder must look like."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image

from datamodules.boxes.voc import VOC_NAMES

__all__ = ["write_fake"]

_Scene = tuple[np.ndarray, list[tuple[int, int, int, int]], list[int]]
_DEFAULT_CLASSES = {"coco": ("person", "bicycle", "car"), "voc": tuple(VOC_NAMES), "yolo": ("person", "bicycle", "car")}
_COCO_IDS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16)  # with a gap, as in the real set


def write_fake(folder: Path, kind: str, images: int, classes: Sequence[str] | None) -> Path:
    """Write `images` images per split with coloured rectangles as objects; the last image has none."""
    names = list(classes or _DEFAULT_CLASSES[kind])
    folder.mkdir(parents=True, exist_ok=True)
    {"coco": _coco, "voc": _voc, "yolo": _yolo}[kind](folder, images, names)
    return folder


def _scenes(split: int, images: int, classes: int) -> list[_Scene]:
    rng = np.random.default_rng((split, 5))
    scenes: list[_Scene] = []
    for number in range(images):
        height, width = (48, 64) if number % 2 else (60, 44)
        pixels = rng.integers(90, 140, (height, width, 3), dtype=np.uint8)
        boxes: list[tuple[int, int, int, int]] = []
        labels: list[int] = []
        for _ in range(0 if images > 1 and number == images - 1 else int(rng.integers(1, 4))):
            wide, tall = (int(side) for side in rng.integers(8, 25, 2))
            x, y = int(rng.integers(width - wide + 1)), int(rng.integers(height - tall + 1))
            pixels[y : y + tall, x : x + wide] = rng.integers(0, 256, 3)
            boxes.append((x, y, x + wide, y + tall))
            labels.append(int(rng.integers(classes)))
        scenes.append((pixels, boxes, labels))
    return scenes


def _save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95)


def _text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _coco(folder: Path, images: int, names: list[str]) -> None:
    ids = list(_COCO_IDS[: len(names)]) if len(names) <= len(_COCO_IDS) else list(range(1, len(names) + 1))
    for number, split in enumerate(("train2017", "val2017")):
        pictures: list[dict[str, object]] = []
        annotations: list[dict[str, object]] = []
        for index, (pixels, boxes, labels) in enumerate(_scenes(number, images, len(names))):
            identity = 1000 * (number + 1) + index
            file_name = f"{identity:012d}.jpg"
            _save(folder / split / file_name, pixels)
            pictures.append(
                {"id": identity, "file_name": file_name, "height": pixels.shape[0], "width": pixels.shape[1]}
            )
            for (x1, y1, x2, y2), label in zip(boxes, labels, strict=True):
                wide, tall = x2 - x1, y2 - y1
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": identity,
                        "category_id": ids[label],
                        "bbox": [x1, y1, wide, tall],
                        "area": wide * tall,
                        "iscrowd": 0,
                    }
                )
        categories = [{"id": key, "name": name} for key, name in zip(ids, names, strict=True)]
        content = {"images": pictures, "annotations": annotations, "categories": categories}
        _text(folder / "annotations" / f"instances_{split}.json", json.dumps(content))


def _voc(folder: Path, images: int, names: list[str]) -> None:
    lists = {"2007": ("trainval", "test"), "2012": ("trainval",)}
    number = 0
    for year, splits in lists.items():
        place = folder / "VOCdevkit" / f"VOC{year}"
        for split in splits:
            stems = []
            for index, (pixels, boxes, labels) in enumerate(_scenes(number, images, len(names))):
                stem = f"{year}_{split}_{index:06d}"
                stems.append(stem)
                _save(place / "JPEGImages" / f"{stem}.jpg", pixels)
                _text(place / "Annotations" / f"{stem}.xml", _voc_xml(stem, pixels, boxes, [names[k] for k in labels]))
            _text(place / "ImageSets" / "Main" / f"{split}.txt", "\n".join(stems) + "\n")
            number += 1


def _voc_xml(stem: str, pixels: np.ndarray, boxes: list[tuple[int, int, int, int]], names: list[str]) -> str:
    objects = "".join(
        f"<object><name>{escape(name)}</name><difficult>0</difficult><bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin>"
        f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>\n"
        for (x1, y1, x2, y2), name in zip(boxes, names, strict=True)
    )
    size = f"<size><width>{pixels.shape[1]}</width><height>{pixels.shape[0]}</height><depth>3</depth></size>"
    return f"<annotation>\n<filename>{stem}.jpg</filename>\n{size}\n{objects}</annotation>\n"


def _yolo(folder: Path, images: int, names: list[str]) -> None:
    for number, split in enumerate(("train", "val")):
        for index, (pixels, boxes, labels) in enumerate(_scenes(number, images, len(names))):
            height, width = pixels.shape[:2]
            _save(folder / "images" / split / f"{index:06d}.jpg", pixels)
            rows = [
                f"{label} {(x1 + x2) / 2 / width:.6f} {(y1 + y2) / 2 / height:.6f} "
                f"{(x2 - x1) / width:.6f} {(y2 - y1) / height:.6f}\n"
                for (x1, y1, x2, y2), label in zip(boxes, labels, strict=True)
            ]
            if rows:
                _text(folder / "labels" / split / f"{index:06d}.txt", "".join(rows))
    listing = "\n".join(f"  {index}: {json.dumps(name)}" for index, name in enumerate(names))
    _text(folder / "data.yaml", f"train: images/train\nval: images/val\nnames:\n{listing}\n")
