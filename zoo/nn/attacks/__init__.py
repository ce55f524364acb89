"""Adversarial attacks: functions of (model, x, target) that return x' with ||x' - x|| <= eps, inside the input's range.

    x_adv = pgd(model, images, labels, eps=8 / 255, step=2 / 255, steps=10)                  # Madry et al. 2018
    x_adv = pgd(student, images, p_teacher, loss="kl", eps=8 / 255, steps=10, start="gaussian")   # TRADES, ARD
    x_adv = apgd(model, images, labels, eps=8 / 255, loss="dlr")                             # Croce and Hein 2020

`fgsm`, `pgd`, `cw_margin`, `apgd`, `apgd_targeted` follow the gradient, `square` needs outputs only, `transfer` makes
its examples on other models, best by `mi_fgsm`, `di_fgsm` or `ti_fgsm`, `uniform_noise` is what no attack may be weaker
than. `smooth` is for series (N, C, L), on which the others work, too, and `undetected` an objective against models that
also tell whether they are attacked. All share these arguments:

- `model`: anything that returns logits (N, K); normalisation belongs inside it, since eps is in units of `x`.
- `x`: (N, ...) inputs inside `bounds`; `target`: labels (N,), or what `loss` takes, first axis N.
- `eps`: radius of the ball; `norm`: `linf` or `l2`; `bounds`: range of valid inputs, None for no limit.
- `loss`: what is increased: `ce`, `kl` (target: distributions (N, K)), `margin`, `dlr`, or a function (logits, target)
  -> (N,). `success`: function (logits, target) -> bool (N,), for targets that are no labels.
- `seed` and `index` (N,): randomness belongs to (seed, index of the sample), so batch size and order change nothing.
  Without `index` a sample's position counts.
- `mode`: `eval` puts the network into evaluation mode and every part of it back afterwards; `keep` leaves it.
- `check=False` leaves out the checks of inputs and logits, which cost a host synchronisation each.

Only gradients with respect to the input are computed: no parameter's `.grad` or `requires_grad` is touched. Attacks
work inside `torch.no_grad()` and `torch.inference_mode()`, hence in any Lightning loop. Low-precision logits are
compared in float32, with autocast off. The result is detached.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from zoo.errors import BadInput
from zoo.nn.attacks.auto_pgd import apgd, apgd_targeted
from zoo.nn.attacks.core import (
    LOSSES,
    Ball,
    Model,
    Norm,
    Objective,
    Record,
    Success,
    Victim,
    attack_mode,
    check_logits,
    objective,
    owned,
    random_start,
)
from zoo.nn.attacks.evasion import misclassified_undetected, undetected
from zoo.nn.attacks.filters import SIGMAS, SIZES, filtered, gaussian_filters
from zoo.nn.attacks.square_search import square
from zoo.nn.attacks.transferable import di_fgsm, mean_logits, mi_fgsm, ti_fgsm

__all__ = [
    "LOSSES",
    "Model",
    "Norm",
    "Objective",
    "Success",
    "apgd",
    "apgd_targeted",
    "attack_mode",
    "check_logits",
    "cw_margin",
    "di_fgsm",
    "fgsm",
    "input_gradient",
    "mean_logits",
    "mi_fgsm",
    "misclassified_undetected",
    "objective",
    "pgd",
    "smooth",
    "square",
    "ti_fgsm",
    "transfer",
    "undetected",
    "uniform_noise",
]

Start = Literal["uniform", "gaussian", "none"]


def pgd(
    model: Model, x: Tensor, target: Tensor, *, eps: float, step: float | None = None, steps: int = 20,
    loss: str | Objective = "ce", norm: Norm = "linf", start: Start | Tensor = "uniform", noise: float = 0.001,
    restarts: int = 1, keep: Literal["last", "best"] = "last", success: Success | None = None, seed: int = 0,
    index: Tensor | None = None, bounds: tuple[float, float] | None = (0.0, 1.0), mode: str = "eval",
    check: bool = True,
) -> Tensor:  # fmt: skip
    """Projected gradient ascent (Madry et al. 2018): x <- project(x + step * sign(gradient)), or along it for l2.

    With `keep="last"` and one restart, for training, the cost is exactly `steps` forward passes and backward passes to
    the input. `keep="best"` keeps each sample's first misclassified point, otherwise that of highest loss; it costs one
    more forward pass, and beaten samples leave the batch.

    Args:
        model: returns logits (N, K).
        x: (N, ...) clean inputs.
        target: labels (N,) or what `loss` takes.
        eps: radius, 0 allowed.
        step: step size; None takes 2.5 * eps / steps.
        steps: number of gradients, >= 0.
        loss: name or function.
        norm: `linf` or `l2`.
        start: `uniform` in the ball, `gaussian` with standard deviation `noise`, `none`, or points (N, ...).
        noise: see `start`.
        restarts: independent starts; among their points the best is kept, by the rule of `keep="best"`.
        keep: `last` or `best` point of each run.
        success: when a sample counts as beaten; labels need none.
        seed: of the start.
        index: (N,) int64 identity of the samples.
        bounds: range of valid inputs, or None.
        mode: `eval` or `keep`.
        check: whether inputs and logits are checked.

    Returns:
        (N, ...) adversarial inputs.
    """
    step = _check_steps(steps, step, eps, restarts)
    if keep not in ("last", "best"):
        raise BadInput(f"keep must be 'last' or 'best', got {keep!r}.")
    with attack_mode(model, mode):
        x, target, index = owned(x, target, index)
        ball = Ball.around(x, eps, norm, bounds, check)
        victim = Victim.of(model, target, loss, success, check)
        begin = _Begin(start, noise, seed, index)
        if restarts == 1 and keep == "last":
            return _climb(victim, ball, target, begin.point(ball, None, 0), steps, step)
        record = Record(x)
        for restart in range(restarts):
            rows = record.standing
            if not len(rows):
                break
            part = ball.take(rows)
            run = _search if keep == "best" else _last
            run(victim, part, target[rows], begin.point(part, rows, restart), steps, step, rows, record)
        return record.x


@dataclass(frozen=True)
class _Begin:
    """How the runs of an attack start."""

    start: str | Tensor
    noise: float
    seed: int
    index: Tensor

    def point(self, ball: Ball, rows: Tensor | None, stream: int) -> Tensor:
        """Where the samples `rows` (None: all) start for the `stream`-th time."""
        start, index = self.start, self.index
        if rows is not None:
            index = index[rows]
            start = start[rows] if isinstance(start, Tensor) else start
        return random_start(ball, start, self.noise, self.seed, index, stream)


def _climb(victim: Victim, ball: Ball, target: Tensor, x: Tensor, steps: int, step: float) -> Tensor:
    """The last point of `steps` steps: no comparison, no copy, no synchronisation."""
    for _ in range(steps):
        x = ball.ascend(x, victim.gradient(x, target)[0], step)
    return x


def _last(
    victim: Victim, ball: Ball, target: Tensor, x: Tensor, steps: int, step: float, rows: Tensor, record: Record
) -> None:
    """Offer the last point to `record`."""
    x = _climb(victim, ball, target, x, steps, step)
    value, logits = victim.judge(x, target)
    record.offer(rows, x, value, victim.beaten(logits, target))


def _search(
    victim: Victim, ball: Ball, target: Tensor, x: Tensor, steps: int, step: float, rows: Tensor, record: Record
) -> None:
    """Offer every point on the way to `record`; go on with the samples `rows` that still stand."""
    for number in range(steps + 1):
        grad = x
        if number < steps:
            grad, value, logits = victim.gradient(x, target)
        else:
            value, logits = victim.judge(x, target)
        beaten = victim.beaten(logits, target)
        record.offer(rows, x, value, beaten)
        if beaten is not None and bool(beaten.any()):
            keep = ~beaten
            rows, x, target, grad, ball = rows[keep], x[keep], target[keep], grad[keep], ball.take(keep)
            if not len(rows):
                return
        if number < steps:
            x = ball.ascend(x, grad, step)


def fgsm(
    model: Model, x: Tensor, target: Tensor, *, eps: float, start: Start | Tensor = "none", **options: Any
) -> Tensor:
    """One step of size eps (Goodfellow et al. 2015); `pgd` explains the arguments.

    A random start with `step=1.25 * eps` is the variant of Wong et al. 2020.
    """
    return pgd(model, x, target, **{"eps": eps, "steps": 1, "step": eps, "start": start, **options})


def cw_margin(model: Model, x: Tensor, target: Tensor, *, eps: float, steps: int = 30, **options: Any) -> Tensor:
    """Ascent of the margin max_{k != y} z_k - z_y of Carlini and Wagner 2017 inside a ball; arguments as in `pgd`.

    What robustness papers report as "CW-inf". Keeps the best point unless `keep` says otherwise.
    """
    return pgd(model, x, target, **{"eps": eps, "steps": steps, "loss": "margin", "keep": "best", **options})


def smooth(
    model: Model,
    x: Tensor,
    target: Tensor,
    *,
    eps: float,
    sizes: Sequence[int] = SIZES,
    sigmas: Sequence[float] = SIGMAS,
    bounds: tuple[float, float] | None = (0.0, 1.0),
    mode: str = "eval",
    check: bool = True,
    **options: Any,
) -> Tensor:
    """Smooth perturbations of series (Han et al. 2020): PGD on a signal d, of which x + mean_i d * K_i is shown.

    K_i are Gaussian filters, so no point moves by more than eps, and what a signal's noise never looks like, one point
    up and the next one down, cannot arise.

    Args:
        model: returns logits (N, K).
        x: (N, C, L) clean series.
        target: labels (N,) or what `loss` takes.
        eps: radius in the maximum norm.
        sizes: points of the filters, odd numbers.
        sigmas: their standard deviations in points.
        bounds: range of valid inputs, or None.
        mode: `eval` or `keep`.
        check: whether inputs and logits are checked.
        options: others of `pgd`: `step`, `steps`, `loss`, `start`, `seed`, `index`.

    Returns:
        (N, C, L) adversarial series.

    Raises:
        BadInput: for other inputs than series, or filters that cannot be.
    """
    if x.ndim != 3:
        raise BadInput(f"smooth perturbs series (N, C, L), got {tuple(x.shape)}.")
    if refused := {"norm", "restarts", "keep"} & set(options):
        raise BadInput(f"smooth takes the last point of one run in linf: leave out {', '.join(sorted(refused))}.")
    with attack_mode(model, mode):
        centre, labels, index = owned(x, target, options.pop("index", None))
        ball = Ball.around(centre, eps, "linf", bounds, check)
        kernel = gaussian_filters(sizes, sigmas).to(centre)

        def shown(d: Tensor) -> Tensor:
            moved = torch.maximum(centre + filtered(d, kernel), torch.as_tensor(ball.low).to(centre))
            return torch.minimum(moved, torch.as_tensor(ball.high).to(centre))

        start = torch.zeros_like(centre)
        d = pgd(
            lambda d: model(shown(d)), start, labels, eps=eps, bounds=None, mode="keep", check=check, index=index,
            **options,
        )  # fmt: skip
        with torch.no_grad():
            return shown(d)


def transfer(
    model: Model,
    x: Tensor,
    target: Tensor,
    *,
    surrogates: Sequence[Model],
    attack: Callable[..., Tensor] = pgd,
    eps: float,
    mode: str = "eval",
    check: bool = True,
    **options: Any,
) -> Tensor:
    """Examples made on other models: no gradient of `model` is used, only its verdict on each surrogate's example.

    Args:
        model: the model to be fooled.
        x: (N, ...) clean inputs.
        target: labels (N,).
        surrogates: models that the examples are made on, one or more.
        attack: any function of this module.
        eps: radius.
        mode: `eval` or `keep`, for all models.
        check: whether inputs and logits are checked.
        options: for `attack`.

    Returns:
        (N, ...) per sample the first surrogate's example that fools `model`, otherwise that of highest cross-entropy.

    Raises:
        BadInput: without surrogates.
    """
    if not surrogates:
        raise BadInput("transfer needs at least one surrogate model.")
    with torch.inference_mode(False):
        x, target, index = owned(x, target, options.pop("index", None))
        record = Record(x)
        for surrogate in surrogates:
            rows = record.standing
            if not len(rows):
                break
            own = {**options, "index": index[rows]}
            attacked = attack(surrogate, x[rows], target[rows], eps=eps, mode=mode, check=check, **own)
            with attack_mode(model, mode):
                attacked, some, _ = owned(attacked, target[rows], None)
                victim = Victim.of(model, some, "ce", None, check)
                value, logits = victim.judge(attacked, some)
                record.offer(rows, attacked, value, victim.beaten(logits, some))
        return record.x


def uniform_noise(
    x: Tensor,
    *,
    eps: float,
    norm: Norm = "linf",
    seed: int = 0,
    index: Tensor | None = None,
    bounds: tuple[float, float] | None = (0.0, 1.0),
    check: bool = True,
) -> Tensor:
    """A random point (N, ...) of each sample's ball: what every attack must beat."""
    with torch.inference_mode(False), torch.no_grad():
        x, _, index = owned(x, x, index)
        return random_start(Ball.around(x, eps, norm, bounds, check), "uniform", 0.0, seed, index, 0)


def input_gradient(
    model: Model, x: Tensor, target: Tensor, *, loss: str | Objective = "ce", mode: str = "eval", check: bool = True
) -> Tensor:
    """Gradient (N, ...) of the objective's sum with respect to the input; nothing else is differentiated."""
    with attack_mode(model, mode):
        x, target, _ = owned(x, target, None)
        return Victim.of(model, target, loss, None, check).gradient(x, target)[0]


def _check_steps(steps: int, step: float | None, eps: float, restarts: int) -> float:
    if not isinstance(steps, int) or steps < 0:
        raise BadInput(f"steps must be a whole number of at least 0, got {steps!r}.")
    if restarts < 1:
        raise BadInput(f"restarts must be at least 1, got {restarts}.")
    if step is None:
        return 2.5 * eps / max(1, steps)
    if step < 0:
        raise BadInput(f"step must be at least 0, got {step}.")
    return step
