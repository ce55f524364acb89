"""Class folders: which folders are splits, and which are classes.

    SPLIT/CLASS/*.png    the splits are folders called train, val and test, in any case and with the usual additions:
                         Training, TEST, train_set, val2017, seg_train
    CLASS/*.png          no splits

A folder between class and picture may hold the pictures of one person, flight or machine (`datamodules.clients`).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from pathlib import Path

from zoo.errors import BadData
from zoo.inputs.images import SUFFIXES

__all__ = ["class_folders", "find_eurosat", "image_files", "split_of", "training_classes"]

_SPLITS = {"train": "train(ing)?", "val": "val(id|idate|idation)?|dev(elopment)?", "test": "test(ing)?"}
_ADDITIONS = r"(set|split|data|dataset|images?|imgs?|pictures?|photos?|folder|dir|files?)*"
_JUNK = ("__MACOSX",)
_SHOWN = 8


def image_files(folder: Path) -> list[Path]:
    """Image files at any depth, in order; hidden ones and links that lead nowhere are left out."""
    files = (p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    return sorted(p for p in files if p.is_file())


def _folders(place: Path) -> Iterator[Path]:
    if place.is_dir():
        yield from sorted(p for p in place.iterdir() if p.is_dir() and p.name[0] != "." and p.name not in _JUNK)


def find_eurosat(root: Path) -> Path | None:
    """The folder of EuroSAT's classes: as in its archive, or as torchvision unpacks it."""
    for name in ("EuroSAT/2750", "eurosat/2750", "2750"):
        if (root / name).is_dir():
            return root / name
    return None


def split_of(name: str) -> str | None:
    """Which split a folder's name says: `Training`, `test`, `val2017`, `train_images` and `seg_train` do, `trains` not.

    A word before it counts only if an underscore or hyphen joins them, so that the class `freight train` is none.
    """
    last = re.sub(r"\A([A-Za-z0-9]+[_-])+(?=[A-Za-z])", "", name)
    for text in (re.sub(r"[^a-z]+", "", part.lower()) for part in (name, last)):
        for split, word in _SPLITS.items():
            if re.fullmatch(f"({word}){_ADDITIONS}", text):
                return split
    return None


def _splits(root: Path) -> dict[str, Path]:
    """Folders of the splits that hold class folders.

    Raises:
        BadData: if two folders are the same split.
    """
    splits: dict[str, Path] = {}
    for folder in _folders(root):
        split = split_of(folder.name)
        inside = list(_folders(folder))
        if split is None or not inside:
            continue
        if split in splits:
            message = f"{root}: expected one folder of the {split} split, got {splits[split].name} and {folder.name}."
            raise BadData(message, [message])
        while len(inside) == 1 and split_of(inside[0].name) == split and list(_folders(inside[0])):
            folder = inside[0]  # some archives hold seg_train/seg_train/CLASS
            inside = list(_folders(folder))
        splits[split] = folder
    return splits


def class_folders(root: Path, split: str) -> dict[str, Path] | None:
    """Class name -> folder, of `root/SPLIT/CLASS` or, for training without any such split, `root/CLASS`.

    Raises:
        BadData: if two folders are the same split.
    """
    splits = _splits(root)
    if split in splits:
        return {p.name: p for p in _folders(splits[split])}
    classes = {p.name: p for p in _folders(root)}
    if split != "train" or splits or not classes:
        return None
    # one class of many may be called train, the vehicle; train and test are splits, though without classes
    return classes if len({split_of(name) for name in classes} - {None}) < 2 else None


def training_classes(root: Path) -> dict[str, Path]:
    """Class name -> folder of the training images; classes without images are left out with a warning.

    Raises:
        BadData: if there are no images, or fewer than two classes.
    """
    folders = class_folders(root, "train") or {}
    classes = {name: folder for name, folder in folders.items() if any(image_files(folder))}
    if not classes:
        message = f"{root}: expected images in train/CLASS/ or CLASS/, got none."
        raise BadData(message, [message])
    if len(classes) < 2:
        message = f"{root}: expected at least two classes with images, got {_listed(classes)}.{_hint(classes)}"
        raise BadData(message, [message])
    if empty := sorted(set(folders) - set(classes)):
        warnings.warn(f"{root}: class folders without images are left out: {_listed(empty)}", stacklevel=2)
    if unused := _unused(root, classes):
        warnings.warn(
            f"{root}: {_listed(unused)} holds classes, too, and is no split that is known by this name, so it is not "
            "read: call it train, val or test, or move it.",
            stacklevel=2,
        )
    return classes


def _unused(root: Path, classes: dict[str, Path]) -> list[str]:
    """Folders beside the splits that hold the same classes and are none: `eval`, `holdout`, ..."""
    if not (splits := _splits(root)):
        return []
    others = [folder for folder in _folders(root) if split_of(folder.name) is None and folder not in splits.values()]
    return [folder.name for folder in others if len({p.name for p in _folders(folder)} & set(classes)) > 1]


def same_inside(classes: dict[str, Path]) -> list[str]:
    """Names of sub-folders that every class has, if these are all it has: then the classes may be one level deeper."""
    inside = {tuple(p.name for p in _folders(folder)) for folder in classes.values()}
    names = list(inside.pop()) if len(inside) == 1 else []
    direct = any(p.suffix.lower() in SUFFIXES for folder in classes.values() for p in folder.iterdir())
    return names if len(names) > 1 and not direct else []


def _hint(classes: dict[str, Path]) -> str:
    """What to do about a single class."""
    for folder in classes.values():
        inside = [p.name for p in _folders(folder)]
        if len(inside) > 1:
            return f" It holds the folders {_listed(inside)}: if these are the classes or splits, set root to {folder}."
    return ""


def _listed(names: object) -> str:
    every = [str(name) for name in names]  # type: ignore[attr-defined]
    return ", ".join(every[:_SHOWN]) + (f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else "")
