"""GAMA-PGD against a literal loop."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from zoo.errors import BadInput
from zoo.nn.attacks import cw_margin
from zoo.nn.attacks.guided import gama
from zoo.nn.attacks.noise import signs
from zoo.robustness.evaluate import evaluate_robustness

EPS = 0.1


def setting(count: int = 5) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 16, 4)).eval()
    return net, torch.rand(count, 1, 6, 6), torch.arange(count) % 4


@pytest.mark.parametrize(("steps", "fade", "drops"), [(100, 0.25, (60, 85)), (8, 0.5, (5, 7)), (8, 0.0, (5, 7))])
def test_against_a_literal_loop(steps: int, fade: float, drops: tuple[int, int]) -> None:
    """100 steps: the weight falls from 50 to 0 in 25 of them, the step of 2 eps to a tenth at 60 and at 85."""
    net, x, y = setting()
    found = gama(net, x, y, eps=EPS, steps=steps, fade=fade, drops=[d / steps for d in drops], seed=4)
    p = net(x).softmax(1).detach()
    adv = (x + EPS * signs((1, 6, 6), 4, torch.arange(5))).clamp(0, 1)
    size = 2 * EPS
    for step in range(steps):
        size = size / 10 if step in drops else size
        weight = 50 - step * 50 / (fade * steps) if fade and step < fade * steps else 0.0
        adv.requires_grad_()
        q = net(adv).softmax(1)
        total = torch.zeros(())
        for i in range(5):
            other = max(q[i, k] for k in range(4) if k != y[i])
            total = total + other - q[i, y[i]] + weight * sum((p[i, k] - q[i, k]) ** 2 for k in range(4))
        (grad,) = torch.autograd.grad(total, adv)
        adv = (adv.detach() + size * grad.sign()).clamp(0, 1)
        adv = x + (adv - x).clamp(-EPS, EPS)
    torch.testing.assert_close(found, adv, rtol=0, atol=1e-5)
    assert (found - x).abs().max() <= EPS + 1e-6


def test_batches_modes_and_strength() -> None:
    net, x, y = setting(40)
    net.train()
    found = gama(net, x, y, eps=EPS, steps=20)
    assert net.training
    parts = [
        gama(net, x[i : i + 7], y[i : i + 7], eps=EPS, steps=20, index=torch.arange(40)[i : i + 7])
        for i in range(0, 40, 7)
    ]
    torch.testing.assert_close(torch.cat(parts), found)
    net.eval()
    with torch.no_grad():
        right = [(net(a).argmax(1) == y).float().mean().item() for a in (x, found, cw_margin(net, x, y, eps=EPS))]
    assert right[1] <= right[0]
    assert abs(right[1] - right[2]) < 0.2


def test_by_name_and_what_is_refused() -> None:
    net, x, y = setting(20)
    rows = evaluate_robustness(net, (x, y), EPS, 20, ["gama-20"], checks=False).to_dict()["rows"]
    assert [row["attack"] for row in rows][-1] == "gama-20"
    with pytest.raises(BadInput, match="linf"):
        gama(net, x, y, eps=EPS, norm="l2")
    with pytest.raises(BadInput, match="fade"):
        gama(net, x, y, eps=EPS, fade=1.5)
