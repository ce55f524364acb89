"""Rules against ByzFL and Flower on the same updates, with what these are known to do otherwise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from zoo.federated.rules import ClientUpdate, RoundContext, StateDict, create_rule

N, D = 11, 60


def spread(seed: int = 0, clients: int = N) -> tuple[StateDict, list[ClientUpdate]]:
    draw = np.random.default_rng(seed)
    start = {"a": torch.from_numpy(draw.normal(size=(D - 6,))), "b": torch.from_numpy(draw.normal(size=(2, 3)))}
    updates = [
        ClientUpdate(
            client,
            int(draw.integers(5, 50)),
            {key: value + torch.from_numpy(draw.normal(size=tuple(value.shape))) for key, value in start.items()},
        )
        for client in range(clients)
    ]
    return start, updates


def flat(state: StateDict) -> torch.Tensor:
    return torch.cat([state[key].flatten() for key in sorted(state)])


def ours(name: str, start: StateDict, updates: list[ClientUpdate], **options: Any) -> torch.Tensor:
    return flat(create_rule(name, **options)(start, updates, RoundContext(0, 0, tuple(range(N)), N), {})[0])


# ByzFL: functions of stacked gradients, here the changes of the weights -----------------------------------------------


def byzfl_of(
    start: StateDict, updates: list[ClientUpdate], aggregator: Any, steps: tuple[Any, ...] = ()
) -> torch.Tensor:
    # arrays: it turns tensors into float32
    stacked = np.stack([(flat(update.state) - flat(start)).numpy() for update in updates])
    for step in steps:
        stacked = step(stacked)
    return flat(start) + torch.from_numpy(np.asarray(aggregator(stacked)))


@pytest.mark.parametrize("seed", range(3))
def test_byzfl(seed: int) -> None:
    byzfl = pytest.importorskip("byzfl")
    start, updates = spread(seed)
    pairs: list[tuple[str, dict[str, Any], Any, tuple[Any, ...]]] = [
        ("fedavg", {"weighting": "uniform"}, byzfl.Average(), ()),
        ("median", {}, byzfl.Median(), ()),
        ("trimmed-mean", {"trim": 2}, byzfl.TrMean(f=2), ()),
        # ByzFL counts n - f - 1 neighbours; the paper, Flower and the default here n - f - 2
        ("krum", {"byzantine": 2, "neighbours": N - 3}, byzfl.Krum(f=2), ()),
        ("multi-krum", {"byzantine": 2, "neighbours": N - 3}, byzfl.MultiKrum(f=2), ()),
        ("geometric-median", {"smoothing": 0.1, "iterations": 3}, byzfl.GeometricMedian(nu=0.1, T=3), ()),
        ("geometric-median", {"smoothing": 1e-6, "iterations": 60}, byzfl.GeometricMedian(nu=1e-6, T=60), ()),
        ("norm-clip", {"max_norm": 7.0}, byzfl.Average(), (byzfl.Clipping(7.0),)),
        ("norm-clip", {"max_norm": 7.0}, byzfl.CenteredClipping(L=1, tau=7.0), ()),
    ]  # fmt: skip
    for name, options, aggregator, steps in pairs:
        theirs = byzfl_of(start, updates, aggregator, steps)
        assert torch.allclose(ours(name, start, updates, **options), theirs, rtol=1e-9, atol=1e-10), name


def test_byzfl_counts_one_neighbour_more() -> None:
    byzfl = pytest.importorskip("byzfl")
    differ = 0
    for seed in range(20):
        start, updates = spread(seed)
        theirs = byzfl_of(start, updates, byzfl.Krum(f=2))
        differ += not torch.allclose(ours("krum", start, updates, byzantine=2), theirs)
    assert 0 < differ < 20


# Flower: strategies fed with replies ----------------------------------------------------------------------------------


def replies_of(updates: list[ClientUpdate]) -> list[Any]:
    app = pytest.importorskip("flwr.app")
    identity = pytest.importorskip("flwr.supercore.task_identity").TaskIdentity
    identity.task_id = identity.run_id = identity.node_id = 1
    found = []
    for update in updates:
        asked = app.Message(content=app.RecordDict(), message_type="train", dst_node_id=update.client_id + 1)
        arrays = app.ArrayRecord({key: app.Array(value.numpy()) for key, value in update.state.items()})
        metrics = app.MetricRecord({"num-examples": update.num_examples})
        content = app.RecordDict({"arrays": arrays, "metrics": metrics})
        found.append(app.Message(content, reply_to=asked))
    return found


def flower_rounds(strategy: Any, seeds: range) -> list[torch.Tensor]:
    """Rounds of a strategy, each from its own last model on."""
    app = pytest.importorskip("flwr.app")
    start, _ = spread(0)
    found = []
    for round, seed in enumerate(seeds, 1):
        record = app.ArrayRecord({key: app.Array(value.numpy()) for key, value in start.items()})
        if hasattr(strategy, "current_arrays"):
            kept = {key: array.numpy() for key, array in record.items()}
            strategy.current_arrays = record if type(strategy).__name__ == "FedAvgM" else kept
        updates = shifted(start, seed)
        arrays, _ = strategy.aggregate_train(round, replies_of(updates))
        start = {key: torch.from_numpy(array.numpy().copy()) for key, array in arrays.items()}
        found.append(flat(start))
    return found


def shifted(start: StateDict, seed: int) -> list[ClientUpdate]:
    other, updates = spread(seed)
    return [
        ClientUpdate(u.client_id, u.num_examples, {k: start[k] + 0.1 * (v - other[k]) for k, v in u.state.items()})
        for u in updates
    ]


def our_rounds(name: str, seeds: range, **options: Any) -> list[torch.Tensor]:
    rule, state = create_rule(name, **options), {}
    start, _ = spread(0)
    found = []
    for round, seed in enumerate(seeds):
        context = RoundContext(round, 0, tuple(range(N)), N)
        start, state, _ = rule(start, shifted(start, seed), context, state)
        found.append(flat(start))
    return found


FLOWER: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    ("fedavg", {}, "FedAvg", {}),
    # Flower switches momentum off unless asked for it
    ("fedavgm", {"eta": 0.5, "momentum": 0.8}, "FedAvgM", {"server_learning_rate": 0.5, "server_momentum": 0.8}),
    ("fedadam", {"eta": 0.1, "variant": "flower"}, "FedAdam", {"eta": 0.1}),
    ("fedyogi", {"eta": 0.01, "variant": "flower"}, "FedYogi", {"eta": 0.01}),
    ("fedadagrad", {"eta": 0.1, "variant": "flower"}, "FedAdagrad", {"eta": 0.1}),
    ("median", {}, "FedMedian", {}),
    ("trimmed-mean", {"trim": 0.2}, "FedTrimmedAvg", {"beta": 0.2}),  # both leave out int(0.2 n) a side
    ("krum", {"byzantine": 2}, "Krum", {"num_malicious_nodes": 2}),
    (
        "multi-krum",
        {"byzantine": 2, "select": 4, "weighting": "examples"},  # Flower weighs the selected by their samples
        "MultiKrum",
        {"num_malicious_nodes": 2, "num_nodes_to_select": 4},
    ),
    # Flower chooses all n - 2f at once, the paper one after the other
    ("bulyan", {"byzantine": 2, "selection": "once"}, "Bulyan", {"num_malicious_nodes": 2}),
]


@pytest.mark.parametrize(("name", "options", "strategy", "theirs"), FLOWER, ids=[row[2] for row in FLOWER])
def test_flower(name: str, options: dict[str, Any], strategy: str, theirs: dict[str, Any]) -> None:
    strategies = pytest.importorskip("flwr.serverapp.strategy")
    wanted = flower_rounds(getattr(strategies, strategy)(**theirs), range(10, 14))
    for round, (one, other) in enumerate(zip(our_rounds(name, range(10, 14), **options), wanted, strict=True)):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-10), round


def test_flower_takes_the_mean_of_counters() -> None:
    strategies = pytest.importorskip("flwr.serverapp.strategy")
    updates = [ClientUpdate(i, n, {"n": torch.tensor([count])}) for i, (n, count) in enumerate(((1, 3), (3, 4)))]
    arrays, _ = strategies.FedAvg().aggregate_train(1, replies_of(updates))
    assert arrays["n"].numpy().tolist() == [3.75]
    context = RoundContext(0, 0, (0, 1), 2)
    assert create_rule("fedavg")({"n": torch.tensor([0])}, updates, context, {})[0]["n"].tolist() == [4]


def test_the_papers_start_is_not_flowers() -> None:
    for name in ("fedadam", "fedyogi", "fedadagrad"):
        paper, flower = (our_rounds(name, range(10, 12), eta=0.1, tau=0.1, variant=v) for v in ("paper", "flower"))
        assert not torch.allclose(paper[0], flower[0], rtol=1e-3)
