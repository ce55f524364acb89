"""YOLO text annotations: beside each image list a text file with rows `class cx cy w h`, fractions of the image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datamodules.boxes.records import Box, Checker, Record, Records, image_size
from zoo.errors import BadData, UnsafeFile
from zoo.inputs import UnreadableError
from zoo.inputs.text_files import read_text
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
    """Return the names in data.yaml (or another YAML file) or classes.txt; else "0", "1", ... to the largest.

    Raises:
        BadData: for names that are missing, empty or given twice: labels would count for another class.
    """
    candidates = [root / "data.yaml", root / "dataset.yaml", *sorted(root.glob("*.yaml")), *sorted(root.glob("*.yml"))]
    for file in dict.fromkeys(candidates):
        if file.is_file():
            names = _yaml_names(file)
            if names is not None:
                return _distinct(file, names)
    for file in (root / "classes.txt", root / "labels" / "classes.txt", root / "obj.names"):
        if file.is_file():
            names = _listed(file)
            if not names:
                raise BadData(f"{file}: expected one class name per line, got an empty file")
            return _distinct(file, names)
    return [str(index) for index in range(_largest_index(root) + 1)]


def _listed(file: Path) -> list[str]:
    try:
        return [line.strip() for line in read_text(file).rstrip().splitlines()]
    except UnreadableError as error:
        raise BadData.listing(file, [f"{file.name}: expected {error.expected}, got {error.got}"]) from None


def _distinct(file: Path, names: list[str]) -> list[str]:
    """The names, whose places are the labels; none may be empty or stand twice."""
    places: dict[str, int] = {}
    for label, name in enumerate(names):
        if not name.strip():
            raise BadData(f"{file}: expected a name for each class, got none for class {label} (the first is 0)")
        if name in places:
            raise BadData(
                f"{file}: expected distinct class names, got {name!r} for the classes {places[name]} and {label}: "
                "give each a name of its own"
            )
        places[name] = label
    return names


def _yaml_names(file: Path) -> list[str] | None:
    if file.stat().st_size > 1_000_000:
        raise BadData(f"{file}: expected a YAML file under 1 MB with `names:`, got {file.stat().st_size} bytes")
    try:
        content: Any = load_yaml(
            file, where="this file", error=BadData, texts=True
        )  # refuses what swells, nests or executes
    except (BadData, UnsafeFile) as error:
        raise type(error)(f"{file}: expected YAML, got: {error}") from None
    names = content.get("names") if isinstance(content, dict) else None
    if names is None:
        return None
    if isinstance(names, dict) and set(names) == {str(index) for index in range(len(names))}:
        names = [names[str(index)] for index in range(len(names))]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise BadData(f"{file}: names: expected a list, or a map from 0..n-1 to names, got {names!r:.80}")
    return names


def _largest_index(root: Path) -> int:
    largest = -1
    for file in [*root.glob("labels/**/*.txt"), *root.glob("*/labels/**/*.txt")]:
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            first = line.split(maxsplit=1)[:1]
            if first and first[0].isdecimal() and len(first[0]) < 6:
                largest = max(largest, int(first[0]))
    return largest


def read_yolo(folders: tuple[Path, Path], names: list[str], checker: Checker) -> Records:
    """Read a split: every image of the folder and of those below it; one without a text file has no objects.

    A text file lies where its image does, below the folder of the labels. An image is called by its path there without
    the ending.
    """
    images, labels = folders
    pictures = {_stem(path, images): path for path in checker.listing.images(images)}
    texts = {_stem(path, labels): path for path in checker.listing.files(labels, (".txt",))}
    texts.pop("classes", None)
    if not pictures:
        checker.problems.add(checker.name(images), "folder", "at least one image", "none")
    elif not texts:
        checker.problems.add(checker.name(labels), "folder", "a text file for at least one image", "none")
    for stem, file in texts.items() if labels != images else ():  # beside the images there may be notes
        if stem not in pictures:
            checker.flaws.add(checker.name(file), "image", "an image of this name", f"none in {checker.name(images)}")
    items: list[Record] = []
    for stem, path in pictures.items():
        if not checker.image(path, "image", path):
            continue
        try:
            record = Record(path, stem, image_size(path))
        except UnreadableError as error:
            checker.flaws.add(checker.name(path), "image", error.expected, error.got)
            continue
        if stem in texts and checker.inside(texts[stem]):
            _read_rows(texts[stem], record, names, checker)
        items.append(record)
    return Records(items, names, list(range(len(names))))


def _stem(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


def _read_rows(file: Path, record: Record, names: list[str], checker: Checker) -> None:
    assert record.size is not None
    height, width = record.size
    objects: list[tuple[Box, int, float, bool]] = []
    try:
        lines = read_text(file).splitlines()
    except UnreadableError as error:
        checker.flaws.add(checker.name(file), "file", error.expected, error.got)
        return
    for number, line in enumerate(lines, start=1):
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
        box = checker.box(file, where, xyxy, record.size)
        if box is not None:
            objects.append((box, label, 0.0, checker.is_tiny(box)))
    record.hold(objects)


def _numbers(words: list[str]) -> list[float] | None:
    if len(words) != len(_FIELDS):
        return None
    try:
        values = [float(word) for word in words]
    except ValueError:
        return None
    return values if all(value - value == 0 for value in values) else None
