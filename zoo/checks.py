"""Checks of arguments: each raises `BadInput` that names the argument, what is allowed and what was given."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from numbers import Integral, Real
from os import PathLike
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from zoo.errors import BadInput, UnsafeFile, nearest

__all__ = [
    "Range",
    "above",
    "arguments",
    "at_least",
    "class_names",
    "limited_work",
    "one_of",
    "per_channel",
    "repeated",
    "share_of_one",
    "typed",
    "unique_keys",
    "within",
    "work",
]

T = TypeVar("T", bound=Hashable)

Range = tuple[float, float]
"""Least and largest value of a number."""


def repeated(values: Iterable[T]) -> list[T]:
    """Values that occur more than once, in the order of their first occurrence; in linear time."""
    return [value for value, count in Counter(values).items() if count > 1]


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The `object_pairs_hook` of readers of JSON that refuse a key given twice, of which `json` keeps the last.

    Raises:
        ValueError: naming the key.
    """
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError(f"the key {repeated(name for name, _ in pairs)[0][:80]!r} is given twice")
    return result


def one_of(name: str, value: Any, allowed: Collection[Any]) -> None:
    """Check that a value is one of those allowed.

    Args:
        name: of the argument, as the user writes it.
        value: what was given.
        allowed: every legal value, in the order in which the message lists them.

    Raises:
        BadInput: otherwise, with the nearest legal value.
    """
    if value not in allowed:
        names = ", ".join(str(a) for a in allowed)
        raise BadInput(f"{name}: expected one of {names}; got {value!r}.{nearest(value, [str(a) for a in allowed])}")


def at_least(name: str, value: float, lowest: float) -> None:
    """Check that a number is not below `lowest`.

    Raises:
        BadInput: otherwise, also for NaN.
    """
    if not value >= lowest:
        raise BadInput(f"{name} must be at least {lowest}, got {value}.")


def above(name: str, value: float, bound: float) -> None:
    """Check that a number is above `bound`.

    Raises:
        BadInput: otherwise, also for NaN.
    """
    if not value > bound:
        wanted = "positive" if bound == 0 else f"above {bound}"
        raise BadInput(f"{name} must be {wanted}, got {value}.")


def share_of_one(name: str, value: float, *, ends: bool = True) -> None:
    """Check that a number lies in [0, 1], or in (0, 1) without the ends.

    Raises:
        BadInput: otherwise, also for NaN.
    """
    if not (0 <= value <= 1 if ends else 0 < value < 1):
        raise BadInput(f"{name} must be in {'[0, 1]' if ends else '(0, 1)'}, got {value}.")


def class_names(names: Sequence[str] | None, num_classes: int) -> None:
    """Check that there is one name for each class, or no name at all.

    Raises:
        BadInput: otherwise.
    """
    if names is not None and (
        not isinstance(names, Sequence) or isinstance(names, str) or not all(isinstance(name, str) for name in names)
    ):
        raise BadInput(f"class_names: expected a list of text, got {str(names)[:80]!r}.")
    if names is not None and len(names) != num_classes:
        raise BadInput(f"{len(names)} class_names were given for {num_classes} classes.")


def per_channel(mean: Sequence[float] | None, std: Sequence[float] | None, channels: int) -> None:
    """Check a normalisation: one mean and one positive deviation for each channel, or neither.

    Raises:
        BadInput: otherwise.
    """
    if mean is None and std is None:
        return
    if mean is None or std is None or len(mean) != channels or len(std) != channels:
        raise BadInput(f"mean and std need one value for each of the {channels} channels, or both be left out.")
    for value in std:
        above("std", value, 0)


_left: ContextVar[list[int] | None] = ContextVar("work that is left", default=None)


@contextmanager
def limited_work(most: int, where: str) -> Iterator[None]:
    """Bound what `work` may add up to in this block, for arguments that somebody else wrote.

    Args:
        most: numbers.
        where: for messages.

    Raises:
        UnsafeFile: when it is more.
    """
    token = _left.set([most])
    try:
        yield
    except _TooMuch as error:
        raise UnsafeFile(f"{where}: its init values ask for {error}. Do not use this file.") from None
    finally:
        _left.reset(token)


class _TooMuch(Exception):
    """Not caught by constructors."""


def work(numbers: int, what: str) -> None:
    """Say what a constructor is about to compute outside of tensors: in loops, or by NumPy.

    A user may ask for as much as they like; a file may not (`limited_work`).

    Args:
        numbers: that are drawn or computed.
        what: for messages.
    """
    left = _left.get()
    if left is not None:
        left[0] -= numbers
        if left[0] < 0:
            raise _TooMuch(f"{numbers:,} {what}")


def typed(name: str, value: Any, hint: Any) -> None:
    """Check a value against an annotation, as far as that is made of plain types.

    A number of any kind is a float unless it is NaN, a list is a tuple and a tuple a list; other annotations allow all.

    Args:
        name: of the argument, as the user writes it.
        value: what was given.
        hint: the annotation, resolved.

    Raises:
        BadInput: naming the argument and what it may be.
    """
    if not _fits(value, hint):
        shown = repr(value)
        raise BadInput(f"{name}: expected {_told(hint)}, got {shown if len(shown) <= 60 else f'{shown[:57]}...'}.")


def arguments(
    function: Callable[..., Any], values: Mapping[str, Any], ranges: Mapping[str, Range] | None = None
) -> None:
    """Check values of a function's arguments against its annotations and the ranges of its numbers.

    Args:
        function: whose arguments they are.
        values: by name; others than its arguments are left alone.
        ranges: least and largest value of numbers, by name.

    Raises:
        BadInput: naming the argument.
    """
    try:
        hints = get_type_hints(function)
    except (NameError, TypeError, AttributeError):  # a name that exists for type checkers only
        hints = {}
    for name, value in values.items():
        if name in hints:
            typed(name, value, hints[name])
        within(name, value, (ranges or {}).get(name))


def within(name: str, value: Any, bounds: Range | None) -> None:
    """Check that a number lies between two bounds, and whole ones in 64 bits; what is no number is left alone.

    Raises:
        BadInput: otherwise.
    """
    if not isinstance(value, (int, float, Real)) or isinstance(value, bool):
        return
    if isinstance(value, int) and abs(value) >= 1 << 63:
        raise BadInput(f"{name}: expected a number of at most 64 bits, got one of {value.bit_length()}.")
    if bounds is None:
        return
    low, high = bounds
    if not low <= float(value) <= high:
        allowed = f"at least {low:g}" if math.isinf(high) else f"from {low:g} to {high:g}"
        raise BadInput(f"{name}: expected a number {allowed}, got {value}.")


def _fits(value: Any, hint: Any) -> bool:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is Literal:
        return value in inner
    if origin in (list, tuple, Sequence) or hint in (list, tuple):
        if not isinstance(value, (list, tuple)):
            return False
        fixed = origin is tuple and Ellipsis not in inner
        if fixed and len(value) != len(inner):
            return False
        if inner and inner[0] is str:  # in a file, names such as 3 are written without quotes
            return all(isinstance(v, (str, int, PathLike)) for v in value)
        return all(_fits(v, one) for v, one in (zip(value, inner, strict=True) if fixed else _each(value, inner)))
    if origin in (dict, Mapping) or hint is dict:
        return isinstance(value, Mapping)
    if hint in (None, type(None)):
        return value is None
    if hint is bool:
        return isinstance(value, bool) or type(value).__name__ in ("bool_", "bool")
    if hint is int:
        return isinstance(value, Integral) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, Real) and not isinstance(value, bool) and value == value
    # paths stand where texts do: a data module takes its root as either
    return isinstance(value, (str, PathLike)) if hint is str else True


def _each(values: Sequence[Any], inner: Sequence[Any]) -> list[tuple[Any, Any]]:
    return [(v, inner[0]) for v in values] if inner else []


def _told(hint: Any) -> str:
    """An annotation in words."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        parts = [_told(one) for one in inner if one is not type(None)]
        return " or ".join([*parts, *(["nothing"] if type(None) in inner else [])])
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    if hint in words:
        return words[hint]
    if origin in (list, tuple, Sequence) or hint in (list, tuple):
        kinds = [one for one in inner if one is not Ellipsis]
        return f"a list of {_told(kinds[0]).removeprefix('a ')}s" if len(set(kinds)) == 1 else "a list"
    return "a mapping" if origin in (dict, Mapping) or hint is dict else str(hint)
