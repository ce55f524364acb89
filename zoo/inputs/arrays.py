"""Arrays in npz files, read within a budget of bytes: headers are compared with the content before memory is taken.

`np.load` believes an archive. A few bytes may promise terabytes, deflated zeros swell a thousandfold, and damage ends
in a dozen kinds of exception.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from zoo.errors import ZooError
from zoo.inputs import UnreadableError, swollen

__all__ = ["Arrays", "open_arrays"]

_KINDS = "biufSU"  # kinds of numbers and texts; objects and records are none
_BLOCK = 1 << 20


@contextmanager
def open_arrays(path: Path) -> Iterator[Arrays]:
    """Open an npz file of plain arrays.

    Raises:
        UnreadableError: here or while arrays are read, for whatever else it is.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            yield Arrays(archive, path.stat().st_size)
    except (UnreadableError, ZooError):
        raise
    except Exception as error:  # a damaged archive or header leads to whatever its bytes say
        raise UnreadableError("an npz archive of plain arrays", f"{type(error).__name__}: {error}") from error


class Arrays:
    """The arrays of an open npz file by name.

    Args:
        archive: the file.
        size: of it in bytes.
    """

    def __init__(self, archive: zipfile.ZipFile, size: int) -> None:
        self._archive, self._size = archive, size
        self._left = swollen(size)
        self._members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        self.names = list(self._members)

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def get(self, name: str) -> np.ndarray | None:
        """An array, or None if there is none of that name."""
        return self[name] if name in self._members else None

    def __getitem__(self, name: str) -> np.ndarray:
        info = self._members[name]
        self._check(name, info)
        with self._archive.open(info) as file:
            shape, fortran, dtype = self._header(name, file)
            held = info.file_size - file.tell()
            promised = int(np.prod(shape, dtype=object)) * dtype.itemsize
            if promised != held or (not promised and max(shape, default=0) > held + _BLOCK):
                got = f"{held:,} bytes for {dtype} {shape}"
                raise UnreadableError(f"{name}: as much content as its header says", got)
            data = np.empty(promised, np.uint8)
            place = 0
            while block := file.read(_BLOCK):  # up to the end, where the checksum is compared
                data[place : place + len(block)] = np.frombuffer(block, np.uint8)
                place += len(block)
        if place != promised:
            raise UnreadableError(f"{name}: {promised:,} bytes", f"{place:,}")
        array = data.view(dtype)
        return array.reshape(shape[::-1]).T if fortran else array.reshape(shape)

    def _check(self, name: str, info: zipfile.ZipInfo) -> None:
        """Refuse what is compressed in other ways, or swells beyond the budget."""
        if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UnreadableError(f"{name}: an array as np.savez or np.savez_compressed writes it", "another archive")
        if info.compress_type == zipfile.ZIP_STORED:
            if info.file_size > self._size:
                got = f"{info.file_size:,} bytes in {self._size:,}"
                raise UnreadableError(f"{name}: an array inside the file", got)
            return
        self._left -= info.file_size
        if self._left < 0:
            limit = f"at most {swollen(self._size):,} bytes in {self._size:,} compressed ones"
            raise UnreadableError(f"{name}: {limit} (np.savez writes without compression)", f"{info.file_size:,}")

    @staticmethod
    def _header(name: str, file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
        version = np.lib.format.read_magic(file)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in readers:
            raise UnreadableError(f"{name}: a plain array", f"one of version {version}")
        shape, fortran, dtype = readers[version](file)
        sides = all(type(side) is int and side >= 0 for side in shape)
        if dtype.kind not in _KINDS or dtype.itemsize == 0 or dtype.subdtype is not None or not sides:
            raise UnreadableError(f"{name}: numbers or texts", f"{dtype} {shape}"[:100])
        return shape, fortran, dtype
