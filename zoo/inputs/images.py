"""From whatever people call an image to one array layout: uint8 (H, W, 3), RGB, upright."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from zoo.errors import BadInput
from zoo.inputs import UnreadableError

__all__ = [
    "FORMATS",
    "MOVING",
    "SUFFIXES",
    "fit_square",
    "from_pil",
    "has_frames",
    "open_picture",
    "read_frames",
    "read_image",
    "size_of",
    "to_pixels",
    "to_rgb",
]

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")

MOVING = (".gif", ".webp", ".png", ".tif", ".tiff")
"""Endings of files that may hold an animation or several pages."""

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What Pillow may take a file for. It judges by content: among its other formats are programs (PostScript)."""

MEMORY = 1 << 30
"""Bytes that decoding and converting a picture may take."""

_ORIENTATION = 0x0112  # of EXIF; from each, how an array (H, W, 3) becomes upright
_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a[:, ::-1].swapaxes(0, 1),
}
_SUBFILE, _BITS, _LARGEST = 254, 258, 281  # tags of TIFF: kind of page, bits per sample, largest sample value


def open_picture(path: str | Path, *, frames: bool = False) -> Image.Image:
    """Open a picture file: one of `FORMATS`, small enough to be decoded. Every picture of the zoo is opened here.

    Args:
        path: of the file.
        frames: accept an animation or a document of several pages.

    Returns:
        Pillow's image, of which the header has been read.

    Raises:
        UnreadableError: for everything else.
    """
    path = Path(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise UnreadableError(_small_enough(12), str(error)) from None
    except UnidentifiedImageError:
        empty = path.is_file() and path.stat().st_size == 0
        formats = f"an image in a known format that Pillow can read ({', '.join(SUFFIXES)})"
        raise UnreadableError(formats, "an empty file" if empty else "something else, or a damaged header") from None
    except Exception as error:  # damaged bytes lead Pillow to whatever they say
        raise UnreadableError("an image that Pillow can read", f"{type(error).__name__}: {error}") from None
    try:
        if image.width * image.height * _cost(image) > MEMORY:
            raise UnreadableError(_small_enough(_cost(image)), f"{image.width} x {image.height} px")
        if image.format == "PNG":
            _check_chunks(path)
        if not frames and _has_frames(image):
            raise UnreadableError(
                "a file with one picture", "an animation or several pages; take its frames one by one"
            )
    except UnreadableError:
        image.close()
        raise
    except Exception as error:
        image.close()
        raise UnreadableError("an image that Pillow can read", f"{type(error).__name__}: {error}") from None
    return image


def _check_chunks(path: Path) -> None:
    """Refuse a PNG with a chunk that is longer than the file: Pillow asks for that much memory at once."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length = int.from_bytes(head[:4], "big")
            if length > size:
                raise UnreadableError("a whole PNG", f"a part of {length:,} bytes in a file of {size:,}")
            file.seek(length + 4, 1)


def _small_enough(cost: int) -> str:
    return f"at most {MEMORY // cost / 1e6:.0f} megapixels, which take {MEMORY >> 20} MiB to decode"


def _cost(image: Image.Image) -> int:
    """Bytes per pixel at the peak of decoding and converting, as measured."""
    if image.format == "WEBP":
        return 20
    return 12 if image.mode in ("1", "L", "P", "RGB") and "transparency" not in image.info else 17


def _has_frames(image: Image.Image) -> bool:
    """Whether a file holds several pictures; smaller copies, masks and the second picture of a JPEG do not count."""
    if image.format != "TIFF":
        return image.format not in ("JPEG", "MPO") and bool(getattr(image, "is_animated", False))
    pages, number = 1, 1
    try:
        while pages < 2:
            image.seek(number)
            kind = getattr(image, "tag_v2", {}).get(_SUBFILE, 0)
            pages += not (isinstance(kind, int) and kind & 0b101)
            number += 1
    except EOFError:
        pass
    image.seek(0)
    return pages > 1


def has_frames(path: str | Path) -> bool:
    """Whether a file holds an animation or several pages; False for what is no picture at all."""
    try:
        with open_picture(path, frames=True) as image:
            return _has_frames(image)
    except UnreadableError:
        return False
    except Exception:  # damaged bytes; the reader of the picture says what is wrong with it
        return False


def size_of(path: str | Path) -> tuple[int, int]:
    """Width and height of a picture as it is seen upright, from its header.

    Raises:
        UnreadableError: as `open_picture`.
    """
    with open_picture(path) as image:
        width, height = image.size
        return (height, width) if image.getexif().get(_ORIENTATION, 1) >= 5 else (width, height)


def read_image(path: str | Path) -> np.ndarray:
    """Read an image file as uint8 (H, W, 3); EXIF orientation applied, grey, palette, alpha and 16 bit converted.

    Raises:
        BadInput: if the file is missing, is no image, is damaged, needs more memory than a picture should, or holds
            several pictures.
    """
    path = Path(path)
    _check_there(path)
    try:
        with open_picture(path) as image:
            return from_pil(image)
    except (BadInput, UnreadableError) as error:
        raise BadInput(f"{path}: {str(error).rstrip('.')}.") from error
    except Exception as error:  # damaged bytes lead Pillow to whatever they say
        raise BadInput(f"{path}: damaged image file ({type(error).__name__}: {error}).") from error


def _check_there(path: Path) -> None:
    if path.is_dir():
        raise BadInput(f"{path}: expected an image file, it is a folder: give a list of its files.")
    if not path.is_file():
        raise BadInput(f"{path}: no such image file.")


def read_frames(path: str | Path) -> Iterator[np.ndarray]:
    """The pictures of an animation or of a document of several pages, one after the other, uint8 (H, W, 3).

    Raises:
        BadInput: as `read_image`.
    """
    path = Path(path)
    _check_there(path)
    number = 0
    try:
        with open_picture(path, frames=True) as image:
            while True:
                try:
                    image.seek(number)
                except EOFError:
                    return
                pixels = from_pil(image)
                number += 1
                yield pixels
    except (BadInput, UnreadableError) as error:
        raise BadInput(f"{path}: {str(error).rstrip('.')}.") from error
    except Exception as error:
        raise BadInput(f"{path}: damaged in frame {number} ({type(error).__name__}: {error}).") from error


def from_pil(image: Image.Image, *, turn: bool = True) -> np.ndarray:
    """A PIL image as uint8 (H, W, 3).

    Args:
        image: of any mode.
        turn: apply its EXIF orientation.

    Raises:
        BadInput: for numbers whose range is not known.
    """
    pixels = np.asarray(to_rgb(image))
    turned = _TURNS.get(image.getexif().get(_ORIENTATION, 1)) if turn else None
    return pixels if turned is None else np.ascontiguousarray(turned(pixels))


def to_rgb(image: Image.Image) -> Image.Image:
    """Any PIL mode as RGB: transparency laid over white, 16 bits and fractions scaled to 8 bits.

    Raises:
        BadInput: for fractions outside of [0, 1], and for whole numbers of 32 bits, whose range is stated nowhere.
    """
    if image.mode == "F":
        values = np.asarray(image)
        _check_unit_range(values)
        return Image.fromarray((values * np.float32(255) + np.float32(0.5)).astype(np.uint8)).convert("RGB")
    if image.mode.startswith("I"):
        table = np.clip(np.arange(65536) * _scale_of(image) + 0.5, 0, 255).astype(np.uint8)
        return Image.fromarray(table[np.asarray(image).clip(0, 65535)]).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _scale_of(image: Image.Image) -> float:
    """What whole numbers of more than 8 bits are multiplied by, from what is stated about them, never from themselves.

    Raises:
        BadInput: if nothing states their range.
    """
    # Pillow opens 16 bits of PNG and PPM as 32-bit integers in some versions
    if not image.mode.startswith("I;16") and image.format not in ("PNG", "PPM"):
        raise BadInput(
            "an image of 32-bit or signed integers has no range that could be scaled to 8 bits; save it with 8 or 16 "
            "bits, or as fractions in [0, 1]."
        )
    tags = getattr(image, "tag_v2", {})
    stated = [tags.get(_LARGEST), 2 ** min(int(bits[0]), 16) - 1 if (bits := tags.get(_BITS)) else None]
    largest = next((float(np.min(v)) for v in stated if v is not None and 0 < np.min(v) <= 65535), 65535.0)
    return 255.0 / largest


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
        _check_unit_range(array)
        return np.rint(array * 255).astype(np.uint8)
    raise BadInput(f"an image must be uint8 or float in [0, 1], got {array.dtype}.")


def _check_unit_range(values: np.ndarray) -> None:
    """Refuse fractions outside of [0, 1]: what they are fractions of is not known."""
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):
        whole = "; divide by 255 if it has 8 bits" if 1 < high <= 255 and low >= 0 else ""
        raise BadInput(f"a float image must have values in [0, 1], got [{low:g}, {high:g}]{whole}.")
