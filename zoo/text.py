"""Numbers, sizes and tables as people read them on a terminal or in a card."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

__all__ = ["aligned", "human_bytes", "human_count", "plain_warnings", "table"]


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Print warnings as one line, without the place in our code and its text, which say nothing to a user."""
    former = warnings.formatwarning
    warnings.formatwarning = lambda message, *_args, **_options: f"warning: {message}\n"
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
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)).rstrip() for row in cells]
