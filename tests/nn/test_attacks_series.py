"""Attacks on series (N, C, L): segments, smooth perturbations, and attacks that also stay undetected."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.errors import BadInput
from zoo.nn import attacks
from zoo.nn.attacks import noise as numbers
from zoo.nn.attacks.filters import SIGMAS, SIZES, filtered, gaussian_filters
from zoo.nn.attacks.square_search import share

N, LENGTH, CLASSES, EPS = 12, 40, 4, 0.08


class Small(nn.Module):
    """A classifier of series."""

    def __init__(self, outputs: int = CLASSES, channels: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, 8, 5, padding=2)
        self.out = nn.Linear(8 * LENGTH, outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(torch.tanh(3 * self.conv(x)).flatten(1))
        return out


def case(outputs: int = CLASSES, channels: int = 1) -> tuple[Small, Tensor, Tensor]:
    """A network, series in [0, 1], and the labels it gives them."""
    torch.manual_seed(0)
    model, x = Small(outputs, channels).eval(), torch.rand(N, channels, LENGTH)
    return model, x, model(x)[:, :CLASSES].argmax(1)


def margins(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Largest wrong logit less the right one."""
    z = model(x).detach()
    return z.scatter(1, y[:, None], -math.inf).amax(1) - z.gather(1, y[:, None])[:, 0]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["fgsm", "pgd", "cw_margin", "apgd", "apgd_targeted", "square", "smooth"])
def test_every_attack_takes_series(name: str, channels: int) -> None:
    model, x, y = case(channels=channels)
    options: dict[str, Any] = {"square": {"queries": 50}, "fgsm": {}}.get(name, {"steps": 10})
    x_adv = getattr(attacks, name)(model, x, y, eps=EPS, **options)
    assert x_adv.shape == x.shape
    assert (x_adv - x).abs().max() <= EPS + 1e-6
    assert 0 <= x_adv.min() <= x_adv.max() <= 1
    random = attacks.uniform_noise(x, eps=EPS)
    assert (margins(model, x_adv, y) > margins(model, random, y)).float().mean() > 0.7
    one = getattr(attacks, name)(model, x[3:5], y[3:5], eps=EPS, index=torch.tensor([3, 4]), **options)
    torch.testing.assert_close(one, x_adv[3:5], atol=1e-5, rtol=0)


def test_square_on_series_equals_a_literal_search() -> None:
    """One series at a time, one segment at a time."""
    model, x, y = case(channels=2)
    queries, p, seed = 30, 0.4, 5
    got = attacks.square(model, x, y, eps=EPS, queries=queries, p=p, seed=seed)
    for i in range(N):
        index = torch.tensor([i])
        best = (x[i : i + 1] + EPS * numbers.signs((2, LENGTH), seed, index)).clamp(0, 1)
        low, high = (x[i : i + 1] - EPS).clamp(min=0), (x[i : i + 1] + EPS).clamp(max=1)
        value = float(margins(model, best, y[i : i + 1]))
        for number in range(queries - 1):
            if value > 0:
                break
            side = max(1, round(share(number, queries, p) * LENGTH))
            start = int(numbers.integers((LENGTH - side + 1,), seed, index, 4 * (number + 1)))
            sign = numbers.signs((2, 1), seed, index, 4 * (number + 1) + 1)[0]
            proposal = best.clone()
            moved = torch.where(sign > 0, high[0], low[0])
            proposal[0, :, start : start + side] = moved[:, start : start + side]
            new = float(margins(model, proposal, y[i : i + 1]))
            if new > value:
                best, value = proposal, new
        torch.testing.assert_close(got[i : i + 1], best)


def test_square_on_series_changes_segments_only() -> None:
    model, x, y = case()
    start = attacks.square(model, x, y, eps=EPS, queries=1)
    after = attacks.square(model, x, y, eps=EPS, queries=2, p=0.2)
    for moved in ((after - start)[:, 0] != 0).numpy():
        at = np.flatnonzero(moved)
        assert at.size == 0 or at[-1] - at[0] < round(0.2 * LENGTH)
    with pytest.raises(BadInput, match="linf"):
        attacks.square(model, x, y, eps=EPS, norm="l2")
    with pytest.raises(BadInput, match="series"):
        attacks.square(model, x[:, 0], y, eps=EPS)


def test_filters_equal_their_definition() -> None:
    x = torch.rand(2, 3, LENGTH, dtype=torch.float64)
    expected = np.zeros(x.shape)
    for size, sigma in zip(SIZES, SIGMAS, strict=True):
        weight = np.exp(-0.5 * ((np.arange(size) - size // 2) / sigma) ** 2)
        weight /= weight.sum()
        for i in range(2):
            for c in range(3):
                expected[i, c] += np.convolve(x[i, c].numpy(), weight, mode="same") / len(SIZES)
    torch.testing.assert_close(filtered(x, gaussian_filters()), torch.from_numpy(expected))
    assert float(gaussian_filters().sum()) == pytest.approx(1)
    for sizes, sigmas in (((4,), (1.0,)), ((), ()), ((3, 5), (1.0,)), ((3,), (0.0,))):
        with pytest.raises(BadInput, match="Filters"):
            gaussian_filters(sizes, sigmas)


def test_smooth_equals_a_literal_loop() -> None:
    model, x, y = case()
    steps, step = 5, 0.03
    got = attacks.smooth(model, x, y, eps=EPS, steps=steps, step=step, start="none")
    d = torch.zeros_like(x)
    kernel = gaussian_filters().float()
    for _ in range(steps):
        d.requires_grad_()
        shown = torch.minimum(torch.maximum(x + filtered(d, kernel), (x - EPS).clamp(min=0)), (x + EPS).clamp(max=1))
        (grad,) = torch.autograd.grad(F.cross_entropy(model(shown), y, reduction="sum"), d)
        d = (d + step * grad.sign()).clamp(-EPS, EPS).detach()
    torch.testing.assert_close(got, (x + filtered(d, kernel)).clamp(0, 1), atol=1e-6, rtol=0)


def test_smooth_is_smoother_than_pgd_and_does_harm() -> None:
    model, x, y = case()

    def roughness(x_adv: Tensor) -> float:
        d = x_adv - x
        return float(d.diff(dim=2).square().mean() / d.square().mean())

    rough = attacks.pgd(model, x, y, eps=EPS, steps=20)
    soft = attacks.smooth(model, x, y, eps=EPS, steps=20)
    assert roughness(soft) < 0.2 * roughness(rough)
    assert margins(model, soft, y).mean() > margins(model, x, y).mean()


@pytest.mark.parametrize("given", [{"norm": "l2"}, {"keep": "best"}, {"restarts": 2}])
def test_smooth_refuses_what_it_does_not_do(given: dict[str, Any]) -> None:
    model, x, y = case()
    with pytest.raises(BadInput, match=next(iter(given))):
        attacks.smooth(model, x, y, eps=EPS, **given)
    with pytest.raises(BadInput, match="series"):
        attacks.smooth(model, x[:, 0], y, eps=EPS)


def test_staying_undetected() -> None:
    model, x, y = case(CLASSES + 2)
    z = model(x).detach()
    for weight in (0.0, 1.0, 3.0):
        got = attacks.undetected(weight)(z, y)
        for i in range(N):
            wrong = -float(z[i, :CLASSES].log_softmax(0)[y[i]])
            seen = -float(z[i, CLASSES:].log_softmax(0)[0])
            assert float(got[i]) == pytest.approx(wrong - weight * seen, abs=1e-5)
    open_attack = attacks.pgd(
        model, x, y, eps=EPS, steps=20, loss=lambda z, y: F.cross_entropy(z[:, :-2], y, reduction="none")
    )
    hidden = attacks.pgd(
        model, x, y, eps=EPS, steps=20, loss=attacks.undetected(), success=attacks.misclassified_undetected()
    )

    def detected(x_adv: Tensor) -> float:
        return float(model(x_adv)[:, -2:].softmax(1)[:, 1].mean())

    assert detected(hidden) < min(detected(open_attack), detected(x))
    assert (model(hidden)[:, :-2].argmax(1) != y).float().mean() > 0
    beaten = attacks.misclassified_undetected()(z, y)
    assert beaten.tolist() == [
        bool(a != b and c == 0) for a, b, c in zip(z[:, :-2].argmax(1), y, z[:, -2:].argmax(1), strict=True)
    ]


def test_art_agrees_on_series() -> None:
    """The fast gradient method of the adversarial robustness toolbox moves the same points to the same place."""
    evasion = pytest.importorskip("art.attacks.evasion")
    from art.estimators.classification import PyTorchClassifier

    model, x, y = case()
    wrapped = PyTorchClassifier(
        model, nn.CrossEntropyLoss(), input_shape=(1, LENGTH), nb_classes=CLASSES, clip_values=(0.0, 1.0)
    )
    theirs = evasion.FastGradientMethod(wrapped, eps=EPS).generate(x.numpy(), F.one_hot(y, CLASSES).numpy())
    np.testing.assert_allclose(attacks.fgsm(model, x, y, eps=EPS).numpy(), theirs, atol=1e-6)
    pgd = evasion.ProjectedGradientDescent(
        wrapped, eps=EPS, eps_step=EPS / 4, max_iter=10, num_random_init=0, verbose=False
    )
    theirs = pgd.generate(x.numpy(), F.one_hot(y, CLASSES).numpy())
    ours = attacks.pgd(model, x, y, eps=EPS, step=EPS / 4, steps=10, start="none")
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-5)
