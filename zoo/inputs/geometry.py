"""Letterbox: fit an image into a square (or rectangle) with its aspect kept, and map boxes there and back.

Both `predict` and the data modules call this, so that a model sees in use exactly what it saw in training. Boxes are
half-open xyxy: x2 is the right edge, not the last pixel.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from PIL import Image

from zoo.errors import BadInput

__all__ = ["GREY", "STRIDE", "check_size", "letterbox", "to_letterbox", "to_original"]

GREY = 114  # 0.447 of 255
STRIDE = 32  # the coarsest stride of detectors: input sides are multiples of it

Boxes = TypeVar("Boxes", np.ndarray, torch.Tensor)


def check_size(size: int, name: str = "img_size") -> int:
    """Return `size` if it is a positive multiple of 32.

    Raises:
        BadInput: otherwise, naming the nearest sizes that work.
    """
    if size < STRIDE or size % STRIDE:
        low = max(STRIDE, size // STRIDE * STRIDE)
        raise BadInput(f"{name}: expected a multiple of {STRIDE}, got {size}. Use {low} or {low + STRIDE}.")
    return size


def letterbox(
    image: np.ndarray, size: int | tuple[int, int], fill: int = GREY
) -> tuple[np.ndarray, float, tuple[int, int]]:
    """Scale an image to fit `size` and centre it on grey.

    The scale is exactly the same in x and y (a fraction of a pixel at the far edge is cut off rather than stretched),
    so one number maps boxes there and back without error.

    Args:
        image: uint8 (H, W, 3).
        size: side of the square, or (height, width).
        fill: grey value of the margins.

    Returns:
        Image uint8 (height, width, 3), the scale, and the margins (left, top) in pixels.
    """
    height, width = (size, size) if isinstance(size, int) else size
    tall, wide = image.shape[:2]
    if (tall, wide) == (height, width):
        return image, 1.0, (0, 0)
    scale = min(height / tall, width / wide)
    # the tiny term keeps the fitting side whole where its product falls short by rounding
    new_tall, new_wide = (max(1, int(side * scale + 1e-6)) for side in (tall, wide))
    if scale == 1.0:
        scaled = image
    else:
        box = (0.0, 0.0, min(new_wide / scale, wide), min(new_tall / scale, tall))
        scaled = np.asarray(Image.fromarray(image).resize((new_wide, new_tall), Image.Resampling.BILINEAR, box=box))
    left, top = (width - new_wide) // 2, (height - new_tall) // 2
    canvas = np.full((height, width, 3), fill, dtype=np.uint8)
    canvas[top : top + new_tall, left : left + new_wide] = scaled
    return canvas, scale, (left, top)


def to_letterbox(boxes: Boxes, scale: float, pad: tuple[float, float] | Boxes) -> Boxes:
    """Map boxes (..., 4) from original pixels to input pixels."""
    moved = _copy(boxes * scale)
    moved[..., 0::2] += pad[0]
    moved[..., 1::2] += pad[1]
    return moved


def to_original(
    boxes: Boxes,
    scale: float | Boxes,
    pad: tuple[float, float] | Boxes,
    size: tuple[int, int] | Boxes | None = None,
) -> Boxes:
    """Map boxes (..., 4) from input pixels back to original pixels.

    Args:
        boxes: xyxy, a tensor or an array.
        scale: as returned by `letterbox`.
        pad: margins (left, top).
        size: (height, width) of the original image; boxes are clipped to it when given.
    """
    moved = _copy(boxes)
    moved[..., 0::2] -= pad[0]
    moved[..., 1::2] -= pad[1]
    moved = moved / scale
    if size is not None:
        height, width = float(size[0]), float(size[1])
        moved[..., 0::2] = moved[..., 0::2].clip(0, width)
        moved[..., 1::2] = moved[..., 1::2].clip(0, height)
    return moved


def _copy(boxes: Boxes) -> Boxes:
    return boxes.clone() if isinstance(boxes, torch.Tensor) else boxes.copy()
