"""JSON of any origin: bounded in size and depth, and numbers without end are infinite instead of an error later on."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from zoo.inputs import UnreadableError
from zoo.inputs.text_files import decoded, read_bytes

__all__ = ["parse_json", "read_json"]

_DEEPEST = 64
_STRINGS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_LONG = re.compile(r"\d{19}")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def read_json(path: Path, most: int = 4 << 30) -> Any:
    """Content of a JSON file, which may be packed with gzip.

    Args:
        path: of the file.
        most: bytes that it may have.

    Raises:
        UnreadableError: if it cannot be opened, is larger, no JSON, or nests deeper than any data do.
    """
    raw = read_bytes(path, most)
    if not raw:
        raise UnreadableError("JSON", "an empty file")
    return parse_json(decoded(raw))


def parse_json(text: str) -> Any:
    """Value of a JSON text; whole numbers of more than 18 digits become floats, infinite beyond their range.

    Raises:
        UnreadableError: if it is no JSON, or nests deeper than any data do.
    """
    if _depth(text) > _DEEPEST:
        raise UnreadableError("JSON", f"lists or objects nested deeper than {_DEEPEST}")
    try:
        # a function for numbers makes reading twice as slow, so it is used where it is needed
        return json.loads(text, parse_int=_number) if _LONG.search(text) else json.loads(text)
    except RecursionError:
        raise UnreadableError("JSON", "lists or objects nested without end") from None
    except ValueError as error:
        raise UnreadableError("JSON", str(error)[:200]) from None


def _number(digits: str) -> int | float:
    return int(digits) if len(digits) <= 18 else float(digits)


def _depth(text: str) -> int:
    """How deep brackets nest, those in texts left out."""
    if text.count("[") + text.count("{") <= _DEEPEST:
        return 0
    brackets = np.frombuffer(_STRINGS.sub("", text).encode("ascii", "ignore").translate(None, _NO_BRACKETS), np.uint8)
    if not len(brackets):
        return 0
    opening = (brackets == ord("[")) | (brackets == ord("{"))
    return int(np.cumsum(np.where(opening, 1, -1)).max())
