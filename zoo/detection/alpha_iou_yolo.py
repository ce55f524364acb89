"""Alpha-IoU YOLO: a one-stage detector whose boxes are trained with power IoU losses.

He, Erfani, Ma, Bailey, Chi, Hua: "Alpha-IoU: A Family of Power Intersection over Union Losses for Bounding Box
Regression", NeurIPS 2021, arXiv 2110.13675. With `I` the IoU of a predicted and a true box:

    L_box = 1 - I^alpha (+ penalty^alpha for giou, diou, ciou)                  -> alpha_iou_loss
    t     = s^0.5 u^6,  s the score of the object's class, u = I                -> task-aligned assignment (TOOD)
    L     = 0.5 BCE(class logits, q) / N + 5 sum_i q_i L_box_i / N,  N = sum q  -> AlphaIoUYOLO.loss
    q_i   = t_i / max t * max u over the positives of an object

The losses are the paper's. The paper trained YOLOv5 and Faster R-CNN; this detector is the zoo's own (anchor-free, no
objectness branch, no second box loss), so that the box loss is the only thing a comparison of losses changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MeanMetric

from zoo.base import ZooModule, trained_steps
from zoo.detection._alpha_iou_yolo_assign import ASSIGNERS, Assignment, Targets, assign
from zoo.detection._alpha_iou_yolo_loss import KINDS, alpha_iou_loss, pairwise_iou
from zoo.detection._alpha_iou_yolo_network import SIZES, DetectorNetwork, anchor_points, check_images, decode
from zoo.detection._draw import draw_boxes
from zoo.errors import BadInput, nearest
from zoo.nn.geometry import check_size, letterbox, to_original
from zoo.nn.images import to_pixels
from zoo.nn.metrics import MAP

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


class AlphaIoUYOLO(ZooModule):
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

    task = "object-detection"
    monitor = ("val/map", "max")
    logged = (
        "loss",
        "map",
        "map_50",
        "map_75",
        "map_75_95",
        "map_small",
        "map_medium",
        "map_large",
        "mar_100",
        "map/*",
    )
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
        _one_of("loss", loss, KINDS)
        _one_of("assigner", assigner, ASSIGNERS)
        _one_of("quality", quality, ("iou", "powered"))
        _one_of("optimizer", optimizer, ("adamw", "sgd"))
        if num_classes < 1:
            raise BadInput(f"num_classes must be at least 1, got {num_classes}.")
        if class_names is not None and len(class_names) != num_classes:
            raise BadInput(f"{len(class_names)} class_names were given for {num_classes} classes.")
        if alpha <= 0 or (alpha_reg is not None and alpha_reg <= 0):
            raise BadInput(f"alpha and alpha_reg must be positive, got {alpha} and {alpha_reg}.")
        start, end = schedule_span or (0.0, 1.0)
        if not 0 <= start < end <= 1:
            raise BadInput(f"schedule_span must rise within [0, 1], got {schedule_span}.")
        check_size(img_size)
        self.network = DetectorNetwork(num_classes, size, backbone, pretrained_backbone, backbone_weights)
        if channels_last:
            self.network.to(memory_format=torch.channels_last)
        self.val_loss = MeanMetric()
        self.average_precision = MAP()
        self.center_until = 0
        if freeze:
            self.freeze(*freeze)

    # Network ------------------------------------------------------------------------------------------------------

    def raw(self, images: Tensor) -> dict[str, Any]:
        """Predictions before the sigmoid: see `DetectorNetwork.forward`."""
        if self.hparams["channels_last"]:
            images = images.contiguous(memory_format=torch.channels_last)
        return self.network(images)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Decoded predictions of all A anchor points, without non-maximum suppression.

        Args:
            images: float (B, 3, H, W) in [0, 1], sides multiples of 32.

        Returns:
            boxes (B, A, 4) xyxy in input pixels, scores (B, A, K) in [0, 1].
        """
        check_images(images)
        found = self.raw(images)
        return found["boxes"], found["logits"].float().sigmoid()

    def example_input(self) -> tuple[Tensor, ...]:
        """One image of the input size: ramps of red to the right and of green downwards, and blue stripes."""
        side = int(self.hparams["img_size"])
        ramp = torch.linspace(0, 1, side, device=self.device).expand(side, side)
        stripes = 0.5 + 0.5 * torch.sin(40 * (ramp + ramp.T))
        return (torch.stack([ramp, ramp.T, stripes])[None],)

    # Training -----------------------------------------------------------------------------------------------------

    def loss(self, found: dict[str, Any], targets: Targets, assigner: str) -> dict[str, Tensor]:
        """Total loss and its two parts, in float32 (equations at the top of this file)."""
        with torch.autocast(self.device.type, enabled=False):
            found = {**found, "logits": found["logits"].float()}
            plan = assign(found, targets, assigner)
            true = targets.boxes.gather(1, plan.owner[..., None].expand(-1, -1, 4))
            # where nothing is assigned the pair is equal: loss 0 with finite gradients, and no dynamic shapes
            true = torch.where(plan.positive[..., None], true, found["boxes"].detach())
            hp = self.hparams
            box_loss = alpha_iou_loss(found["boxes"], true, hp["loss"], hp["alpha"], hp["alpha_reg"])
            quality = plan.quality
            if hp["quality"] == "powered":
                powered = (1 - box_loss.detach()).clamp(0, 1) / pairwise_iou(found["boxes"].detach(), true)
                quality = torch.where(plan.positive, quality * powered, 0).clamp(0, 1)
            share = self._normaliser(plan.positive.sum() if assigner == "center" else quality.sum())
            labels = targets.labels.gather(1, plan.owner)
            of_class = found["logits"].gather(2, labels[..., None]).squeeze(2)
            # binary cross-entropy with logits: softplus(x) - x q, q being 0 nearly everywhere
            class_loss = (F.softplus(found["logits"]).sum() - (of_class * quality).sum()) / share
            box_loss = (box_loss * plan.weight).sum() / share
            return {"loss": 0.5 * class_loss + 5.0 * box_loss, "class": class_loss, "box": box_loss}

    def _normaliser(self, total: Tensor) -> Tensor:
        """`max(1, N)`, N summed over the ranks, divided by their number, because DDP averages gradients over them."""
        total = total.detach().float()
        if not self.training:  # ranks may evaluate unequal numbers of batches, so they must not wait for each other
            return total.clamp(min=1)
        world = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
        return self.sum_over_ranks(total).clamp(min=1) / world

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

    def configure_optimizers(self) -> Any:
        """AdamW or SGD, linear warm-up, cosine to `lr_final`; weight decay on convolution weights alone."""
        hp = self.hparams
        trained = [p for p in self.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": hp["weight_decay"]},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        groups = [g for g in groups if g["params"]]
        optimizer: torch.optim.Optimizer
        if hp["optimizer"] == "adamw":
            optimizer = torch.optim.AdamW(groups, lr=hp["lr"])
        else:
            optimizer = torch.optim.SGD(groups, lr=hp["lr"], momentum=0.937, nesterov=True)
        steps = trained_steps(self.trainer)
        start, end = hp["schedule_span"] or (0.0, 1.0)

        def rate(step: int) -> float:
            done = start + (end - start) * min(step / steps, 1.0)
            if done < hp["warmup"]:
                return max(done, (end - start) / steps) / hp["warmup"]
            cosine = 0.5 * (1 + np.cos(np.pi * (done - hp["warmup"]) / (1 - hp["warmup"])))
            return float(hp["lr_final"] + (1 - hp["lr_final"]) * cosine)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    # Evaluation ---------------------------------------------------------------------------------------------------

    def validation_step(self, batch: dict[str, Any], batch_idx: int = 0) -> None:
        """Collect predictions and the loss."""
        self._evaluate(batch)

    def test_step(self, batch: dict[str, Any], batch_idx: int = 0) -> None:
        """Collect predictions and the loss."""
        self._evaluate(batch)

    def on_validation_epoch_end(self) -> None:
        """Log `val/map` and its relatives."""
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        """Log `test/map` and its relatives."""
        self._log_metrics("test")

    def _evaluate(self, batch: dict[str, Any]) -> None:
        found = self.raw(batch["image"])
        targets = Targets.pad(batch["boxes"], batch["labels"], batch["image"].device)
        self.val_loss.update(self.loss(found, targets, self.hparams["assigner"])["loss"], len(batch["index"]))
        predictions = self._finish(found["boxes"], found["logits"].float().sigmoid(), batch, threshold=0.01)
        true = [
            {"boxes": to_original(b, *_geometry(batch, i)), "labels": y}
            for i, (b, y) in enumerate(zip(batch["boxes"], batch["labels"], strict=True))
        ]
        self.average_precision.update(batch["index"], predictions, true)

    def _log_metrics(self, stage: str) -> None:
        values = self.average_precision.compute(self.class_names)
        self.average_precision.reset()
        self.log(f"{stage}/map", values.pop("map"), prog_bar=True)
        self.log_dict({f"{stage}/{name}": value for name, value in values.items()})
        self.log(f"{stage}/loss", self.val_loss.compute())
        self.val_loss.reset()

    # Prediction ---------------------------------------------------------------------------------------------------

    def make_batch(self, items: Sequence[Any]) -> dict[str, Any]:
        """Letterbox images of any size: paths, PIL images, arrays (H, W, 3), tensors (3, H, W)."""
        side = int(self.hparams["img_size"])
        images, scales, pads, sizes = [], [], [], []
        for item in items:
            pixels = to_pixels(item)
            boxed, scale, pad = letterbox(pixels, side)
            images.append(torch.from_numpy(np.ascontiguousarray(boxed)))
            scales.append(scale)
            pads.append(pad)
            sizes.append(pixels.shape[:2])
        return {
            "index": torch.arange(len(items)),
            "image": torch.stack(images).permute(0, 3, 1, 2).float() / 255,
            "scale": torch.tensor(scales, dtype=torch.float32),
            "pad": torch.tensor(pads, dtype=torch.float32),
            "size": torch.tensor(sizes, dtype=torch.int64),
        }

    def predict_step(
        self, batch: dict[str, Any], batch_idx: int = 0, *, threshold: float = 0.25, iou: float = 0.65, most: int = 100
    ) -> dict[str, Any]:
        """Detections of a batch, in the pictures' own pixels.

        Args:
            batch: as from `make_batch` or the data module.
            batch_idx: unused.
            threshold: lowest score.
            iou: boxes of one class that overlap more are suppressed.
            most: detections per image at the most.

        Returns:
            Lists over images: boxes (n, 4) xyxy, scores (n,) descending, labels (n,) int64, names (n strings).
        """
        boxes, scores = self(batch["image"])
        found = self._finish(boxes, scores, batch, threshold, iou, most)
        known = self.class_names
        names = [[known[i] for i in f["labels"].tolist()] for f in found]
        return {
            "boxes": [f["boxes"] for f in found],
            "scores": [f["scores"] for f in found],
            "labels": [f["labels"] for f in found],
            "names": names,
        }

    def _finish(
        self,
        boxes: Tensor,
        scores: Tensor,
        batch: dict[str, Any],
        threshold: float,
        iou: float = 0.65,
        most: int = 100,
    ) -> list[dict[str, Tensor]]:
        """Best 300 (point, class) pairs of each image, class-wise suppression over the whole batch, own pixels."""
        from torchvision.ops import batched_nms  # costs seconds to import

        count, _, classes = scores.shape
        best, where = scores.flatten(1).topk(min(300, scores.shape[1] * classes), dim=1)
        labels = where % classes
        chosen = boxes.float().gather(1, (where // classes)[..., None].expand(-1, -1, 4))
        image = torch.arange(count, device=boxes.device)[:, None].expand_as(where)
        keep = best > threshold
        best, labels, chosen, image = best[keep], labels[keep], chosen[keep], image[keep]
        kept = batched_nms(chosen, best, image * classes + labels, iou)
        found = []
        for i in range(count):
            mine = kept[image[kept] == i][:most]
            own = to_original(chosen[mine], *_geometry(batch, i))
            found.append({"boxes": own, "scores": best[mine], "labels": labels[mine]})
        return found

    def show(self, inputs: Any, result: dict[str, Any]) -> Image.Image:
        """Draw a result of `predict` on its image."""
        texts = [f"{n} {s:.2f}" for n, s in zip(result["names"], result["scores"].tolist(), strict=True)]
        return draw_boxes(to_pixels(inputs), result["boxes"].cpu().numpy(), result["labels"].tolist(), texts)

    @staticmethod
    def to_coco(
        results: Sequence[dict[str, Any]], image_ids: Sequence[int | str], category_ids: Sequence[int] | None = None
    ) -> list[dict[str, Any]]:
        """Results of `predict` as COCO result dicts.

        Args:
            results: one per image.
            image_ids: the data set's own id of each image.
            category_ids: the data set's own id of each class (`facts()["category_ids"]`); label + 1 if None.

        Returns:
            One dict per detection: image_id, category_id, bbox [x, y, width, height], score.
        """
        rows = []
        for result, image_id in zip(results, image_ids, strict=True):
            found = zip(result["boxes"].tolist(), result["scores"].tolist(), result["labels"].tolist(), strict=True)
            for (x1, y1, x2, y2), score, label in found:
                category = category_ids[label] if category_ids is not None else label + 1
                box = [x1, y1, x2 - x1, y2 - y1]
                rows.append({"image_id": image_id, "category_id": category, "bbox": box, "score": score})
        return rows


def _geometry(batch: dict[str, Any], i: int) -> tuple[Any, Any, Any]:
    return batch["scale"][i], batch["pad"][i], batch["size"][i]


def _one_of(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise BadInput(f"{name} must be one of {', '.join(known)}, got {value!r}.{nearest(value, known)}")
