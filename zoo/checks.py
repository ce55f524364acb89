"""Checks of arguments: each raises `BadInput` that names the argument, what is allowed and what was given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from zoo.errors import BadInput, UnsafeFile, nearest

__all__ = [
    "above",
    "at_least",
    "class_names",
    "limited_work",
    "one_of",
    "per_channel",
    "repeated",
    "share_of_one",
    "unique_keys",
    "work",
]

T = TypeVar("T", bound=Hashable)


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
