"""Rules over two and three processes: the same as in one, with unequal shares of the cohort."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from federated import rank_rules

from zoo.errors import BadInput
from zoo.federated.ranks import RanksComm, comm_of_run
from zoo.federated.rules import LOCAL, rule_names

pytestmark = pytest.mark.xdist_group("rules on ranks")  # one worker starts the processes for all tests
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {name: (name, {}) for name in rule_names()}


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    return {key: rank_rules.three_rounds(*variant, range(12)) for key, variant in VARIANTS.items()}


@pytest.fixture(scope="module", params=[pytest.param(2, marks=pytest.mark.slow), 3])
def together(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return rank_rules.run(request.param, VARIANTS, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("rule", list(VARIANTS))
def test_ranks_agree_with_one_process(rule: str, alone: dict[str, Any], together: list[dict[str, Any]]) -> None:
    wanted = alone[rule]
    for found in (part[rule] for part in together):
        for key, value in wanted["model"].items():
            assert found["model"][key].dtype == value.dtype
            assert torch.allclose(found["model"][key], value, rtol=1e-6, atol=1e-6), key
        assert found["state"].keys() == wanted["state"].keys()
        for key, value in wanted["state"].items():
            assert torch.allclose(torch.as_tensor(found["state"][key]), torch.as_tensor(value), rtol=1e-5, atol=1e-6)
        for ours, theirs in zip(found["metrics"], wanted["metrics"], strict=True):
            assert ours.keys() == theirs.keys()
            for key, number in theirs.items():
                assert ours[key] == pytest.approx(number, rel=1e-6, abs=1e-6), key


@pytest.mark.parametrize("rule", list(VARIANTS))
def test_ranks_hold_the_same_bits(rule: str, together: list[dict[str, Any]]) -> None:
    first, *others = (part[rule] for part in together)
    for other in others:
        assert all(torch.equal(value, other["model"][key]) for key, value in first["model"].items())
        assert all(
            torch.equal(torch.as_tensor(v), torch.as_tensor(other["state"][k])) for k, v in first["state"].items()
        )
        assert first["metrics"] == other["metrics"]


@pytest.mark.parametrize("rule", ["krum", "multi-krum", "bulyan"])
def test_ranks_select_the_same_clients(rule: str, alone: dict[str, Any], together: list[dict[str, Any]]) -> None:
    prefix = "selected/" if rule == "bulyan" else "weight/"

    def chosen(metrics: dict[str, float]) -> dict[str, float]:
        return {key: round(value, 9) for key, value in metrics.items() if key.startswith(prefix) and value > 0}

    wanted = [chosen(metrics) for metrics in alone[rule]["metrics"]]
    assert all(0 < len(each) < 12 for each in wanted)
    for part in together:
        assert [chosen(metrics) for metrics in part[rule]["metrics"]] == wanted


def test_every_rank_raises_what_one_of_them_found(together: list[dict[str, Any]]) -> None:
    first, *others = (part["broken"] for part in together)
    assert all(other == first for other in others)
    assert [message.split(":")[0] for message in first] == ["NotFinite", "NotFinite", "ShapeMismatch"]
    assert all("client 0" in message for message in first)


def test_without_processes() -> None:
    assert comm_of_run() is LOCAL
    with pytest.raises(BadInput, match="needs an initialised process group"):
        RanksComm()


def test_one_process_is_a_special_case_of_several(alone: dict[str, Any], tmp_path: Path) -> None:
    few = {key: VARIANTS[key] for key in ("fedavg", "median", "krum")}
    found = rank_rules.run(1, few, tmp_path)[0]
    for key in few:
        assert all(torch.equal(found[key]["model"][k], v) for k, v in alone[key]["model"].items())
