"""Auto-PGD, whose step size looks after itself.

Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks", ICML
2020, algorithm 1:

    z = P(x_k + eta * s(grad f(x_k)))                                   a projected step, s: sign or unit length
    x_{k+1} = P(x_k + a * (z - x_k) + (1 - a) * (x_k - x_{k-1}))        with momentum, a = 0.75

eta starts at 2 eps and is halved at a checkpoint w_j where too few steps since the last one raised f (condition 1), or
where neither eta nor the best value has changed since then (condition 2); the search then continues at the best point.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from zoo.errors import BadInput
from zoo.nn.attacks import noise as numbers
from zoo.nn.attacks.core import (
    Ball,
    Model,
    Norm,
    Objective,
    Record,
    Success,
    Victim,
    attack_mode,
    misclassified,
    owned,
    per_sample,
    unit,
)

__all__ = ["apgd", "apgd_targeted", "checkpoints"]

MOMENTUM = 0.75


def checkpoints(steps: int) -> list[int]:
    """Steps w_j at which the step size may be halved: p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06), p_1 = 0.22.

    In whole steps, as the authors' code rounds them.
    """
    points, period, shrink, least = [], max(1, int(0.22 * steps)), max(1, int(0.03 * steps)), max(1, int(0.06 * steps))
    at = period
    while at <= steps:
        points.append(at)
        period = max(period - shrink, least)
        at += period
    return points


def apgd(
    model: Model,
    x: Tensor,
    target: Tensor,
    *,
    eps: float,
    steps: int = 100,
    loss: str | Objective = "ce",
    norm: Norm = "linf",
    restarts: int = 1,
    rho: float = 0.75,
    success: Success | None = None,
    seed: int = 0,
    index: Tensor | None = None,
    bounds: tuple[float, float] | None = (0.0, 1.0),
    mode: str = "eval",
    check: bool = True,
) -> Tensor:
    """PGD without a step size to choose: momentum, and a step that is halved when progress stalls.

    Args:
        model: returns logits (N, K).
        x: (N, ...) clean inputs.
        target: labels (N,) or what `loss` takes.
        eps: radius.
        steps: number of steps, >= 1; costs steps + 1 gradients.
        loss: `ce` or `dlr` in the paper; any other name or function works.
        norm: `linf` or `l2`.
        restarts: random starts, tried on samples that still stand.
        rho: share of rising steps below which the step size is halved.
        success: when a sample counts as beaten; labels need none.
        seed: of the starts.
        index: (N,) int64 identity of the samples.
        bounds: range of valid inputs, or None.
        mode: `eval` or `keep`.
        check: whether inputs and logits are checked.

    Returns:
        (N, ...) the first misclassified point of each sample, otherwise that of highest loss.

    Raises:
        BadInput: naming the argument that cannot be used.
    """
    if steps < 1 or restarts < 1:
        raise BadInput(f"steps and restarts must be at least 1, got {steps} and {restarts}.")
    with attack_mode(model, mode):
        x, target, index = owned(x, target, index)
        ball = Ball.around(x, eps, norm, bounds, check)
        victim = Victim.of(model, target, loss, success, check)
        record = Record(x)
        for restart in range(restarts):
            rows = record.standing
            if not len(rows):
                break
            part = ball.take(rows)
            point = _start(part, seed, index[rows], restart)
            _run(victim, part, target[rows], point, steps, rho, rows, record)
        return record.x


def apgd_targeted(
    model: Model,
    x: Tensor,
    target: Tensor,
    *,
    eps: float,
    targets: int = 9,
    check: bool = True,
    index: Tensor | None = None,
    mode: str = "eval",
    **options: Any,
) -> Tensor:
    """APGD on the targeted DLR loss, towards the `targets` classes the model finds most likely after the true one.

    Args:
        model: returns logits (N, K) of at least 4 classes.
        x: (N, ...) clean inputs.
        target: labels (N,).
        eps: radius.
        targets: how many classes are tried, each on the samples that still stand; at most K - 1 are.
        check: whether inputs and logits are checked.
        index: (N,) int64 identity of the samples.
        mode: `eval` or `keep`.
        options: of `apgd`, except loss and success.

    Returns:
        (N, ...) the first misclassified point of each sample, otherwise that of highest margin.
    """
    with attack_mode(model, mode):
        x, target, index = owned(x, target, index)
        if target.ndim != 1 or target.is_floating_point():
            raise BadInput("apgd_targeted needs labels (N,) as target.")
        victim = Victim.of(model, target, "margin", None, check)
        _, logits = victim.judge(x, target)
        others = logits.scatter(1, target[:, None], -math.inf).argsort(dim=1, descending=True, stable=True)
        record = Record(x)
        for number in range(min(targets, logits.shape[1] - 1)):
            rows = record.standing
            if not len(rows):
                break
            pair = torch.stack([target[rows], others[rows, number]], 1)
            own = {**options, "seed": options.get("seed", 0) + number, "index": index[rows], "check": check}
            attacked = apgd(model, x[rows], pair, eps=eps, loss="dlr-targeted", mode=mode, **own)
            value, logits = victim.judge(attacked, target[rows])
            record.offer(rows, attacked, value, misclassified(logits, target[rows]))
        return record.x


def _start(ball: Ball, seed: int, index: Tensor, stream: int) -> Tensor:
    """On the surface of the ball, in a random direction, as the authors start."""
    x = ball.centre
    if ball.norm == "linf":
        direction = 2 * numbers.uniform(x.shape[1:], seed, index, stream) - 1
        direction = direction / per_sample(direction.flatten(1).abs().amax(1), direction)
    else:
        direction = unit(numbers.gaussian(x.shape[1:], seed, index, stream))
    return ball.project(x + ball.eps * direction.to(x))


@dataclass
class _State:
    """What the search knows about each standing sample; every tensor's first axis is the sample."""

    rows: Tensor
    x: Tensor
    before: Tensor
    grad: Tensor
    target: Tensor
    step: Tensor
    value: Tensor
    """f at x"""
    best: Tensor
    best_x: Tensor
    best_grad: Tensor
    best_at_check: Tensor
    halved: Tensor
    """whether the step was halved at the last checkpoint"""
    rises: Tensor
    """steps since the last checkpoint that raised f"""

    def take(self, keep: Tensor) -> _State:
        return replace(self, **{f.name: getattr(self, f.name)[keep] for f in fields(self)})


def _run(
    victim: Victim, ball: Ball, target: Tensor, x: Tensor, steps: int, rho: float, rows: Tensor, record: Record
) -> None:
    grad, value, logits = victim.gradient(x, target)
    beaten = victim.beaten(logits, target)
    record.offer(rows, x, value, beaten)
    now = _State(
        rows=rows, x=x, before=x, grad=grad, target=target, value=value, best=value, best_x=x, best_grad=grad,
        best_at_check=value, step=torch.full_like(value, 2 * ball.eps), halved=torch.ones_like(value, dtype=torch.bool),
        rises=torch.zeros_like(value),
    )  # fmt: skip
    stops = checkpoints(steps)
    last_stop = 0
    for number in range(1, steps + 1):
        if beaten is not None and bool(beaten.any()):
            keep = ~beaten
            now, ball = now.take(keep), ball.take(keep)
            if not len(now.rows):
                return
        beaten = _advance(victim, ball, now, 1.0 if number == 1 else MOMENTUM, record)
        if number in stops:
            _halve(now, number - last_stop, rho)
            last_stop = number


def _advance(victim: Victim, ball: Ball, now: _State, a: float, record: Record) -> Tensor | None:
    """One step; returns which samples it beat."""
    z = ball.ascend(now.x, now.grad, per_sample(now.step, now.x))
    x = ball.project(now.x + a * (z - now.x) + (1 - a) * (now.x - now.before))
    now.before, now.x = now.x, x
    now.grad, value, logits = victim.gradient(x, now.target)
    beaten = victim.beaten(logits, now.target)
    record.offer(now.rows, x, value, beaten)
    now.rises = now.rises + (value > now.value)
    now.value = value
    better = value > now.best
    wide = per_sample(better, x)
    now.best = torch.where(better, value, now.best)
    now.best_x = torch.where(wide, x, now.best_x)
    now.best_grad = torch.where(wide, now.grad, now.best_grad)
    return beaten


def _halve(now: _State, period: int, rho: float) -> None:
    """The two conditions of section 3.1 at a checkpoint `period` steps after the last."""
    stalled = now.rises <= rho * period
    stuck = ~now.halved & (now.best_at_check >= now.best)
    now.halved = stalled | stuck
    wide = per_sample(now.halved, now.x)
    now.step = torch.where(now.halved, now.step / 2, now.step)
    now.x = torch.where(wide, now.best_x, now.x)
    now.grad = torch.where(wide, now.best_grad, now.grad)
    now.best_at_check = now.best
    now.rises = torch.zeros_like(now.rises)
