"""Odd values of every argument of every method, data module and `predict`: used, or one error that names them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from toys.cli import ToyData, ToyNet

from zoo import checks, index
from zoo.errors import BadInput, InvalidConfig, ZooError

FEW = ("abc", -1, math.nan, math.inf, 10**12)
MANY = ("", -1e9, 1e300, True, None, [], {}, [1, "a"], 0, 1.5, b"x", -math.inf, 1 << 80)


PUBLISHED = {name: entry for name, entry in index.entries().items() if entry.source != "register()"}


def cases(values: tuple[Any, ...]) -> Iterator[Any]:
    for entry in PUBLISHED.values():
        for kind, cls in (("model", entry.model), ("data", entry.data)):
            yield pytest.param(cls, entry.tiny.get(kind, {}), values, id=f"{entry.id}-{kind}")


def class_of(path: str) -> Any:
    from importlib import import_module

    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def try_all(cls: Any, tiny: dict[str, Any], values: tuple[Any, ...]) -> list[str]:
    """Arguments that end in another error than one of ours, and messages that do not name them."""
    found = []
    for name in list(inspect.signature(cls.__init__).parameters)[1:]:
        for value in values:
            try:
                cls(**{**tiny, name: value})
            except ZooError as error:
                if isinstance(value, str) and value and not {name, *name.split("_"), value} & set(_words(str(error))):
                    found.append(f"{name}={value!r}: not named in {str(error)[:80]!r}")
            except Exception as error:
                found.append(f"{name}={value!r}: {type(error).__name__}: {str(error)[:80]}")
    return found


def _words(text: str) -> list[str]:
    return text.replace("'", " ").replace(":", " ").replace(".", " ").replace(",", " ").replace("=", " ").split()


@pytest.mark.parametrize(("cls", "tiny", "values"), list(cases(FEW)))
def test_odd_values_are_one_error(cls: str, tiny: dict[str, Any], values: tuple[Any, ...]) -> None:
    assert not try_all(class_of(cls), tiny, values)


@pytest.mark.slow
@pytest.mark.parametrize(("cls", "tiny", "values"), list(cases(MANY)))
def test_many_odd_values_are_one_error(cls: str, tiny: dict[str, Any], values: tuple[Any, ...]) -> None:
    assert not try_all(class_of(cls), tiny, values)


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_odd_options_of_predict_are_one_error(name: str) -> None:
    entry = PUBLISHED[name]
    model = entry.model_class()(**entry.tiny.get("model", {}))
    known = [
        p for p in inspect.signature(type(model).predict_step).parameters if p not in ("self", "batch", "batch_idx")
    ]
    item = model.example_input()[0][0]
    for option in known:
        for value in ("abc", math.nan, [], {}, -1e9):
            with pytest.raises(BadInput, match=option):
                model.predict(item, **{option: value})
        for value in (0, 1, 10**12, 1e300, True, None):
            with suppress(BadInput):
                model.predict(item, **{option: value})
    for value in ("abc", 0, -1, 1.5, math.nan, None):
        with pytest.raises(BadInput, match="batch_size"):
            model.predict(item, batch_size=value)


@pytest.mark.parametrize(
    ("hint", "good", "bad", "told"),
    [
        (float, [1, 2.5, math.inf, np.float32(1)], ["1", True, None, math.nan, [1.0]], "a number"),
        (int, [1, np.int64(3)], [1.0, "1", True, None], "a whole number"),
        (bool, [True, np.bool_(False)], [0, 1, "true"], "true or false"),
        (str, ["", "a", Path("a")], [1, None, b"a"], "a text"),
        (int | None, [1, None], [1.5, "a"], "a whole number or nothing"),
        (list[str], [[], ["a"], ("a",), [3]], ["a", [1.5], [None], {}], "a list of texts"),
        (tuple[int, int], [(1, 2), [1, 2]], [(1,), (1, 2, 3), [1, 2.5]], "a list of whole numbers"),
        (dict[str, Any], [{}, {"a": 1}], [[], "a"], "a mapping"),
        (Literal["a", "b"], ["a"], ["c", 1], "one of a, b"),
        (Any, [1, "a", object()], [], ""),
    ],
)
def test_values_are_compared_with_annotations(hint: Any, good: list[Any], bad: list[Any], told: str) -> None:
    for value in good:
        checks.typed("it", value, hint)
    for value in bad:
        with pytest.raises(BadInput, match=f"it: expected {told}, got "):
            checks.typed("it", value, hint)


def test_arguments_of_any_method_and_data_module_are_checked() -> None:
    with pytest.raises(BadInput, match="lr: expected a number, got 'fast'"):
        ToyNet(lr="fast")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="num_classes: expected a number from 0 to 1e"):
        ToyNet(num_classes=-3)
    with pytest.raises(BadInput, match="class_names: expected a list of texts or nothing, got 'cat'"):
        ToyNet(class_names="cat")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match=r"batch_size: expected a whole number, got 2\.5"):
        ToyData(batch_size=2.5)  # type: ignore[arg-type]
    with pytest.raises(InvalidConfig, match="plain JSON"):
        ToyNet(num_classes=np.int64(3))
