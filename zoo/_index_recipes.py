"""Where recipes lie."""

from __future__ import annotations

from pathlib import Path

from zoo.index import Entry, recipe_path

__all__ = ["recipe_of"]


def recipe_of(entry: Entry, tag: str | None) -> Path | None:
    """Path of a tag's recipe, or None if it has none."""
    if tag is None or entry.weights[tag].recipe is None:
        return None
    return Path(recipe_path(entry, tag))
