"""Rules against literal formulas, and what robust rules are for."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from toys.rules import cohort, context, network

from zoo.federated.rules import ClientUpdate, StateDict, create_rule
from zoo.federated.rules.columns import closest_mean, sort_rows


def vectors(rows: np.ndarray, counts: list[int] | None = None) -> list[ClientUpdate]:
    return [ClientUpdate(i, (counts or [1] * 99)[i], {"w": torch.from_numpy(row.copy())}) for i, row in enumerate(rows)]


def apply(name: str, rows: np.ndarray, start: np.ndarray | None = None, **options: Any) -> np.ndarray:
    first = np.zeros(rows.shape[1]) if start is None else start
    return create_rule(name, **options)({"w": torch.from_numpy(first)}, vectors(rows), context(), {})[0]["w"].numpy()


# Server optimisers: two steps by hand, with d = 0.5 and then d = -1 ---------------------------------------------------


def two_steps(name: str, **options: Any) -> list[float]:
    rule, w, state = create_rule(name, **options), torch.tensor([2.0], dtype=torch.float64), {}
    found = []
    for t, d in enumerate((0.5, -1.0)):
        updates = [ClientUpdate(i, n, {"w": w + d + shift}) for i, (n, shift) in enumerate(((1, 0.3), (3, -0.1)))]
        new, state, _ = rule({"w": w}, updates, context(t), state)
        w = new["w"]
        found.append(float(w))
    return found


def test_fedavgm_by_hand() -> None:
    assert two_steps("fedavgm", eta=0.5, momentum=0.9) == pytest.approx([2.25, 2.25 + 0.5 * (0.45 - 1)])


def test_fedadam_by_hand() -> None:
    m1, v1 = 0.05, 0.99 * 1e-6 + 0.01 * 0.25
    m2, v2 = 0.9 * m1 - 0.1, 0.99 * v1 + 0.01
    one = 2 + 0.1 * m1 / (math.sqrt(v1) + 1e-3)
    assert two_steps("fedadam", eta=0.1) == pytest.approx([one, one + 0.1 * m2 / (math.sqrt(v2) + 1e-3)])


def test_fedyogi_by_hand() -> None:
    v1 = 1e-6 + 0.01 * 0.25
    v2 = v1 + 0.01
    one = 2 + 0.1 * 0.05 / (math.sqrt(v1) + 1e-3)
    two = one + 0.1 * (0.9 * 0.05 - 0.1) / (math.sqrt(v2) + 1e-3)
    assert two_steps("fedyogi", eta=0.1) == pytest.approx([one, two])


def test_fedadagrad_by_hand() -> None:
    v1 = 1e-6 + 0.25
    one = 2 + 0.1 * 0.5 / (math.sqrt(v1) + 1e-3)
    assert two_steps("fedadagrad", eta=0.1) == pytest.approx([one, one - 0.1 / (math.sqrt(v1 + 1) + 1e-3)])


@pytest.mark.parametrize("name", ["fedavgm", "fedadam", "fedyogi", "fedadagrad"])
def test_batch_statistics_are_averaged(name: str) -> None:
    start = network()
    new, state, _ = create_rule(name, eta=0.5)(start, cohort(start), context(), {})
    mean, _, _ = create_rule("fedavg")(start, cohort(start), context(), {})
    for key in ("norm.running_mean", "norm.running_var"):
        assert torch.equal(new[key], mean[key])
    assert not torch.allclose(new["conv.weight"], mean["conv.weight"], atol=1e-3)
    assert state["m/conv.weight"].shape == start["conv.weight"].shape


def test_entries_that_are_away_keep_their_moments() -> None:
    start, rule = network(), create_rule("fedadam")
    _, state, _ = rule(start, cohort(start), context(), {})
    few = [replace(u, state={"scale": u.state["scale"]}) for u in cohort(start, seed=2)]
    _, later, _ = rule(start, few, context(1), state)
    assert torch.equal(later["v/conv.weight"], state["v/conv.weight"])
    assert not torch.equal(later["v/scale"], state["v/scale"])


# Literal references ---------------------------------------------------------------------------------------------------


@pytest.fixture
def rows() -> np.ndarray:
    return np.random.default_rng(5).normal(size=(11, 40))


def literal_krum_scores(rows: np.ndarray, neighbours: int) -> list[float]:
    scores = []
    for i, row in enumerate(rows):
        squares = sorted(float(((row - other) ** 2).sum()) for j, other in enumerate(rows) if j != i)
        scores.append(sum(squares[:neighbours]))
    return scores


@pytest.mark.parametrize("f", [0, 1, 2, 4])
def test_krum_is_the_literal_minimum(rows: np.ndarray, f: int) -> None:
    start = np.random.default_rng(6).normal(size=40) * 100
    best = int(np.argmin(literal_krum_scores(rows, 11 - f - 2)))
    assert np.array_equal(apply("krum", rows, start, byzantine=f), rows[best])
    ranked = np.argsort(literal_krum_scores(rows, 11 - f - 2))
    assert np.allclose(apply("multi-krum", rows, start, byzantine=f, select=3), rows[ranked[:3]].mean(0))
    assert np.allclose(apply("multi-krum", rows, start, byzantine=f), rows[ranked[: 11 - f]].mean(0))


def test_krum_ignores_copies_by_position() -> None:
    # a copy is a neighbour at distance 0 wherever in the list it stands, and the expanded square must not hide it
    rows = np.random.default_rng(1).normal(size=(7, 5)) + 1e6
    rows[5] = rows[2]
    rows[6] = rows[2]
    start = np.full(5, 1e6)
    assert np.array_equal(apply("krum", rows, start, byzantine=2), rows[2])


@pytest.mark.parametrize("f", [0, 1, 2])
def test_bulyan_is_the_literal_rule(rows: np.ndarray, f: int) -> None:
    left, chosen = list(range(11)), []
    while len(chosen) < 11 - 2 * f:
        scores = literal_krum_scores(rows[left], max(1, len(left) - f - 2)) if len(left) > 1 else [0.0]
        # equal scores of two that are each other's only neighbour: the least sum of all distances
        whole = literal_krum_scores(rows[left], len(left))
        chosen.append(left.pop(min(range(len(left)), key=lambda i: (round(scores[i], 9), whole[i]))))
    values, wanted = rows[chosen], []
    for column in values.T:
        middle = float(np.median(column))
        near = sorted(column, key=lambda x, middle=middle: abs(x - middle))[: 11 - 4 * f]
        wanted.append(np.mean(near))
    assert np.allclose(apply("bulyan", rows, byzantine=f), wanted)


def test_median_and_trimmed_mean(rows: np.ndarray) -> None:
    for count in (1, 2, 10, 11):
        assert np.array_equal(apply("median", rows[:count]), np.median(rows[:count], 0))
    ordered = np.sort(rows, 0)
    assert np.allclose(apply("trimmed-mean", rows, trim=2), ordered[2:9].mean(0))
    assert np.allclose(apply("trimmed-mean", rows, trim=0.29), ordered[3:8].mean(0))  # int(3.19) a side
    assert np.allclose(apply("trimmed-mean", rows, trim=0), rows.mean(0))


@pytest.mark.parametrize("count", [*range(1, 18), 33, 50])
def test_the_sorting_network_sorts(count: int) -> None:
    values = torch.randint(-5, 5, (count, 400), generator=torch.Generator().manual_seed(count)).double()
    assert torch.equal(sort_rows(values), values.sort(0).values)


@pytest.mark.parametrize(("clients", "count"), [(7, 3), (8, 4), (9, 9), (10, 2)])
def test_closest_to_the_median(clients: int, count: int) -> None:
    values = np.random.default_rng(clients).normal(size=(clients, 300))
    near = np.argsort(np.abs(values - np.median(values, 0)), 0)[:count]
    wanted = np.take_along_axis(values, near, 0).mean(0)
    assert np.allclose(closest_mean(torch.from_numpy(values), count).numpy(), wanted)


def test_geometric_median_has_the_least_sum_of_distances(rows: np.ndarray) -> None:
    found = apply("geometric-median", rows, np.ones(40), iterations=1000)

    def cost(point: np.ndarray) -> float:
        return float(np.linalg.norm(rows - point, axis=1).sum())

    moves = np.random.default_rng(0).normal(size=(200, 40))
    assert all(cost(found) <= cost(found + 1e-3 * move) for move in moves)
    assert cost(found) < cost(rows.mean(0))


def test_geometric_median_in_one_dimension_is_the_median() -> None:
    rows = np.array([[0.0], [1.0], [7.0], [8.0], [100.0]])
    assert apply("geometric-median", rows, iterations=5000) == pytest.approx(7.0, abs=1e-3)


def test_clipped_norms_by_hand() -> None:
    start = np.array([1.0, 1.0])
    rows = start + np.array([[3.0, 4.0], [0.3, 0.4], [0.0, -1.0]])
    wanted = start + np.array([[0.6, 0.8], [0.3, 0.4], [0.0, -1.0]]).mean(0)
    assert np.allclose(apply("norm-clip", rows, start, max_norm=1.0), wanted)
    assert np.allclose(apply("norm-clip", rows, start), wanted)  # the median norm is 1
    assert np.allclose(apply("norm-clip", rows, start, max_norm=9.0), rows.mean(0))


# What robust rules are for --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("krum", {}),
        ("multi-krum", {"select": 5}),
        ("median", {}),
        ("trimmed-mean", {"trim": 2}),
        ("geometric-median", {}),
        ("bulyan", {"byzantine": 2}),
        ("norm-clip", {}),
    ],
)
@pytest.mark.parametrize("attack", ["far", "sign", "copies"])
def test_two_attackers_of_eleven_do_not_carry_the_model_away(name: str, options: dict[str, Any], attack: str) -> None:
    start = network(dtype=torch.float64)
    updates = cohort(start, range(11))
    for update in updates[:2]:
        for key in update.state:
            if update.state[key].is_floating_point():
                honest = update.state[key] - start[key]
                bad = {"far": 1e6 * honest, "sign": -100 * honest, "copies": torch.full_like(honest, 40.0)}[attack]
                update.state[key] = start[key] + bad

    def moved(new: StateDict) -> float:
        return max(float((new[key].double() - start[key].double()).abs().max()) for key in ("conv.weight", "scale"))

    if name not in ("median", "trimmed-mean", "geometric-median", "norm-clip"):
        options = {"byzantine": 2, **options}
    assert moved(create_rule(name, **options)(start, updates, context(), {})[0]) < 0.5
    assert moved(create_rule("fedavg")(start, updates, context(), {})[0]) > 1
