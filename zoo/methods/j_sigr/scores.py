"""What a test measures besides accuracy: how large logits are for their slope, and how readable the gradient is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.nn.attacks import LOSSES, Model, attack_mode, input_gradient, uniform_noise
from zoo.nn.saliency import (
    deletion,
    foreground,
    gini,
    gradient_saliency,
    insertion,
    mass_inside,
    perturbation_saliency,
    rank_correlation,
)

__all__ = ["ATTACKED_MAPS", "LINEAR", "MAPS", "linear_scores", "map_scores"]

LINEAR = ("logit_norm", "linear_radius")
MAPS = ("mass_inside", "rank_correlation", "gini", "deletion", "insertion", "stability_noise")
ATTACKED_MAPS = ("mass_inside_attacked", "rank_correlation_attacked", "stability_attacked")

NOISE = 0.05
"""Radius of the uniform noise that maps should not mind."""


def linear_scores(model: Model, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """`logit_norm` ||f(x)||, and `linear_radius` (z_y - z_j) / ||d(z_y - z_j)/dx||, j the next class; each (N,).

    The second is the distance to the next class if the network were linear. A network that merely makes all logits
    smaller has a smaller Jacobian too, and the same radius.
    """
    slope = input_gradient(model, x, y, loss="margin", check=False).flatten(1).norm(dim=1)
    with attack_mode(model), torch.no_grad():
        z = model(x).float()
        margin = -LOSSES["margin"](z, y)
    return {"logit_norm": z.norm(dim=1), "linear_radius": margin / slope.clamp_min(1e-12)}


def map_scores(
    model: Model, x: Tensor, index: Tensor, attacked: Tensor | None = None, **options: Any
) -> dict[str, Tensor]:
    """Measures of the gradient's map for the predicted class, by name, each (N,).

    Ranks are compared on the grid of the perturbation, where gradients are averaged.

    Args:
        model: returns logits.
        x: (N, C, H, W).
        index: (N,) identity of the samples, to which the noise belongs.
        attacked: x' (N, C, H, W), made on other networks; None for no such measures.
        options: of `perturbation_saliency`.
    """
    label, maps, grid, pooled = _maps(model, x, options)
    _, _, _, shaken = _maps(model, uniform_noise(x, eps=NOISE, index=index, check=False), options, label)
    measured = {
        "mass_inside": mass_inside(maps, foreground(x)),
        "rank_correlation": rank_correlation(pooled, grid),
        "gini": gini(maps),
        "deletion": deletion(model, x, label, maps),
        "insertion": insertion(model, x, label, maps),
        "stability_noise": rank_correlation(pooled, shaken),
    }
    if attacked is not None:
        _, maps, grid, changed = _maps(model, attacked, options)
        measured |= {
            "mass_inside_attacked": mass_inside(maps, foreground(x)),  # the attack fills the background with grey
            "rank_correlation_attacked": rank_correlation(changed, grid),
            "stability_attacked": rank_correlation(pooled, changed),
        }
    return measured


def _maps(
    model: Model, x: Tensor, options: dict[str, Any], label: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The class explained, the gradient's map (N, H, W), the perturbation's grid, and the gradient on that grid."""
    if label is None:
        with attack_mode(model), torch.no_grad():
            label = model(x).argmax(1)
    maps, grid = gradient_saliency(model, x, label), perturbation_saliency(model, x, **options)
    return label, maps, grid, F.adaptive_avg_pool2d(maps[:, None], (grid.shape[1], grid.shape[2]))[:, 0]
