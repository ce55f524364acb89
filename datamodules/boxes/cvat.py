"""Annotations of CVAT ("CVAT for images"): one XML file with an element for each image and each box in it."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element

from datamodules.boxes.records import Box, Checker, Record, Records, spellings
from zoo.errors import BadData
from zoo.inputs import UnreadableError
from zoo.inputs.text_files import read_head
from zoo.inputs.xml_files import read_xml

__all__ = ["cvat_class_names", "find_cvat", "read_cvat"]

_MOST = 256 << 20
_CORNERS = ("xtl", "ytl", "xbr", "ybr")


def find_cvat(root: Path) -> tuple[Path, list[Path]] | None:
    """The annotation file and the folders its images may be in, or None."""
    for file in (root / "annotations.xml", *sorted(root.glob("*.xml"))):
        if file.is_file() and b"<annotations" in read_head(file):
            return file, [root / "images", root]
    return None


def _tree(file: Path) -> Element:
    try:
        return read_xml(file, _MOST)
    except UnreadableError as error:
        raise BadData.listing(file, [f"{file.name}: expected {error.expected}, got {error.got}"]) from None


def cvat_class_names(file: Path) -> list[str]:
    """Labels that the task declares, in its order; those of the boxes, sorted, if it declares none."""
    tree = _tree(file)
    declared = [(label.findtext("name") or "").strip() for label in tree.iter("label")]
    return list(dict.fromkeys(filter(None, declared))) or sorted({box.get("label", "") for box in tree.iter("box")})


def read_cvat(files: tuple[Path, list[Path]], names: list[str], checker: Checker) -> Records:
    """Read all images of a task; those without boxes have no objects, other shapes than boxes are noted.

    Args:
        files: as returned by `find_cvat`.
        names: class names in label order.
        checker: collects problems.
    """
    file, folders = files
    label_of = {name: label for label, name in enumerate(names)}
    items: dict[str, Record] = {}
    for number, image in enumerate(_tree(file).iter("image")):
        where, name = f"image[{number}]", image.get("name", "")
        if not name or name in items:
            checker.flaws.add(checker.name(file), f"{where}.name", "names that occur once", repr(name[:60]))
            continue
        paths = [folder / spelt for spelt in spellings(name) for folder in folders]
        path = next((p for p in paths if p.name in checker.listing.names(p.parent)), paths[0])
        if checker.image(file, f"{where}.name", path):
            size = _numbers(image, ("height", "width"))
            stated = None if size is None or min(size) < 1 or max(size) > 1 << 20 else (int(size[0]), int(size[1]))
            items[name] = Record(path, name, checker.size(path, stated))
            items[name].hold(_objects(file, where, image, items[name], label_of, checker))
    return Records(list(items.values()), names, list(range(len(names))))


def _objects(
    file: Path, where: str, image: Element, record: Record, label_of: dict[str, int], checker: Checker
) -> list[tuple[Box, int, float, bool]]:
    objects: list[tuple[Box, int, float, bool]] = []
    for number, shape in enumerate(child for child in image if child.tag != "tag"):
        place = f"{where}.{shape.tag}[{number}]"
        label, corners = shape.get("label", ""), _numbers(shape, _CORNERS)
        if shape.tag != "box":
            checker.flaws.add(checker.name(file), place, "boxes", f"a {shape.tag}")
        elif label not in label_of:
            expected = f"one of {', '.join(list(label_of)[:20])}"
            checker.flaws.add(checker.name(file), f"{place}.label", expected, repr(label[:60]))
        elif corners is None:
            got = str({key: shape.get(key, "")[:20] for key in _CORNERS})
            checker.flaws.add(checker.name(file), place, "numbers xtl, ytl, xbr, ybr", got)
        elif (box := checker.box(file, place, corners, record.size)) is not None:
            objects.append((box, label_of[label], 0.0, checker.is_tiny(box)))
    return objects


def _numbers(element: Element, keys: tuple[str, ...]) -> list[float] | None:
    try:
        return [float(element.get(key, "")) for key in keys]
    except ValueError:
        return None
