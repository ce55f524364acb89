"""From whatever people call an image to one array layout: uint8 (H, W, 3), RGB, upright."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from zoo.errors import BadInput

__all__ = ["SUFFIXES", "fit_square", "read_image", "to_pixels", "to_rgb"]

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")


def read_image(path: str | Path) -> np.ndarray:
    """Read an image file as uint8 (H, W, 3); EXIF orientation applied, grey, palette, alpha and 16 bit converted.

    Raises:
        BadInput: if the file is missing, is no image, is damaged, or is larger than Pillow deems safe.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"{path}: no such image file.")
    try:
        with Image.open(path) as image:
            return from_pil(image)
    except Image.DecompressionBombError as error:
        raise BadInput(f"{path}: refused, the image is absurdly large ({error}).") from error
    except UnidentifiedImageError as error:
        raise BadInput(f"{path}: not an image in a known format ({', '.join(SUFFIXES)}).") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise BadInput(f"{path}: damaged image file ({error}).") from error


def from_pil(image: Image.Image) -> np.ndarray:
    """A PIL image as uint8 (H, W, 3), upright."""
    return np.asarray(to_rgb(ImageOps.exif_transpose(image)))


def to_rgb(image: Image.Image) -> Image.Image:
    """Any PIL mode as RGB: transparency laid over white, 16 and 32 bits scaled to 8."""
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image).astype(np.float32)
        top = values.max(initial=0.0)
        # 16-bit files are opened as 16- or 32-bit integers; floats are taken as 0..1 unless they are larger
        unit = 255.0 if image.mode == "F" and top <= 1 else (1 / 257 if top > 255 else 1.0)
        return Image.fromarray(np.clip(values * unit + 0.5, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def to_pixels(item: Any) -> np.ndarray:
    """Any input of an image method as uint8 (H, W, 3).

    Args:
        item: a path; a PIL image; an array (H, W), (H, W, 3) or (H, W, 4), uint8 or float in [0, 1]; or a tensor
            (3, H, W) or (1, H, W), uint8 or float in [0, 1].

    Raises:
        BadInput: naming what was expected and what it is.
    """
    if isinstance(item, (str, Path)):
        return read_image(item)
    if isinstance(item, Image.Image):
        return from_pil(item)
    if isinstance(item, torch.Tensor):
        if item.ndim != 3 or item.shape[0] not in (1, 3):
            raise BadInput(f"an image tensor must be (3, H, W) or (1, H, W), got {tuple(item.shape)}.")
        item = item.detach().cpu().permute(1, 2, 0).numpy()
    if not isinstance(item, np.ndarray):
        raise BadInput(f"an image must be a path, a PIL image, an array or a tensor, got {type(item).__name__}.")
    if item.ndim == 2:
        item = item[..., None]
    if item.ndim != 3 or item.shape[-1] not in (1, 3, 4) or 0 in item.shape:
        raise BadInput(f"an image array must be (H, W), (H, W, 3) or (H, W, 4), got {item.shape}.")
    pixels = _to_uint8(item)
    if pixels.shape[-1] == 4:
        return from_pil(Image.fromarray(pixels, "RGBA"))
    return np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else np.ascontiguousarray(pixels)


def fit_square(pixels: np.ndarray, size: int, channels: int = 3) -> np.ndarray:
    """An image as the square input of a classifier: shorter side scaled to `size`, middle cut out.

    Args:
        pixels: uint8 (H, W, 3).
        size: side S.
        channels: 3, or 1 for grey.

    Returns:
        uint8 (channels, S, S).
    """
    image = Image.fromarray(pixels)
    if channels == 1:
        image = image.convert("L")
    if image.size != (size, size):
        short = min(image.size)
        left, top = ((side - short) / 2 for side in image.size)
        image = image.resize((size, size), Image.Resampling.BILINEAR, (left, top, left + short, top + short))
    array = np.array(image)  # a copy: Pillow's own memory is read-only
    return np.ascontiguousarray(array[None] if array.ndim == 2 else array.transpose(2, 0, 1))


def _to_uint8(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * 255
    if np.issubdtype(array.dtype, np.floating):
        low, high = float(array.min()), float(array.max())
        if not (np.isfinite(low) and np.isfinite(high)) or low < 0 or high > 1:
            raise BadInput(f"a float image must have values in [0, 1], got [{low:g}, {high:g}]; divide by its maximum.")
        return np.rint(array * 255).astype(np.uint8)
    raise BadInput(f"an image must be uint8 or float in [0, 1], got {array.dtype}.")
