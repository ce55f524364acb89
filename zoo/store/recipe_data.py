"""What of a recipe's settings holds for a user's own data: what describes the recipe's data does not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.errors import ZooError
from zoo.index import Entry

__all__ = ["are_the_recipes", "bound_to_data"]


def bound_to_data(
    entry: Entry, tag: str | None, cls: Any, section: Mapping[str, Any], root: str | Path
) -> dict[str, Any]:
    """The settings in a recipe's data section that hold for the recipe's data only, and not for those at `root`.

    Args:
        entry: of the method.
        tag: of the recipe.
        cls: the data module.
        section: the recipe's arguments of it.
        root: the user's data; if they are those that the recipe is for, nothing is left out.
    """
    bound = _bound(cls, section)
    return {} if bound and are_the_recipes(entry, tag, cls, section, root) else bound


def _bound(cls: Any, section: Mapping[str, Any]) -> dict[str, Any]:
    return {key: section[key] for key in getattr(cls, "describes_data", ("format",)) if key in section}


def are_the_recipes(entry: Entry, tag: str | None, cls: Any, section: Mapping[str, Any], root: str | Path) -> bool:
    """Whether data have the format that the recipe names and the classes that its weights were made for.

    Args:
        entry: of the method.
        tag: of the recipe.
        cls: the data module.
        section: the recipe's arguments of it.
        root: the user's data.
    """
    bound = _bound(cls, section)
    others = {key: value for key, value in section.items() if key not in bound}
    if tag is None or bound.get("format") is None:
        return False  # a recipe for embedded data
    try:
        data = cls(**{**others, "root": str(root)})
        read_as, facts = getattr(data, "format", None), data.facts()
    except (ZooError, OSError):
        return False  # whatever is wrong with the data is said when they are read
    made_for = {k: v for k, v in entry.weights[tag].init.items() if k in ("num_classes", "class_names")}
    if read_as != bound["format"] and (read_as is not None or not made_for):
        return False
    return all(facts.get(key) == value for key, value in made_for.items())
