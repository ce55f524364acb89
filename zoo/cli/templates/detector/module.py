"""The detector as a Lightning module; the paper and its equations are in the package's docstring."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.base.detector import Detector
from zoo.cli.templates.detector.network import Network

__all__ = ["NewMethod"]


class NewMethod(Detector):
    """Say what it is, with its source.

    Args:
        width: channels.
        num_classes: K.
        class_names: K names; numbers if None.
        img_size: side of the input in pixels, a multiple of 32.
        optimizer: `adamw` or `sgd`.
        lr: learning rate.
        weight_decay: of the convolutions.
        warmup: share of the training in which the rate rises.
        lr_final: factor of the rate at the end.
        schedule_span: part of the schedule that this run covers; None: all of it.
    """

    parameter_roles: ClassVar[dict[str, str]] = {"network.classes": "head"}

    def __init__(
        self,
        width: int = 32,
        num_classes: int = 10,
        class_names: list[str] | None = None,
        img_size: int = 160,
        optimizer: str = "adamw",
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        warmup: float = 0.1,
        lr_final: float = 0.05,
        schedule_span: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        self.network = Network(width, num_classes)

    def raw(self, images: Tensor) -> dict[str, Any]:
        """Boxes and logits of all points."""
        boxes, logits, points = self.network(images)
        return {"boxes": boxes, "logits": logits, "points": points}

    def loss(self, predictions: dict[str, Any], batch: dict[str, Any]) -> Tensor:
        """Equation (2): a point answers for the smallest box that it is in."""
        total = predictions["logits"].sum() * 0
        for i, (boxes, labels) in enumerate(zip(batch["boxes"], batch["labels"], strict=True)):
            x, y = predictions["points"].unbind(1)
            left, top, right, bottom = (edge[:, None] for edge in boxes.unbind(1))
            inside = (x >= left) & (x < right) & (y >= top) & (y < bottom)  # (boxes, points)
            areas = torch.where(inside, (right - left) * (bottom - top), torch.inf)
            target = torch.zeros_like(predictions["logits"][i], dtype=torch.float32)
            if len(boxes):
                smallest, which = areas.min(0)
                hit = smallest.isfinite()
                target[hit, labels[which[hit]]] = 1
                if hit.any():
                    total = total + 1 - _iou(predictions["boxes"][i][hit], boxes[which[hit]]).mean()
            logits = predictions["logits"][i].float()
            total = total + F.binary_cross_entropy_with_logits(logits, target, reduction="sum") / target.sum().clamp(1)
        return total / len(batch["boxes"])

    def training_step(self, batch: dict[str, Any], batch_idx: int = 0) -> Tensor:
        """Equation (2)."""
        loss = self.loss(self.raw(batch["image"]), batch)
        self.log("train/loss", loss.detach(), batch_size=len(batch["index"]))
        return loss

    def evaluation_loss(self, predictions: dict[str, Any], batch: dict[str, Any]) -> Tensor:
        """That of training."""
        return self.loss(predictions, batch)


def _iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union (n,) of pairs of boxes (n, 4)."""
    sides = (torch.minimum(boxes[:, 2:], others[:, 2:]) - torch.maximum(boxes[:, :2], others[:, :2])).clamp(min=0)
    both = sides.prod(1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (others[:, 2:] - others[:, :2]).prod(1)
    return both / (areas - both).clamp(min=1e-6)
