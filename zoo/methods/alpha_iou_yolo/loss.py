"""The alpha-IoU family of box losses (He et al., NeurIPS 2021, arXiv 2110.13675), for any detector.

With `I` the IoU of a predicted and a true box, `C` their smallest enclosing box, `U` the area of their union, `rho`
the distance of their centres, `c` the diagonal of `C`, `v = (4 / pi^2) (atan(wg / hg) - atan(w / h))^2` and
`beta = v / ((1 - I) + v)`:

    iou:   1 - I^a
    giou:  1 - I^a + ((|C| - U) / |C|)^b
    diou:  1 - I^a + (rho^2 / c^2)^b
    ciou:  1 - I^a + (rho^2 / c^2)^b + (beta v)^b

The paper sets `b = a` and recommends 3; `a = b = 1` are the plain losses. `I^a` keeps the order of boxes by IoU; so
does each penalty by itself, but not their sum. Against the plain IoU loss the gradient is weighted by `a I^(a-1)`: for
a > 1 boxes that fit already are refined faster, and poor ones more slowly.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zoo.errors import BadInput, nearest

KINDS = ("iou", "giou", "diou", "ciou")


def pairwise_iou(a: Tensor, b: Tensor, eps: float = 1e-7) -> Tensor:
    """IoU of boxes that broadcast against each other.

    Args:
        a: xyxy boxes (..., 4).
        b: xyxy boxes (..., 4).
        eps: added to the union.

    Returns:
        IoU in [0, 1], shape of the broadcast without its last axis.
    """
    inter, union = _inter_union(a, b)
    return inter / (union + eps)


def _inter_union(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    # element by element: slices of a size-4 axis cost more than the arithmetic
    ax1, ay1, ax2, ay2 = a.unbind(-1)
    bx1, by1, bx2, by2 = b.unbind(-1)
    width = (torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)).clamp(min=0)
    height = (torch.minimum(ay2, by2) - torch.maximum(ay1, by1)).clamp(min=0)
    inter = width * height
    area_a = (ax2 - ax1).clamp(min=0) * (ay2 - ay1).clamp(min=0)
    area_b = (bx2 - bx1).clamp(min=0) * (by2 - by1).clamp(min=0)
    return inter, area_a + area_b - inter


def alpha_iou_loss(
    predicted: Tensor,
    target: Tensor,
    kind: str = "iou",
    alpha: float = 3.0,
    alpha_reg: float | None = None,
    eps: float = 1e-7,
) -> Tensor:
    """Power IoU loss of pairs of boxes (paper section 3), computed in float32.

    Args:
        predicted: xyxy boxes (..., 4).
        target: xyxy boxes (..., 4).
        kind: `iou`, `giou`, `diou` or `ciou`.
        alpha: power of the IoU term, above 0.
        alpha_reg: power of each penalty term; `alpha` if None.
        eps: guards the divisions.

    Returns:
        Loss of each pair, (...); 0 for identical boxes, at most 3.

    Raises:
        BadInput: if the kind is unknown or a power is not positive.
    """
    if kind not in KINDS:
        raise BadInput(f"loss kind must be one of {', '.join(KINDS)}, got {kind!r}.{nearest(kind, KINDS)}")
    power = alpha if alpha_reg is None else alpha_reg
    if alpha <= 0 or power <= 0:
        raise BadInput(f"alpha and alpha_reg must be positive, got {alpha} and {power}.")
    with torch.autocast(predicted.device.type, enabled=False):
        return _loss(predicted.float(), target.float(), kind, alpha, power, eps)


def _loss(p: Tensor, g: Tensor, kind: str, alpha: float, power: float, eps: float) -> Tensor:
    inter, union = _inter_union(p, g)
    iou = inter / (union + eps)
    # the floor bounds the slope of I^a at 0 for a < 1
    loss = 1 - iou.clamp(eps, 1) ** alpha
    if kind == "iou":
        return loss
    px1, py1, px2, py2 = p.unbind(-1)
    gx1, gy1, gx2, gy2 = g.unbind(-1)
    width = torch.maximum(px2, gx2) - torch.minimum(px1, gx1)
    height = torch.maximum(py2, gy2) - torch.minimum(py1, gy1)
    if kind == "giou":
        enclosing = width * height
        return loss + _powered((enclosing - union).clamp(min=0) / (enclosing + eps), power)
    distance = ((px1 + px2 - gx1 - gx2) ** 2 + (py1 + py2 - gy1 - gy2) ** 2) / 4
    loss = loss + _powered(distance / (width**2 + height**2 + eps), power)
    if kind == "diou":
        return loss
    angle = torch.atan((gx2 - gx1) / (gy2 - gy1 + eps)) - torch.atan((px2 - px1) / (py2 - py1 + eps))
    v = (4 / math.pi**2) * angle**2
    with torch.no_grad():
        beta = v / (1 - iou + v + eps)  # of the IoU itself, not of its power
    return loss + _powered(beta * v, power)


def _powered(penalty: Tensor, power: float) -> Tensor:
    """`penalty^power` whose slope at 0 stays finite for powers below 1."""
    return penalty if power == 1 else penalty**power if power > 1 else (penalty + 1e-9) ** power
