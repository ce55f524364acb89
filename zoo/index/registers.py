"""Names that methods add to the registries of the engines, such as aggregation rules.

A method registers a rule when its module is imported. A run of another method, a process on another machine or a
spawned rank may name that rule without having imported the method; the index says which method that is.
"""

from __future__ import annotations

from collections.abc import Container

from zoo.errors import InvalidIndex
from zoo.index import entries

__all__ = ["import_registering", "registered_names"]


def registered_names(registry: str) -> list[str]:
    """Names that the methods of the index add to a registry, sorted; imports none of them.

    Args:
        registry: a key of `registers` in the index, such as `rules`.
    """
    return sorted({name for entry in entries().values() for name in entry.registers.get(registry, ())})


def import_registering(registry: str, name: str, known: Container[str]) -> None:
    """Import the method that registers a name, unless the name is known already or no method has it.

    Args:
        registry: a key of `registers` in the index.
        name: the name that is wanted.
        known: the registry itself, which the import extends.

    Raises:
        InvalidIndex: if the method does not register what the index says.
    """
    if name in known:
        return
    for entry in entries().values():
        if name in entry.registers.get(registry, ()):
            entry.model_class()
            if name not in known:
                raise InvalidIndex(
                    f"{entry.id}: registers.{registry} lists {name!r}, but importing {entry.model.partition(':')[0]} "
                    "registers no such name. Remove it there, or register it in that module."
                )
            return
