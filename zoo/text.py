"""Numbers, sizes and tables as people read them on a terminal or in a card."""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

__all__ = ["aligned", "human_bytes", "human_count", "markdown", "plain_warnings", "printable", "table"]

_MARKUP = re.compile(r"[\\`*{}\[\]<>#|~&]|(?<![^\W_])_|_(?![^\W_])|(?<=\w)://|^[-+=]")


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Print warnings as one line, without the place in our code and its text, which say nothing to a user."""
    former = warnings.formatwarning
    warnings.formatwarning = lambda message, *_args, **_options: f"warning: {printable(str(message), lines=True)}\n"
    try:
        yield
    finally:
        warnings.formatwarning = former


def human_count(number: int | None) -> str:
    """A number with three significant digits and G, M or k; `-` where it is not known."""
    if number is None:
        return "-"
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)


def human_bytes(number: int | None) -> str:
    """A size in bytes with three significant digits and GB, MB or kB (powers of ten); `-` where it is not known."""
    if number is None:
        return "-"
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number} B"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, under a header and a line of dashes."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    return "\n".join(aligned([header, ["-" * width for width in widths], *rows]))


def aligned(rows: Sequence[Sequence[object]]) -> list[str]:
    """One line per row, in columns as wide as their widest cell."""
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)).rstrip() for row in cells]


def printable(text: str, *, lines: bool = False) -> str:
    """Text for terminals: control characters and lone surrogates, as names in files may hold them, are spelt out.

    Args:
        text: anything.
        lines: line breaks and tabs stay.
    """
    if text.isprintable():
        return text
    return "".join(c if _is_shown(c) or (lines and c in "\n\t") else _spelt_out(c) for c in text)


def _is_shown(character: str) -> bool:
    return character.isprintable() or unicodedata.category(character) == "Zs"  # spaces of other widths


def _spelt_out(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def markdown(text: str) -> str:
    """Text of unknown origin as one line of Markdown that shows it as it is: no heading, link, picture or HTML.

    Args:
        text: anything.
    """
    return _MARKUP.sub(lambda match: "".join(f"&#{ord(c)};" for c in match.group()), printable(text))
