"""What all attacks share: the objective, the victim, the ball around the inputs, and the record of the best points."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.errors import BadInput, UnknownName, nearest
from zoo.nn.attacks import noise as numbers

__all__ = [
    "LOSSES",
    "Ball",
    "Model",
    "Norm",
    "Objective",
    "Record",
    "Success",
    "Victim",
    "attack_mode",
    "check_logits",
    "objective",
    "owned",
    "random_start",
]

Model = Callable[[Tensor], Tensor]
"""Anything that maps inputs (N, ...) to logits (N, K): a module, a ZooModule, a function."""

Objective = Callable[[Tensor, Tensor], Tensor]
"""What the attacker increases: (logits (N, K), target (N, ...)) -> one value per sample (N,)."""

Success = Callable[[Tensor, Tensor], Tensor]
"""(logits, target) -> bool (N,): which samples are beaten."""

Norm = Literal["linf", "l2"]

_PROBABILITIES = 1e-3
"""How far a row may be from summing to 1 and still be taken for probabilities; half precision rounds by less."""


# Objectives -------------------------------------------------------------------------------------------------------


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy per sample (N,) against labels (N,) or distributions (N, K)."""
    return F.cross_entropy(logits, target, reduction="none")


def kl(logits: Tensor, target: Tensor) -> Tensor:
    """KL(target || softmax(logits)) per sample (N,), for distributions `target` (N, K)."""
    log_q = logits.log_softmax(1)
    return (torch.xlogy(target, target) - target * log_q).sum(1)


def margin(logits: Tensor, target: Tensor) -> Tensor:
    """Largest other logit minus the true one (N,), Carlini and Wagner's f6 without its cut-off; positive: fooled."""
    true = logits.gather(1, target[:, None])[:, 0]
    return logits.scatter(1, target[:, None], -math.inf).amax(1) - true


def dlr(logits: Tensor, target: Tensor) -> Tensor:
    """Difference of logits ratio (N,), eq. 6 of Croce and Hein 2020: the margin over z_(1) - z_(3); in (-1, 1].

    Raises:
        BadInput: with fewer than three classes.
    """
    if logits.shape[1] < 3:
        raise BadInput(f"The DLR loss needs at least 3 classes, the model has {logits.shape[1]}: use loss='margin'.")
    top = logits.topk(3, dim=1).values
    return margin(logits, target) / (top[:, 0] - top[:, 2] + 1e-12)


def dlr_targeted(logits: Tensor, target: Tensor) -> Tensor:
    """Targeted DLR (N,), eq. 7 of Croce and Hein 2020; `target` (N, 2) holds the true and the wanted class.

    Raises:
        BadInput: with fewer than four classes.
    """
    if logits.shape[1] < 4:
        raise BadInput(
            f"The targeted DLR loss needs at least 4 classes, the model has {logits.shape[1]}: use loss='dlr'."
        )
    top = logits.topk(4, dim=1).values
    true, wanted = logits.gather(1, target).unbind(1)
    return (wanted - true) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + 1e-12)


LOSSES: dict[str, Objective] = {
    "ce": cross_entropy,
    "kl": kl,
    "margin": margin,
    "dlr": dlr,
    "dlr-targeted": dlr_targeted,
}
"""Objectives by name; a callable of the same form may be given instead."""


def objective(loss: str | Objective) -> Objective:
    """Resolve the name of an objective.

    Raises:
        UnknownName: if there is none of that name.
    """
    if callable(loss):
        return loss
    if loss not in LOSSES:
        raise UnknownName(f"There is no loss {loss!r}: {', '.join(LOSSES)}, or a function.{nearest(loss, LOSSES)}")
    return LOSSES[loss]


def misclassified(logits: Tensor, target: Tensor) -> Tensor:
    """Whether the largest logit is another class than `target` (N,), or than its first column (N, 2)."""
    return logits.argmax(1) != (target if target.ndim == 1 else target[:, 0])


# The victim -------------------------------------------------------------------------------------------------------


@contextmanager
def attack_mode(model: Model, mode: str = "eval") -> Iterator[None]:
    """Gradients on and inference mode off inside; the network in evaluation mode, and every part's own mode back after.

    Args:
        model: a module, a method of one, or any other callable, whose mode is its owner's affair.
        mode: `eval`, or `keep` to leave the mode alone.
    """
    if mode not in ("eval", "keep"):
        raise BadInput(f"mode must be 'eval' or 'keep', got {mode!r}.")
    owner = model if isinstance(model, nn.Module) else getattr(model, "__self__", None)
    training: list[nn.Module] = []
    if mode == "eval" and isinstance(owner, nn.Module):
        training = [part for part in owner.modules() if part.training]
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        try:
            for part in training:  # not owner.eval(): a module may override it, and the way back must be exact
                part.training = False
            yield
        finally:
            for part in training:
                part.training = True


def check_logits(logits: Any, count: int) -> None:
    """Check that a model returned logits of `count` samples.

    Raises:
        BadInput: if it is no (N, K) float tensor, not finite, or if the rows are probabilities.
    """
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != count or not logits.is_floating_point():
        got = f"a tensor of shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise BadInput(
            f"The model must return one float tensor of logits ({count}, classes), it returned {got}. "
            "Wrap it: lambda x: model(x)['logits'], for example."
        )
    if not bool(logits.isfinite().all()):
        raise BadInput("The model returned logits that are not finite; attacks on it would mean nothing.")
    if logits.shape[1] < 2:
        raise BadInput("The model returns a single value per sample; attacks need one logit per class.")
    values = logits.detach().float()
    if bool((values >= 0).all()) and bool(((values.sum(1) - 1).abs() < _PROBABILITIES).all()):
        raise BadInput(
            "The model returns probabilities (rows are non-negative and sum to 1), attacks need logits: a softmax "
            "hides the gradient and makes a model look robust. Remove the final softmax, or return its logarithm."
        )


@dataclass
class Victim:
    """A model under attack.

    Attributes:
        model: returns logits.
        loss: what the attacker increases.
        success: which samples are beaten; None if the objective knows no such thing (soft targets).
        check: whether the next logits are checked.
    """

    model: Model
    loss: Objective
    success: Success | None
    check: bool = True

    @classmethod
    def of(
        cls, model: Model, target: Tensor, loss: str | Objective, success: Success | None = None, check: bool = True
    ) -> Victim:
        """Labels define success as misclassification; with other targets it must be given, or there is none."""
        if success is None and not target.is_floating_point():
            success = misclassified
        return cls(model, objective(loss), success, check)

    def logits(self, x: Tensor) -> Tensor:
        """Logits (N, K) in at least single precision."""
        logits = self.model(x)
        if self.check:
            check_logits(logits, len(x))
            self.check = False
        return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits

    def gradient(self, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradient of the objective with respect to `x`, the objective (N,) and the logits, both detached.

        Parameters are neither given gradients nor changed in any way: `autograd.grad` computes the input's alone.

        Raises:
            BadInput: if the logits do not depend on the input in a differentiable way.
        """
        x = x.detach().requires_grad_()
        logits = self.logits(x)
        with torch.autocast(x.device.type, enabled=False):
            value = self.loss(logits, target)
            if value.shape != logits.shape[:1]:
                raise BadInput(
                    f"The loss must return one value per sample ({len(x)},), it returned {tuple(value.shape)}: use "
                    "reduction='none'."
                )
            if not value.requires_grad:
                raise BadInput(_NO_GRADIENT)
            try:
                (grad,) = torch.autograd.grad(value.sum(), x)
            except RuntimeError as error:
                if "not have been used" in str(error):
                    raise BadInput(_NO_GRADIENT) from error
                raise
        return grad, value.detach(), logits.detach()

    @torch.no_grad()
    def judge(self, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Objective (N,) and logits (N, K), without gradients."""
        logits = self.logits(x)
        with torch.autocast(x.device.type, enabled=False):
            return self.loss(logits, target), logits

    def beaten(self, logits: Tensor, target: Tensor) -> Tensor | None:
        """Which samples are beaten, bool (N,)."""
        return None if self.success is None else self.success(logits, target)


_NO_GRADIENT = (
    "The model's output has no gradient with respect to its input (a detach, no_grad or a discrete step in it?). "
    "Gradient attacks cannot work on it; `square` needs none."
)


# The ball ---------------------------------------------------------------------------------------------------------


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """View (N,) as (N, 1, ...) of `like`'s rank."""
    return values.view(-1, *[1] * (like.ndim - 1))


def l2_norm(x: Tensor) -> Tensor:
    """Euclidean norm of each sample, shaped (N, 1, ...)."""
    return per_sample(torch.linalg.vector_norm(x.flatten(1), dim=1), x)


def unit(x: Tensor) -> Tensor:
    """Each sample divided by its Euclidean norm; zero stays zero."""
    return x / l2_norm(x).clamp_min(1e-12)


@dataclass
class Ball:
    """All points within `eps` of `centre` that lie inside the bounds.

    Attributes:
        centre: (N, ...) the clean inputs.
        eps: radius, >= 0, in units of the input.
        norm: `linf` or `l2`.
        low: smallest allowed value, elementwise; for linf already cut to the ball.
        high: largest allowed value.
    """

    centre: Tensor
    eps: float
    norm: Norm
    low: Tensor | float
    high: Tensor | float

    @classmethod
    def around(cls, x: Tensor, eps: float, norm: str, bounds: tuple[float, float] | None, check: bool = True) -> Ball:
        """Build it.

        Raises:
            BadInput: naming the argument, if eps, norm, bounds or the inputs cannot be.
        """
        if norm not in ("linf", "l2"):
            raise BadInput(f"norm must be 'linf' or 'l2', got {norm!r}.")
        low, high = bounds if bounds is not None else (-math.inf, math.inf)
        if not low < high:
            raise BadInput(f"bounds must be (low, high) with low < high, got {bounds}.")
        check_eps(eps, norm, low, high, x)
        if check:
            check_range(x, low, high)
        kind: Norm = "linf" if norm == "linf" else "l2"
        if kind == "l2":
            return cls(x, eps, kind, low, high)
        return cls(x, eps, kind, (x - eps).clamp_(min=low), (x + eps).clamp_(max=high))

    def take(self, keep: Tensor) -> Ball:
        """The ball of some of the samples."""
        if isinstance(self.low, Tensor) and isinstance(self.high, Tensor):
            return replace(self, centre=self.centre[keep], low=self.low[keep], high=self.high[keep])
        return replace(self, centre=self.centre[keep])

    def project(self, x: Tensor) -> Tensor:
        """Nearest point inside the ball, then inside the bounds; overwrites `x`.

        Clipping to bounds that hold the centre never leads out of the ball again.
        """
        if self.norm == "l2":
            delta = x - self.centre
            x = self.centre + delta * (self.eps / l2_norm(delta).clamp_min(1e-12)).clamp(max=1)
        if isinstance(self.low, Tensor) and isinstance(self.high, Tensor):
            return x.clamp_(self.low, self.high)
        return x.clamp_(float(self.low), float(self.high))

    def direction(self, grad: Tensor) -> Tensor:
        """Steepest ascent of unit length: the sign, or the normalised gradient."""
        return grad.sign() if self.norm == "linf" else unit(grad)

    def ascend(self, x: Tensor, grad: Tensor, step: float | Tensor) -> Tensor:
        """One projected step; `step` is a number or (N, 1, ...)."""
        if isinstance(step, Tensor):
            return self.project(x + step * self.direction(grad))
        return self.project(torch.add(x, self.direction(grad), alpha=step))


def check_eps(eps: float, norm: str, low: float, high: float, x: Tensor) -> None:
    """Refuse a radius that is negative, not finite, or larger than the whole input range.

    Raises:
        BadInput: with the likely intention.
    """
    if not (isinstance(eps, (int, float)) and math.isfinite(eps) and eps >= 0):
        raise BadInput(f"eps must be a finite number of at least 0, got {eps!r}.")
    widest = (high - low) * (1.0 if norm == "linf" else math.sqrt(max(1, x[:1].numel())))
    if eps > widest * (1 + 1e-6):
        hint = f" Pixels are in [{low:g}, {high:g}]: is {eps:g}/255 = {eps / 255:.4g} meant?" if norm == "linf" else ""
        raise BadInput(f"eps = {eps:g} is outside the input range: at most {widest:g} in {norm}.{hint}")


def check_range(x: Tensor, low: float, high: float) -> None:
    """Refuse inputs outside the bounds, or not finite.

    Raises:
        BadInput: with the range of the values.
    """
    if x.numel() == 0:
        return
    least, most = (value.item() for value in x.aminmax())
    if not (least >= low and most <= high and math.isfinite(least) and math.isfinite(most)):
        hint = ""
        if (low, high) == (0.0, 1.0):
            hint = (
                " Divide by 255."
                if least >= 0 and 1 < most <= 255
                else " Put mean and standard deviation into the model, so that eps is in pixel units."
            )
        raise BadInput(f"Inputs must lie in [{low:g}, {high:g}], got values from {least:.4g} to {most:.4g}.{hint}")


def owned(x: Tensor, target: Tensor, index: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Ordinary detached tensors of the arguments: those born in inference mode cannot take part in a backward pass.

    Returns:
        x (N, ...) in at least single precision, target, and index (N,), positions where it was None.

    Raises:
        BadInput: if x is no batch of floats, or if the lengths differ.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim < 2:
        got = f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise BadInput(f"x must be a batch of float inputs (N, ...), got {got}.")
    if not isinstance(target, Tensor) or target.ndim < 1 or len(target) != len(x):
        got = str(tuple(target.shape)) if isinstance(target, Tensor) else type(target).__name__
        raise BadInput(f"target must be a tensor with one entry for each of the {len(x)} inputs, got {got}.")
    if index is None:
        index = torch.arange(len(x), device=x.device)
    elif index.shape != (len(x),):
        raise BadInput(f"index must be ({len(x)},) int64, got {tuple(index.shape)}.")
    x, target = x.detach(), target.detach().to(x.device)
    x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    return _ordinary(x), _ordinary(target), _ordinary(index.to(x.device))


def _ordinary(x: Tensor) -> Tensor:
    return x.clone() if x.is_inference() else x


def random_start(ball: Ball, start: str | Tensor, noise: float, seed: int, index: Tensor, stream: int) -> Tensor:
    """Where an attack begins (N, ...), inside the ball and a tensor of its own.

    Args:
        ball: around the clean inputs.
        start: `uniform` in the ball, `gaussian`, `none`, or points (N, ...).
        noise: standard deviation of `gaussian`.
        seed: of the run.
        index: (N,) identity of the samples.
        stream: number of the restart.

    Raises:
        BadInput: if there is no such start, or if points have another shape.
    """
    x = ball.centre
    shape = x.shape[1:]
    if isinstance(start, Tensor):
        if start.shape != x.shape:
            raise BadInput(f"start must have the shape of x {tuple(x.shape)}, got {tuple(start.shape)}.")
        return ball.project(start.detach().to(x, copy=True))
    if start == "none":
        return x.clone()
    if start == "gaussian":
        return ball.project(x + noise * numbers.gaussian(shape, seed, index, stream).to(x))
    if start != "uniform":
        raise BadInput(f"start must be 'uniform', 'gaussian', 'none' or a tensor, got {start!r}.")
    if ball.norm == "linf":
        return ball.project(x + ball.eps * (2 * numbers.uniform(shape, seed, index, stream) - 1).to(x))
    direction = unit(numbers.gaussian(shape, seed, index, stream))
    radius = numbers.uniform((1,), seed, index, _RADIUS + stream)[:, 0] ** (1 / max(1, shape.numel()))
    return ball.project(x + ball.eps * (per_sample(radius, x) * direction).to(x))


_RADIUS = 1 << 20
"""Stream of the radius, far from those of the directions."""


# The best points --------------------------------------------------------------------------------------------------


class Record:
    """Best point of each sample so far: its first one that beats the victim, otherwise that of highest objective.

    A beaten sample is final, which is why leaving it out of all further passes changes no result.

    Args:
        x: (N, ...) what is returned for samples without any point.
    """

    def __init__(self, x: Tensor) -> None:
        self.x = x.clone()
        self.value = x.new_full((len(x),), -math.inf)
        self.beaten = torch.zeros(len(x), dtype=torch.bool, device=x.device)

    @property
    def standing(self) -> Tensor:
        """Positions (M,) of samples that are not beaten."""
        return (~self.beaten).nonzero()[:, 0]

    def offer(self, rows: Tensor, x: Tensor, value: Tensor, beaten: Tensor | None) -> None:
        """Consider a point for each of the standing samples `rows`."""
        better = value > self.value[rows]
        if beaten is not None:
            better = better | beaten
            self.beaten[rows] = beaten
        chosen = rows[better]
        self.x[chosen] = x[better]
        self.value[chosen] = value[better].to(self.value.dtype)
