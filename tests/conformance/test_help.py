"""What `--help` says about each argument of a method and of its data."""

from __future__ import annotations

import inspect
import re

import pytest
from docstring_parser import parse

from zoo.index import Entry, entries

LEANING = re.compile(r"^\s*(?:likewise|see `|as above|the same|ditto|its |of the same|and so)\b", re.IGNORECASE)
"""Words that lean on a line before; each line is printed by itself."""


PUBLISHED = [e for e in entries().values() if e.source != "register()"]


@pytest.mark.parametrize("part", ["model", "data"])
@pytest.mark.parametrize("method", PUBLISHED, ids=[e.id for e in PUBLISHED])
def test_every_argument_has_a_line_that_stands_alone(method: Entry, part: str) -> None:
    cls = method.model_class() if part == "model" else method.data_class()
    described = {p.arg_name: (p.description or "").strip() for c in cls.__mro__ for p in parse(c.__doc__ or "").params}
    known = [name for name, p in inspect.signature(cls).parameters.items() if p.kind is not p.VAR_KEYWORD]
    missing = [name for name in known if not described.get(name)]
    leaning = {name: described[name] for name in known if LEANING.match(described.get(name, ""))}
    own = {p.arg_name for p in parse(cls.__doc__ or "").params}
    assert not missing, f"{cls.__name__}: no line in Args: for {', '.join(missing)}"
    assert not leaning, f"{cls.__name__}: lines that need the one before: {leaning}"
    assert own <= set(known), f"{cls.__name__}: Args: describes what is no argument: {sorted(own - set(known))}"
