"""Assignment against slow literal references, and the invariants the losses rely on."""

from __future__ import annotations

import pytest
import torch

from zoo.methods.alpha_iou_yolo.module import Targets, anchor_points, assign, decode, pairwise_iou

SHAPES = [(12, 12), (6, 6), (3, 3)]  # a 96 px image


def scene(seed: int, images: int = 3, classes: int = 4, most: int = 5):
    """Random predictions and objects; the last image is empty."""
    generator = torch.Generator().manual_seed(seed)
    points, strides = anchor_points(SHAPES, torch.device("cpu"))
    raw = torch.randn(images, len(points), 4, generator=generator) + 0.5
    logits = torch.randn(images, len(points), classes, generator=generator)
    predictions = {"boxes": decode(raw, points, strides), "logits": logits, "points": points, "strides": strides}
    boxes, labels = [], []
    for i in range(images):
        n = 0 if i == images - 1 else int(torch.randint(1, most + 1, (1,), generator=generator))
        corner = torch.rand(n, 2, generator=generator) * 60
        side = 3 + torch.rand(n, 2, generator=generator) * 33
        boxes.append(torch.cat([corner, corner + side], 1))
        labels.append(torch.randint(0, classes, (n,), generator=generator))
    return predictions, Targets.pad(boxes, labels, torch.device("cpu"))


def literal_tal(predictions, targets, image: int, top: int = 10):
    """Task-aligned assignment of one image, point by point."""
    points, strides = predictions["points"], predictions["strides"]
    boxes, scores = predictions["boxes"][image], predictions["logits"][image].sigmoid()
    count = int(targets.real[image].sum())
    claims: dict[int, list[tuple[float, int]]] = {}
    metric, overlap = {}, {}
    for g in range(count):
        x1, y1, x2, y2 = targets.boxes[image, g].tolist()
        inside = [a for a, (x, y) in enumerate(points.tolist()) if x1 < x < x2 and y1 < y < y2]
        if not inside:
            size = (max(x2 - x1, 1) * max(y2 - y1, 1)) ** 0.5
            level = min((8, 16, 32), key=lambda s: abs(torch.tensor(s * 8 / size).log()))
            own = [a for a in range(len(points)) if strides[a] == level]
            centre = torch.tensor([(x1 + x2) / 2, (y1 + y2) / 2])
            inside = [min(own, key=lambda a: float(((points[a] - centre) ** 2).sum()))]
        for a in inside:
            u = float(pairwise_iou(boxes[a], targets.boxes[image, g]))
            overlap[g, a] = u
            metric[g, a] = float(scores[a, targets.labels[image, g]]) ** 0.5 * u**6
        for a in sorted(inside, key=lambda a: -metric[g, a])[:top]:
            claims.setdefault(a, []).append((overlap[g, a], g))
    owner = {a: max(c)[1] for a, c in claims.items()}
    quality = {}
    for g in range(count):
        mine = [a for a, o in owner.items() if o == g]
        for a in mine:
            best = max(metric[g, b] for b in mine)
            quality[a] = metric[g, a] / best * max(overlap[g, b] for b in mine) if best > 0 else 0.0
    return owner, quality


@pytest.mark.parametrize("seed", range(6))
def test_task_aligned_equals_the_literal_definition(seed: int) -> None:
    predictions, targets = scene(seed)
    plan = assign(predictions, targets, "tal")
    for image in range(3):
        owner, quality = literal_tal(predictions, targets, image)
        found = plan.positive[image].nonzero().flatten().tolist()
        assert found == sorted(owner)
        for a in found:
            assert int(plan.owner[image, a]) == owner[a]
            assert float(plan.quality[image, a]) == pytest.approx(quality[a], abs=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_center_positives_are_near_the_centre_of_their_object_and_level(seed: int) -> None:
    predictions, targets = scene(seed)
    plan = assign(predictions, targets, "center")
    points, strides = predictions["points"], predictions["strides"]
    for image in range(2):
        owners = set()
        for a in plan.positive[image].nonzero().flatten().tolist():
            g = int(plan.owner[image, a])
            owners.add(g)
            x1, y1, x2, y2 = targets.boxes[image, g].tolist()
            x, y = points[a].tolist()
            size = ((x2 - x1) * (y2 - y1)) ** 0.5
            level = min((8, 16, 32), key=lambda s: abs(torch.tensor(s * 8 / size).log()))
            assert strides[a] == level
            near = 1.5 * float(strides[a])
            lonely = ((plan.owner[image] == g) & plan.positive[image]).sum() == 1
            assert lonely or (abs(x - (x1 + x2) / 2) < near and abs(y - (y1 + y2) / 2) < near)
        assert owners <= set(range(int(targets.real[image].sum())))
    assert not plan.positive[2].any()
    assert plan.weight[2].sum() == 0


def test_center_does_not_depend_on_predictions() -> None:
    predictions, targets = scene(0)
    other = {**predictions, "boxes": predictions["boxes"] + 3, "logits": predictions["logits"] * -2}
    first, second = assign(predictions, targets, "center"), assign(other, targets, "center")
    assert torch.equal(first.positive, second.positive)
    assert torch.equal(first.owner, second.owner)


def test_every_positive_overlaps_its_object() -> None:
    """An anchor point lies inside its own box, so the plain power loss has a gradient at every positive."""
    predictions, targets = scene(5)
    points = predictions["points"]
    boxes = predictions["boxes"]
    assert ((boxes[..., :2] < points) & (boxes[..., 2:] > points)).all()
    plan = assign(predictions, targets, "tal")
    true = targets.boxes.gather(1, plan.owner[..., None].expand(-1, -1, 4))
    assert (pairwise_iou(boxes, true)[plan.positive] > 0).all()


def test_an_object_between_the_points_gets_the_nearest_one_and_some_weight() -> None:
    predictions, _ = scene(0, images=1)
    small = torch.tensor([[5.0, 5.0, 7.0, 7.0]])  # no point of any level inside
    targets = Targets.pad([small], [torch.tensor([1])], torch.device("cpu"))
    for assigner in ("tal", "center"):
        plan = assign(predictions, targets, assigner)
        (point,) = plan.positive[0].nonzero().flatten().tolist()
        assert predictions["points"][point].tolist() == [4.0, 4.0]
        assert plan.weight[0, point] >= 0.1


def test_padding_and_neighbours_change_nothing() -> None:
    predictions, targets = scene(2)
    whole = assign(predictions, targets, "tal")
    alone = {**predictions, "boxes": predictions["boxes"][:1], "logits": predictions["logits"][:1]}
    count = int(targets.real[0].sum())
    single = Targets(targets.boxes[:1, :count], targets.labels[:1, :count], targets.real[:1, :count])
    part = assign(alone, single, "tal")
    assert torch.equal(whole.positive[:1], part.positive)
    assert torch.allclose(whole.quality[:1], part.quality)
