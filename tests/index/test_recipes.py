"""Sections of recipes."""

from __future__ import annotations

from zoo.index.recipes import section_of


class Rows:
    """Stands for a data module."""


def test_sections_may_name_their_class() -> None:
    recipe = {"data": {"class_path": "package.data.Rows", "init_args": {"size": 3}}, "model": {"width": 2}}
    assert section_of(recipe, "data") == {"size": 3} == section_of(recipe, "data", Rows)
    assert section_of(recipe, "data", dict) == {}, "arguments of another class"
    assert section_of(recipe, "model") == {"width": 2} == section_of(recipe, "model", dict)
    assert section_of({}, "model") == {} == section_of({"data": {"class_path": "a.Rows"}}, "data")
