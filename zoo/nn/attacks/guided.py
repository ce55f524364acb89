"""GAMA-PGD (Sriramanan, Addepalli, Baburaj, Babu 2020): a margin attack that is guided by the clean image at first."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from zoo import checks
from zoo.errors import BadInput
from zoo.nn.attacks.core import Ball, Model, Norm, Victim, attack_mode, margin, owned
from zoo.nn.attacks.noise import signs

__all__ = ["gama", "guided_margin"]


def guided_margin(logits: Tensor, target: Tensor, p: Tensor, weight: float) -> Tensor:
    """max_{k != y} q_k - q_y + weight ||p - q||^2 per sample (N,), with q the softmax of the logits.

    Args:
        logits: (N, K) on x'.
        target: labels (N,).
        p: (N, K) probabilities on x.
        weight: of the distance between the two.
    """
    q = logits.softmax(1)
    return margin(q, target) + weight * (p - q).square().sum(1)


def gama(
    model: Model,
    x: Tensor,
    target: Tensor,
    *,
    eps: float,
    steps: int = 100,
    step: float | None = None,
    weight: float = 50.0,
    fade: float = 0.25,
    drops: Sequence[float] = (0.6, 0.85),
    norm: Norm = "linf",
    seed: int = 0,
    index: Tensor | None = None,
    bounds: tuple[float, float] | None = (0.0, 1.0),
    mode: str = "eval",
    check: bool = True,
) -> Tensor:
    """Ascent of `guided_margin` from a random corner of the ball, in large steps that become small.

    Args:
        model: returns logits (N, K).
        x: (N, ...) clean inputs.
        target: labels (N,).
        eps: radius in the maximum norm.
        steps: number of gradients.
        step: size at first; None takes 2 eps.
        weight: of the distance from the clean probabilities at first; it falls to 0 linearly.
        fade: share of the steps in which it falls.
        drops: shares of the steps after which the step becomes a tenth.
        norm: `linf`; there is no other.
        seed: of the start.
        index: (N,) int64 identity of the samples.
        bounds: range of valid inputs, or None.
        mode: `eval` or `keep`.
        check: whether inputs and logits are checked.

    Returns:
        (N, ...) the last point.
    """
    if norm != "linf":
        raise BadInput(f"gama needs norm='linf', got {norm!r}.")
    checks.at_least("steps", steps, 0)
    checks.share_of_one("fade", fade)
    size = 2 * eps if step is None else step
    with attack_mode(model, mode):
        x, target, index = owned(x, target, index)
        ball = Ball.around(x, eps, norm, bounds, check)
        victim = Victim.of(model, target, "margin", None, check)
        with torch.no_grad():
            p = victim.logits(x).softmax(1)
        x = ball.project(x + eps * signs(x.shape[1:], seed, index).to(x))
        for number in range(steps):
            left = max(0.0, 1 - number / (fade * steps)) if fade > 0 else 0.0
            victim.loss = partial(guided_margin, p=p, weight=weight * left)
            small = size * 0.1 ** sum(number >= drop * steps for drop in drops)
            x = ball.ascend(x, victim.gradient(x, target)[0], small)
        return x
