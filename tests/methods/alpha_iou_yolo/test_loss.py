"""The loss family against its equations, the numbers of the specification, torchvision and finite differences."""

from __future__ import annotations

import pytest
import torch
from torchvision import ops

from zoo.errors import BadInput
from zoo.methods.alpha_iou_yolo.module import KINDS, alpha_iou_loss, pairwise_iou

BASE = torch.tensor([[0.0, 0, 2, 2]])
HALF = torch.tensor([[1.0, 0, 3, 2]])  # IoU 1/3
APART = torch.tensor([[2.0, 2, 4, 4]])  # touches in a corner


def random_boxes(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(2, n, 2, generator=generator) * 50
    side = 1 + torch.rand(2, n, 2, generator=generator) * 60
    a, b = torch.cat([corner, corner + side], -1)
    return a, b


@pytest.mark.parametrize(
    ("kind", "target", "expected"),
    [
        ("iou", HALF, 0.962963),
        ("giou", HALF, 0.962963),  # the enclosing box is the union: no penalty
        ("diou", HALF, 0.963418),
        ("ciou", HALF, 0.963418),  # equal aspect: no third term
        ("giou", APART, 1.125),
        ("diou", APART, 1.015625),
    ],
)
def test_worked_examples(kind: str, target: torch.Tensor, expected: float) -> None:
    assert alpha_iou_loss(BASE, target, kind, 3.0).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 3.0, 5.0])
def test_identical_boxes_cost_nothing(kind: str, alpha: float) -> None:
    boxes, _ = random_boxes(50)
    assert alpha_iou_loss(boxes, boxes, kind, alpha).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("kind", "reference"),
    [
        ("giou", ops.generalized_box_iou_loss),
        ("diou", ops.distance_box_iou_loss),
        ("ciou", ops.complete_box_iou_loss),
    ],
)
def test_alpha_one_is_torchvisions_loss(kind: str, reference) -> None:
    a, b = random_boxes(2000)
    assert torch.allclose(alpha_iou_loss(a, b, kind, 1.0), reference(a, b), atol=1e-5)


def test_alpha_one_iou_is_one_minus_torchvisions_iou() -> None:
    a, b = random_boxes(500)
    assert torch.allclose(alpha_iou_loss(a, b, "iou", 1.0), 1 - ops.box_iou(a, b).diagonal(), atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "reference"),
    [("giou", ops.generalized_box_iou_loss), ("diou", ops.distance_box_iou_loss)],
)
def test_each_part_is_powered_by_itself(kind: str, reference) -> None:
    """The signed GIoU or DIoU value must not be powered as a whole, as some re-implementations do."""
    a, b = random_boxes(2000)
    iou = pairwise_iou(a, b)
    penalty = (reference(a, b) - (1 - iou)).clamp(min=0)
    assert torch.allclose(alpha_iou_loss(a, b, kind, 3.0), 1 - iou**3 + penalty**3, atol=1e-4)
    assert not torch.allclose(alpha_iou_loss(a, b, kind, 3.0), 1 - (1 - reference(a, b)) ** 3, atol=1e-2)


def test_two_powers() -> None:
    a, b = random_boxes(500)
    iou_part = alpha_iou_loss(a, b, "iou", 2.0)
    mixed = alpha_iou_loss(a, b, "diou", 2.0, alpha_reg=1.0)
    plain = alpha_iou_loss(a, b, "diou", 1.0) - alpha_iou_loss(a, b, "iou", 1.0)
    assert torch.allclose(mixed, iou_part + plain, atol=1e-5)


def test_loss_and_gradient_weights_against_the_plain_loss() -> None:
    """`(1 - I^a) / (1 - I)` and `a I^(a-1)`; at I = 1/3 and a = 3: 1.444444 and exactly 1/3."""
    box = BASE.clone().requires_grad_()
    plain = alpha_iou_loss(box, HALF, "iou", 1.0)
    (slope_plain,) = torch.autograd.grad(plain.sum(), box)
    cubed = alpha_iou_loss(box, HALF, "iou", 3.0)
    (slope_cubed,) = torch.autograd.grad(cubed.sum(), box)
    assert (cubed / plain).item() == pytest.approx(1.444444, abs=1e-5)
    ratio = slope_cubed[slope_plain != 0] / slope_plain[slope_plain != 0]
    assert torch.allclose(ratio, torch.tensor(1 / 3), atol=1e-5)


@pytest.mark.parametrize(("alpha", "crossing"), [(0.5, 0.25), (2.0, 0.5), (3.0, 0.577), (5.0, 0.669)])
def test_gradient_weight_crosses_one(alpha: float, crossing: float) -> None:
    """At `I* = a^(1 / (1 - a))` the powered loss moves a box as fast as the plain one."""
    shift = 2 * (1 - crossing) / (1 + crossing)  # unit-height overlap of two boxes of side 2
    box = torch.tensor([[shift, 0.0, shift + 2, 2.0]], requires_grad=True)
    assert pairwise_iou(box, BASE).item() == pytest.approx(crossing, abs=1e-4)
    slopes = [torch.autograd.grad(alpha_iou_loss(box, BASE, "iou", a).sum(), box)[0] for a in (alpha, 1.0)]
    assert (slopes[0][0, 0] / slopes[1][0, 0]).item() == pytest.approx(1.0, abs=2e-3)


def test_the_power_keeps_the_order_of_ious() -> None:
    a, b = random_boxes(100_000, seed=3)
    iou = pairwise_iou(a, b)
    for alpha in (0.5, 2.0, 3.0, 5.0):
        loss = alpha_iou_loss(a, b, "iou", alpha)
        order = iou.argsort(descending=True)
        assert (loss[order].diff() >= -1e-6).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("alpha", [0.5, 1.0, 3.0])
def test_gradients_are_finite_everywhere(kind: str, alpha: float) -> None:
    far = torch.tensor([[100.0, 100, 101, 101], [0, 0, 2, 2], [0, 0, 0, 0], [1, 1, 1e-4 + 1, 5]], requires_grad=True)
    target = BASE.expand(4, 4)
    loss = alpha_iou_loss(far, target, kind, alpha)
    (slope,) = torch.autograd.grad(loss.sum(), far)
    assert torch.isfinite(loss).all()
    assert torch.isfinite(slope).all()


@pytest.mark.parametrize("kind", ["iou", "giou", "diou"])
@pytest.mark.parametrize("alpha", [1.0, 3.0])
def test_gradient_is_the_finite_difference(kind: str, alpha: float) -> None:
    a, b = random_boxes(40, seed=1)
    overlapping = pairwise_iou(a, b) > 0.05
    box = a[overlapping].clone().requires_grad_()
    target = b[overlapping]
    (slope,) = torch.autograd.grad(alpha_iou_loss(box, target, kind, alpha).sum(), box)
    step = 1e-2
    for axis in range(4):
        plus, minus = box.detach().clone(), box.detach().clone()
        plus[:, axis] += step
        minus[:, axis] -= step
        difference = (alpha_iou_loss(plus, target, kind, alpha) - alpha_iou_loss(minus, target, kind, alpha)) / (
            2 * step
        )
        assert torch.allclose(slope[:, axis], difference, atol=3e-4)


def test_ciou_weight_of_the_aspect_term_has_no_gradient_and_is_not_gated() -> None:
    """`beta` is a constant of the raw IoU, also below IoU 0.5, where some libraries switch it off."""
    box = torch.tensor([[0.0, 0, 4, 1]], requires_grad=True)
    target = torch.tensor([[0.0, 0, 1, 4]])
    iou = pairwise_iou(box, target).item()
    assert iou < 0.5
    difference = (alpha_iou_loss(box, target, "ciou", 1.0) - alpha_iou_loss(box, target, "diou", 1.0)).item()
    v = 4 / torch.pi**2 * (torch.atan(torch.tensor(0.25)) - torch.atan(torch.tensor(4.0))) ** 2
    assert difference == pytest.approx((v * v / (1 - iou + v)).item(), abs=1e-5)


def test_half_precision_inputs_are_computed_in_float32() -> None:
    a, b = random_boxes(200)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = alpha_iou_loss(a, b, "ciou", 3.0)
    assert loss.dtype == torch.float32
    assert torch.allclose(loss, alpha_iou_loss(a, b, "ciou", 3.0))


def test_race_of_one_box() -> None:
    """Gradient descent on (cx, cy, w, h): steps to IoU 0.95 from starts of IoU 0.164, 0.307, 0.548 and 0.855."""
    published = {0.5: (791, 431, 147), 1.0: (557, 271, 84), 2.0: (700, 238, 57), 3.0: (1604, 321, 54)}
    published[5.0] = (None, 1080, 66)  # type: ignore[assignment]
    for alpha, expected in published.items():
        for steps, wanted in zip(race((0.6, 0.4, 0.2), alpha), expected, strict=True):
            assert (steps is None) == (wanted is None)
            if wanted is not None:
                assert steps == pytest.approx(wanted, rel=0.05, abs=2)


def race(starts: tuple[float, ...], alpha: float, cap: int = 1800) -> list[int | None]:
    """Steps of plain gradient descent (rate 2e-3) from each start until IoU 0.95, or None after `cap`."""
    s = torch.tensor(starts, dtype=torch.float64)
    box = torch.stack([0.9 * s, 0.7 * s, 1 + 0.4 * s, 1 - 0.3 * s], 1)
    target = torch.tensor([[-0.5, -0.5, 0.5, 0.5]]).expand(len(starts), 4)
    steps: list[int | None] = [None] * len(starts)
    for step in range(cap):
        box.requires_grad_()
        corners = torch.cat([box[:, :2] - box[:, 2:] / 2, box[:, :2] + box[:, 2:] / 2], 1).float()
        loss = alpha_iou_loss(corners, target, "iou", alpha)
        for i, iou in enumerate(pairwise_iou(corners, target).tolist()):
            if iou >= 0.95 and steps[i] is None:
                steps[i] = step
        if None not in steps:
            break
        (slope,) = torch.autograd.grad(loss.sum(), box)
        box = (box - 2e-3 * slope).detach()
    return steps


def test_bad_arguments_are_named() -> None:
    with pytest.raises(BadInput, match="'giou'"):
        alpha_iou_loss(BASE, HALF, "gious")
    with pytest.raises(BadInput, match="positive"):
        alpha_iou_loss(BASE, HALF, "iou", 0.0)
