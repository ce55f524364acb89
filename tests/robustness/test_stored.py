"""Reports of a method's weights: each radius has its own, in the order of the tags, and attacks see the radius."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from zoo.nn.attacks import fgsm
from zoo.robustness import stored
from zoo.robustness.evaluate import evaluate_robustness


def test_reports_at_several_radii(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "robustness.json"
    seen: list[float] = []

    def attacks(model: Any) -> dict[str, Any]:
        seen.append(model.hparams["eps"])
        return {"fgsm": lambda m, x, y: fgsm(m, x, y, eps=seen[-1])}

    monkeypatch.setattr(stored, "place_of", lambda method: place)
    monkeypatch.setattr(stored, "evaluate_robustness", partial(evaluate_robustness, checks=False))
    tags = ("fmnist-resnet10w24-natural", "fmnist-resnet10w8")
    for eps in (0.2, None, 0.05):
        stored.measure("rslad", [tags[1]], tags, 8, attacks, eps=eps)
    stored.measure("rslad", [tags[0]], tags, 8, attacks)
    assert seen == [0.2, 0.1, 0.05, 0.1]
    reports = json.loads(place.read_text())["reports"]
    names = [tags[0], tags[1], f"{tags[1]} at eps 0.05", f"{tags[1]} at eps 0.2"]
    assert list(reports) == names
    assert [reports[name]["eps"] for name in names] == [0.1, 0.1, 0.05, 0.2]
    assert {reports[name]["model"] for name in names[1:]} == {f"rslad:{tags[1]}"}
    assert len(stored.rows("rslad", {"FGSM": ["fgsm"]})) == 6
