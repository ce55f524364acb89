"""What detectors of boxes share: inputs of `predict`, suppression, evaluation, optimiser, pictures, COCO results.

The functions serve detectors of other shapes (several bands, points with boxes) that cannot take the whole base.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from zoo import checks
from zoo.base.modes import in_type_of
from zoo.base.module import Scores, ZooModule, decay_groups, every_step, trained_steps, warmup_cosine
from zoo.errors import BadInput
from zoo.inputs.geometry import STRIDE, check_size, letterbox, to_original
from zoo.inputs.images import to_pixels
from zoo.nn.metrics import MAP

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Detector", "best_boxes", "check_images", "coco_results", "letterboxed", "true_boxes"]

CANDIDATES = 300
"""Best (point, class) pairs of an image that suppression looks at."""

LOWEST = 0.01
"""Scores below this are left out of evaluation."""

OPTIMIZERS = ("adamw", "sgd")


class Detector(ZooModule):
    """Base of detectors that take letterboxed colour images and return one box per point and a score per class.

    A subclass has the hyper-parameters `num_classes`, `class_names`, `img_size` (side of the input, a multiple of 32)
    and, for the optimiser, `optimizer` (`adamw` or `sgd`), `lr`, `weight_decay`, `warmup`, `lr_final` and
    `schedule_span`. It implements `raw`, `training_step` and `evaluation_loss`. Batches have `image` (B, 3, H, W) in
    [0, 1], lists `boxes` (n, 4) xyxy in input pixels and `labels` (n,), and `scale`, `pad`, `size` of the letterbox.
    Logged: the loss, and COCO's average precision in the pictures' own pixels.
    """

    task = "object-detection"
    monitor = ("val/map", "max")
    output_names: ClassVar[tuple[str, ...]] = ("boxes", "scores")
    logged: ClassVar[tuple[str, ...]] = (
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

    option_ranges: ClassVar[dict[str, tuple[float, float]]] = {
        "threshold": (0, 1),
        "iou": (0, 1),
        "most": (1, math.inf),
    }

    def __init__(self) -> None:
        super().__init__()
        options = self.hparams
        checks.at_least("num_classes", options["num_classes"], 1)
        checks.class_names(options["class_names"], options["num_classes"])
        checks.one_of("optimizer", options["optimizer"], OPTIMIZERS)
        start, end = options["schedule_span"] or (0.0, 1.0)
        if not 0 <= start < end <= 1:
            raise BadInput(f"schedule_span must rise within [0, 1], got {options['schedule_span']}.")
        check_size(options["img_size"])
        self.scores = Scores(map=MAP())

    # What a subclass fills in -------------------------------------------------------------------------------------

    def raw(self, images: Tensor) -> dict[str, Any]:
        """Predictions of all A points: at least `boxes` (B, A, 4) xyxy in input pixels, and `logits` (B, A, K)."""
        raise NotImplementedError(f"{type(self).__name__} must implement raw()")

    def evaluation_loss(self, predictions: dict[str, Any], batch: dict[str, Any]) -> Tensor:
        """Loss of a batch of validation or test, a scalar; `predictions` are those of `raw`."""
        raise NotImplementedError(f"{type(self).__name__} must implement evaluation_loss()")

    # Network ------------------------------------------------------------------------------------------------------

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Decoded predictions of all A points, without non-maximum suppression.

        Args:
            images: float (B, 3, H, W) in [0, 1], sides multiples of 32.

        Returns:
            boxes (B, A, 4) xyxy in input pixels, scores (B, A, K) in [0, 1].
        """
        check_images(images)
        predictions = self.raw(in_type_of(self, images))
        return predictions["boxes"], predictions["logits"].float().sigmoid()

    def example_input(self) -> tuple[Tensor, ...]:
        """One image of the input size: ramps of red to the right and of green downwards, and blue stripes."""
        side = int(self.hparams["img_size"])
        ramp = torch.linspace(0, 1, side, device=self.device).expand(side, side)
        stripes = 0.5 + 0.5 * torch.sin(40 * (ramp + ramp.T))
        return (torch.stack([ramp, ramp.T, stripes])[None],)

    # Training -----------------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> Any:
        """AdamW or SGD, linear warm-up, cosine to `lr_final`; weight decay on convolution weights alone."""
        options = self.hparams
        groups = decay_groups(self, options["weight_decay"])
        optimizer: torch.optim.Optimizer
        if options["optimizer"] == "adamw":
            optimizer = torch.optim.AdamW(groups, lr=options["lr"])
        else:
            optimizer = torch.optim.SGD(groups, lr=options["lr"], momentum=0.937, nesterov=True)
        start, end = options["schedule_span"] or (0.0, 1.0)
        factor = warmup_cosine(trained_steps(self.trainer), options["warmup"], options["lr_final"], (start, end))
        return every_step(torch.optim.lr_scheduler.LambdaLR(optimizer, factor))

    # Evaluation ---------------------------------------------------------------------------------------------------

    def evaluate_step(self, stage: str, batch: dict[str, Any]) -> None:
        """Score the loss, and detections against the true boxes."""
        predictions = self.raw(batch["image"])
        self.scores.update_loss(stage, self.evaluation_loss(predictions, batch), len(batch["index"]))
        scores = predictions["logits"].float().sigmoid()
        detections = best_boxes(predictions["boxes"], scores, batch, threshold=LOWEST)
        true = [true_boxes(batch, i) for i in range(len(batch["boxes"]))]
        self.scores.update(stage, "map", batch["index"], detections, true)

    def log_scores(self, stage: str) -> dict[str, Any]:
        """Log all scores, with the average precision of each class under its name."""
        self.scores[stage, "map"].class_names = self.class_names
        return super().log_scores(stage)

    # Prediction ---------------------------------------------------------------------------------------------------

    def make_batch(self, items: Sequence[Any]) -> dict[str, Any]:
        """Letterbox images of any size: paths, PIL images, arrays (H, W, 3), tensors (3, H, W)."""
        return letterboxed([to_pixels(item) for item in items], int(self.hparams["img_size"]))

    def predict_step(
        self,
        batch: dict[str, Any],
        batch_idx: int = 0,
        *,
        threshold: float = 0.25,
        iou: float = 0.65,
        most: int = 100,
        agnostic: bool = False,
    ) -> dict[str, Any]:
        """Detections of a batch, in the pictures' own pixels.

        Args:
            batch: as from `make_batch` or the data module.
            batch_idx: unused.
            threshold: lowest score.
            iou: boxes of one class that overlap more are suppressed.
            most: detections per image at the most.
            agnostic: suppress overlapping boxes of all classes, so that an object has one class.

        Returns:
            Lists over images: boxes (n, 4) xyxy, scores (n,) descending, labels (n,) int64, names (n strings).
        """
        boxes, scores = self(batch["image"])
        detections = best_boxes(boxes, scores, batch, threshold, iou, most, agnostic=agnostic)
        known = self.class_names
        return {
            "boxes": [d["boxes"] for d in detections],
            "scores": [d["scores"] for d in detections],
            "labels": [d["labels"] for d in detections],
            "names": [[known[i] for i in d["labels"].tolist()] for d in detections],
        }

    def show(self, inputs: Any, result: dict[str, Any], *, longest: int = 900) -> Image.Image:
        """Draw a result of `predict` on its image, enlarged by a whole factor up to a longer side of `longest`."""
        from zoo.pictures.boxes import draw_boxes

        texts = [f"{n} {s:.2f}" for n, s in zip(result["names"], result["scores"].tolist(), strict=True)]
        boxes, labels = result["boxes"].cpu().numpy(), result["labels"].tolist()
        return draw_boxes(to_pixels(inputs), boxes, labels, texts, longest)

    @staticmethod
    def to_coco(
        results: Sequence[dict[str, Any]], image_ids: Sequence[int | str], category_ids: Sequence[int] | None = None
    ) -> list[dict[str, Any]]:
        """Results of `predict` as COCO result dicts; see `coco_results`."""
        return coco_results(results, image_ids, category_ids)


def check_images(images: Tensor) -> None:
    """Refuse what a detector cannot take.

    Raises:
        BadInput: if images are not (B, 3, H, W) with sides that are multiples of 32.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise BadInput(f"images must be (B, 3, H, W), got {tuple(images.shape)}.")
    if images.shape[2] % STRIDE or images.shape[3] % STRIDE:
        sides = tuple(images.shape[2:])
        raise BadInput(f"image sides must be multiples of {STRIDE}, got {sides}; predict() pads by itself.")


def letterboxed(pictures: Sequence[np.ndarray], side: int) -> dict[str, Any]:
    """A batch of pictures, each fitted into a square.

    Args:
        pictures: uint8 (H, W, 3), of any sizes.
        side: S of the square.

    Returns:
        index (B,), image float (B, 3, S, S) in [0, 1], scale (B,), pad (B, 2) left and top, size (B, 2) height and
        width of the picture.
    """
    images, scales, pads = [], [], []
    for pixels in pictures:
        boxed, scale, pad = letterbox(pixels, side)
        images.append(torch.from_numpy(np.require(boxed, requirements=["C", "W"])))
        scales.append(scale)
        pads.append(pad)
    return {
        "index": torch.arange(len(pictures)),
        "image": torch.stack(images).permute(0, 3, 1, 2).float() / 255,
        "scale": torch.tensor(scales, dtype=torch.float32),
        "pad": torch.tensor(pads, dtype=torch.float32),
        "size": torch.tensor([pixels.shape[:2] for pixels in pictures], dtype=torch.int64),
    }


def best_boxes(
    boxes: Tensor,
    scores: Tensor,
    batch: dict[str, Any],
    threshold: float,
    iou: float = 0.65,
    most: int = 100,
    *,
    agnostic: bool = False,
) -> list[dict[str, Tensor]]:
    """Suppress overlapping boxes of a class: the best 300 (point, class) pairs of each image, in its own pixels.

    Args:
        boxes: (B, A, 4) xyxy in input pixels.
        scores: (B, A, K) in [0, 1].
        batch: with `scale`, `pad` and `size` of the letterbox.
        threshold: lowest score, exclusive.
        iou: boxes of one class that overlap more are suppressed.
        most: detections per image at the most.
        agnostic: overlapping boxes of other classes are suppressed, too.

    Returns:
        Per image boxes (n, 4) xyxy, scores (n,) descending, labels (n,) int64.
    """
    from torchvision.ops import batched_nms  # costs seconds to import

    count, _, classes = scores.shape
    best, where = scores.flatten(1).topk(min(CANDIDATES, scores.shape[1] * classes), dim=1)
    labels = where % classes
    chosen = boxes.float().gather(1, (where // classes)[..., None].expand(-1, -1, 4))
    image = torch.arange(count, device=boxes.device)[:, None].expand_as(where)
    keep = best > threshold
    best, labels, chosen, image = best[keep], labels[keep], chosen[keep], image[keep]
    kept = batched_nms(chosen, best, image if agnostic else image * classes + labels, iou)
    detections = []
    for i in range(count):
        own = kept[image[kept] == i][:most]
        original = to_original(chosen[own], *_geometry(batch, i))
        detections.append({"boxes": original, "scores": best[own], "labels": labels[own]})
    return detections


def coco_results(
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
        detections = zip(result["boxes"].tolist(), result["scores"].tolist(), result["labels"].tolist(), strict=True)
        for (x1, y1, x2, y2), score, label in detections:
            category = category_ids[label] if category_ids is not None else label + 1
            box = [x1, y1, x2 - x1, y2 - y1]
            rows.append({"image_id": image_id, "category_id": category, "bbox": box, "score": score})
    return rows


def true_boxes(batch: dict[str, Any], i: int) -> dict[str, Tensor]:
    """What detections of an image are compared with, in its own pixels.

    Args:
        batch: of the data module; `area`, `ignored` and `ignored_labels` may be absent.
        i: number of the image.

    Returns:
        boxes (n, 4), labels (n,), iscrowd (n,): 1 for regions that count neither as objects nor as background, and area
        (n,), 0 where that of the box counts.
    """
    boxes, labels = batch["boxes"][i], batch["labels"][i]
    area = batch["area"][i] if "area" in batch else boxes.new_zeros(len(boxes))
    ignored = batch["ignored"][i] if "ignored" in batch else boxes[:0]
    ignored_labels = batch["ignored_labels"][i] if "ignored" in batch else labels[:0]
    return {
        "boxes": to_original(torch.cat([boxes, ignored]), *_geometry(batch, i)),
        "labels": torch.cat([labels, ignored_labels]),
        "iscrowd": torch.cat([torch.zeros_like(labels), torch.ones_like(ignored_labels)]),
        "area": torch.cat([area, area.new_zeros(len(ignored))]),
    }


def _geometry(batch: dict[str, Any], i: int) -> tuple[Any, Any, Any]:
    return batch["scale"][i], batch["pad"][i], batch["size"][i]
