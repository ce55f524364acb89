"""Options of `predict`: known names, values of the annotated type, and within the range that the method declares."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable, Mapping
from typing import Any

from zoo import checks
from zoo.errors import BadInput, nearest

__all__ = ["RANGES", "check_options", "documented", "options_of"]

RANGES: dict[str, checks.Range] = {
    "num_classes": (0, 1_000_000),
    "channels": (1, 100_000),
    "img_size": (1, 100_000),
    "length": (1, 100_000_000),
    "kernel_seed": (0, (1 << 63) - 1),
    "num_kernels": (1, 10_000_000),
    "lr": (0, float("inf")),
    "weight_decay": (0, float("inf")),
}
"""Arguments of constructors that mean the same in all methods."""


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
    described = dict(re.findall(r"^ {12}(\w+): (.*(?:\n {16}.*)*)", step, re.MULTILINE))
    lines = [f"            {name}: {described.get(name, 'see `predict_step`.')}" for name in names]
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
    checks.arguments(step, options, ranges)
