"""Values that somebody else wrote, in a config or a checkpoint: how large they may be."""

from __future__ import annotations

from typing import Any

from zoo.errors import UnsafeFile

__all__ = ["check_plain_size"]

_MAX_NODES = 5_000_000
_MAX_DEPTH = 100


def check_plain_size(value: Any, where: str, *, most: int = _MAX_NODES, depth: int = _MAX_DEPTH) -> None:
    """Refuse values that are small in the file and endless to walk through: shared lists in lists, or circles.

    Args:
        value: nested dicts, lists, tuples and sets; everything else counts as one.
        where: for messages.
        most: values when everything shared is written out.
        depth: of nesting.

    Raises:
        UnsafeFile: otherwise.
    """
    sizes: dict[int, tuple[int, int]] = {}  # container -> values in it, and its depth; None while it is open
    open_ones: set[int] = set()
    work: list[tuple[Any, bool]] = [(value, False)]
    while work:
        item, done = work.pop()
        inner = [v for v in _inside(item) if isinstance(v, (dict, list, tuple, set))]
        if done:
            open_ones.discard(id(item))
            nodes = 1 + len(item) + sum(sizes[id(v)][0] for v in inner)
            deep = 1 + max((sizes[id(v)][1] for v in inner), default=0)
            sizes[id(item)] = (nodes, deep)
            if nodes > most or deep > depth:
                raise UnsafeFile(
                    f"{where}: expected at most {most:,} values nested {depth} deep, found more when shared ones are "
                    "written out. It looks like an attack: do not use this file."
                )
        elif id(item) not in sizes and isinstance(item, (dict, list, tuple, set)):
            if id(item) in open_ones:
                raise UnsafeFile(
                    f"{where}: expected plain values, found a list that holds itself. Do not use this file."
                )
            open_ones.add(id(item))
            work.append((item, True))
            work += [(v, False) for v in inner if id(v) not in sizes]


def _inside(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, (list, tuple, set)) else ()
