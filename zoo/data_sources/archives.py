"""Archives as streams that are bounded before their readers see them: a header may claim to be gigabytes long."""

from __future__ import annotations

import io
from pathlib import Path
from typing import IO

from zoo.errors import UnsafeFile

__all__ = ["Bounded", "Forward"]

_PIECE = 64 << 20
"""What is read at once: a directory or a header. Contents are read in small blocks."""
_BLOCK = 1 << 20


class Bounded(io.RawIOBase):
    """A file that is read in pieces of bounded size.

    Args:
        raw: open for reading.
        archive: for messages.
    """

    def __init__(self, raw: IO[bytes], archive: Path) -> None:
        super().__init__()
        self.raw, self.archive = raw, archive

    def read(self, size: int | None = -1) -> bytes:
        """At most `size` bytes.

        Raises:
            UnsafeFile: if that is more than any honest header or directory holds.
        """
        most = _PIECE + 1
        data = self.raw.read(most if size is None or size < 0 else min(size, most))
        if len(data) > _PIECE:
            raise self.refusal("a directory or a header of gigabytes")
        return data

    def refusal(self, what: str) -> UnsafeFile:
        """The error that says what was found."""
        return UnsafeFile(f"{self.archive}: expected an archive of data files, got {what}. It is not used.")

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place."""
        return self.raw.seek(offset, whence)

    def tell(self) -> int:
        """Where it is."""
        return self.raw.tell()


class Forward(Bounded):
    """A stream that comes out of a decompressor or a pipe: read in order, and bounded as a whole.

    Args:
        raw: open for reading.
        archive: for messages.
        most: bytes of all of it, skipped ones too.
    """

    def __init__(self, raw: IO[bytes], archive: Path, most: int) -> None:
        super().__init__(raw, archive)
        self.most, self.at = most, 0

    def read(self, size: int | None = -1) -> bytes:
        """At most `size` bytes.

        Raises:
            UnsafeFile: if that, or all of the stream so far, is too much.
        """
        data = super().read(size)
        self.at += len(data)
        if self.at > self.most:
            raise self.refusal(f"more than {self.most:,} bytes in it")
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Skip what lies before a place."""
        if whence != io.SEEK_SET or offset < self.at:
            raise io.UnsupportedOperation("this stream is read in order")
        while self.at < offset and self.read(min(_BLOCK, offset - self.at)):
            pass
        return self.at

    def tell(self) -> int:
        """Bytes that were read."""
        return self.at
