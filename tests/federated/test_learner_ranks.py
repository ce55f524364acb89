"""Strategy `fed_ddp` with two and three processes and unequal cohorts equals one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from federated import rank_learner
from toys.learners import learn, state_of

pytestmark = pytest.mark.xdist_group("learner on ranks")  # one worker starts the processes for all tests


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder: Path = tmp_path_factory.mktemp("alone")
    found = {}
    for name, method in rank_learner.METHODS.items():
        learner = learn(folder, rank_learner.DATA, **method)
        found[name] = {
            "state": state_of(learner),
            "clients": learner.client_states,
            "told": rank_learner.told(learner),
        }
    torch.set_num_threads(threads)
    return found


@pytest.fixture(scope="module", params=[2, pytest.param(3, marks=pytest.mark.slow)])
def together(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return rank_learner.run(request.param, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("method", list(rank_learner.METHODS))
def test_ranks_equal_one_process(method: str, alone: dict[str, Any], together: list[dict[str, Any]]) -> None:
    for found in together:
        for key, value in alone[method]["state"].items():
            torch.testing.assert_close(found[method]["state"][key], value, rtol=1e-6, atol=1e-6)
        assert found[method]["told"] == pytest.approx(alone[method]["told"], rel=1e-5)
        assert found[method]["clients"].keys() == alone[method]["clients"].keys(), "every rank knows every client"


@pytest.mark.parametrize("method", list(rank_learner.METHODS))
def test_ranks_hold_the_same_bits(method: str, together: list[dict[str, Any]]) -> None:
    first, *others = (found[method]["state"] for found in together)
    assert all(torch.equal(value, other[key]) for other in others for key, value in first.items())


def test_resuming_on_ranks(together: list[dict[str, Any]]) -> None:
    for found in together:
        for key, value in found["moon, fedadam"]["state"].items():
            assert torch.equal(found["resumed"][key], value), key
