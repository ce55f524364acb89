"""Parametrises the suite over the index, and accounts for the seconds of each entry.

A test that takes `entry` runs for all of them; `gradient_entry`, `round_entry` and `<capability>_entry` for those with
that property, `bundled` for each checkpoint in the package. So nothing is skipped, and nothing is named.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    from toys import register_toys

    from zoo.index import CAPABILITIES

    register_toys()
    from conformance.support import is_round, variants

    for name in metafunc.fixturenames:
        if name == "entry":
            chosen = variants()
        elif name == "gradient_entry":
            chosen = [(i, e) for i, e in variants() if not is_round(e) and e.learns != "none"]
        elif name == "round_entry":
            chosen = [(i, e) for i, e in variants() if is_round(e)]
        elif name.endswith("_entry") and name.removesuffix("_entry") in CAPABILITIES:
            chosen = [(i, e) for i, e in variants() if name.removesuffix("_entry") in e.can]
        elif name == "bundled":
            _bundled(metafunc)
            continue
        else:
            continue
        metafunc.parametrize(name, [e for _, e in chosen], ids=[i for i, _ in chosen])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of one file about one entry go to one worker, where they share what was trained."""
    here = Path(__file__).parent
    for item in items:
        name = _entry_id(item) if item.path.parent == here else None
        if name is not None and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(f"{item.path.stem} {name}"))


def _bundled(metafunc: pytest.Metafunc) -> None:
    from zoo.index import entries

    found = [(e, t) for e in entries().values() for t, w in e.weights.items() if w.file]
    # none: an empty parameter set is reported as a skip, which is what it is
    metafunc.parametrize("bundled", found, ids=[f"{e.id}:{t}" for e, t in found])


def _entry_id(item: pytest.Item) -> str | None:
    values: dict[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
    for value in values.values():
        first = value[0] if isinstance(value, tuple) else value
        if hasattr(first, "tiny") and hasattr(first, "id"):
            return str(first.id)
    return None


@cache
def _warm(name: str) -> None:
    """Train a step, save and load off the clock: the first test of a method would pay for every library's import."""
    import zoo
    from conformance.support import data_of, model_of, trainer_of
    from zoo import training
    from zoo.index import entries

    entry = entries()[name].tag()
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(Path(folder), fast_dev_run=True)
        model, data = model_of(entry), data_of(entry)
        trainer.fit(model, data)
        trainer.test(model, data, verbose=False)
        model._trainer = None
        zoo.load(zoo.save(model, Path(folder) / "saved"))
        with contextlib.redirect_stderr(io.StringIO()):
            training.main(["fit", "--zoo", name, "--no_such_flag=1"])  # the parser's imports and class search


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    name = _entry_id(item)
    if name is not None:
        _warm(name)
    before = time.process_time()
    try:
        return (yield)
    finally:
        if name is not None and item.get_closest_marker("slow") is None:
            # tracing costs per layer, whatever the method: it has a column of its own
            part = "export" if "export" in item.path.stem else "method"
            if part == "method" and not any(p.endswith("entry") for p in item.callspec.params):  # type: ignore[attr-defined]
                part = "weights"
            item.user_properties.append(("zoo entry", (name, part, time.process_time() - before)))


@pytest.fixture(scope="session")
def pool() -> Iterator[Any]:
    """Two processes that train together; started at the first use."""
    from conformance.pool import Pool

    ranks = Pool()
    yield ranks
    ranks.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder."""
    return tmp_path
