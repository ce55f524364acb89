"""Edits of an index file that keep every other byte: a block at its place, keys of a tag."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from zoo.errors import InvalidIndex
from zoo.index import read_index

__all__ = ["block_of", "insert_block", "with_keys"]


def block_of(lines: list[str], start: int, end: int, key: str, indent: str | None = None) -> tuple[int, int]:
    """Numbers of the first line below a key, and of the first one behind its block.

    Args:
        lines: of the file.
        start: first line to look at.
        end: line to stop before.
        key: of the block.
        indent: what stands before the key; None: some spaces.

    Raises:
        InvalidIndex: if the key is not on a line of its own.
    """
    pattern = re.compile(rf"({r'[ ]+' if indent is None else indent}){re.escape(key)}:\s*(#.*)?$")
    for i in range(start, end):
        if match := pattern.match(lines[i].rstrip("\n")):
            deep = len(match.group(1))
            for j in range(i + 1, end):
                body = lines[j].strip()
                if body and not body.startswith("#") and len(lines[j]) - len(lines[j].lstrip(" ")) <= deep:
                    return i + 1, j
            return i + 1, end
    raise InvalidIndex(f"expected a block {key!r} on lines of its own in the index, got none. Write it so.")


def insert_block(text: str, name: str, block: str) -> str:
    """Put the block of a method at its place in the alphabet; comments right above a block belong to it.

    Args:
        text: of an index file.
        name: id of the method.
        block: its lines.
    """
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    keys = [
        (i, match.group(1))
        for i, line in enumerate(lines)
        if (match := re.match(r"['\"]?([a-z0-9][a-z0-9-]*)['\"]?\s*:", line))
    ]
    later = [i for i, key in keys if key > name]
    if not later:
        gap = "\n" if lines and lines[-1].strip() else ""
        return "".join(lines) + gap + block
    place = later[0]
    while place > 0 and lines[place - 1].startswith("#") and any(i < place for i, _ in keys):
        place -= 1
    return "".join([*lines[:place], block, "\n", *lines[place:]])


def with_keys(path: Path, name: str, tag: str, values: Mapping[str, str]) -> str:
    """The text of an index with other keys of a tag, each on a line of its own; those that are there keep their place.

    Args:
        path: of the index file.
        name: id of the method.
        tag: of its weights.
        values: key -> YAML on one line.

    Raises:
        InvalidIndex: if the tag is not on lines of its own, or what comes out is no valid index.
    """
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    start, end = block_of(lines, 0, len(lines), name, "")
    start, end = block_of(lines, start, end, "weights")
    start, end = block_of(lines, start, end, tag)
    first = next((line for line in lines[start:end] if line.strip() and not line.lstrip().startswith("#")), "      x")
    indent = first[: len(first) - len(first.lstrip(" "))]
    for key, value in values.items():
        at = next((i for i in range(start, end) if re.match(rf"{indent}{re.escape(key)}\s*:", lines[i])), None)
        if at is None:
            while not lines[end - 1].strip() or lines[end - 1].lstrip().startswith("#"):
                end -= 1
            at, end = end, end + 1
            lines.insert(at, "")
            comment = ""
        else:  # a value may go on below its key
            deeper = [i for i in range(at + 1, end) if lines[i].startswith(indent + " ")]
            while deeper and deeper[0] == at + 1:
                del lines[deeper.pop(0)]
                deeper = [i - 1 for i in deeper]
                end -= 1
            comment = match[0] if (match := re.search(r"\s+#[^'\"{}\[\]]*$", lines[at].rstrip("\n"))) else ""
        lines[at] = f"{indent}{key}: {value}{comment}\n"
    text = "".join(lines)
    read_index(path, text=text)
    return text
