"""Arguments of the regressor that are refused, each with what is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from zoo.errors import BadInput, UnknownName
from zoo.methods.steel_roughness import SteelRoughness


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"network": "fnc"}, "fcn"),
        ({"coverage": 1.0}, "coverage"),
        ({"network": "inception", "depth": 0}, "depth"),
        ({"network": "rocket", "length": 8}, "at least 12"),
    ],
)
def test_arguments_are_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises((BadInput, UnknownName), match=told):
        SteelRoughness(**given)
