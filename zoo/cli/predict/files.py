"""Files that grow while inputs are predicted, and are valid whenever the run stops."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from zoo.files import writing

__all__ = ["Growing"]


class Growing:
    """A text file of entries between a head and a tail. After each `add` it is complete.

    It replaces a former file of its name with the first `add`, or with `close` if there was none.

    Args:
        path: of the file.
        head: what it begins with.
        tail: what it ends with.
        between: what stands between two entries.
    """

    def __init__(self, path: Path, head: str = "", tail: str = "", between: str = "") -> None:
        self.path, self.head, self.tail, self.between = path, head, tail, between
        self._file: IO[bytes] | None = None
        self._end = self._count = 0

    def add(self, entries: Sequence[str]) -> None:
        """Append entries.

        Raises:
            DiskFull: if there is no room.
            NotWritable: if the folder cannot be written.
        """
        text = self.between.join(entries)
        if self._count and entries:
            text = self.between + text
        self._count += len(entries)
        self._write(text)

    def _write(self, text: str) -> None:
        with writing(self.path):
            if self._file is None:
                self._file = self.path.open("wb", buffering=0)  # each write reaches the system at once
                text = self.head + text
            content, tail = text.encode(), self.tail.encode()
            self._file.seek(self._end)
            _write_all(self._file, content + tail)
            self._end += len(content)

    def close(self) -> None:
        """End the file."""
        if self._file is None:
            self._write("")
        assert self._file is not None
        self._file.close()


def _write_all(file: Any, content: bytes) -> None:
    """One write, unless the system takes only a part of it at once."""
    while content:
        content = content[file.write(content) :]
