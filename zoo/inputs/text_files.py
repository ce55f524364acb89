"""Text files and tables of any origin: UTF-8, or what a byte order mark says; other bytes are named with their line."""

from __future__ import annotations

import codecs
import csv
import io
from pathlib import Path

from zoo.inputs import UnreadableError

__all__ = ["decoded", "read_rows", "read_text"]

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins like that of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_text(path: Path, most: int = 256 << 20) -> str:
    """Content of a text file.

    Args:
        path: of the file.
        most: bytes that it may have.

    Raises:
        UnreadableError: if it is larger, cannot be opened, or is no text in UTF-8, nor in UTF-16 or UTF-32 with a mark.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(most + 1)
    except OSError as error:
        raise UnreadableError("a text file", error.strerror or str(error)) from None
    if len(raw) > most:
        raise UnreadableError(f"a text file of at most {most:,} bytes", "a larger one")
    return decoded(raw)


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


def read_rows(path: Path) -> list[tuple[int, list[str]]]:
    """Rows of a table as (number of the line, cells); the header says whether commas, semicolons or tabs part them.

    Raises:
        UnreadableError: as `read_text`, and for quotes that never end.
    """
    text = read_text(path)
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
    return rows
