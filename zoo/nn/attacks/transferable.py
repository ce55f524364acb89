"""Attacks whose examples fool other networks, too: by momentum, diverse inputs, smoothed gradients, ensembles.

    x_adv = mi_fgsm(surrogate, x, y, eps=0.1)                       # Dong et al. 2018
    x_adv = mi_fgsm([first, second], x, y, eps=0.1)                 # on the mean of their logits
    x_adv = di_fgsm(surrogate, x, y, eps=0.1)                       # Xie et al. 2019
    x_adv = ti_fgsm(surrogate, x, y, eps=0.1)                       # Dong, Pang, Su, Zhu 2019
    x_adv = transfer(victim, x, y, surrogates=[...], attack=mi_fgsm, eps=0.1)     # the first that fools the victim

All go `steps` steps of size eps / steps from the input itself, along the sign of the momentum

    g <- momentum g + grad / mean|grad|,      x' <- project(x' + step sign(g))

Diversity differentiates the model on an input that is made smaller at random and padded; translation smooths the
gradient with a Gaussian before it is normalised. Both can be combined by the arguments of `mi_fgsm`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo import checks
from zoo.errors import BadInput
from zoo.nn.attacks.core import Ball, Model, Norm, Objective, Victim, attack_mode, owned, per_sample
from zoo.nn.attacks.noise import uniform

__all__ = ["di_fgsm", "diverse", "gaussian_kernel", "mean_logits", "mi_fgsm", "ti_fgsm"]


def mean_logits(models: Sequence[Model], weights: Sequence[float] | None = None) -> Model:
    """A function that returns the weighted mean of the logits of several models.

    Args:
        models: one or more, of the same classes.
        weights: of each; None: equal ones. They are divided by their sum.

    Raises:
        BadInput: without models, or with other weights than models.
    """
    if not models:
        raise BadInput("an ensemble needs at least one model.")
    given = [1.0] * len(models) if weights is None else [float(w) for w in weights]
    if len(given) != len(models) or min(given) < 0 or not sum(given) > 0:
        raise BadInput(f"weights: expected {len(models)} numbers of at least 0 and not all 0, got {given}.")

    def logits(x: Tensor) -> Tensor:
        parts = [model(x).float() * (w / sum(given)) for model, w in zip(models, given, strict=True)]
        shapes = {tuple(part.shape) for part in parts}
        if len(shapes) > 1:
            raise BadInput(f"the models of an ensemble must have the same classes, got logits {sorted(shapes)}.")
        return torch.stack(parts).sum(0)

    return logits


def diverse(x: Tensor, probability: float, rate: float, seed: int, index: Tensor, stream: int) -> Tensor:
    """Images made smaller at random and padded with zeros at random, with a probability; differentiable.

    Sizes are whole numbers from `rate` times the side to the side, places uniform, both drawn for each sample.

    Args:
        x: (N, C, H, W).
        probability: that an image is changed.
        rate: smallest share of the side, in (0, 1].
        seed: of the run.
        index: (N,) int64 identity of the samples.
        stream: number of the step.
    """
    height, width = x.shape[2:]
    draws = uniform((4,), seed, index, stream).to(x.device)
    grid, inside = [], []
    for axis, length in enumerate((height, width)):
        least = max(1, int(rate * length))
        size = least + (draws[:, 0] * (length - least + 1)).floor()  # one draw for both sides
        begin = (draws[:, 1 + axis] * (length - size + 1)).floor()
        place = torch.arange(length, device=x.device)[None] - begin[:, None]
        inside.append((place >= 0) & (place < size[:, None]))
        grid.append((place + 0.5) / size[:, None] * 2 - 1)
    down = grid[0][:, :, None].expand(-1, -1, width)
    right = grid[1][:, None, :].expand(-1, height, -1)
    points = torch.stack([right, down], 3).to(x.dtype)
    small = F.grid_sample(x, points, mode="bilinear", padding_mode="border", align_corners=False)
    small = small * (inside[0][:, :, None] & inside[1][:, None, :])[:, None]
    return torch.where(per_sample(draws[:, 3] < probability, x), small, x)


def gaussian_kernel(size: int, reach: float = 3.0) -> Tensor:
    """A Gaussian of `size` x `size` places that span `reach` standard deviations to each side, of sum 1."""
    if size < 1 or size % 2 == 0:
        raise BadInput(f"kernel: expected an odd number of pixels, got {size}.")
    line = torch.exp(-torch.linspace(-reach, reach, size).square() / 2) if size > 1 else torch.ones(1)
    kernel = line[:, None] * line[None]
    return kernel / kernel.sum()


def _smoothed(grad: Tensor, kernel: Tensor) -> Tensor:
    channels = grad.shape[1]
    weight = kernel.to(grad).expand(channels, 1, *kernel.shape)
    return F.conv2d(grad, weight, padding=kernel.shape[0] // 2, groups=channels)


def mi_fgsm(
    model: Model | Sequence[Model], x: Tensor, target: Tensor, *, eps: float, steps: int = 10,
    step: float | None = None, momentum: float = 1.0, diversity: float = 0.0, rate: float = 0.9, kernel: int = 0,
    weights: Sequence[float] | None = None, loss: str | Objective = "ce", norm: Norm = "linf", seed: int = 0,
    index: Tensor | None = None, bounds: tuple[float, float] | None = (0.0, 1.0), mode: str = "eval",
    check: bool = True,
) -> Tensor:  # fmt: skip
    """Momentum iterative FGSM, with diverse inputs and smoothed gradients if asked for.

    Args:
        model: returns logits (N, K); or several models, whose logits are averaged.
        x: (N, ...) clean inputs, images for `diversity` and `kernel`.
        target: labels (N,) or what `loss` takes.
        eps: radius in the maximum norm.
        steps: number of gradients.
        step: size; None takes eps / steps.
        momentum: share of the old direction; 0 is iterative FGSM.
        diversity: probability that an input is made smaller and padded before it is differentiated.
        rate: smallest side of such an input, as a share.
        kernel: side of the Gaussian that smooths the gradient, an odd number; 0 for none.
        weights: of the models.
        loss: name or function.
        norm: `linf`; there is no other.
        seed: of the diversity.
        index: (N,) int64 identity of the samples.
        bounds: range of valid inputs, or None.
        mode: `eval` or `keep`, for all models.
        check: whether inputs and logits are checked.

    Returns:
        (N, ...) the last point.
    """
    checks.at_least("steps", steps, 1)
    checks.at_least("momentum", momentum, 0)
    _check_kind(x, norm, diversity, rate, kernel)
    smooth = gaussian_kernel(kernel) if kernel else None
    models = list(model) if isinstance(model, Sequence) else [model]
    answer = mean_logits(models, weights) if len(models) != 1 else models[0]
    size = eps / steps if step is None else step
    with ExitStack() as stack:
        for each in models:
            stack.enter_context(attack_mode(each, mode))
        x, target, index = owned(x, target, index)
        ball = Ball.around(x, eps, norm, bounds, check)
        now = {"number": 0}

        def seen(images: Tensor) -> Tensor:
            return answer(diverse(images, diversity, rate, seed, index, now["number"]) if diversity else images)

        victim = Victim.of(seen, target, loss, None, check)
        direction = torch.zeros_like(x)
        for number in range(steps):
            now["number"] = number
            grad = victim.gradient(x, target)[0]
            grad = _smoothed(grad, smooth) if smooth is not None else grad
            mean = grad.flatten(1).abs().mean(1).clamp_min(torch.finfo(grad.dtype).tiny)
            direction = momentum * direction + grad / per_sample(mean, grad)
            x = ball.ascend(x, direction, size)
        return x


def _check_kind(x: Tensor, norm: str, diversity: float, rate: float, kernel: int) -> None:
    if norm != "linf":
        raise BadInput(f"mi_fgsm needs norm='linf', got {norm!r}.")
    checks.share_of_one("diversity", diversity)
    if not 0 < rate <= 1:
        raise BadInput(f"rate: expected a share in (0, 1], got {rate}.")
    if (diversity or kernel) and x.ndim != 4:
        raise BadInput(f"diversity and kernel need images (N, C, H, W), got {tuple(x.shape)}.")


def di_fgsm(model: Model | Sequence[Model], x: Tensor, target: Tensor, *, eps: float, **options: Any) -> Tensor:
    """`mi_fgsm` on inputs of which half are made smaller at random in each step (Xie et al. 2019)."""
    return mi_fgsm(model, x, target, eps=eps, **{"diversity": 0.5, **options})


def ti_fgsm(model: Model | Sequence[Model], x: Tensor, target: Tensor, *, eps: float, **options: Any) -> Tensor:
    """`mi_fgsm` along gradients that are smoothed with a Gaussian (Dong, Pang, Su, Zhu 2019).

    Its side is 15 pixels in the paper, for images of 299; here a quarter of the image's side, at most 15.
    """
    side = min(15, max(3, min(x.shape[2:]) // 4 | 1)) if x.ndim == 4 else 3
    return mi_fgsm(model, x, target, eps=eps, **{"kernel": side, **options})
