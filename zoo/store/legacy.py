"""Files of `torch.save` before version 1.6, which networks of earlier papers still come in: pickles, then storages."""

from __future__ import annotations

import os
import struct
from typing import Any, BinaryIO

from zoo.errors import CorruptFile, UnsafeFile
from zoo.store.unpickle import unpickle_first

__all__ = ["LegacyArchive"]

_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."
"""The pickled magic number, and the pickled version: there was one only."""


class LegacyArchive:
    """What `zoo.store.unpickle` needs of such a file: its program, and bytes of storages that lie inside the file.

    The program says how large each storage is, the file itself how many numbers follow. Both are compared before
    memory is asked for.

    Args:
        file: open for reading, seekable; stays open.
        where: for messages.

    Raises:
        UnsafeFile: if it names anything but tensors and plain values.
        CorruptFile: if it is damaged.
    """

    def __init__(self, file: BinaryIO, where: object) -> None:
        self.file, self.where = file, where
        self.size = file.seek(0, os.SEEK_END)
        self._start = len(_MAGIC)
        self._widths: dict[str, int] = {}  # bytes of one number
        self._places: dict[str, tuple[int, int]] | None = None  # start and length, once the program has been looked at
        about = self._next()
        if not isinstance(about, dict) or about.get("little_endian") is not True:
            raise UnsafeFile(f"{where}: expected numbers in little-endian order, as torch.save writes them nowadays.")
        program = self._start
        self._next()
        keys = self._next()
        if not isinstance(keys, list) or set(map(str, keys)) != set(self._widths) or len(keys) != len(self._widths):
            raise CorruptFile(f"{where}: the list of its storages does not fit its tensors. Use another file.")
        self._places = self._walk(keys)
        self._start = program

    @staticmethod
    def is_one(file: BinaryIO) -> bool:
        """Whether a file begins like one."""
        file.seek(0)
        return file.read(len(_MAGIC)) == _MAGIC

    def _next(self) -> Any:
        """What the next pickle holds; its tensors have no memory."""
        result, length = unpickle_first(self, tensors=False)
        self._start += length
        return result

    def _walk(self, keys: list[str]) -> dict[str, tuple[int, int]]:
        """Where each storage lies; its bytes follow the count of its numbers."""
        places, at = {}, self._start
        for key in keys:
            self.file.seek(at)
            head = self.file.read(8)
            length = struct.unpack("<q", head)[0] * self._widths[key] if len(head) == 8 else -1
            if not 0 <= length <= self.size - at - 8:
                raise CorruptFile(f"{self.where}: it is damaged or cut off. Use another file.")
            places[key] = (at + 8, length)
            at += 8 + length
        return places

    def read(self, name: str, most: int) -> bytes:
        """The program, and what follows it, as far as a program may reach."""
        self.file.seek(self._start)
        return self.file.read(most)

    def storage_size(self, key: str, count: int, width: int) -> int | None:
        """Bytes of a storage that holds so many numbers of a width; what is asked for while that is not yet known."""
        if self._places is None:
            self._widths.setdefault(key, width)
            return count * width
        return self._places[key][1] if key in self._places else None

    def read_into(self, name: str, place: Any) -> None:
        """Read a storage, `data/` and its key, into memory of its size.

        Raises:
            CorruptFile: if the file was cut off meanwhile.
        """
        assert self._places is not None
        self.file.seek(self._places[name.removeprefix("data/")][0])
        done = 0
        while done < len(place) and (count := self.file.readinto(place[done:])):  # type: ignore[attr-defined]
            done += count
        if done != len(place):
            raise CorruptFile(f"{self.where}: it is cut off. Use another file.")
