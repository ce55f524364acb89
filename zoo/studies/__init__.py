"""Experiments that no recipe expresses: the module `studies` beside a method's model holds those of the method.

A study is a function marked with `@study(...)`; a claim names it as `study:`, and `set:` gives its arguments. It
returns an `Outcome`. If it takes `seed`, it gets the claim's. There is no registry: the module's name is the link.

    @study("steps")
    def race(alpha: float = 3.0) -> Outcome: ...
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any, TypeVar

from zoo.errors import UnknownName, nearest
from zoo.index import entries, resolve

__all__ = ["Outcome", "find_study", "import_beside", "module_name", "studies_of", "study"]

F = TypeVar("F", bound=Callable[..., "Outcome"])


@dataclass(frozen=True)
class Outcome:
    """What a study measured.

    Attributes:
        metrics: name -> number.
        curves: name -> points (x, y), for plots.
    """

    metrics: dict[str, float]
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)


def study(*metrics: str) -> Callable[[F], F]:
    """Mark a function as a study.

    Args:
        metrics: names of the numbers it returns, so that a claim about another one is refused before anything runs.
    """

    def mark(function: F) -> F:
        function.metrics = metrics  # type: ignore[attr-defined]
        return function

    return mark


def module_name(method: str, name: str = "studies") -> str:
    """Where a further module of an index id is: in the package that its model is named by, or beside its module.

    Args:
        method: id in the index.
        name: of the module.

    Raises:
        UnknownName: if there is no such method.
    """
    module = resolve(method)[0].model.partition(":")[0]
    spec = find_spec(module)
    package = module if spec and spec.submodule_search_locations else module.rpartition(".")[0]
    return f"{package}.{name}" if package else name


def import_beside(method: str, name: str) -> ModuleType | None:
    """A further module of an index id; None if it has no such module.

    Args:
        method: id in the index.
        name: of the module.
    """
    path = module_name(method, name)
    try:
        return import_module(path)
    except ModuleNotFoundError as error:
        if error.name == path:
            return None
        raise


def studies_of(method: str) -> dict[str, Any]:
    """The studies of an index id by name; none, if it has no such module."""
    module = import_beside(method, "studies") if method in entries() else None
    if module is None:
        return {}
    own = {n: f for n, f in vars(module).items() if inspect.isfunction(f) and hasattr(f, "metrics")}
    return {n: f for n, f in own.items() if not n.startswith("_")}


def find_study(method: str, name: str) -> Any:
    """One study.

    Raises:
        UnknownName: with the nearest names.
    """
    known = studies_of(method)
    if name not in known:
        raise UnknownName(
            f"{method} has no study {name!r}.{nearest(name, known)} Studies: {', '.join(known) or 'none'}."
        )
    return known[name]
