"""The numbers in the names of conformance tests stand in the list beside them, and the list names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SUITE = ROOT / "tests" / "conformance"


def rows() -> dict[int, str]:
    """Number -> the last column of its row."""
    text = (SUITE / "README.md").read_text(encoding="utf-8")
    pairs = re.findall(r"^\| C(\d+) \|.*\| ([^|]+) \|$", text, re.MULTILINE)
    assert len({number for number, _ in pairs}) == len(pairs), "a number stands there twice"
    return {int(number): where.strip() for number, where in pairs}


def functions(path: Path) -> list[str]:
    """Names of the tests of a file."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return [node.name for node in body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]


def numbers_used() -> set[int]:
    """Numbers in the names of the suite's tests."""
    names = [name for path in SUITE.glob("test_*.py") for name in functions(path)]
    return {int(found[1]) for name in names if (found := re.match(r"test_c(\d+)_", name))}


def test_every_number_is_listed_once_and_in_order() -> None:
    assert list(rows()) == list(range(1, len(rows()) + 1))
    assert numbers_used() <= set(rows())


@pytest.mark.parametrize("number", list(rows()))
def test_the_list_says_where_a_number_is_checked(number: int) -> None:
    where = rows()[number]
    elsewhere = re.findall(r"`([\w/]+\.py)::(\w+)`", where)
    assert (where == "here") == (number in numbers_used())
    assert where == "here" or elsewhere or where.startswith("open: ")
    for path, name in elsewhere:
        assert (ROOT / path).is_file(), path
        assert name in functions(ROOT / path), f"{path} has no {name}"


def test_what_the_list_calls_open_is_open() -> None:
    """No entry can claim a capability that no test proves."""
    from zoo.index import CAPABILITIES, entries

    claimed = {capability for entry in entries().values() for capability in entry.can}
    unproved = {c for where in rows().values() if where.startswith("open: ") for c in re.findall(r"`(\w+)`", where)}
    assert unproved <= set(CAPABILITIES)
    assert not unproved & claimed
