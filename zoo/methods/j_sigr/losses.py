"""The two penalties: of the Jacobian's norm, and of the input gradient where nothing depends on the image."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo import checks
from zoo.nn.attacks import noise

__all__ = ["MASKS", "NORMS", "SELECTIONS", "jacobian_norm", "log_probability_gradient", "selection", "selective_norm"]

SELECTIONS = ("threshold", "lowest", "soft")
"""How a saliency becomes a mask."""

MASKS = ("selected", "inverted", "random", "none")
"""What the mask selects: low saliency, high saliency, as many pixels at random, or all pixels."""

NORMS = ("l2", "l1")


def _square(gradient: Tensor) -> Tensor:
    return gradient.flatten(1).square().sum(1)


def jacobian_norm(logits: Tensor, x: Tensor, vectors: Tensor | None = None) -> Tensor:
    """||df/dx||_F^2 of each sample (N,), exact or its unbiased estimate; itself differentiable.

    In a network whose layers couple the samples of a batch, the gradient of a sample is that of the batch's sum.

    Args:
        logits: f(x) (N, K), with a graph back to x.
        x: (N, ...), which requires a gradient.
        vectors: unit vectors (n, N, K), for (K / n) sum_i ||d(v_i . f)/dx||^2; None: all K gradients.
    """
    if vectors is None:
        rows = [logits[:, k].sum() for k in range(logits.shape[1])]
        return sum((_square(_gradient(row, x)) for row in rows), torch.zeros(len(x), device=x.device, dtype=x.dtype))
    each = [_square(_gradient((v * logits).sum(), x)) for v in vectors]
    return torch.stack(each).mean(0) * logits.shape[1]


def unit_vectors(count: int, classes: int, seed: int, index: Tensor) -> Tensor:
    """Random unit vectors (count, N, K), uniform on the sphere, which belong to the samples.

    Args:
        count: n.
        classes: K.
        seed: of the step.
        index: (N,) int64 identity of the samples.
    """
    drawn = [noise.gaussian((classes,), seed, index, stream) for stream in range(count)]
    return F.normalize(torch.stack(drawn), dim=2)


def log_probability_gradient(logits: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """G = d log p_y / dx (N, ...), itself differentiable.

    Args:
        logits: f(x) (N, K), with a graph back to x.
        x: (N, ...), which requires a gradient.
        y: (N,) labels.
    """
    return _gradient(-F.cross_entropy(logits, y, reduction="sum"), x)


def _gradient(value: Tensor, x: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(value, x, create_graph=True)
    return gradient


def selection(
    saliency: Tensor,
    kind: str = "threshold",
    tau: float = 0.1,
    share: float = 0.6,
    mask: str = "selected",
    index: Tensor | None = None,
) -> Tensor:
    """M (N, H, W) in [0, 1]: where the input gradient is penalised. It has no gradient.

    Args:
        saliency: S (N, H, W), not negative.
        kind: `threshold`: 1 where S < tau max S; `lowest`: 1 for the share of pixels of lowest S; `soft`: (1 - S)^2 of
            S over its maximum.
        tau: share of the maximum.
        share: of the pixels.
        mask: `selected`; for comparison `inverted` (1 - m), `random` (the values of m at other pixels, those of a
            sample being always the same), or `none` (1 everywhere).
        index: (N,) int64 identity of the samples, for `random`.
    """
    checks.one_of("select", kind, SELECTIONS)
    checks.one_of("mask", mask, MASKS)
    s = saliency.detach()
    if mask == "none":
        return torch.ones_like(s)
    flat = s.flatten(1)
    most = flat.amax(1, keepdim=True)
    if kind == "threshold":
        m = (flat < tau * most).to(s.dtype)
    elif kind == "lowest":
        count = round(share * flat.shape[1])
        place = flat.argsort(dim=1, stable=True).argsort(dim=1)
        m = (place < count).to(s.dtype)
    else:
        m = (1 - flat / most.clamp_min(torch.finfo(s.dtype).tiny)).square()
    if mask == "inverted":
        m = 1 - m
    elif mask == "random":
        index = torch.arange(len(s), device=s.device) if index is None else index
        m = m.gather(1, noise.uniform((flat.shape[1],), 0, index).to(s.device).argsort(1))
    return m.view_as(s)


def selective_norm(gradient: Tensor, mask: Tensor, norm: str = "l2") -> Tensor:
    """||m * G||_2^2 or ||m * G||_1 of each sample (N,).

    Args:
        gradient: G (N, C, H, W).
        mask: m (N, H, W), the same for all channels.
        norm: `l2` (squared) or `l1`.
    """
    chosen = gradient * mask[:, None]
    return _square(chosen) if norm == "l2" else chosen.flatten(1).abs().sum(1)
