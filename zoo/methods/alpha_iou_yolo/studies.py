"""What can be said about the power IoU losses without training a detector: equations, oracles, and one box alone.

Only the losses are imported, so that a study starts in seconds.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.methods.alpha_iou_yolo.loss import alpha_iou_loss, pairwise_iou
from zoo.studies import Outcome, study

# (kind, alpha, predicted, target, loss), computed by hand from the equations; I = 1/3 for the first pair
_WORKED = (
    ("iou", 3.0, (0, 0, 2, 2), (1, 0, 3, 2), 1 - 1 / 27),
    ("giou", 3.0, (0, 0, 2, 2), (1, 0, 3, 2), 1 - 1 / 27),  # the enclosing box is the union
    ("diou", 3.0, (0, 0, 2, 2), (1, 0, 3, 2), 1 - 1 / 27 + (1 / 13) ** 3),
    ("ciou", 3.0, (0, 0, 2, 2), (1, 0, 3, 2), 1 - 1 / 27 + (1 / 13) ** 3),  # equal aspect
    ("giou", 3.0, (0, 0, 2, 2), (2, 2, 4, 4), 1.125),
    ("diou", 3.0, (0, 0, 2, 2), (2, 2, 4, 4), 1.015625),
)


def _pairs(count: int, seed: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    corner = torch.rand(2, count, 2, generator=draw) * 50
    side = 1 + torch.rand(2, count, 2, generator=draw) * 60
    first, second = torch.cat([corner, corner + side], -1)
    return first, second


@study("largest_error")
def worked_examples() -> Outcome:
    """Largest difference of the losses from values worked out by hand."""
    errors = []
    for kind, alpha, predicted, target, expected in _WORKED:
        loss = alpha_iou_loss(torch.tensor([predicted]).float(), torch.tensor([target]).float(), kind, alpha)
        errors.append(abs(loss.item() - expected))
    return Outcome({"largest_error": max(errors)})


@study("largest_error")
def plain_losses(pairs: int = 20_000) -> Outcome:
    """Largest difference from torchvision's losses at alpha = 1, over random pairs of boxes."""
    from torchvision import ops

    a, b = _pairs(pairs, 0)
    plain = {
        "giou": ops.generalized_box_iou_loss,
        "diou": ops.distance_box_iou_loss,
        "ciou": ops.complete_box_iou_loss,
    }
    errors = [(alpha_iou_loss(a, b, kind, 1.0) - loss(a, b)).abs().max().item() for kind, loss in plain.items()]
    own = torch.cat([ops.box_iou(x[None], y[None])[0] for x, y in zip(a[:2000], b[:2000], strict=True)])
    errors.append((alpha_iou_loss(a[:2000], b[:2000], "iou", 1.0) - (1 - own)).abs().max().item())
    return Outcome({"largest_error": max(errors)})


@study("inversions")
def order(pairs: int = 100_000) -> Outcome:
    """Neighbours in the order of IoU that the powered loss puts the other way round, over five powers.

    Differences below the rounding of a float32 next to 1 are no inversions.
    """
    a, b = _pairs(pairs, 3)
    ranked = pairwise_iou(a, b).argsort(descending=True)
    inversions = 0
    for alpha in (0.5, 1.0, 2.0, 3.0, 5.0):
        steps = alpha_iou_loss(a, b, "iou", alpha)[ranked].diff()
        inversions += int((steps < -1e-6).sum())
    return Outcome({"inversions": float(inversions)})


@study("largest_error")
def gradient_weight() -> Outcome:
    """Largest relative difference of the measured gradient weight from `a I^(a-1)`, over IoU 0.1 to 0.9."""
    worst = 0.0
    for alpha in (0.5, 2.0, 3.0, 5.0):
        for iou in (0.1, 0.25, 0.5, 0.75, 0.9):
            shift = 2 * (1 - iou) / (1 + iou)  # two squares of side 2, shifted sideways
            target = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
            box = torch.tensor([[shift, 0.0, shift + 2, 2.0]], requires_grad=True)
            slopes = [torch.autograd.grad(alpha_iou_loss(box, target, "iou", p).sum(), box)[0] for p in (alpha, 1.0)]
            ratio = (slopes[0][0, 0] / slopes[1][0, 0]).item()
            expected = alpha * iou ** (alpha - 1)
            worst = max(worst, abs(ratio - expected) / expected)
    return Outcome({"largest_error": worst})


@study("steps", "start_iou")
def race(alpha: float = 3.0, offset: float = 0.4, goal: float = 0.95, rate: float = 2e-3, cap: int = 4000) -> Outcome:
    """Steps of plain gradient descent on `1 - I^alpha` that bring one box to an IoU with the unit square.

    The box (cx, cy, w, h) starts at (0.9 s, 0.7 s, 1 + 0.4 s, 1 - 0.3 s), s = `offset`; a larger s is a worse start.

    Args:
        alpha: the power.
        offset: s; 0.6, 0.4, 0.2 and 0.05 start at IoU 0.164, 0.307, 0.548 and 0.855.
        goal: IoU to reach.
        rate: of the descent.
        cap: steps after which it is given up; then `steps` is this number.
    """
    s = offset
    box = torch.tensor([0.9 * s, 0.7 * s, 1 + 0.4 * s, 1 - 0.3 * s], dtype=torch.float64)
    target = torch.tensor([[-0.5, -0.5, 0.5, 0.5]])
    curve = []
    noted = 0.0
    for step in range(cap + 1):
        box.requires_grad_()
        corners = torch.cat([box[:2] - box[2:] / 2, box[:2] + box[2:] / 2])[None].float()
        iou = pairwise_iou(corners, target).item()
        if step >= noted or iou >= goal:  # a point every tenth further is all that a plot can show
            curve.append((float(step), iou))
            noted = 1.1 * step + 1
        if iou >= goal or step == cap:
            return Outcome({"steps": float(step), "start_iou": curve[0][1]}, {"iou": curve})
        (slope,) = torch.autograd.grad(alpha_iou_loss(corners, target, "iou", alpha).sum(), box)
        box = (box - rate * slope).detach()
    raise AssertionError("unreachable")
