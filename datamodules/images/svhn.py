"""Reading SVHN's cropped digits as they are published: two files of MATLAB 5.

{train,test}_32x32.mat      X uint8 (32, 32, 3, N), y (N, 1) in 1 to 10, where 10 stands for the digit 0

`extra_32x32.mat`, half a million easier digits, is not read.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.images.read import Pictures, wrong
from zoo.errors import BadData, require
from zoo.inputs import swollen

__all__ = ["find_svhn", "read_svhn"]


def find_svhn(root: Path) -> Path | None:
    """The folder of the files: the root itself, or `svhn` below it."""
    for place in (root, root / "svhn", root / "SVHN"):
        if (place / "train_32x32.mat").is_file():
            return place
    return None


def read_svhn(place: Path, split: str) -> Pictures:
    """Training or test digits.

    Raises:
        BadData: naming the file.
        MissingExtra: without scipy.
    """
    path = place / f"{'train' if split == 'train' else 'test'}_32x32.mat"
    if not path.is_file():
        raise BadData(f"{path}: expected this file of SVHN, got none.", [f"{path} is missing"])
    scipy: Any = require("scipy.io", "matlab")
    try:
        shapes = {name: (shape, kind) for name, shape, kind in scipy.whosmat(str(path))}
    except Exception as error:  # damaged bytes lead the reader to whatever they say
        raise wrong(path, "file", "a file of MATLAB 5", f"{type(error).__name__}: {str(error)[:80]}") from error
    for name, about, sides in (("X", "bytes (32, 32, 3, N)", 4), ("y", "numbers (N, 1)", 2)):
        shape, kind = shapes.get(name, ((), "no such array"))
        if len(shape) != sides or (name == "X" and (tuple(shape[:3]) != (32, 32, 3) or kind != "uint8")):
            raise wrong(path, name, about, f"{kind} {tuple(shape)}")
        if math.prod(shape) > swollen(path.stat().st_size):
            raise wrong(path, name, f"at most what {path.stat().st_size:,} bytes can hold", tuple(shape))
    try:
        content = scipy.loadmat(str(path), variable_names=["X", "y"])
        pixels, labels = content["X"], content["y"].reshape(-1)
    except Exception as error:
        raise wrong(path, "file", "a file of MATLAB 5", f"{type(error).__name__}: {str(error)[:80]}") from error
    if pixels.dtype != np.uint8 or labels.dtype.kind not in "iuf" or not np.isin(labels, range(11)).all():
        raise wrong(
            path, "y", "whole numbers from 1 to 10 (10 is the digit 0)", f"{labels.dtype} {labels[:8].tolist()}"
        )
    planes = np.ascontiguousarray(pixels.transpose(3, 2, 0, 1))
    return Pictures(planes, labels.astype(np.int64) % 10).checked(path, 10)
