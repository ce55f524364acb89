"""Text files and tables of any origin: UTF-8, or what a byte order mark says; other bytes are named with their line."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import os
import zlib
from pathlib import Path
from typing import BinaryIO

from zoo.errors import ZooError
from zoo.files import open_regular
from zoo.inputs import UnreadableError, swollen

__all__ = ["decoded", "read_bytes", "read_head", "read_rows", "read_text"]

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins like that of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_bytes(path: Path, most: int) -> bytes:
    """Content of a file, unpacked if it is packed with gzip: within what a file of its size may hold.

    Args:
        path: of the file.
        most: bytes that it may have, packed and unpacked.

    Raises:
        UnreadableError: if it cannot be opened, is larger, or is damaged.
    """
    try:
        with open_regular(path) as file:
            raw = _up_to(file, min(most, os.fstat(file.fileno()).st_size) + 1)
    except (ZooError, OSError) as error:
        raise UnreadableError("a file that can be read", str(error)) from None
    if len(raw) > most:
        raise UnreadableError(f"a file of at most {most:,} bytes", "a larger one")
    if not raw.startswith(b"\x1f\x8b"):
        return raw
    limit = min(most, swollen(len(raw)))
    try:
        with gzip.open(io.BytesIO(raw)) as packed:
            content = packed.read(limit + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UnreadableError("a whole gzip file", str(error)) from None
    if len(content) > limit:
        raise UnreadableError(f"at most {limit:,} bytes in {len(raw):,} packed ones", "more: unpack the file")
    return content


def read_head(path: Path, count: int = 4096) -> bytes:
    """The first bytes of a file, unpacked if it is packed with gzip; none of what cannot be read."""
    try:
        with open_regular(path) as file:
            raw = _up_to(file, count)
        if not raw.startswith(b"\x1f\x8b"):
            return raw
        return zlib.decompressobj(wbits=31).decompress(raw, count)
    except (ZooError, OSError, zlib.error):
        return b""


def _up_to(file: BinaryIO, count: int) -> bytes:
    """As many bytes as there are, up to `count`; one call may return fewer."""
    parts = []
    while count and (part := file.read(count)):
        parts.append(part)
        count -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def read_text(path: Path, most: int = 256 << 20) -> str:
    """Content of a text file, which may be packed with gzip.

    Args:
        path: of the file.
        most: bytes that it may have.

    Raises:
        UnreadableError: if it is larger, cannot be opened, or is no text in UTF-8, nor in UTF-16 or UTF-32 with a mark.
    """
    return decoded(read_bytes(path, most))


def decoded(raw: bytes) -> str:
    """Bytes as text.

    Raises:
        UnreadableError: naming the line of what is no text.
    """
    coding = next((coding for mark, coding in _MARKS if raw.startswith(mark)), "utf-8")
    try:
        text = raw.decode(coding)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        got = f"the byte {raw[error.start]:#04x} in line {line}"
        raise UnreadableError(f"text in {coding.removesuffix('-sig').upper()}", f"{got}: save it as UTF-8") from None
    if "\0" in text:
        got = f"a zero byte in line {text.count(chr(10), 0, text.index(chr(0))) + 1}: save it as UTF-8"
        raise UnreadableError("text in UTF-8, or in UTF-16 with a byte order mark", got)
    return text


def read_rows(path: Path, most: int = 256 << 20) -> list[tuple[int, list[str]]]:
    """Rows of a table as (number of the line, cells); the header says whether commas, semicolons or tabs part them.

    Args:
        path: of the file.
        most: bytes that it may have.

    Raises:
        UnreadableError: as `read_text`, and for quotes that never end.
    """
    text = read_text(path, most)
    former = csv.field_size_limit(1 << 28)  # the whole way of a taxi is one cell
    header = text.lstrip().partition("\n")[0]
    part = max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=part)
    rows = []
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append((reader.line_num, row))
    except csv.Error as error:
        raise UnreadableError("a table", f"{error} in line {reader.line_num}") from None
    finally:  # other readers of this process keep theirs
        csv.field_size_limit(former)
    # a quote that is never closed swallows the rest of the file, lines and all
    if rows and text.count('"') % 2 and "\n" in rows[-1][1][-1]:
        raise UnreadableError("a table", f"a quote that is never closed, in or before line {rows[-1][0]}")
    return rows
