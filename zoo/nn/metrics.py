"""Metrics that stay right on several processes with unequal shares of the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from zoo.base import gather

__all__ = ["COCO_THRESHOLDS", "MAP"]

COCO_THRESHOLDS = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]


class MAP:
    """COCO mean average precision over all ranks' images.

    torchmetrics computes it; this class gathers the lists, since torchmetrics' own gathering aborts when the ranks hold
    unequal numbers of images. Images are put in the order of their index, so the number of ranks changes nothing.

    Args:
        backend: `faster_coco_eval` or `pycocotools`.

    Attributes:
        class_names: name the values of single classes; None leaves these out.
    """

    def __init__(self, backend: str = "faster_coco_eval") -> None:
        self.backend = backend
        self.class_names: Sequence[str] | None = None
        self.seen: list[tuple[int, dict[str, Tensor], dict[str, Tensor]]] = []

    def reset(self) -> None:
        """Reset."""
        self.seen = []

    def update(
        self, index: Tensor, predictions: Sequence[dict[str, Tensor]], targets: Sequence[dict[str, Tensor]]
    ) -> None:
        """Add images.

        Args:
            index: (B,) position of each image in its split.
            predictions: per image boxes (n, 4) xyxy, scores (n,), labels (n,).
            targets: per image boxes (m, 4) xyxy and labels (m,), in the same pixels. Optional: iscrowd (m,), 1 for
                regions in which detections do not count, and area (m,), 0 where that of the box counts.
        """
        for i, predicted, true in zip(index.tolist(), predictions, targets, strict=True):
            self.seen.append((i, _cpu(predicted), _cpu(true)))

    def compute(self, class_names: Sequence[str] | None = None) -> dict[str, float]:
        """Return `map`, `map_50`, `map_75`, `map_75_95`, `map_small|medium|large`, `mar_100` and `map/<class>`.

        `class_names` names the values of single classes, if given in place of the attribute.
        Values are in [0, 1], or -1 without any object. Sizes and classes of which there is no object are left out, so
        that no log or table has a -1 that looks like a score. All ranks must call it and get the same values.
        """
        from torchmetrics.detection import MeanAveragePrecision

        metric = MeanAveragePrecision(
            box_format="xyxy",
            iou_thresholds=COCO_THRESHOLDS,
            # torchmetrics' own recall levels are rounded to float32, which moves a level past an equal recall
            rec_thresholds=[i / 100 for i in range(101)],
            extended_summary=True,  # its precisions hold the classes, too; class_metrics would evaluate each again
            backend=self.backend,  # type: ignore[arg-type]
            sync_on_compute=False,
        )
        metric.warn_on_many_detections = False
        seen = sorted((item for part in gather(self.seen) for item in part), key=lambda item: item[0])
        if not seen:
            return {"map": -1.0, "map_50": -1.0, "map_75": -1.0, "map_75_95": -1.0}
        metric.update([p for _, p, _ in seen], [t for _, _, t in seen])
        return _values(metric.compute(), class_names or self.class_names)


def _values(results: dict[str, Any], class_names: Sequence[str] | None) -> dict[str, float]:
    names = ("map", "map_50", "map_75", "map_small", "map_medium", "map_large", "mar_100")
    values = {name: float(results[name]) for name in names}
    precision = results["precision"][..., 0, -1]  # (thresholds, recalls, classes), all areas, 100 detections
    values["map_75_95"] = _mean(precision[COCO_THRESHOLDS.index(0.75) :])
    if class_names is not None:
        for place, label in enumerate(results["classes"].reshape(-1).tolist()):
            values[f"map/{class_names[int(label)]}"] = _mean(precision[..., place])
    parts = ("map_small", "map_medium", "map_large")
    return {k: v for k, v in values.items() if v >= 0 or not k.startswith(("map/", *parts))}


def _mean(precision: Tensor) -> float:
    """Mean of the defined precisions; -1 without any."""
    defined = precision[precision > -1]
    return float(defined.double().mean()) if len(defined) else -1.0


def _cpu(item: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.detach().float().cpu() if v.is_floating_point() else v.detach().cpu() for k, v in item.items()}
