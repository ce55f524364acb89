"""Attacks that a model declares against itself: those that know what its defence does.

A defence is as robust as it is against an attack that was made for it (Tramèr et al. 2020, "On adaptive attacks to
adversarial example defenses"). Who writes a defence knows best where its gradient leads astray, and says so in one of
two places:

- a module `robustness` beside the method's model with a function `adaptive_attacks(model)`, or
- a method `adaptive_attacks()` of the model itself, for networks that are no method of the zoo.

Both return a mapping of name -> function (model, x, y) -> x', as `zoo.evaluate_robustness` takes them; it is empty
where the weights at hand have nothing to aim at. Presets of attacks hold them by themselves, as does the leader board.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from zoo.errors import BadInput
from zoo.index import id_of
from zoo.studies import import_beside

__all__ = ["adaptive_attacks"]


def adaptive_attacks(model: Any) -> dict[str, Callable[..., Any]]:
    """What a model declares: name -> function (model, x, y) -> adversarial x. Empty if it declares nothing.

    Raises:
        BadInput: if what it declares is no mapping of functions.
    """
    own = getattr(model, "adaptive_attacks", None)
    if callable(own):
        return _checked(own(), type(model).__name__)
    for cls in type(model).__mro__[:-1]:
        method = id_of(cls)
        module = import_beside(method, "robustness") if method is not None else None
        if (declared := getattr(module, "adaptive_attacks", None)) is not None:
            return _checked(declared(model), f"{declared.__module__}.adaptive_attacks")
    return {}


def _checked(declared: Any, where: str) -> dict[str, Callable[..., Any]]:
    if not isinstance(declared, Mapping) or not all(
        isinstance(name, str) and callable(run) for name, run in declared.items()
    ):
        raise BadInput(f"{where}: expected a mapping of name -> function (model, x, y) -> x', got {declared!r:.80}.")
    return dict(declared)
