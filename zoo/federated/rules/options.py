"""Checks of the options of rules; each returns the value. Options come from YAML, so that types are checked, too."""

from __future__ import annotations

from typing import Any

from zoo import checks
from zoo.errors import BadInput

__all__ = ["above", "at_least", "one_of", "share"]


def one_of(option: str, value: str, *allowed: str) -> str:
    """The value, or an error that lists what is allowed."""
    checks.one_of(option, value, allowed)
    return value


def above(option: str, value: float, least: float) -> float:
    """The value, or an error unless it is a number above `least`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > least:
        raise BadInput(f"{option} must be a number above {least:g}, got {value!r}.")
    return float(value)


def share(option: str, value: float) -> float:
    """The value, or an error unless it is in [0, 1)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise BadInput(f"{option} must be at least 0 and less than 1, got {value!r}.")
    return float(value)


def at_least(option: str, value: Any, least: int) -> int:
    """The value, or an error unless it is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value) or value < least:
        raise BadInput(f"{option} must be a whole number of at least {least}, got {value!r}.")
    return int(value)
