"""What the toys share: batches of rows, metrics, classification results and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy

from zoo.base import Scores, ZooModule
from zoo.errors import BadInput


class TableModule(ZooModule):
    """Rows of `features` numbers in."""

    features: int

    def example_input(self) -> tuple[Tensor, ...]:
        return (torch.linspace(-1, 1, 3 * self.features).reshape(3, self.features),)

    def make_batch(self, items: Sequence[Any]) -> dict[str, Any]:
        rows = []
        for number, item in enumerate(items):
            try:
                row = torch.as_tensor(item, dtype=torch.float32)
            except (TypeError, ValueError, RuntimeError):
                raise BadInput(
                    f"input {number}: expected {self.features} numbers, got {type(item).__name__}."
                ) from None
            rows.append(row)
            if row.shape != (self.features,):
                raise BadInput(f"input {number}: expected {self.features} numbers, got the shape {tuple(row.shape)}.")
        return {"index": torch.arange(len(rows)), "row": torch.stack(rows)}

    def show(self, inputs: Any, result: dict[str, Any]) -> Image.Image:
        picture = Image.new("RGB", (160, 40), "white")
        text = result.get("name") or f"{float(result['value']):.2f}"
        ImageDraw.Draw(picture).text((4, 12), text, fill="black")
        return picture


class ClassMetrics:
    """Mixin: loss and accuracy of `val` and `test`, and results of a classifier."""

    def make_metrics(self, num_classes: int) -> None:
        self.scores = Scores(accuracy=MulticlassAccuracy(num_classes, average="micro"))

    def evaluate_step(self, stage: str, batch: dict[str, Any]) -> None:
        logits = self(batch["row"])  # type: ignore[operator]
        loss = torch.nn.functional.cross_entropy(logits, batch["label"])
        self.scores.update_loss(stage, loss, len(batch["index"]))
        self.scores.update(stage, "accuracy", logits, batch["label"])

    def predict_step(self, batch: dict[str, Any], batch_idx: int = 0) -> dict[str, Any]:
        logits = self(batch["row"])  # type: ignore[operator]
        label = logits.argmax(1)
        names = self.class_names  # type: ignore[attr-defined]
        return {"logits": logits, "probs": logits.softmax(1), "label": label, "name": [names[i] for i in label]}
