"""Pascal VOC annotations: one XML file per image, lists of image names per split.

VOC counts pixels from 1 and both corners belong to the box: (xmin, ymin, xmax, ymax) becomes (xmin - 1, ymin - 1,
xmax, ymax) as a half-open box.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

from datamodules.boxes.records import IMAGE_SUFFIXES, Box, Checker, Record, Records
from zoo.errors import BadData
from zoo.inputs import UnreadableError
from zoo.inputs.text_files import read_text
from zoo.inputs.xml_files import read_xml

__all__ = ["VOC_NAMES", "find_voc", "read_voc", "voc_class_names"]

# fmt: off
VOC_NAMES = [
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
]
# fmt: on
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_Lists = list[tuple[Path, Path]]  # (folder of one year, list file)


def _years(root: Path) -> list[Path]:
    """Folders that hold Annotations/ and ImageSets/Main/: those below VOCdevkit, or the root itself."""
    places = [root, *sorted(root.glob("VOC[0-9]*")), *sorted(root.glob("VOCdevkit/VOC[0-9]*"))]
    return [place for place in places if (place / "Annotations").is_dir() and (place / "ImageSets/Main").is_dir()]


def find_voc(root: Path, split: str, name: str | None = None) -> _Lists | None:
    """Return the year folders and list files that make up a split, or None.

    Args:
        root: folder holding VOCdevkit/VOC2007 and so on, VOCdevkit itself, or one flat set.
        split: train, val or test.
        name: list names joined by "+", each `LIST` or `YEAR/LIST`, such as "2007/trainval+2012/trainval".
    """
    years = _years(root)
    if not years:
        return None
    if name is None:
        return _default_lists(years, split)
    lists: _Lists = []
    for part in name.split("+"):
        year, _, wanted = part.strip().rpartition("/")
        matches = [(place, _list(place, wanted)) for place in years if not year or place.name == f"VOC{year}"]
        matches = [match for match in matches if match[1].is_file()]
        if not matches:
            have = sorted(
                {f"{p.name[3:]}/{f.stem}" for p in years for f in p.glob("ImageSets/Main/*.txt") if "_" not in f.stem}
            )
            raise BadData(f"{root}: no list {part!r} in ImageSets/Main; got {', '.join(have) or 'none'}")
        lists += matches
    return lists


def _list(place: Path, name: str) -> Path:
    return place / "ImageSets" / "Main" / f"{name}.txt"


def _default_lists(years: list[Path], split: str) -> _Lists | None:
    """The usual protocol: where a year has a test list, train on all trainval lists and validate on that test list."""
    tested = [place for place in years if _list(place, "test").is_file()]
    if len(years) > 1 and tested:
        wanted = {"train": ("trainval", years), "val": ("test", tested), "test": ("test", tested)}[split]
    else:
        wanted = (split, years)
    lists = [(place, _list(place, wanted[0])) for place in wanted[1] if _list(place, wanted[0]).is_file()]
    return lists or None


def voc_class_names(lists: _Lists) -> list[str]:
    """Return the twenty official names if the files use no others, else the names in the files, sorted.

    An official layout (VOC2007, VOC2012, ...) is judged by its first hundred files.
    """
    names: set[str] = set()
    problems: list[str] = []
    official = all(re.fullmatch(r"VOC\d{4}", place.name) for place, _ in lists)
    for place, file in lists:
        files = _annotations(place)
        for number, stem in enumerate(_stems(file, files)):
            if official and number == 100 and names <= set(VOC_NAMES):
                break
            if stem in files:
                try:
                    names |= {_name(entry) for entry in _tree(files[stem]).iter("object")} - {""}
                except UnreadableError as error:
                    problems.append(f"{files[stem].name}: expected {error.expected}, got {error.got}")
    if problems and not names:
        raise BadData.listing(lists[0][0], problems)
    return list(VOC_NAMES) if official and names <= set(VOC_NAMES) else sorted(names)


def _tree(file: Path) -> Element:
    """The root element, with tags in lower case."""
    tree = read_xml(file)
    for element in tree.iter():
        element.tag = str(element.tag).lower()
    return tree


def _name(entry: Element) -> str:
    """Class of an object; comments and line breaks in the file are none of it."""
    name = entry.find("name")
    return "" if name is None else " ".join("".join(name.itertext()).split())


def _annotations(place: Path) -> dict[str, Path]:
    """Stem -> annotation file of a year, or of a folder of images with their annotations."""
    folder = _folder(place, "Annotations")
    return {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() == ".xml"}


def _folder(place: Path, *names: str) -> Path:
    """The first of these folders that a place has; the place itself if it has none."""
    return next((place / name for name in names if (place / name).is_dir()), place)


def _stems(file: Path, known: Collection[str]) -> list[str]:
    """Names of the images of a list, as the annotation files have them where there is one of that name.

    A folder of annotations is the list of what is in it. A name may hold spaces or the ending of the image; lists of
    one class have a second column (-1, 0, 1).
    """
    if file.is_dir():
        return list(known)
    try:
        lines = [line.strip() for line in read_text(file).splitlines() if line.strip()]
    except UnreadableError as error:
        raise BadData.listing(file, [f"{file.name}: expected {error.expected}, got {error.got}"]) from None
    return [next((each for each in _readings(line) if each in known), _readings(line)[-1]) for line in lines]


def _readings(line: str) -> list[str]:
    """What a line of a list may name, the likeliest last: the whole of it, without a flag, without an ending."""
    readings = [line]
    flagged = re.fullmatch(r"(.*?)\s+(?:-?1|0)", line)
    if flagged:
        readings.append(flagged[1])
    stem, _, ending = readings[-1].rpartition(".")
    if stem and f".{ending.lower()}" in IMAGE_SUFFIXES:
        readings.append(stem)
    return readings


def read_voc(
    lists: _Lists, names: Sequence[str], checker: Checker, one_based: bool = True, keep_difficult: bool = False
) -> Records:
    """Read the annotations of a split.

    Args:
        lists: as returned by `find_voc`.
        names: class names in label order; any other name is a problem.
        checker: collects problems.
        one_based: whether coordinates count from 1 with the last pixel included.
        keep_difficult: whether objects flagged difficult count; otherwise they are regions to ignore.
    """
    label_of = {name: label for label, name in enumerate(names)}
    items: list[Record] = []
    for place, file in lists:
        files = _annotations(place)
        stems = _stems(file, files)
        if not stems:
            checker.problems.add(checker.name(file), "list", "at least one image name", "an empty file")
        seen: set[str] = set()
        pictures = _folder(place, "JPEGImages", "images")
        suffixes = _suffixes(checker, pictures)
        for stem in stems:
            if stem in seen:
                checker.flaws.add(checker.name(file), "list", "names that occur once", f"{stem} again")
                continue
            seen.add(stem)
            record = _read_xml(pictures, file, stem, files, suffixes, label_of, checker, one_based, keep_difficult)
            if record is not None:
                items.append(record)
    return Records(items, list(names), list(range(len(names))))


def _suffixes(checker: Checker, folder: Path) -> dict[str, str]:
    """Stem -> file name of every image; the extension named in the XML is often wrong."""
    return {Path(name).stem: name for name in checker.listing.names(folder) if name.lower().endswith(IMAGE_SUFFIXES)}


def _read_xml(
    pictures: Path,
    list_file: Path,
    stem: str,
    files: Mapping[str, Path],
    images: dict[str, str],
    label_of: dict[str, int],
    checker: Checker,
    one_based: bool,
    keep_difficult: bool,
) -> Record | None:
    file = files.get(stem, pictures.parent / "Annotations" / f"{stem}.xml")
    path = pictures / images.get(stem, f"{stem}.jpg")
    if not checker.image(list_file, stem, path):
        return None
    if stem not in files:
        checker.flaws.add(
            checker.name(list_file), stem, "an annotation file", f"{checker.name(file)}, which does not exist"
        )
        return None
    if not checker.inside(file):
        return None
    try:
        tree = _tree(file)
    except UnreadableError as error:
        checker.flaws.add(checker.name(file), "XML", "a VOC annotation", error.got)
        return None
    record = Record(path, stem, checker.size(path, _size(tree, file, checker)))
    objects: list[tuple[Box, int, float, bool]] = []
    for number, entry in enumerate(tree.iter("object")):
        name = _name(entry)
        if name not in label_of:
            known = ", ".join(list(label_of)[:20])
            checker.flaws.add(checker.name(file), f"object[{number}].name", f"one of {known}", repr(name))
            continue
        difficult = (entry.findtext("difficult") or "0").strip() == "1" and not keep_difficult
        corners = _corners(entry, file, f"object[{number}].bndbox", checker)
        if corners is None:
            continue
        shift = 1.0 if one_based else 0.0
        xyxy = (corners[0] - shift, corners[1] - shift, corners[2], corners[3])
        box = checker.box(file, f"object[{number}].bndbox", xyxy, record.size)
        if box is not None:
            objects.append((box, label_of[name], 0.0, difficult or checker.is_tiny(box)))
    record.hold(objects)
    return record


def _size(tree: Element, file: Path, checker: Checker) -> tuple[int, int] | None:
    """(height, width) as annotated; some tools write zeros, which means unknown."""
    sides = [tree.findtext(f"size/{key}") for key in ("height", "width")]
    if sides[0] is None or sides[1] is None:
        return None
    try:
        height, width = int(float(sides[0])), int(float(sides[1]))
    except (ValueError, OverflowError):
        checker.flaws.add(checker.name(file), "size", "integers", f"{sides}")
        return None
    return (height, width) if height > 0 and width > 0 else None


def _corners(entry: Element, file: Path, where: str, checker: Checker) -> list[float] | None:
    values: list[float] = []
    for key in _CORNERS:
        text = entry.findtext(f"bndbox/{key}")
        try:
            values.append(float(text if text is not None else "missing"))
        except ValueError:
            checker.flaws.add(
                checker.name(file), f"{where}.{key}", "a number", "nothing" if text is None else repr(text)
            )
            return None
    return values
