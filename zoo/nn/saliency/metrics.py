"""Measures of saliency maps; each returns one value per image (N,)."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo import checks
from zoo.errors import BadInput
from zoo.nn.attacks import Model, attack_mode
from zoo.nn.saliency.maps import blurred

__all__ = ["deletion", "foreground", "gini", "insertion", "mass_inside", "rank_correlation"]


def foreground(x: Tensor) -> Tensor:
    """Where an image is not exactly black, bool (N, H, W): a free mask of the object where the background is zero."""
    return (x > 0).any(1)


def mass_inside(maps: Tensor, mask: Tensor) -> Tensor:
    """Share of the absolute mass of maps (N, H, W) that lies inside a mask bool (N, H, W); 0 for maps of zeros."""
    mass = maps.abs()
    return (mass * mask).flatten(1).sum(1) / mass.flatten(1).sum(1).clamp_min(torch.finfo(maps.dtype).tiny)


def gini(maps: Tensor) -> Tensor:
    """Gini coefficient of absolute values: 0 where all are equal, (n - 1) / n where all mass is in one of n pixels."""
    values = maps.abs().flatten(1).sort(1).values
    count = values.shape[1]
    weights = 2 * torch.arange(1, count + 1, device=maps.device, dtype=values.dtype) - count - 1
    return (values @ weights) / (count * values.sum(1).clamp_min(torch.finfo(maps.dtype).tiny))


def ranks(values: Tensor) -> Tensor:
    """Ranks (N, n) of each row from 1, equal values sharing the mean of theirs."""
    wide, tall = values[:, None, :], values[:, :, None]
    return (wide < tall).sum(2) + ((wide == tall).sum(2) + 1) / 2


def rank_correlation(one: Tensor, other: Tensor) -> Tensor:
    """Spearman's correlation of two maps of each image; 0 where one of them is constant.

    Args:
        one: (N, ...); memory grows with the square of the values of an image.
        other: the same shape.
    """
    if one.shape != other.shape:
        raise BadInput(f"expected maps of one shape, got {tuple(one.shape)} and {tuple(other.shape)}.")
    pair = [ranks(maps.flatten(1)) for maps in (one, other)]
    a, b = (r - r.mean(1, keepdim=True) for r in pair)
    scale = (a.square().sum(1) * b.square().sum(1)).sqrt()
    return torch.where(scale > 0, (a * b).sum(1) / scale.clamp_min(1e-12), torch.zeros_like(scale))


def _curve(model: Model, begin: Tensor, end: Tensor, target: Tensor, maps: Tensor, steps: int) -> Tensor:
    """Area under the probability of the target while the pixels of `begin` become those of `end`, by falling saliency.

    By the trapezoidal rule over `steps` + 1 images, as a mean in [0, 1].
    """
    checks.at_least("steps", steps, 1)
    if maps.shape != begin.shape[:1] + begin.shape[2:]:
        raise BadInput(f"maps: expected (N, H, W) of the images {tuple(begin.shape)}, got {tuple(maps.shape)}.")
    order = maps.flatten(1).argsort(dim=1, descending=True, stable=True)
    place = torch.empty_like(order).scatter_(
        1, order, torch.arange(order.shape[1], device=order.device).expand_as(order)
    )
    place = place.view_as(maps)[:, None]
    with attack_mode(model), torch.no_grad():
        total = torch.zeros(len(begin), device=begin.device)
        for number in range(steps + 1):
            changed = torch.where(place < number * order.shape[1] / steps, end, begin)
            p = model(changed).float().softmax(1).gather(1, target[:, None])[:, 0]
            total += p * (0.5 if number in (0, steps) else 1.0)
    return total / steps


def deletion(model: Model, x: Tensor, target: Tensor, maps: Tensor, steps: int = 28) -> Tensor:
    """Area under p_y while pixels turn black, the most salient ones first (Petsiuk, Das, Saenko 2018); low is good.

    Args:
        model: returns logits (N, K).
        x: images (N, C, H, W).
        target: classes (N,).
        maps: (N, H, W).
        steps: of the curve.
    """
    return _curve(model, x, torch.zeros_like(x), target, maps, steps)


def insertion(model: Model, x: Tensor, target: Tensor, maps: Tensor, steps: int = 28) -> Tensor:
    """Area under p_y while pixels of the blurred image become those of x, the most salient ones first; high is good.

    Args:
        model: returns logits (N, K).
        x: images (N, C, H, W).
        target: classes (N,).
        maps: (N, H, W).
        steps: of the curve.
    """
    return _curve(model, blurred(x), x, target, maps, steps)
