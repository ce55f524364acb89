"""Recipes: where they are and what they say. The one reader of such files."""

from __future__ import annotations

from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

from zoo.errors import InvalidConfig
from zoo.index import Entry, load_yaml, recipe_path

__all__ = ["read_recipe", "read_sections", "recipe_of", "section_of", "stages_of"]


def recipe_of(entry: Entry, tag: str | None) -> Path | None:
    """Path of a tag's recipe, or None if it has none: neither one that the index names nor one at the usual place."""
    if tag is None:
        return None
    path = recipe_path(entry, tag)
    return path if entry.weights[tag].recipe is not None or path.is_file() else None


def read_recipe(entry: Entry, tag: str | None) -> dict[str, Any]:
    """What a tag's recipe says; empty without one. Parsed again only when its file has changed.

    Raises:
        InvalidConfig: if the recipe that the index names is missing or not a mapping.
    """
    if (path := recipe_of(entry, tag)) is None:
        return {}
    if not path.is_file():
        raise InvalidConfig(f"{path}: no such file, but the index names it as the recipe of {entry.id}:{tag}.")
    about = path.stat()
    return deepcopy(_parsed(path, about.st_mtime_ns, about.st_size))


@lru_cache(maxsize=256)
def _parsed(path: Path, changed: int, size: int) -> dict[str, Any]:
    return read_sections(path, str(path))


def read_sections(path: Path, where: str) -> dict[str, Any]:
    """Read a YAML file of sections such as model, data and trainer.

    Args:
        path: of a file that exists.
        where: for messages.

    Raises:
        InvalidConfig: if it is not a mapping.
    """
    content = load_yaml(path)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InvalidConfig(f"{where}: expected sections such as model, data, trainer; got {type(content).__name__}.")
    return content


def section_of(recipe: dict[str, Any], name: str, cls: type | None = None) -> dict[str, Any]:
    """Arguments in a section of a recipe, which may name its class (`class_path`, `init_args`).

    Args:
        recipe: as `read_recipe` returns it.
        name: `model` or `data`.
        cls: whose arguments are wanted; what a recipe says about another class does not hold for it.
    """
    section = recipe.get(name) or {}
    if "class_path" not in section:
        return dict(section)
    same = cls is None or section["class_path"].rpartition(".")[2] == cls.__name__
    return dict(section.get("init_args") or {}) if same else {}


def stages_of(recipe: dict[str, Any]) -> list[str]:
    """Tags of the method that are trained before this recipe."""
    return list(recipe.get("after") or [])
