"""Reading CelebA: one folder of faces, and three text files that say what is in them, in which split, and who it is.

celeba/img_align_celeba/000001.jpg ...
celeba/list_attr_celeba.txt        number of images; names of the attributes; file name and -1 or 1 for each
celeba/list_eval_partition.txt     file name and 0 (train), 1 (val) or 2 (test)
celeba/identity_CelebA.txt         file name and number of the person
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from datamodules.base import Problems
from zoo.errors import BadData, BadInput, nearest

__all__ = ["celeba_attributes", "celeba_identities", "find_celeba", "read_celeba"]

ATTRIBUTES, SPLITS, IDENTITIES = "list_attr_celeba.txt", "list_eval_partition.txt", "identity_CelebA.txt"
FACES = "img_align_celeba"
_NUMBERS = {"train": 0, "val": 1, "test": 2}


def find_celeba(root: Path) -> Path | None:
    """The folder with the faces' folder and the list of attributes: below the root or the root itself."""
    for place in (root / "celeba", root):
        if (place / FACES).is_dir() and (place / ATTRIBUTES).is_file():
            return place
    return None


def celeba_attributes(place: Path, wanted: str) -> list[str]:
    """Names of the attributes, from the head of the list.

    Raises:
        BadData: if there are none.
        BadInput: if the wanted one is not among them.
    """
    path = place / ATTRIBUTES
    with path.open(encoding="utf-8", errors="replace") as file:
        file.readline()
        names = file.readline().split()
    if not names or any(name.lstrip("-").isdigit() for name in names):
        message = f"{path}: line 2: expected the names of the attributes, got {' '.join(names)[:60]!r}."
        raise BadData(message, [message])
    if wanted not in names:
        raise BadInput(f"attribute: expected one of {', '.join(names)}; got {wanted!r}.{nearest(wanted, names)}")
    return names


def _column(path: Path, skip: int, width: int, at: int, known: Callable[[int], bool], wanted: str) -> dict[str, int]:
    """File name -> a whole number of its line, with an error that lists every broken line.

    Args:
        path: of the list.
        skip: lines before the first image's.
        width: numbers of a line.
        at: which of them is wanted.
        known: whether a number is allowed.
        wanted: what is allowed, in words.
    """
    if not path.is_file():
        raise BadData(f"{path}: expected this file of CelebA, got none.", [f"{path} is missing"])
    problems = Problems(path)
    values: dict[str, int] = {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines[skip:], start=skip + 1):
        words = line.split()
        if not words:
            continue
        if len(words) != width + 1:
            problems.add(f"{path.name}:{number}", "line", f"a file name and {width} numbers", f"{len(words)} words")
            continue
        try:
            value = int(words[1 + at])
        except ValueError:
            value = None  # type: ignore[assignment]
        if value is None or not known(value):
            problems.add(f"{path.name}:{number}", words[0], wanted, repr(words[1 + at]))
        elif words[0] in values:
            problems.add(f"{path.name}:{number}", "file name", "one line for each image", f"{words[0]} again")
        else:
            values[words[0]] = value
    problems.raise_if_any()
    return values


def read_celeba(place: Path, attribute: str, split: str) -> tuple[list[Path], np.ndarray]:
    """Files of a split and, for each, whether it has an attribute.

    Args:
        place: of the lists.
        attribute: one of `celeba_attributes`.
        split: train, val or test.

    Returns:
        The files; int64 (N,), 0 or 1.

    Raises:
        BadInput: if there is no such attribute.
        BadData: naming every broken line and missing face.
    """
    names = celeba_attributes(place, attribute)
    splits = _column(place / SPLITS, 0, 1, 0, lambda v: v in (0, 1, 2), "0 (train), 1 (val) or 2 (test)")
    have = _column(place / ATTRIBUTES, 2, len(names), names.index(attribute), lambda v: v in (-1, 1), "-1 or 1")
    with os.scandir(place / FACES) as listing:
        there = {entry.name for entry in listing}
    problems = Problems(place)
    mine = [name for name, number in splits.items() if number == _NUMBERS[split]]
    for name in mine:
        if name not in have:
            problems.add(ATTRIBUTES, name, "a line for each image of the split", "none")
        if name not in there:
            problems.add(f"{FACES}/{name}", "file", "an image", "none")
    if not mine:
        problems.add(SPLITS, split, "at least one image", "none")
    problems.raise_if_any()
    return [place / FACES / name for name in mine], (np.array([have[name] for name in mine]) > 0).astype(np.int64)


def celeba_identities(place: Path, files: list[Path]) -> np.ndarray:
    """Number of the person on each of some faces, int64 (N,).

    Raises:
        BadData: naming every broken line, and faces without one.
    """
    people = _column(place / IDENTITIES, 0, 1, 0, lambda v: v >= 0, "a person's number")
    problems = Problems(place / IDENTITIES)
    for file in files:
        if file.name not in people:
            problems.add(IDENTITIES, file.name, "a line for each face", "none")
    problems.raise_if_any()
    return np.array([people[file.name] for file in files], np.int64)
