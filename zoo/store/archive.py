"""The zip archives that `torch.save` writes, as a file that somebody handed over: bounded before anything is read."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from typing import Any, BinaryIO

from zoo.errors import CorruptFile, UnsafeFile

__all__ = ["TorchArchive"]

_END = struct.Struct("<4s4H2IH")
_LOCATOR = struct.Struct("<4sIQI")
_END_64 = struct.Struct("<4sQ2H2I4Q")
_MAX_DIRECTORY = 16 << 20
_ENCRYPTED = 0x1


class TorchArchive:
    """The members of one file: `data.pkl` and storages, each stored as it is.

    torch writes its archives in one way only. Whatever zip allows beyond that (compression, comments, bytes in front,
    members that share bytes) is refused, so that every reader sees the same members, and all of them together are no
    larger than the file.

    Args:
        file: open for reading, seekable; stays open.
        where: for messages.

    Raises:
        UnsafeFile: if it is another kind of file, or not as torch writes it.
        CorruptFile: if it is damaged.
    """

    def __init__(self, file: BinaryIO, where: object) -> None:
        self.file, self.where = file, where
        self.size = file.seek(0, os.SEEK_END)
        self._check_end()
        self.members = self._members()
        pickles = [name for name in self.members if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise UnsafeFile(f"{where}: expected a checkpoint as torch.save writes it, got {len(pickles)} data.pkl.")
        self.root = pickles[0].removesuffix("data.pkl")
        order = self.members.get(f"{self.root}byteorder")
        if order is not None and self.read("byteorder", 16) != b"little":
            raise UnsafeFile(f"{where}: expected numbers in little-endian order, as torch.save writes them nowadays.")

    def _check_end(self) -> None:
        """Bound the directory before it is parsed, and let it lie at one place only."""
        tail = self._at(max(self.size - 98, 0), 98)
        if len(tail) < 22 or tail[-22:-18] != b"PK\x05\x06":
            raise UnsafeFile(
                f"{self.where}: expected a checkpoint of Lightning 2, or what else torch.save writes (a zip archive), "
                "got another kind of file, or one that is cut off."
            )
        _, _, _, _, _, length, start, comment = _END.unpack(tail[-22:])
        end = self.size - 22
        if len(tail) == 98 and tail[-42:-38] == b"PK\x06\x07":
            _, _, place, _ = _LOCATOR.unpack(tail[-42:-22])
            end = self.size - 98
            if place != end or tail[:4] != b"PK\x06\x06":
                raise CorruptFile(f"{self.where}: the end of the checkpoint is damaged. Use another one.")
            *_, length, start = _END_64.unpack(tail[:56])
        if comment or start + length != end:
            raise UnsafeFile(f"{self.where}: expected a checkpoint as torch.save writes it, got other bytes in it.")
        if length > _MAX_DIRECTORY:
            raise UnsafeFile(f"{self.where}: expected a checkpoint, got an archive of too many files.")

    def _members(self) -> dict[str, zipfile.ZipInfo]:
        try:
            with zipfile.ZipFile(self.file) as archive:
                listed = archive.infolist()
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, struct.error, OSError) as error:
            raise CorruptFile(
                f"{self.where}: the checkpoint is damaged ({str(error)[:100]}). Use another one."
            ) from None
        packed = [i.filename for i in listed if i.compress_type != zipfile.ZIP_STORED or i.file_size != i.compress_size]
        if packed:
            raise UnsafeFile(
                f"{self.where}: expected a checkpoint as torch.save writes it, got compressed parts "
                f"({packed[0][:80]!r})."
            )
        members = {i.filename: i for i in listed}
        total = sum(i.file_size for i in listed)
        if len(members) != len(listed) or total > self.size or any(i.flag_bits & _ENCRYPTED for i in listed):
            raise UnsafeFile(
                f"{self.where}: expected a checkpoint as torch.save writes it, got parts that are encrypted, twice "
                f"there, or larger than the file ({total:,} of {self.size:,} bytes)."
            )
        return members

    def _at(self, start: int, length: int) -> bytes:
        self.file.seek(start)
        return self.file.read(length)

    def size_of(self, name: str) -> int | None:
        """Bytes of a member; None if there is no such one."""
        info = self.members.get(self.root + name)
        return None if info is None else info.file_size

    def storage_size(self, key: str, count: int, width: int) -> int | None:
        """Bytes of a storage; here the file says that, whatever the program says."""
        return self.size_of(f"data/{key}")

    def read(self, name: str, most: int) -> bytes:
        """The bytes of a member.

        Raises:
            UnsafeFile: if it is larger.
            CorruptFile: if it is damaged.
        """
        size = self.size_of(name) or 0
        if size > most:
            raise UnsafeFile(f"{self.where}: expected at most {most:,} bytes of {name}, got {size:,}.")
        buffer = bytearray(size)
        self.read_into(name, memoryview(buffer))
        return bytes(buffer)

    def read_into(self, name: str, place: Any) -> None:
        """Read a member into memory of its size, and compare it with its checksum.

        Raises:
            CorruptFile: if it is damaged.
        """
        info = self.members[self.root + name]
        head = self._at(info.header_offset, 30)
        if len(head) < 30 or head[:4] != b"PK\x03\x04":
            raise CorruptFile(f"{self.where}: {name[:80]} is damaged. Use another checkpoint.")
        names, extra = struct.unpack("<2H", head[26:30])
        self.file.seek(info.header_offset + 30 + names + extra)
        done = 0
        while done < info.file_size and (count := self.file.readinto(place[done:])):  # type: ignore[attr-defined]
            done += count
        if done != info.file_size or zlib.crc32(place) != info.CRC:
            raise CorruptFile(f"{self.where}: {name[:80]} is damaged or cut off. Use another checkpoint.")
