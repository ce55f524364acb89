"""Damaged files of every kind are read or refused by name: no other exception, no hang, no gigabyte."""

from __future__ import annotations

import sys

import pytest
from fuzz.campaign import QUICK, THOROUGH, share
from fuzz.formats import FORMATS
from fuzz.trial import Failure, trials

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and limits of address space")


def told(failures: list[Failure]) -> str:
    """One of each kind, and how to look at it."""
    kinds = {failure.what.partition(": ")[0]: failure for failure in failures}
    first = failures[0]
    again = f"PYTHONPATH=tests:. python -m fuzz.trial '{first.format}' {first.number}"
    return "\n".join([f"{len(failures)} files failed:", *map(str, kinds.values()), f"To see one: {again}"])


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files(name: str) -> None:
    failures = trials(name, 0, share(name, QUICK))
    assert not failures, told(failures)


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_many_damaged_files(name: str) -> None:
    failures = trials(name, 1_000_000, share(name, THOROUGH))
    assert not failures, told(failures)


@pytest.mark.parametrize("name", FORMATS)
def test_good_files_are_read(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Otherwise damage to them would show nothing."""
    root = tmp_path_factory.mktemp("good") / "data"
    FORMATS[name].make(root)
    files = [p for p in sorted(root.glob(FORMATS[name].files)) if p.is_file()]
    assert files
    for skip in (False, True):
        FORMATS[name].read(root, files[0], skip)
