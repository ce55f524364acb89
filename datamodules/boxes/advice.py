"""What a folder of boxes suggests: settings for its sizes and numbers, and names that look like mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from itertools import combinations
from typing import Any

import numpy as np

from datamodules.boxes.records import Record
from datamodules.fitting import small_set

__all__ = ["doubts", "fitting", "median_side"]

_SIZES = (160, 224, 320, 416, 512, 640)
_CLEAR = 16  # input pixels of a median side from which classes are distinguished well
_SMALL, _TINY = 1000, 400  # pictures
_STEPS, _MOST_EPOCHS = 400, 50


def median_side(records: Sequence[Record]) -> float:
    """Median side of the boxes as a share of the longer side of their picture; 0 without boxes."""
    known = [r for r in records if r.size is not None and len(r.boxes)]
    sides = [np.sqrt(np.prod(r.boxes[:, 2:] - r.boxes[:, :2], 1)) / max(r.size or (1, 1)) for r in known]
    return float(np.median(np.concatenate(sides))) if sides else 0.0


def fitting(records: Sequence[Record], *, img_size: int, batch_size: int, augment: str, epochs: int) -> dict[str, Any]:
    """Settings that fit data better than those given; only what differs.

    Args:
        records: the training pictures.
        img_size: as it is set.
        batch_size: as it is set.
        augment: the preset that is set.
        epochs: as they are set.

    Returns:
        `data.img_size` so large that a median box has 16 px (at most 640); for small sets `data.batch_size`,
        `data.augment` and `trainer.max_epochs`.
    """
    better: dict[str, Any] = {}
    side, count = median_side(records), len(records)
    if 0 < side * img_size < _CLEAR:
        larger = [size for size in _SIZES if size > img_size]
        wanted = next((size for size in larger if side * size >= _CLEAR), max(larger, default=img_size))
        better["data.img_size"] = wanted
    if 0 < count < _SMALL:
        rule = {"batches": ((_TINY, 8), (_SMALL, 16)), "steps": _STEPS, "most": _MOST_EPOCHS}
        if augment == "none":
            better["data.augment"] = "light"
        better |= small_set(count, batch_size, epochs, **rule)  # type: ignore[arg-type]
    return better


def doubts(names: Sequence[str], counts: Sequence[int]) -> list[str]:
    """Lines about classes without boxes, and about names so alike that one may be a slip of the other."""
    lines = []
    if empty := [name for name, count in zip(names, counts, strict=True) if not count]:
        lines.append(f"classes without a box: {', '.join(empty)}. Leave them out by data.classes if that is no mistake")
    number = dict(zip(names, counts, strict=True))
    for one, other in combinations(names, 2):
        if _alike(one, other):
            lines.append(f"{one} ({number[one]}) and {other} ({number[other]}) are two classes: is one of them a slip?")
    return lines


def _alike(one: str, other: str) -> bool:
    first, second = ("".join(name.casefold().split()) for name in (one, other))
    if first == second:
        return True
    letters = ["".join(c for c in name if not c.isdigit()) for name in (first, second)]
    if min(map(len, letters)) < 4 or letters[0] == letters[1]:
        return False  # class 1 and class 2
    return SequenceMatcher(None, first, second).ratio() >= 0.85
