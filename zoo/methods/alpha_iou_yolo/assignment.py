"""Which anchor points learn which object: task-aligned (TOOD) and static centre assignment, batched over images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zoo.methods.alpha_iou_yolo.loss import pairwise_iou

ASSIGNERS = ("tal", "center")


@dataclass
class Targets:
    """Padded ground truth: boxes (B, M, 4) xyxy pixels, labels (B, M) int64, real (B, M) bool."""

    boxes: Tensor
    labels: Tensor
    real: Tensor

    @classmethod
    def pad(cls, boxes: list[Tensor], labels: list[Tensor], device: torch.device) -> Targets:
        """Join the objects of each image; images may have none."""
        counts = [len(b) for b in boxes]
        most = max([*counts, 1])
        padded = torch.zeros(len(boxes), most, 4, device=device)
        classes = torch.zeros(len(boxes), most, dtype=torch.int64, device=device)
        for i, count in enumerate(counts):
            padded[i, :count] = boxes[i]
            classes[i, :count] = labels[i]
        real = torch.arange(most, device=device) < torch.tensor(counts, device=device)[:, None]
        return cls(padded, classes, real)


@dataclass
class Assignment:
    """For every anchor point of every image, (B, A): whether it learns an object, which one, and the soft targets.

    Attributes:
        positive: bool.
        owner: int64, index of the object (0 where not positive).
        quality: class target in [0, 1], 0 where not positive.
        weight: weight of the box loss, 0 where not positive.
    """

    positive: Tensor
    owner: Tensor
    quality: Tensor
    weight: Tensor


@torch.no_grad()
def assign(predictions: dict[str, Any], targets: Targets, assigner: str, top: int = 10) -> Assignment:
    """Assign anchor points to objects with `tal` or `center`."""
    boxes, points, strides = predictions["boxes"].detach(), predictions["points"], predictions["strides"]
    overlap = pairwise_iou(boxes[:, None], targets.boxes[:, :, None])
    candidates, forced = _candidates(targets, points, strides, near=1.5 if assigner == "center" else None)
    if assigner == "center":
        return _center(overlap, candidates, targets)
    logits = predictions["logits"].detach().float()
    # scores of each object's own class at every point: (B, M, A)
    wanted = targets.labels[:, :, None].expand(-1, -1, logits.shape[1])
    scores = logits.transpose(1, 2).gather(1, wanted).sigmoid()
    return _task_aligned(scores, overlap, candidates, forced, top)


def _candidates(targets: Targets, points: Tensor, strides: Tensor, near: float | None) -> tuple[Tensor, Tensor]:
    """Points inside each object (B, M, A); with `near`, only those of its level within so many strides of its centre.

    An object without any gets the nearest point of its level; those are returned apart, too.
    """
    x, y = points[:, 0], points[:, 1]
    x1, y1, x2, y2 = (side[..., None] for side in targets.boxes.unbind(-1))
    inside = (x > x1) & (x < x2) & (y > y1) & (y < y2)
    cx, cy = (x1 + x2) / 2, (y1 + y2) / 2
    size = ((x2 - x1).clamp(min=1) * (y2 - y1).clamp(min=1)).sqrt()
    # an object's level: the stride whose eightfold is closest to its size in log scale
    gap = ((strides * 8).log() - size.log()).abs()
    level = gap <= gap.amin(-1, keepdim=True) + 1e-6
    if near is not None:
        inside = inside & level & ((x - cx).abs() < near * strides) & ((y - cy).abs() < near * strides)
    inside = inside & targets.real[..., None]
    distance = ((x - cx) ** 2 + (y - cy) ** 2).masked_fill(~level, torch.inf)
    lonely = targets.real & ~inside.any(-1)
    forced = torch.zeros_like(inside).scatter(-1, distance.argmin(-1, keepdim=True), lonely[..., None])
    return inside | forced, forced


def _center(overlap: Tensor, candidates: Tensor, targets: Targets) -> Assignment:
    """Points claimed twice go to the smaller object; the class target is the IoU, every positive weighs the same."""
    area = (targets.boxes[..., 2:] - targets.boxes[..., :2]).prod(-1)
    owner = area[..., None].masked_fill(~candidates, torch.inf).argmin(1)
    positive = candidates.any(1)
    quality = overlap.gather(1, owner[:, None]).squeeze(1) * positive
    return Assignment(positive, owner * positive, quality, positive.to(overlap.dtype))


def _task_aligned(scores: Tensor, overlap: Tensor, candidates: Tensor, forced: Tensor, top: int) -> Assignment:
    """TOOD: metric `t = s^0.5 u^6`, the best `top` candidates per object, targets normalised to the best IoU."""
    metric = scores.sqrt() * overlap**6 * candidates
    ranked = torch.where(candidates, metric, -1.0)
    values, chosen = ranked.topk(min(top, ranked.shape[-1]), dim=-1)
    positive = torch.zeros_like(candidates).scatter(-1, chosen, values >= 0)
    # a point claimed twice goes to the object it overlaps more
    owner = torch.where(positive, overlap, -1.0).argmax(1)
    mine = positive & (owner[:, None] == torch.arange(positive.shape[1], device=owner.device)[:, None])
    best_metric = (metric * mine).amax(-1, keepdim=True)
    best_overlap = (overlap * mine).amax(-1, keepdim=True)
    quality = (metric / (best_metric + 1e-12) * best_overlap * mine).sum(1).clamp(0, 1)
    # a forced point may not overlap at all; some weight lets the distance penalty draw its box near
    weight = torch.maximum(quality, 0.1 * (forced & mine).any(1))
    return Assignment(mine.any(1), owner * mine.any(1), quality, weight)
