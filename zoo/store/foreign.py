"""Values that somebody else wrote, in a config or a checkpoint: how large they may be, and what they may name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from zoo.base.arguments import without_downloads
from zoo.errors import InvalidConfig, UnsafeFile
from zoo.store.reference import parent_of

__all__ = ["check_plain_size", "own_arguments"]

_ELSEWHERE = re.compile(r"\s*(?:[a-z][a-z0-9+.-]*://|(?:hf[-_]hub|local[-_]dir)\s*:)", re.IGNORECASE)
"""What libraries read from a network or a disk: addresses, and timm's names of repositories and folders."""
_MAX_WHOLE = 1 << 63

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
                    f"{where}: expected at most {most:,} values nested {depth} deep, got more when shared ones are "
                    "written out. It looks like an attack: do not use this file."
                )
        elif id(item) not in sizes and isinstance(item, (dict, list, tuple, set)):
            if id(item) in open_ones:
                raise UnsafeFile(f"{where}: expected plain values, got a list that holds itself. Do not use this file.")
            open_ones.add(id(item))
            work.append((item, True))
            work += [(v, False) for v in inner if id(v) not in sizes]


def _inside(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, (list, tuple, set)) else ()


def own_arguments(cls: type, init: Mapping[str, Any], where: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Constructor arguments of a file without what would contact, or read, a place that the file names.

    Pre-trained weights are not asked for. Another network (`OtherNetworks.references`) stays if it is one of the index;
    of another one, only the user can say that it is wanted.

    Args:
        cls: class of the module.
        init: the arguments.
        where: for messages.

    Returns:
        The arguments, and those taken out that named another network.

    Raises:
        UnsafeFile: if another argument is an address.
        InvalidConfig: if a number is too large for any use.
    """
    own = {**init, **without_downloads(cls, init)}
    left_out: dict[str, str] = {}
    for name in getattr(cls, "references", ()):
        value = own.get(name)
        other = parent_of(value) if isinstance(value, str) else None
        if value is not None and (other is None or other.kind != "index"):
            own[name] = None
            left_out[name] = str(value)
    for name, value in own.items():
        for text in _single_texts(value):
            if _ELSEWHERE.match(text):
                kind = text.strip().partition(":")[0]  # the rest may hold a password
                raise UnsafeFile(
                    f"{where}: {name}: expected a name that is known here, got an address ({kind}:...). Nothing was "
                    "contacted. Only you can choose such a network: build the method with your own arguments."
                )
        if any(isinstance(number, int) and abs(number) >= _MAX_WHOLE for number in _scalars(value)):
            raise InvalidConfig(f"{where}: {name}: expected numbers of at most 63 bits, got a larger one.")
    return own, left_out


def _scalars(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple, set)):
        for item in value:
            yield from _scalars(item)
    else:
        yield value


def _single_texts(value: Any) -> Iterator[str]:
    """Texts, except for the items of lists of texts: these are names, such as those of classes."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _single_texts(item)
    elif isinstance(value, (list, tuple, set)):
        for item in value:
            if not isinstance(item, str):
                yield from _single_texts(item)
