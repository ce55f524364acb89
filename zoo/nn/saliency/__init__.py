"""Saliency: which pixels an answer depends on, and how good such maps are.

    S = perturbation_saliency(model, images, spacing=4)      # (N, h, w): the answer's change where a place is blurred
    maps = enlarged(S, images.shape[2:])                     # (N, H, W) in [0, 1]
    maps = gradient_saliency(model, images, labels)          # (N, H, W): |d log p_y / dx|
    maps = occlusion(model, images, labels, window=4, stride=2)
    deletion(model, images, labels, maps)                    # (N,): low where a map names what matters

`maps` makes them, `metrics` measures them. A model is anything that maps images (N, C, H, W) in [0, 1] to logits; it is
put into evaluation mode meanwhile. Perturbation and occlusion need no gradient.
"""

from zoo.nn.saliency.maps import (
    FILLS,
    blurred,
    bumps,
    enlarged,
    gradient_saliency,
    occlusion,
    perturbation_saliency,
    places,
    scaled,
    windows,
)
from zoo.nn.saliency.metrics import deletion, foreground, gini, insertion, mass_inside, rank_correlation

__all__ = [
    "FILLS",
    "blurred",
    "bumps",
    "deletion",
    "enlarged",
    "foreground",
    "gini",
    "gradient_saliency",
    "insertion",
    "mass_inside",
    "occlusion",
    "perturbation_saliency",
    "places",
    "rank_correlation",
    "scaled",
    "windows",
]
