"""Files of the data cache: written whole or not at all, checked when read, safe with several writers."""

from __future__ import annotations

import contextlib
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from zoo.files import write_whole

__all__ = ["cached_arrays", "checksum", "remove_stale"]


def checksum(array: np.ndarray) -> int:
    """CRC-32 of an array's bytes."""
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def remove_stale(folder: Path) -> None:
    """Remove what killed writers left; a living one needs minutes, not a day."""
    for stale in folder.glob("*.tmp"):
        with contextlib.suppress(FileNotFoundError):  # another process may have renamed or removed it
            if stale.stat().st_mtime < time.time() - 86_400:
                stale.unlink()


def cached_arrays(path: Path, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Arrays of a `.npz` file, made first if it is not there or damaged. A folder that cannot be written is no error.

    Args:
        path: of the file; its name must change with whatever determines the content.
        make: computes the arrays. Two processes that do so at once write equal bytes, so it does not matter who wins.
    """
    stored = _read(path)
    if stored is not None:
        return stored
    arrays = make()
    held: dict[str, Any] = {f"crc/{name}": np.array(checksum(array), np.uint32) for name, array in arrays.items()}
    held |= arrays
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(path.parent)
        write_whole(path, lambda file: np.savez(file, **held))
    except OSError as error:
        warnings.warn(
            f"The data cache {path.parent} cannot be written ({error}); the data stay in memory and are made again "
            "next time. Set ZOO_CACHE to a folder with room.",
            stacklevel=2,
        )
    return arrays


def _read(path: Path) -> dict[str, np.ndarray] | None:
    try:
        with np.load(path, allow_pickle=False) as data:
            held = {name: data[name] for name in data.files}
    except (OSError, ValueError, KeyError, EOFError, zlib.error, zipfile.BadZipFile):
        return None
    arrays = {name: array for name, array in held.items() if not name.startswith("crc/")}
    whole = all(int(held.get(f"crc/{name}", -1)) == checksum(array) for name, array in arrays.items())
    return arrays if arrays and whole else None
