"""Frames of video files, by PyAV or OpenCV, whichever is installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import BadInput, require

__all__ = ["SUFFIXES", "read_video"]

SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")

_PIXELS = 100_000_000  # of a frame; larger ones are no video but an attack on the memory


def read_video(path: str | Path) -> Iterator[np.ndarray]:
    """Frames of a video one after the other, uint8 (H, W, 3), RGB. Sound is left out.

    torchvision's readers are no third way: they were removed, or need PyAV themselves.

    Raises:
        BadInput: if the file is missing, or holds no video that can be decoded.
        MissingExtra: if neither PyAV nor OpenCV is installed.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"{path}: no such video file.")
    cv2: Any = None
    with suppress(ImportError):
        import av  # type: ignore[import-not-found,unused-ignore]  # noqa: F401

        return _by_av(path)
    with suppress(ImportError):
        import cv2  # type: ignore[import-not-found,unused-ignore,no-redef]

        return _by_opencv(path, cv2)
    require("av", "video")
    raise AssertionError("unreachable: require() imports it or raises")


def _by_av(path: Path) -> Iterator[np.ndarray]:
    import av  # type: ignore[import-not-found,unused-ignore]

    number = 0
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                _check(path, frame.width, frame.height)
                yield frame.to_ndarray(format="rgb24")
                number += 1
    except BadInput:
        raise
    except Exception as error:  # damaged bytes lead the decoder to whatever they say
        raise _damaged(path, number, f"{type(error).__name__}: {error}") from error
    if number == 0:
        raise _damaged(path, 0, "no frame")


def _by_opencv(path: Path, cv2: Any) -> Iterator[np.ndarray]:
    video = cv2.VideoCapture(str(path))
    number = 0
    try:
        _check(path, video.get(cv2.CAP_PROP_FRAME_WIDTH), video.get(cv2.CAP_PROP_FRAME_HEIGHT))
        while True:
            known, frame = video.read()
            if not known:
                break
            yield np.ascontiguousarray(frame[..., ::-1])  # it stores blue first
            number += 1
    finally:
        video.release()
    if number == 0:
        raise _damaged(path, 0, "no frame")


def _check(path: Path, width: float, height: float) -> None:
    if width * height > _PIXELS:
        raise BadInput(f"{path}: expected frames of at most {_PIXELS // 10**6} megapixels, got {width} x {height} px.")


def _damaged(path: Path, number: int, got: str) -> BadInput:
    return BadInput(f"{path}: expected a video that can be decoded, got {got} at frame {number}.")
