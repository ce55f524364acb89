"""YOLO text annotations: beside each image list a text file with rows `class cx cy w h`, fractions of the image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from datamodules.boxes.records import Checker, Record, Records, UnreadableError, image_size
from zoo.errors import BadData, UnsafeFile
from zoo.safe_yaml import load_yaml

__all__ = ["find_yolo", "read_yolo", "yolo_class_names"]

_ALIASES = {
    "train": ("train", "train2017"),
    "val": ("val", "valid", "validation", "val2017"),
    "test": ("test", "test2017"),
}
_FIELDS = ("class", "cx", "cy", "w", "h")


def find_yolo(root: Path, split: str, name: str | None = None) -> tuple[Path, Path] | None:
    """Return (images, labels), the folders of a split: `images/train` and `labels/train`, or `train/images`."""
    for each in (name,) if name else _ALIASES.get(split, (split,)):
        for images, labels in (
            (root / "images" / each, root / "labels" / each),
            (root / each / "images", root / each / "labels"),
        ):
            if images.is_dir() and labels.is_dir():
                return images, labels
    return None


def yolo_class_names(root: Path) -> list[str]:
    """Return the names in data.yaml (or another YAML file) or classes.txt; else "0", "1", ... to the largest."""
    candidates = [root / "data.yaml", root / "dataset.yaml", *sorted(root.glob("*.yaml")), *sorted(root.glob("*.yml"))]
    for file in dict.fromkeys(candidates):
        if file.is_file():
            names = _yaml_names(file)
            if names is not None:
                return names
    for file in (root / "classes.txt", root / "labels" / "classes.txt", root / "obj.names"):
        if file.is_file():
            names = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
            if not names:
                raise BadData(f"{file}: expected one class name per line, got an empty file")
            return names
    return [str(index) for index in range(_largest_index(root) + 1)]


def _yaml_names(file: Path) -> list[str] | None:
    if file.stat().st_size > 1_000_000:
        raise BadData(f"{file}: expected a YAML file under 1 MB with `names:`, got {file.stat().st_size} bytes")
    try:
        content: Any = load_yaml(file, where="this file", error=BadData)  # refuses what swells, nests or executes
    except (BadData, UnsafeFile) as error:
        raise type(error)(f"{file}: expected YAML, got: {error}") from None
    names = content.get("names") if isinstance(content, dict) else None
    if names is None:
        return None
    if isinstance(names, dict) and sorted(names) == list(range(len(names))):
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list) or not names or any(isinstance(name, (list, dict)) for name in names):
        raise BadData(f"{file}: names: expected a list, or a map from 0..n-1 to names, got {names!r:.80}")
    return [str(name) for name in names]


def _largest_index(root: Path) -> int:
    largest = -1
    for file in [*root.glob("labels/**/*.txt"), *root.glob("*/labels/*.txt")]:
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            first = line.split(maxsplit=1)[:1]
            if first and first[0].isdigit() and len(first[0]) < 6:
                largest = max(largest, int(first[0]))
    return largest


def read_yolo(folders: tuple[Path, Path], names: list[str], checker: Checker) -> Records:
    """Read a split: every image of the folder; an image without a text file has no objects."""
    images, labels = folders
    found = checker.listing.images(images)
    texts = checker.listing.names(labels)
    if not found:
        checker.problems.add(checker.name(images), "folder", "at least one image", "none")
    elif not any(text.endswith(".txt") for text in texts):
        checker.problems.add(checker.name(labels), "folder", "a text file for at least one image", "none")
    stems = {path.stem for path in found}
    for text in sorted(texts):
        if text.endswith(".txt") and text != "classes.txt" and text[:-4] not in stems:
            checker.flaws.add(
                checker.name(labels / text), "image", "an image of this name", f"none in {checker.name(images)}"
            )
    items: list[Record] = []
    for path in found:
        if not checker.image(path, "image", path):
            continue
        try:
            record = Record(path, path.stem, image_size(path))
        except UnreadableError as error:
            checker.flaws.add(checker.name(path), "image", error.expected, error.got)
            continue
        if f"{path.stem}.txt" in texts and checker.inside(labels / f"{path.stem}.txt"):
            _read_rows(labels / f"{path.stem}.txt", record, names, checker)
        items.append(record)
    return Records(items, names, list(range(len(names))))


def _read_rows(file: Path, record: Record, names: list[str], checker: Checker) -> None:
    assert record.size is not None
    height, width = record.size
    boxes: list[tuple[float, float, float, float]] = []
    labels: list[int] = []
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        where = f"line {number}"
        values = _numbers(words)
        if values is None:
            checker.flaws.add(checker.name(file), where, f"five numbers ({' '.join(_FIELDS)})", repr(line[:60]))
            continue
        label, (cx, cy, w, h) = int(values[0]), values[1:]
        if values[0] != label or not 0 <= label < len(names):
            checker.flaws.add(checker.name(file), f"{where}, class", f"an index in 0..{len(names) - 1}", words[0])
            continue
        if max(cx, cy, w, h) > 2:  # far outside 0..1: pixels were written by mistake
            checker.flaws.add(checker.name(file), where, "fractions of the image in 0..1", " ".join(words[1:]))
            continue
        xyxy = ((cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height)
        found = checker.box(file, where, xyxy, record.size)
        if found is not None:
            boxes.append(found)
            labels.append(label)
    record.boxes = np.asarray(boxes, dtype=np.float32).reshape(-1, 4)
    record.labels = np.asarray(labels, dtype=np.int64)


def _numbers(words: list[str]) -> list[float] | None:
    if len(words) != len(_FIELDS):
        return None
    try:
        values = [float(word) for word in words]
    except ValueError:
        return None
    return values if all(value - value == 0 for value in values) else None
