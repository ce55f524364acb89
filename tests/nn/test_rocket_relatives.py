"""MiniRocket and Hydra of the benchmarks: against aeon's (frozen), and against the definition."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.rocket_relatives import Hydra, MiniRocket

SETS = ("GunPoint", "BasicMotions", "ItalyPowerDemand")


@pytest.fixture(scope="module")
def aeon() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "oracles" / "rocket_aeon.npz") as file:
        return {name: file[name] for name in file.files}


def series(count: int, channels: int, length: int, seed: int = 0) -> Tensor:
    return torch.randn(count, channels, length, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", SETS)
def test_minirocket_equals_aeon(aeon: dict[str, np.ndarray], name: str) -> None:
    x = torch.from_numpy(aeon[f"{name}.x"])
    mini = MiniRocket(1000, x.shape[2], x.shape[1])
    counts, index, dilations, widths, biases = (
        aeon[f"{name}.mini.{k}"] for k in ("counts", "index", "dilations", "widths", "biases")
    )
    assert np.array_equal(mini.dilations, dilations)
    assert np.array_equal(mini.counts, widths)
    chosen = [part.tolist() for part in np.split(index, np.cumsum(counts)[:-1])]
    mini._build(chosen, 1 << 20)
    mini.biases.copy_(torch.from_numpy(biases))
    found, wanted = mini(x).numpy(), aeon[f"{name}.mini"]
    assert found.shape == wanted.shape
    # thresholds are quantiles of responses, which some responses therefore meet exactly, and rounding decides
    assert (np.abs(found - wanted) > 1e-5).mean() < 0.01
    assert np.abs(found - wanted).max() < 0.2


def test_minirocket_fits_thresholds() -> None:
    x = series(20, 3, 60)
    mini = MiniRocket(1000, 60, 3, seed=1)
    assert float(mini(x).abs().max()) == 0
    found = mini.fit(x)(x)
    assert found.shape == (20, mini.num_features)
    assert mini.num_features % 84 == 0
    assert 0.3 < float(found.mean()) < 0.7
    torch.testing.assert_close(mini(x[:1]), found[:1])


@pytest.mark.parametrize("channels", [1, 5])
def test_hydra_equals_the_definition(channels: int) -> None:
    hydra, x = Hydra(40, channels, kernels=4, groups=6, seed=2), series(3, channels, 40)
    found = hydra(x).view(3, len(hydra.dilations), 2, 2, 3, 4)
    for which, dilation in enumerate(hydra.dilations):
        for side, given in enumerate((x, x.diff())):
            for group in range(3):
                mixed = given[:, hydra.channel_index[which, side, group]].sum(1, keepdim=True)
                weight = hydra.weights[which, side, 4 * group : 4 * group + 4][:, None]
                z = torch.conv1d(mixed, weight, padding=4 * dilation, dilation=dilation)
                winner, loser = z.argmax(1), z.argmin(1)
                for k in range(4):
                    score, count = (z[:, k] * (winner == k)).sum(1), (loser == k).sum(1).float()
                    torch.testing.assert_close(found[:, which, side, 0, group, k], score, atol=1e-4, rtol=1e-4)
                    assert (found[:, which, side, 1, group, k] - count).abs().max() <= 1


def test_weight_two_stands_in_every_triple() -> None:
    mini = MiniRocket(84, 30)
    taps = mini.weights[:84, 1:]
    places = {tuple(torch.nonzero(row == 2).flatten().tolist()) for row in taps}
    assert places == set(combinations(range(9), 3))
    assert (taps.sum(1) == 0).all()
