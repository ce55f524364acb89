"""Annotated images as plain records, and the checks that every format shares."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from datamodules.base import Problems
from zoo.errors import BadData, BadInput, nearest
from zoo.inputs import UnreadableError
from zoo.inputs.images import SUFFIXES, from_pil, open_picture

__all__ = [
    "IMAGE_SUFFIXES",
    "POLICIES",
    "Box",
    "Checker",
    "Listing",
    "Record",
    "Records",
    "choose_classes",
    "image_size",
    "read_image",
    "spellings",
]

IMAGE_SUFFIXES = SUFFIXES
POLICIES = ("raise", "clip", "skip")
_ROTATED = (5, 6, 7, 8)  # EXIF orientations that swap width and height


Box = tuple[float, float, float, float]


@dataclass
class Record:
    """One image and its objects.

    Attributes:
        path: image file.
        image_id: COCO's number, otherwise the file's stem.
        size: (height, width) that the annotations refer to; None if the format does not say.
        boxes: float32 (n, 4) half-open xyxy in original pixels.
        labels: int64 (n,), indices into the class names.
        areas: float32 (n,), pixels of each object where the annotations say it, 0 where its box counts.
        ignored: float32 (k, 4) regions that neither count as objects nor as background when detections are scored:
            crowds, objects flagged difficult, and boxes too small to be learnt.
        ignored_labels: int64 (k,), their classes.
    """

    path: Path
    image_id: int | str
    size: tuple[int, int] | None = None
    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    areas: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    ignored: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    ignored_labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def hold(self, objects: Sequence[tuple[Box, int, float, bool]]) -> None:
        """Take objects over: box, label, area (0: the box's), and whether it is a region to ignore."""
        true, ignored = ([o for o in objects if o[3] == kind] for kind in (False, True))
        self.boxes = np.asarray([o[0] for o in true], np.float32).reshape(-1, 4)
        self.labels = np.asarray([o[1] for o in true], np.int64)
        self.areas = np.asarray([o[2] for o in true], np.float32)
        self.ignored = np.asarray([o[0] for o in ignored], np.float32).reshape(-1, 4)
        self.ignored_labels = np.asarray([o[1] for o in ignored], np.int64)


@dataclass
class Records:
    """A split: its images, the class names in label order, and the data set's own id of each class."""

    items: list[Record]
    class_names: list[str]
    category_ids: list[int]


class Listing:
    """The files below a root, each folder read once, and the links that leave the root."""

    def __init__(self, root: Path, follow_symlinks: bool) -> None:
        self.root = Path(os.path.realpath(root))
        self.follow = follow_symlinks
        self._folders: dict[Path, dict[str, bool]] = {}

    def names(self, folder: Path) -> dict[str, bool]:
        """File name -> is a link that leaves the root."""
        if folder not in self._folders:
            try:
                self._folders[folder] = self._names(folder) if folder.is_dir() else {}
            except (OSError, ValueError):  # a name in an annotation that no folder can have
                self._folders[folder] = {}
        return self._folders[folder]

    def _names(self, folder: Path) -> dict[str, bool]:
        away = self._leaves(folder)
        with os.scandir(folder) as entries:
            return {e.name: away or (e.is_symlink() and self._leaves(Path(e.path))) for e in entries}

    def _leaves(self, path: Path) -> bool:
        return not self.follow and not Path(os.path.realpath(path)).is_relative_to(self.root)

    def images(self, folder: Path) -> list[Path]:
        """Image files of a folder and of the folders below it, in order."""
        return self.files(folder, IMAGE_SUFFIXES)

    def files(self, folder: Path, endings: tuple[str, ...]) -> list[Path]:
        """Files of a folder and of the folders below it, in order; not of folders behind links or with a dot."""
        names = sorted(self.names(folder))
        paths = [folder / name for name in names if name.lower().endswith(endings)]
        for name in names:
            below = folder / name
            if not name.startswith((".", "__MACOSX")) and below.is_dir() and not below.is_symlink():
                paths += self.files(below, endings)
        return paths


class Checker:
    """Checks boxes and files of one split; what is wrong is collected, or left out, as `on_error` says.

    Args:
        root: the user's folder.
        on_error: "raise" names all problems at once; "clip" cuts boxes at the border of the image and leaves out what
            else is broken; "skip" leaves out every broken box and image.
        min_side: boxes with a shorter side, in pixels, mark points, not objects: regions that scores ignore.
        tolerance: how far a box may reach over the border, in pixels, and be cut without a word.
        follow_symlinks: whether links may lead out of the root.
    """

    def __init__(
        self,
        root: Path,
        on_error: str = "raise",
        min_side: float = 2.0,
        tolerance: float = 2.0,
        follow_symlinks: bool = False,
    ) -> None:
        if on_error not in POLICIES:
            raise BadInput(f"on_error: expected {', '.join(POLICIES)}, got {on_error!r}.{nearest(on_error, POLICIES)}")
        self.root = root
        self.on_error = on_error
        self.min_side = min_side
        self.tolerance = tolerance
        self.listing = Listing(root, follow_symlinks)
        self.problems = Problems(root)  # always raised
        self.flaws = Problems(root)  # raised or left out
        self.tiny = 0
        self.fractions = 0  # of the tiny ones, those that lie within the first pixel
        self.outside: list[tuple[Sequence[float], tuple[int, int]]] = []

    def name(self, file: Path) -> str:
        """The file as the user knows it, relative to the root."""
        return str(file.relative_to(self.root)) if file.is_relative_to(self.root) else str(file)

    def box(self, file: Path, where: str, xyxy: Sequence[float], size: tuple[int, int] | None) -> Box | None:
        """Return the box cut to the image, or None if it is broken (and noted)."""
        x1, y1, x2, y2 = (float(value) for value in xyxy)
        shown = "(" + ", ".join(f"{value:g}" for value in (x1, y1, x2, y2)) + ")"
        if not all(math.isfinite(value) for value in (x1, y1, x2, y2)):
            self.flaws.add(self.name(file), where, "finite numbers", shown)
            return None
        if x2 <= x1 or y2 <= y1:
            size_text = f"{x2 - x1:g} x {y2 - y1:g} in xyxy {shown}"
            self.flaws.add(self.name(file), where, "a positive width and height", size_text)
            return None
        if size is not None:
            height, width = size
            over = max(-x1, -y1, x2 - width, y2 - height)
            cut = max(x1, 0.0), max(y1, 0.0), min(x2, width), min(y2, height)
            gone = cut[2] <= cut[0] or cut[3] <= cut[1]
            if (over > self.tolerance and self.on_error != "clip") or gone:
                self.flaws.add(
                    self.name(file), where, f"a box inside the image ({width} x {height} px)", f"xyxy {shown}"
                )
                return None
            x1, y1, x2, y2 = cut
        return x1, y1, x2, y2

    def is_tiny(self, box: Box) -> bool:
        """Whether a box is too small to be learnt, which is counted."""
        tiny = min(box[2] - box[0], box[3] - box[1]) < self.min_side
        self.tiny += tiny
        self.fractions += max(box) <= 1.0
        return tiny

    def none_because(self) -> str:
        """Why a split has no box, for a message."""
        if self.fractions and self.fractions == self.tiny:
            return f"{self.tiny}, all within the first pixel: are these fractions of the image instead of pixels?"
        if self.tiny:
            return f"{self.tiny} with a side under {self.min_side:g} px (min_side)"
        return "none"

    def looks_like_corners(self, file: Path) -> None:
        """Note it if all boxes that are outside of their image would be inside as x1 y1 x2 y2."""
        if len(self.outside) < 2:
            return
        if all(b[0] < b[2] <= w + self.tolerance and b[1] < b[3] <= h + self.tolerance for b, (h, w) in self.outside):
            got = f"{len(self.outside)} boxes outside of their image, which all fit as corners x1, y1, x2, y2"
            self.flaws.add(self.name(file), "annotations", "boxes as x, y, width, height", got)

    def image(self, annotation: Path, where: str, path: Path) -> bool:
        """Whether an image file exists and lies below the root; otherwise note it."""
        names = self.listing.names(path.parent)
        if not Path(os.path.normpath(path)).is_relative_to(self.root):
            self.flaws.add(self.name(annotation), where, "a path inside the data folder", str(path))
        elif path.name not in names:
            self.flaws.add(self.name(annotation), where, "an image file", f"{self.name(path)}, which does not exist")
        else:
            return self.inside(path)
        return False

    def inside(self, path: Path) -> bool:
        """Whether an existing file is not behind a link that leads out of the root; otherwise note it."""
        if not self.listing.names(path.parent).get(path.name):
            return True
        advice = "a file inside the data folder (or pass follow_symlinks=True)"
        self.flaws.add(self.name(path), "symbolic link", advice, os.path.realpath(path))
        return False

    def size(self, path: Path, stated: tuple[int, int] | None) -> tuple[int, int] | None:
        """The stated size, else the one in the image's header; None if that cannot be read (`header` will tell)."""
        if stated is not None:
            return stated
        try:
            return image_size(path)
        except UnreadableError:
            return None

    def header(self, record: Record) -> bool:
        """Whether an image opens and has the size its annotations say; reads the header only."""
        try:
            size = image_size(record.path, record.size)
        except UnreadableError as error:
            self.flaws.add(self.name(record.path), "image", error.expected, error.got)
            return False
        if record.size is not None and size != record.size:
            expected = f"{record.size[1]} x {record.size[0]} px as annotated"
            self.flaws.add(self.name(record.path), "size", expected, f"{size[1]} x {size[0]} px")
            return False
        return True

    def finish(self, split: str) -> None:
        """Raise what has to be raised; say what was left out.

        Raises:
            BadData: with every problem of the split.
        """
        if self.on_error == "raise":
            self.problems.lines += self.flaws.lines
            advice = 'Correct them, or pass on_error="skip" (leave them out) or "clip" (cut boxes at the border).'
            self.problems.raise_if_any(advice if len(self.flaws) else "Correct these entries and run again.")
        self.problems.raise_if_any()
        if len(self.flaws):
            shown = "\n  ".join(self.flaws.lines[:5])
            warnings.warn(
                f"{split}: left out {len(self.flaws)} broken entries in {self.root}:\n  {shown}", stacklevel=2
            )
        if self.tiny:
            limit = f"{self.min_side:g} px (min_side)"
            warnings.warn(f"{split}: left out {self.tiny} boxes with a side under {limit} in {self.root}", stacklevel=2)


def spellings(name: str) -> list[str]:
    """A file's name as it stands, and with the slashes of this system for those of Windows."""
    return list(dict.fromkeys((name, name.replace("\\", "/"))))


def choose_classes(records: Records, classes: Sequence[str] | None) -> Records:
    """Keep only the named classes, in the order given; boxes of other classes are dropped, their images stay.

    Raises:
        BadInput: if a name is unknown.
    """
    if classes is None:
        return records
    for name in classes:
        if name not in records.class_names:
            known = ", ".join(records.class_names[:30])
            raise BadInput(f"classes: the data have {known}; got {name!r}.{nearest(name, records.class_names)}")
    chosen = [records.class_names.index(name) for name in classes]
    table = np.full(len(records.class_names), -1, dtype=np.int64)
    table[chosen] = np.arange(len(chosen))
    for item in records.items:
        labels = table[item.labels]
        keep = labels >= 0
        item.boxes, item.labels, item.areas = item.boxes[keep], labels[keep], item.areas[keep]
        labels = table[item.ignored_labels]
        item.ignored, item.ignored_labels = item.ignored[labels >= 0], labels[labels >= 0]
    return Records(records.items, list(classes), [records.category_ids[index] for index in chosen])


def _turn(image: Image.Image, annotated: tuple[int, int] | None) -> bool:
    """Whether to apply the EXIF orientation: not if the annotations were plainly made on the unrotated pixels."""
    orientation = image.getexif().get(0x0112, 1)
    if orientation in _ROTATED and annotated == (image.height, image.width) and image.height != image.width:
        return False
    return bool(orientation != 1)


def image_size(path: Path, annotated: tuple[int, int] | None = None) -> tuple[int, int]:
    """(height, width) after EXIF orientation, from the header alone.

    Raises:
        UnreadableError: if the file is not one picture that can be decoded.
    """
    with open_picture(path) as image:
        size = image.height, image.width
        try:
            swapped = image.getexif().get(0x0112, 1) in _ROTATED and _turn(image, annotated)
        except Exception as error:  # some formats keep it behind the pixels, which may be damaged
            got = f"{type(error).__name__}: {error}"
            raise UnreadableError("an image that Pillow can read to its end", got) from None
    return (size[1], size[0]) if swapped else size


def read_image(path: Path, annotated: tuple[int, int] | None = None) -> np.ndarray:
    """Decode any image to uint8 RGB (H, W, 3): EXIF orientation applied, 16 bits scaled to 8, transparency over white.

    Raises:
        BadData: naming the file, if it cannot be decoded or is absurdly large.
    """
    try:
        with open_picture(path) as image:
            return from_pil(image, turn=_turn(image, annotated))
    except (BadInput, UnreadableError) as error:
        raise BadData(f"{path}: {error}", [f"{path}: {error}"]) from None
    except Exception as error:  # damaged bytes lead Pillow to whatever they say
        problem = f"{path}: image: expected pixels to the end of the file, got {type(error).__name__}: {error}"
        raise BadData(f"{problem}. The file is probably cut short: fetch it again.", [problem]) from error
