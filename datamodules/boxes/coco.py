"""COCO annotations: one JSON file per split."""

from __future__ import annotations

import json
import math
import mmap
import warnings
from pathlib import Path
from typing import Any

from datamodules.boxes.records import Box, Checker, Record, Records, spellings
from zoo.errors import BadData
from zoo.inputs import UnreadableError
from zoo.inputs.json_files import parse_json, read_json

__all__ = ["find_coco", "read_coco", "read_coco_categories"]

_MOST_PIXELS = 1 << 20  # of a side
_NAMES = {"val": ("val", "valid", "validation")}


def find_coco(root: Path, split: str, name: str | None = None) -> tuple[Path, list[Path]] | None:
    """Return the annotation file of a split and the folders its images may be in, or None.

    Known layouts: `annotations/instances_train2017.json` with `train2017/`; `annotations/instances_train.json` with
    `train/` or `images/`; `train/_annotations.coco.json` beside the images.
    """
    names = [name] if name else [n + year for year in ("2017", "2014", "") for n in _NAMES.get(split, (split,))]
    for each in names:
        for file in (root / "annotations" / f"instances_{each}.json", root / "annotations" / f"{each}.json"):
            if file.is_file():
                return file, [root / each, root / "images" / each, root / "images", root]
        file = root / each / "_annotations.coco.json"
        if file.is_file():
            return file, [file.parent]
    return None


def read_coco_categories(file: Path) -> tuple[list[str], list[int]]:
    """Return class names and category ids, ordered by id, without parsing a file of half a gigabyte.

    Categories of one name are one class, with the last of their ids (some tools list the name of the set as category 0,
    and it often is that of the only class).
    """
    names = _categories(file)
    last = {name: key for key, name in names.items()}
    if len(last) < len(names):
        twice = next(name for key, name in names.items() if last[name] != key)
        ids = ", ".join(str(key) for key, name in names.items() if name == twice)
        warnings.warn(f"{file}: the categories {ids} are all called {twice!r}: taken as one class", stacklevel=2)
    return list(last), list(last.values())


def _categories(file: Path) -> dict[int, str]:
    """Names by id, ordered by id."""
    categories = _peek(file)
    if categories is None:
        categories = _load(file).get("categories")
    if not isinstance(categories, list) or not categories:
        raise BadData(f"{file}: categories: expected a list with at least one entry, got {categories!r:.80}")
    names: dict[int, str] = {}
    for number, entry in enumerate(categories):
        good = isinstance(entry, dict) and isinstance(entry.get("id"), int) and isinstance(entry.get("name"), str)
        if not good:
            raise BadData(f"{file}: categories[{number}]: expected an integer id and a name, got {entry!r:.80}")
        if entry["id"] in names:
            raise BadData(f"{file}: categories[{number}].id: expected ids that occur once, got {entry['id']} again")
        names[entry["id"]] = entry["name"]
    return {key: names[key] for key in sorted(names)}


def _peek(file: Path) -> Any:
    """Decode only the value of the last "categories" key; None if that does not look right."""
    if file.stat().st_size == 0:
        return None
    with file.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as whole:
        at = whole.rfind(b'"categories"')
        if at < 0:
            return None
        tail = whole[at + 12 : at + 4_000_012].lstrip()
    if not tail.startswith(b":"):
        return None
    text = tail[1:].decode("utf-8", "ignore").lstrip()
    try:
        value = parse_json(text[: json.JSONDecoder().raw_decode(text)[1]])
    except (UnreadableError, ValueError, RecursionError):
        return None
    return value if isinstance(value, list) and all(isinstance(entry, dict) for entry in value) else None


def _load(file: Path) -> dict[str, Any]:
    try:
        content = read_json(file)
    except UnreadableError as error:
        raise BadData.listing(file, [f"{file.name}: expected {error.expected}, got {error.got}"]) from None
    if not isinstance(content, dict):
        expected = "a JSON object with images, annotations, categories"
        raise BadData(f"{file}: expected {expected}, got a {type(content).__name__}")
    return content


def read_coco(file: Path, folders: list[Path], checker: Checker) -> Records:
    """Read one annotation file.

    Crowd regions (`iscrowd`) are regions to ignore. Category ids may have gaps; `category_ids` maps labels back.
    """
    names, ids = read_coco_categories(file)
    label_of = {category: names.index(name) for category, name in _categories(file).items()}
    content = _load(file)
    for key in ("images", "annotations"):
        if not isinstance(content.get(key), list):
            raise BadData(f"{file}: {key}: expected a list, got {content.get(key)!r:.60}")
    if not content["images"]:
        raise BadData(f"{file}: images: expected at least one image, got an empty list")
    records = _read_images(file, content["images"], folders, checker)
    objects: dict[Any, list[tuple[Box, int, float, bool]]] = {key: [] for key in records}
    given = [entry.get("id") for entry in content["images"] if isinstance(entry, dict)]
    known = {key for key in given if isinstance(key, (int, str))}
    seen: set[Any] = set()
    for number, entry in enumerate(content["annotations"]):
        _read_annotation(file, f"annotations[{number}]", entry, known, seen, label_of, records, objects, checker)
    checker.looks_like_corners(file)
    for key, record in records.items():
        record.hold(objects[key])
    return Records(list(records.values()), names, ids)


def _read_images(file: Path, entries: list[Any], folders: list[Path], checker: Checker) -> dict[Any, Record]:
    name = checker.name(file)
    records: dict[Any, Record] = {}
    for number, entry in enumerate(entries):
        where = f"images[{number}]"
        if not isinstance(entry, dict) or not isinstance(entry.get("file_name"), str) or "id" not in entry:
            checker.flaws.add(name, where, "an object with id and file_name", f"{entry!r:.60}")
            continue
        key = entry["id"]
        if not isinstance(key, (int, str)):
            checker.flaws.add(name, f"{where}.id", "an integer or a text", f"{key!r:.60}")
            continue
        if key in records:
            checker.flaws.add(name, f"{where}.id", "ids that occur once", f"{key} again")
            continue
        sides = entry.get("height") or 0, entry.get("width") or 0  # zeros and nulls mean unknown
        if not all(isinstance(side, (int, float)) and 0 <= side < _MOST_PIXELS for side in sides):
            checker.flaws.add(name, f"{where}.height, width", "numbers of pixels", f"{sides!r:.60}")
            continue
        size = (int(sides[0]), int(sides[1])) if min(sides) >= 1 else None
        paths = [folder / name for name in spellings(entry["file_name"]) for folder in folders]
        path = next((p for p in paths if p.name in checker.listing.names(p.parent)), paths[0])
        if checker.image(file, f"{where}.file_name", path):
            records[key] = Record(path, key, checker.size(path, size))
    return records


def _read_annotation(
    file: Path,
    where: str,
    entry: Any,
    known: set[Any],
    seen: set[Any],
    label_of: dict[int, int],
    records: dict[Any, Record],
    objects: dict[Any, list[tuple[Box, int, float, bool]]],
    checker: Checker,
) -> None:
    name = checker.name(file)
    if not isinstance(entry, dict):
        checker.flaws.add(name, where, "an object", f"{entry!r:.60}")
        return
    identity = entry.get("id")
    if identity is not None:
        if not isinstance(identity, (int, str)) or identity in seen:
            checker.flaws.add(name, f"{where}.id", "ids that occur once", f"{identity!r:.40} again")
            return
        seen.add(identity)
    key, category = entry.get("image_id"), entry.get("category_id")
    bbox: Any = entry.get("bbox")
    if not isinstance(key, (int, str)) or key not in known:
        checker.flaws.add(name, f"{where}.image_id", "the id of an image in this file", f"{key!r:.40}")
        return
    if not isinstance(category, int) or category not in label_of:
        checker.flaws.add(name, f"{where}.category_id", f"one of {sorted(label_of)[:20]}", f"{category!r:.40}")
        return
    crowd, area = bool(entry.get("iscrowd")), entry.get("area")
    numbers = isinstance(bbox, list) and len(bbox) == 4 and all(isinstance(v, (int, float)) for v in bbox)
    if crowd and not (numbers and min(bbox[2:]) > 0):
        return
    if not numbers:
        checker.flaws.add(name, f"{where}.bbox", "[x, y, width, height]", f"{bbox!r:.60}")
        return
    record = records.get(key)
    if record is None:  # its image is missing, which has been noted
        return
    x, y, width, height = bbox
    box = checker.box(file, f"{where}.bbox", (x, y, x + width, y + height), record.size)
    if box is None and record.size is not None and min(bbox[2:]) > 0:
        checker.outside.append((bbox, record.size))
    if box is not None:
        stated = float(area) if isinstance(area, (int, float)) and 0 < area < math.inf else 0.0
        objects[key].append((box, label_of[category], stated, crowd or checker.is_tiny(box)))
