"""The study of sizes, and the picture that is drawn from the runs behind the claims."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from zoo.methods.robust_wrn import RobustWRN
from zoo.methods.robust_wrn.pictures import NETWORKS, budget
from zoo.methods.robust_wrn.studies import sizes
from zoo.pictures.card import CardFiles


def test_sizes_are_the_published_ones() -> None:
    metrics = sizes().metrics
    assert metrics["largest_error"] < 5e-3
    assert metrics["parameters_34-r"] == 68_116_698
    assert metrics["operations_34-r"] / metrics["operations_34-12"] == pytest.approx(2, abs=0.01)


def test_operations_follow_the_size_of_the_pictures() -> None:
    assert RobustWRN(network="16-1", channels=1, img_size=28).operations() == 5_537_984
    assert 3 < RobustWRN(network="16-1", channels=1, img_size=56).operations() / 5_537_984 < 4


def runs_of(folder: Path, names: list[str]) -> CardFiles:
    """Results as `zoo reproduce` writes them: two networks have a recipe, the others are settings of one."""
    runs = {}
    for place, name in enumerate(names):
        recipe = f"fmnist-{name}" if name in ("16-1", "16-r") else "fmnist-16-r"
        setting = {} if recipe.endswith(name) else {"model.network": name}
        for seed in range(3):
            metrics = {"test/robust": 0.5 + place / 100 + seed / 1000, "test/lipschitz": 20.0 - place}
            spec = {"recipe": recipe, "set": setting, "seed": seed}
            runs[f"{name}-{seed}"] = {"spec": spec, "metrics": metrics}
    (folder / "results.json").write_text(json.dumps({"runs": runs}))
    return CardFiles("robust-wrn", folder)


def test_the_picture_has_each_network_at_its_cost(tmp_path: Path) -> None:
    figure = budget(runs_of(tmp_path, list(NETWORKS)))
    first, second, third = figure.axes
    assert first.get_ylabel() == "accuracy under attack"
    places = {c.get_label(): c.get_offsets()[0] for c in first.collections}
    assert places["usual"][0] == pytest.approx(174.778)
    assert places["R, same parameters"][0] == pytest.approx(179.974)
    assert places["R, same operations"][1] == pytest.approx(0.52)
    assert {c.get_label(): c.get_offsets()[0][0] for c in second.collections}["usual"] == pytest.approx(5.537984)
    assert len(third.collections) == len(NETWORKS)


def test_no_picture_without_runs(tmp_path: Path) -> None:
    assert budget(CardFiles("robust-wrn", tmp_path)) is None
    assert budget(runs_of(tmp_path, ["16-1"])) is None
