"""The detector as a Lightning module; the paper and its equations stand in `zoo.methods.alpha_iou_yolo`."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo import checks
from zoo.base import trained_steps, world_size
from zoo.base.detector import Detector
from zoo.methods.alpha_iou_yolo.assignment import ASSIGNERS, Assignment, Targets, assign
from zoo.methods.alpha_iou_yolo.loss import KINDS, alpha_iou_loss, pairwise_iou
from zoo.methods.alpha_iou_yolo.network import SIZES, DetectorNetwork, anchor_points, decode

__all__ = [
    "KINDS",
    "SIZES",
    "AlphaIoUYOLO",
    "Assignment",
    "DetectorNetwork",
    "Targets",
    "alpha_iou_loss",
    "anchor_points",
    "assign",
    "decode",
    "pairwise_iou",
]


class AlphaIoUYOLO(Detector):
    """The detector with its training.

    Args:
        num_classes: K.
        class_names: K names; numbers if None.
        size: `p` (0.47 M parameters), `n` (1.9 M), `s` (9.0 M), `m` (25 M) or `l` (54 M).
        backbone: name of a timm backbone with features of strides 8, 16 and 32; None for the zoo's own.
        pretrained_backbone: let timm fetch that backbone's weights.
        backbone_weights: file with that backbone's weights instead.
        img_size: side of the letterboxed input of `predict`, a multiple of 32.
        loss: `iou`, `giou`, `diou` or `ciou`.
        alpha: power of the IoU term; 1 is the plain loss.
        alpha_reg: power of the penalty terms; `alpha` if None.
        assigner: `tal` (task-aligned, after `center_steps` of the static one) or `center` (static throughout).
        center_steps: share of the steps that `tal` starts with centre assignment.
        quality: class target of a positive: `iou`, or `powered` as in the authors' code.
        optimizer: `adamw` or `sgd` (Nesterov, momentum 0.937).
        lr: highest learning rate.
        weight_decay: of convolution weights; biases and batch normalisation have none.
        warmup: share of the steps in which the rate rises linearly.
        lr_final: rate at the end, as a share of `lr` (cosine in between).
        schedule_span: part of the schedule this run covers; `[0.6, 1.0]` continues where a run of `[0.0, 0.6]` ended.
        freeze: prefixes of parameters that are not trained, such as `network.backbone`.
        channels_last: memory layout of images and convolutions; faster on most machines.
    """

    parameter_roles: ClassVar[dict[str, str]] = {f"network.head.{level}.classes": "head" for level in range(3)}

    def __init__(
        self,
        num_classes: int = 80,
        class_names: list[str] | None = None,
        size: str = "n",
        backbone: str | None = None,
        pretrained_backbone: bool = False,
        backbone_weights: str | None = None,
        img_size: int = 640,
        loss: str = "iou",
        alpha: float = 3.0,
        alpha_reg: float | None = None,
        assigner: str = "tal",
        center_steps: float = 0.1,
        quality: str = "iou",
        optimizer: str = "adamw",
        lr: float = 2e-3,
        weight_decay: float = 0.05,
        warmup: float = 0.03,
        lr_final: float = 0.01,
        schedule_span: list[float] | None = None,
        freeze: list[str] | None = None,
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        checks.one_of("loss", loss, KINDS)
        checks.one_of("assigner", assigner, ASSIGNERS)
        checks.one_of("quality", quality, ("iou", "powered"))
        for name, power in (("alpha", alpha), ("alpha_reg", alpha_reg)):
            if power is not None:
                checks.above(name, power, 0)
        self.network = DetectorNetwork(num_classes, size, backbone, pretrained_backbone, backbone_weights)
        if channels_last:
            self.network.to(memory_format=torch.channels_last)
        self.center_until = 0
        if freeze:
            self.freeze(*freeze)

    # Network ------------------------------------------------------------------------------------------------------

    def raw(self, images: Tensor) -> dict[str, Any]:
        """Predictions before the sigmoid: see `DetectorNetwork.forward`."""
        if self.hparams["channels_last"]:
            images = images.contiguous(memory_format=torch.channels_last)
        return self.network(images)

    # Training -----------------------------------------------------------------------------------------------------

    def loss(self, predictions: dict[str, Any], targets: Targets, assigner: str) -> dict[str, Tensor]:
        """Total loss and its two parts, in float32 (equations at the top of this file)."""
        with torch.autocast(self.device.type, enabled=False):
            predictions = {**predictions, "logits": predictions["logits"].float()}
            plan = assign(predictions, targets, assigner)
            true = targets.boxes.gather(1, plan.owner[..., None].expand(-1, -1, 4))
            # where nothing is assigned the pair is equal: loss 0 with finite gradients, and no dynamic shapes
            true = torch.where(plan.positive[..., None], true, predictions["boxes"].detach())
            hp = self.hparams
            box_loss = alpha_iou_loss(predictions["boxes"], true, hp["loss"], hp["alpha"], hp["alpha_reg"])
            quality = plan.quality
            if hp["quality"] == "powered":
                powered = (1 - box_loss.detach()).clamp(0, 1) / pairwise_iou(predictions["boxes"].detach(), true)
                quality = torch.where(plan.positive, quality * powered, 0).clamp(0, 1)
            share = self._normaliser(plan.positive.sum() if assigner == "center" else quality.sum())
            labels = targets.labels.gather(1, plan.owner)
            of_class = predictions["logits"].gather(2, labels[..., None]).squeeze(2)
            # binary cross-entropy with logits: softplus(x) - x q, q being 0 nearly everywhere
            class_loss = (F.softplus(predictions["logits"]).sum() - (of_class * quality).sum()) / share
            box_loss = (box_loss * plan.weight).sum() / share
            return {"loss": 0.5 * class_loss + 5.0 * box_loss, "class": class_loss, "box": box_loss}

    def _normaliser(self, total: Tensor) -> Tensor:
        """`max(1, N)`, N summed over the ranks, divided by their number, because DDP averages gradients over them."""
        total = total.detach().float()
        if not self.training:  # ranks may evaluate unequal numbers of batches, so they must not wait for each other
            return total.clamp(min=1)
        return self.sum_over_ranks(total).clamp(min=1) / world_size()

    def on_fit_start(self) -> None:
        """Fix how long centre assignment lasts."""
        share = float(self.hparams["center_steps"]) if self.hparams["assigner"] == "tal" else 0.0
        self.center_until = round(share * trained_steps(self.trainer)) if share else 0

    def training_step(self, batch: dict[str, Any], batch_idx: int = 0) -> Tensor:
        """Loss of a batch; logs `train/loss`."""
        assigner = "center" if self.global_step < self.center_until else self.hparams["assigner"]
        targets = Targets.pad(batch["boxes"], batch["labels"], batch["image"].device)
        parts = self.loss(self.raw(batch["image"]), targets, assigner)
        if self._trainer is not None:
            self.log("train/loss", parts["loss"].detach(), prog_bar=True, batch_size=len(batch["index"]))
        return parts["loss"]

    def evaluation_loss(self, predictions: dict[str, Any], batch: dict[str, Any]) -> Tensor:
        """The loss that training ends with, also while centre assignment lasts."""
        targets = Targets.pad(batch["boxes"], batch["labels"], batch["image"].device)
        return self.loss(predictions, targets, self.hparams["assigner"])["loss"]
