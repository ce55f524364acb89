"""Options of `predict`: known names, values of the annotated type, and within the range that the method declares."""

from __future__ import annotations

import inspect
import math
import re
import types
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np

from zoo.errors import BadInput, nearest

__all__ = ["check_options", "documented", "options_of"]


def options_of(step: Callable[..., Any]) -> dict[str, inspect.Parameter] | None:
    """Options that a `predict_step` declares; None if it takes any."""
    parameters = inspect.signature(step).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return None
    return {name: p for name, p in parameters.items() if name not in ("self", "batch", "batch_idx")}


def documented(predict: Callable[..., Any], step: Callable[..., Any]) -> Callable[..., Any]:
    """A copy of a `predict` whose signature and text name the options of a `predict_step`, for `help` and editors.

    Args:
        predict: takes `**options`.
        step: what it passes them to.
    """
    source: Any = predict
    known = options_of(step)
    parameters = list(inspect.signature(source, follow_wrapped=False).parameters.values())
    plain = isinstance(source, types.FunctionType) and not hasattr(source, "__wrapped__")
    if known is None or not plain or parameters[-1].kind is not inspect.Parameter.VAR_KEYWORD:
        return predict
    made = types.FunctionType(
        source.__code__, source.__globals__, source.__name__, source.__defaults__, source.__closure__
    )
    made.__kwdefaults__ = source.__kwdefaults__
    made.__dict__.update(source.__dict__)
    made.__qualname__, made.__module__, made.__annotations__ = (
        source.__qualname__,
        source.__module__,
        source.__annotations__,
    )
    options = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in known.values()]
    made.__signature__ = inspect.Signature([*parameters[:-1], *options])  # type: ignore[attr-defined]
    made.__doc__ = _with_options(source.__doc__ or "", step.__doc__ or "", list(known))
    return made


def _with_options(text: str, step: str, names: list[str]) -> str:
    """The text of `predict` with a line for each option, as the text of `predict_step` explains it."""
    told = dict(re.findall(r"^ {12}(\w+): (.*(?:\n {16}.*)*)", step, re.MULTILINE))
    lines = [f"            {name}: {told.get(name, 'see `predict_step`.')}" for name in names]
    return re.sub(
        r"^ {12}options: .*(?:\n {16}.*)*\n", "".join(f"{line}\n" for line in lines), text, flags=re.MULTILINE
    )


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
