"""Sets without splits, as annotation tools export them: which layout a folder is in, and where its parts are.

coco   one JSON file in the folder or in annotations/, the images beside it or in images/
voc    Annotations/ beside JPEGImages/ or images/ without lists, or XML files beside the images (LabelImg)
yolo   images/ and labels/, or text files beside the images with classes.txt
cvat   annotations.xml ("CVAT for images"), the images in images/ or beside it
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.boxes.cvat import find_cvat
from datamodules.boxes.records import IMAGE_SUFFIXES
from zoo.inputs.text_files import read_head

__all__ = ["find_whole", "share_of"]

_CLASS_FILES = ("classes.txt", "obj.names", "data.yaml", "dataset.yaml")


def find_whole(kind: str, root: Path) -> Any:
    """The files of a set without splits, as the reader of its format takes them; None if there is none.

    Args:
        kind: coco, voc, yolo or cvat.
        root: the user's folder.
    """
    return {"coco": _coco, "voc": _voc, "yolo": _yolo, "cvat": find_cvat}[kind](root)


def share_of(count: int, split: str, val_share: float) -> np.ndarray:
    """Rising positions of the samples of a split; the same in every run, so that scores compare.

    Args:
        count: of samples in all.
        split: train, or one of those that are scored.
        val_share: of the samples that are scored; at least one on either side.
    """
    scored = min(max(1, round(count * val_share)), count - 1)
    order = np.random.default_rng(31).permutation(count)
    return np.sort(order[scored:] if split == "train" else order[:scored])


def _coco(root: Path) -> tuple[Path, list[Path]] | None:
    files = [p for place in (root, root / "annotations") for p in sorted(place.glob("*.json")) if p.is_file()]
    files = [p for p in files if _holds_boxes(p)]
    if len(files) != 1:
        return None
    return files[0], [root / "images", root, files[0].parent / "images", files[0].parent]


def _holds_boxes(file: Path) -> bool:
    """Whether a JSON file may be COCO's: its keys come in any order, so both ends are looked at."""
    size = file.stat().st_size
    with file.open("rb") as content:
        text = content.read(1 << 20)
        content.seek(max(0, size - (1 << 20)))
        text += content.read()
    return b'"annotations"' in text and b'"categories"' in text


def _voc(root: Path) -> list[tuple[Path, Path]] | None:
    """One place whose annotations themselves are the list."""
    folder = root / "Annotations" if (root / "Annotations").is_dir() else root
    file = next((path for path in sorted(folder.iterdir()) if path.suffix.lower() == ".xml" and path.is_file()), None)
    if file is None or not re.search(rb"<annotation[\s>]", read_head(file).replace(b"\0", b""), re.IGNORECASE):
        return None
    return [(root, folder)]


def _yolo(root: Path) -> tuple[Path, Path] | None:
    if (root / "images").is_dir() and (root / "labels").is_dir():
        return root / "images", root / "labels"
    names = [path.name for path in root.iterdir()]
    pictures = {Path(name).stem for name in names if name.lower().endswith(IMAGE_SUFFIXES)}
    texts = {Path(name).stem for name in names if name.endswith(".txt")}
    return (root, root) if pictures & texts and any(name in names for name in _CLASS_FILES) else None
