"""What clients are made of: scopes, transforms, settings, the registry, random streams."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from datamodules.clients import ClientTask
from zoo.errors import BadInput, InvalidConfig, UnknownName
from zoo.federated.clients import (
    CLIENTS,
    ClientAlgorithm,
    LocalTraining,
    ParamScope,
    create_client,
    register_client,
    working,
)
from zoo.federated.clients.training import seeded
from zoo.federated.clients.transforms import create_transform


def deltas() -> dict[str, torch.Tensor]:
    return {"a": torch.tensor([[3.0, -1.0], [0.5, 0.0]]), "b": torch.tensor([4.0])}


def norm(values: dict[str, torch.Tensor]) -> float:
    return math.sqrt(sum(float(v.square().sum()) for v in values.values()))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_clip_bounds_all_entries_together() -> None:
    clipped = create_transform({"name": "clip", "norm": 1.0})(deltas(), generator())
    assert norm(clipped) == pytest.approx(1.0)
    ratio = clipped["b"] / deltas()["b"]
    torch.testing.assert_close(clipped["a"], deltas()["a"] * ratio)
    short = create_transform({"name": "clip", "norm": 100.0})(deltas(), generator())
    assert torch.equal(short["a"], deltas()["a"])


def test_sparsify_keeps_the_largest() -> None:
    sparse = create_transform({"name": "sparsify", "share": 0.4})(deltas(), generator())
    assert sparse["a"].tolist() == [[3.0, 0.0], [0.0, 0.0]]
    assert sparse["b"].tolist() == [4.0]
    whole = create_transform({"name": "sparsify", "share": 1.0})(deltas(), generator())
    assert torch.equal(whole["a"], deltas()["a"])


def test_noise_has_its_spread_and_belongs_to_its_seed() -> None:
    noise = create_transform({"name": "noise", "std": 0.5})
    zero = {"w": torch.zeros(20_000)}
    assert float(noise(zero, generator())["w"].std()) == pytest.approx(0.5, rel=0.03)
    assert torch.equal(noise(zero, generator(3))["w"], noise(zero, generator(3))["w"])
    assert not torch.equal(noise(zero, generator(3))["w"], noise(zero, generator(4))["w"])


@pytest.mark.parametrize(
    "options", [{"name": "clip", "norm": 0.0}, {"name": "noise", "std": -1.0}, {"name": "sparsify", "share": 1.5}]
)
def test_transforms_refuse_nonsense(options: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=options["name"]):
        create_transform(options)
    with pytest.raises(UnknownName, match="clip"):
        create_transform({"name": "clipp"})


def test_the_first_pattern_decides() -> None:
    scope = ParamScope([(r"head\.bias", "global"), ("head", "local"), (r"decoder\.a", "group:a")])
    names = ["body.w", "head.weight", "head.bias", "decoder.a.w", "decoder.b.w"]
    assert [scope.of(name) for name in names] == ["global", "local", "global", "group:a", "global"]
    assert scope.shared(names, "a") == ["body.w", "head.bias", "decoder.a.w", "decoder.b.w"]
    assert scope.shared(names) == ["body.w", "head.bias", "decoder.b.w"]
    assert scope.local(names) == ["head.weight"]
    for rules in ([("x", "everybody")], [("x", "group:")], [("(", "local")]):
        with pytest.raises(InvalidConfig):
            ParamScope(rules)


def test_settings_become_optimisers() -> None:
    weights = [nn.Parameter(torch.ones(2))]
    sgd = LocalTraining(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01, milestones=(3,)).optimizer_of(
        weights, 3
    )
    group = sgd.param_groups[0]
    assert isinstance(sgd, torch.optim.SGD)
    assert (group["lr"], group["momentum"], group["nesterov"]) == (pytest.approx(0.01), 0.9, True)
    assert isinstance(LocalTraining(optimizer="adamw").optimizer_of(weights, 0), torch.optim.AdamW)
    weights[0].grad = torch.ones(2)
    sgd.step()
    kept = LocalTraining(momentum=0.9, policy="persistent").optimizer_of(weights, 0, sgd.state_dict())
    assert kept.state_dict()["state"]
    fresh = LocalTraining(momentum=0.9).optimizer_of(weights, 0, sgd.state_dict())
    assert not fresh.state_dict()["state"]
    for wrong in ({"optimizer": "lion"}, {"policy": "sometimes"}, {"epochs": 0}, {"lr": 0.0}):
        with pytest.raises(BadInput):
            LocalTraining(**wrong)  # type: ignore[arg-type]


def test_random_numbers_belong_to_the_seed() -> None:
    def draw() -> tuple[float, float, float]:
        return float(torch.rand(())), float(np.random.rand()), random.random()

    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    expected = draw()
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    with seeded(2**62 + 5, torch.device("cpu")):
        first = draw()
    assert draw() == expected, "the surrounding state is as before"
    with seeded(2**62 + 5, torch.device("cpu")):
        assert draw() == first


def test_whose_work_counts() -> None:
    tasks = [ClientTask(0), ClientTask(1, 0.5), ClientTask(2, 1.0, link_up=False), ClientTask(3, 0.5, link_up=False)]
    assert [t.client for t in working(tasks, create_client("plain"))] == [0]
    assert [t.client for t in working(tasks, create_client("fedprox"))] == [0, 1]


def test_third_parties_register_algorithms() -> None:
    @register_client("test-lazy")
    class Lazy(ClientAlgorithm):
        name = "test-lazy"

        def correct(self, work: Any) -> None:
            for parameter in work.parameters:
                parameter.grad = None

    try:
        assert isinstance(create_client("test-lazy"), Lazy)
        with pytest.raises(BadInput, match="already"):
            register_client("test-lazy")(FakeLazy)
    finally:
        del CLIENTS["test-lazy"]
    with pytest.raises(UnknownName, match="fedprox"):
        create_client("fedpro")
    with pytest.raises(BadInput, match="fedprox"):
        create_client("fedprox", lambda_=1.0)


class FakeLazy(ClientAlgorithm):
    """Another one of the same name."""
