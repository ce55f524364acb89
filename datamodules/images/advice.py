"""What a user's pictures suggest: the size of the input, and means and deviations for its normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from zoo.errors import BadInput
from zoo.inputs import UnreadableError
from zoo.inputs.images import fit_square, open_picture, read_image

__all__ = ["evenly", "fitting_side", "median_side", "moments", "thumbnails"]

LARGEST = 128
"""Side of the largest input that is suggested: these networks keep the resolution of small pictures for long."""

_FEW, _THUMBNAIL = 200, 64


def evenly(count: int, most: int = _FEW) -> np.ndarray:
    """Positions of at most `most` of `count` items, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64)) if count else np.arange(0)


def median_side(paths: Sequence[Path]) -> int:
    """Median of the shorter sides of pictures; 0 where none can be read, which is said when they are."""
    sides = []
    for path in paths:
        try:
            with open_picture(path) as image:
                sides.append(min(image.size))
        except UnreadableError:
            continue
    return round(float(np.median(sides))) if sides else 0


def fitting_side(median: int) -> int:
    """The side of the input for pictures whose shorter side has that median: theirs, or the next multiple of 16 below.

    Args:
        median: in pixels.
    """
    side = min(median, LARGEST)
    return side if side <= 64 else side // 16 * 16


def thumbnails(paths: Sequence[Path], side: int, channels: int) -> np.ndarray:
    """Small squares of pictures that can be read, uint8 (n, C, S, S)."""
    size, made = min(side, _THUMBNAIL), []
    for path in paths:
        try:
            made.append(fit_square(read_image(path), size, channels))
        except BadInput:
            continue
    return np.stack(made) if made else np.zeros((0, channels, size, size), np.uint8)


def moments(pixels: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel in [0, 1], to three digits.

    Args:
        pixels: uint8 (n, C, S, S).
    """
    values = pixels.astype(np.float64) / 255
    mean, std = values.mean((0, 2, 3)), values.std((0, 2, 3))
    return [round(m, 3) for m in mean.tolist()], [max(0.01, round(s, 3)) for s in std.tolist()]
