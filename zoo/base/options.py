"""Options of `predict`: known names, values of the annotated type, and within the range that the method declares."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np

from zoo.errors import BadInput, nearest

__all__ = ["check_options", "options_of"]


def options_of(step: Callable[..., Any]) -> dict[str, inspect.Parameter] | None:
    """Options that a `predict_step` declares; None if it takes any."""
    parameters = inspect.signature(step).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return None
    return {name: p for name, p in parameters.items() if name not in ("self", "batch", "batch_idx")}


def check_options(
    name: str, step: Callable[..., Any], options: Mapping[str, Any], ranges: Mapping[str, tuple[float, float]]
) -> None:
    """Check what a user gave.

    Args:
        name: of the class, for messages.
        step: its `predict_step`.
        options: as given.
        ranges: least and largest value of options that are numbers.

    Raises:
        BadInput: naming the option, what is allowed and what was given.
    """
    if (known := options_of(step)) is None:
        return
    if unknown := [key for key in options if key not in known]:
        raise BadInput(
            f"predict() of {name} has no option {unknown[0]!r}.{nearest(unknown[0], known)} "
            f"Options: {', '.join(['batch_size', *known])}."
        )
    for key, value in options.items():
        _check_type(key, value, known[key].annotation)
        if key in ranges and value is not None:
            low, high = ranges[key]
            if not low <= value <= high:
                allowed = f"at least {low:g}" if math.isinf(high) else f"from {low:g} to {high:g}"
                raise BadInput(f"{key}: expected a number {allowed}, got {value}.")


def _check_type(name: str, value: Any, annotation: Any) -> None:
    kinds = [kind.strip() for kind in str(getattr(annotation, "__name__", annotation)).split("|")]
    if any(kind not in _KINDS for kind in kinds):
        return  # the method checks what is not plain
    if not any(_KINDS[kind][1](value) for kind in kinds):
        wanted = " or ".join(_KINDS[kind][0] for kind in kinds if kind != "None")
        raise BadInput(f"{name}: expected {wanted}, got {value!r}.")


def _is_bool(value: Any) -> bool:
    return isinstance(value, (bool, np.bool_))


_KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "bool": ("true or false", _is_bool),
    "int": ("a whole number", lambda v: isinstance(v, Integral) and not _is_bool(v)),
    "float": ("a number", lambda v: isinstance(v, Real) and not _is_bool(v) and math.isfinite(v)),
    "str": ("a text", lambda v: isinstance(v, str)),
    "None": ("nothing", lambda v: v is None),
}
