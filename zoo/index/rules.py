"""Rules for what a block of YAML may contain, and the lines that say what is wrong with it. No torch here."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from zoo.errors import ZooError, nearest

__all__ = [
    "Rule",
    "check_keys",
    "is_count",
    "is_mapping",
    "is_number",
    "is_plain",
    "is_text",
    "matches",
    "raise_if_any",
    "shown",
]


class Rule(NamedTuple):
    """What one key may hold.

    Attributes:
        expected: in words, for messages.
        accepts: whether a value is right.
        required: the key must be there.
    """

    expected: str
    accepts: Callable[[Any], bool]
    required: bool = False


def is_text(value: Any) -> bool:
    """Whether it is text that is not blank."""
    return isinstance(value, str) and bool(value.strip())


def is_count(value: Any) -> bool:
    """Whether it is a whole number of at least 0."""
    return type(value) is int and value >= 0


def is_number(value: Any) -> bool:
    """Whether it is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def is_mapping(value: Any) -> bool:
    """Whether it is a mapping."""
    return isinstance(value, dict)


def is_plain(value: Any, *, finite: bool = False) -> bool:
    """Whether a value is plain JSON: None, bool, number, string, or lists and string-keyed dicts of these.

    Args:
        value: anything.
        finite: NaN and infinity, which JSON does not have, are not plain.
    """
    if isinstance(value, (list, tuple)):
        return all(is_plain(v, finite=finite) for v in value)
    if isinstance(value, dict):
        return all(isinstance(k, str) and is_plain(v, finite=finite) for k, v in value.items())
    if finite and isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, (bool, int, float, str))


def matches(pattern: re.Pattern[str]) -> Callable[[Any], bool]:
    """The judge of text that a pattern describes as a whole."""
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def shown(value: Any) -> str:
    """A value in a message."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def check_keys(where: str, raw: Any, rules: Mapping[str, Rule], *, null_is_absent: bool = False) -> list[str]:
    """What is wrong with the keys of a block and their values, a line each.

    Args:
        where: the block, for messages.
        raw: the block.
        rules: of the keys it may have.
        null_is_absent: `key: null` stands for leaving an optional key out.
    """
    if not isinstance(raw, dict):
        return [f"{where}: expected a mapping, got {shown(raw)}"]
    problems = []
    for key, value in raw.items():
        if key not in rules:
            hint = nearest(str(key), rules) or f" Keys: {', '.join(rules)}."
            problems.append(f"{where}: unknown key {key!r}.{hint}")
        elif value is None and null_is_absent and not rules[key].required:
            continue
        elif not rules[key].accepts(value):
            problems.append(f"{where}.{key}: expected {rules[key].expected}, got {shown(value)}")
    problems += [
        f"{where}: the key {key!r} is missing; add {rule.expected}"
        for key, rule in rules.items()
        if rule.required and key not in raw
    ]
    return problems


def raise_if_any(where: str, problems: list[str], what: str, error: type[ZooError]) -> None:
    """Report up to twenty problems together.

    Args:
        where: the file, for the message.
        problems: a line each; none: nothing happens.
        what: the file is about, such as `the index`.
        error: class of the exception.
    """
    if problems:
        more = f"\n  ... and {len(problems) - 20} more" if len(problems) > 20 else ""
        noun = "problem" if len(problems) == 1 else "problems"
        raise error(f"{where}: {len(problems)} {noun} in {what}:\n  " + "\n  ".join(problems[:20]) + more)
