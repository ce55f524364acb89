"""Ridge in closed form: against scikit-learn (frozen), by leaving series out, over batches and ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from zoo.errors import BadInput
from zoo.nn.ridge import ALPHAS, Ridge, RidgeFit, RidgeHead


@pytest.fixture(scope="module")
def sklearn() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "oracles" / "rocket_aeon.npz") as file:
        return {name: file[name] for name in file.files if name.startswith(("wide.", "tall."))}


def data(rows: int, columns: int, targets: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, columns, generator=draw) * (0.1 + 5 * torch.rand(columns, generator=draw)) + 3
    y = x[:, :targets] + torch.randn(rows, targets, generator=draw) - 20
    return x, y.double()


def solve(x: Tensor, y: Tensor, batch: int = 1000, passes: int = 1, **options: Any) -> RidgeFit:
    ridge = Ridge(x.shape[1], y.shape[1], **options)
    for _ in range(passes):
        for i in range(0, len(x), batch):
            ridge.add(x[i : i + batch], y[i : i + batch], torch.arange(len(x))[i : i + batch])
        found = ridge.solve()
    return found


@pytest.mark.parametrize("shape", ["wide", "tall"])
@pytest.mark.parametrize("target", ["value", "label"])
def test_equals_scikit_learn(sklearn: dict[str, np.ndarray], shape: str, target: str) -> None:
    x, y = torch.from_numpy(sklearn[f"{shape}.x"]), torch.from_numpy(sklearn[f"{shape}.{target}"])
    goal = 2 * torch.nn.functional.one_hot(y).double() - 1 if target == "label" else y[:, None]
    for options in ({"most_rows": 1000}, {"most_rows": 0, "passes": 2}):
        found = solve(x, goal, **options)
        assert found.exact
        assert found.alpha == pytest.approx(float(sklearn[f"{shape}.{target}.alpha"]))
        coefficients = np.atleast_2d(sklearn[f"{shape}.{target}.coef"]).T
        np.testing.assert_allclose((found.weight / found.scale[:, None]).numpy(), coefficients, atol=1e-5)
        np.testing.assert_allclose(found.errors.numpy(), sklearn[f"{shape}.{target}.errors"], rtol=2e-3)


def test_left_out_scores_are_those_of_fits_without_the_series() -> None:
    x, y = data(14, 30)
    found = solve(x, y)
    rows = (x.double() - found.mean) / found.scale
    for j in range(len(x)):
        keep = torch.arange(len(x)) != j
        mean, bias = rows[keep].mean(0), y[keep].mean(0)
        centred = rows[keep] - mean
        gram = centred.T @ centred + found.alpha * torch.eye(30, dtype=torch.float64)
        weight = torch.linalg.solve(gram, centred.T @ (y[keep] - bias))
        assert found.left_out is not None
        torch.testing.assert_close(found.left_out[j], (rows[j] - mean) @ weight + bias, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("shape", [(20, 50), (80, 30), (40, 40)])
def test_primal_equals_dual(shape: tuple[int, int]) -> None:
    x, y = data(*shape)
    dual, primal = solve(x, y, most_rows=10_000), solve(x, y, batch=7, passes=2, most_rows=0)
    assert dual.alpha == primal.alpha
    torch.testing.assert_close(dual.errors, primal.errors, rtol=1e-5, atol=1e-9)
    torch.testing.assert_close(dual.weight, primal.weight, rtol=1e-5, atol=1e-8)


def test_one_pass_of_sums_uses_generalised_cross_validation() -> None:
    x, y = data(300, 20)
    once, twice = solve(x, y, most_rows=0), solve(x, y, most_rows=0, passes=2)
    assert not once.exact
    assert twice.exact
    rows = (x.double() - once.mean) / once.scale
    for alpha, error in zip(ALPHAS, once.errors.tolist(), strict=True):
        hat = rows @ torch.linalg.solve(rows.T @ rows + alpha * torch.eye(20, dtype=torch.float64), rows.T)
        residual = (y - y.mean(0)) - hat @ (y - y.mean(0))
        wanted = residual.square().mean() / (1 - (hat.trace() + 1) / 300) ** 2
        assert error == pytest.approx(float(wanted), rel=1e-6)
    assert once.errors.sub(twice.errors).abs().max() < 0.02 * twice.errors.max()


@pytest.mark.parametrize("most_rows", [10_000, 0, 25])
def test_ranks_give_one_process_solution(most_rows: int) -> None:
    """Two accumulators stand for two ranks; with 25 rows one of them alone would still keep its features."""
    x, y = data(44, 30)
    index = torch.randperm(44, generator=torch.Generator().manual_seed(1))
    ranks = [Ridge(30, 2, most_rows=most_rows) for _ in range(2)]
    for rank, ridge in enumerate(ranks):
        mine = index[rank::2]
        for part in mine.split(5):
            ridge.add(x[part], y[part], part)
    if most_rows < 44:  # what every rank does once the total is known
        for ridge in ranks:
            ridge._to_sums()
    rows = [list(r.rows) for r in ranks]
    states = [r.sums for r in ranks]

    def total(value: Tensor) -> Tensor:
        if value.ndim == 0:
            return torch.tensor(44)
        name = next(k for k, v in (states[0] or {}).items() if v.shape == value.shape and torch.equal(v, value))
        return sum((s[name] for s in states if s is not None), torch.zeros_like(value))

    found = ranks[0].solve(lambda _: rows, total)
    wanted = solve(x, y, most_rows=most_rows)
    assert found.alpha == wanted.alpha
    torch.testing.assert_close(found.weight, wanted.weight, rtol=1e-6, atol=1e-9)


def test_batches_do_not_matter_and_state_goes_on() -> None:
    x, y = data(50, 20)
    for most_rows in (0, 10_000):
        whole = solve(x, y, most_rows=most_rows)
        ridge = Ridge(20, 2, most_rows=most_rows)
        for part in torch.arange(50).split(7):
            other = Ridge(20, 2, most_rows=most_rows)
            other.load_state(ridge.state())
            ridge = other
            ridge.add(x[part], y[part], part)
        torch.testing.assert_close(ridge.solve().weight, whole.weight, rtol=1e-7, atol=1e-10)


def test_series_are_not_kept_beyond_the_limit() -> None:
    ridge = Ridge(10, 1, most_rows=30)
    x, y = data(100, 10, 1)
    for part in torch.arange(100).split(20):
        ridge.add(x[part], y[part], part)
        assert sum(len(r[2]) for r in ridge.rows) <= 30
    assert ridge.sums is not None


def test_features_that_do_not_vary_get_no_weight() -> None:
    x, y = data(30, 10)
    x[:, 3] = 1e6
    for most_rows in (0, 100):
        found = solve(x, y, most_rows=most_rows)
        assert found.scale[3] == 1
        assert found.weight[3].abs().max() < 1e-9
        assert found.weight.isfinite().all()


def test_head_is_the_solution() -> None:
    x, y = data(60, 90)
    found = solve(x, y)
    head = RidgeHead(90, 2)
    head.load_state_dict(RidgeHead.values(found))
    wanted = ((x.double() - found.mean) / found.scale) @ found.weight + found.bias
    torch.testing.assert_close(head(x), wanted.float(), atol=1e-3, rtol=1e-4)
    assert not any(p.requires_grad for p in head.parameters())


def test_unusable_input_is_named() -> None:
    x, y = data(5, 4)
    ridge = Ridge(4, 2)
    with pytest.raises(BadInput, match=r"features \(B, 4\)"):
        ridge.add(x[:, :3], y, torch.arange(5))
    x[2, 1] = torch.nan
    with pytest.raises(BadInput, match="Series 2"):
        ridge.add(x, y, torch.arange(5))
    with pytest.raises(BadInput, match="at least 2 series"):
        ridge.solve()
    with pytest.raises(BadInput, match="alphas"):
        Ridge(4, 2, alphas=[])
