"""Gradients: a small network with dropout, optionally batch normalisation, tied layers and a frozen teacher."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from toys.common import ClassMetrics, TableModule
from zoo.base import trained_steps


class ToyClassifier(ClassMetrics, TableModule):
    """Classifier with a class head.

    Args:
        features: numbers per row.
        num_classes: classes.
        class_names: their names.
        dropout: probability.
        norm: batch normalisation, which couples the samples of a batch.
        tied: two layers share their weights.
        teacher: width of a random frozen teacher whose features the network also learns; 0 for none.
        lr: learning rate.
    """

    parameter_roles = {"head": "head", "teacher": "training", "project": "training"}
    task = "tabular-classification"

    def __init__(
        self,
        features: int = 4,
        num_classes: int = 3,
        class_names: list[str] | None = None,
        dropout: float = 0.1,
        norm: bool = False,
        tied: bool = False,
        teacher: int = 0,
        lr: float = 0.05,
    ) -> None:
        super().__init__()
        self.features, self.num_classes, self.lr = features, num_classes, lr
        width = 8
        self.register_buffer("centre", torch.zeros(features))
        self.entry = nn.Linear(features, width)
        self.norm = nn.BatchNorm1d(width) if norm else nn.Identity()
        self.inner = nn.Linear(width, width)
        self.again = self.inner if tied else nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, num_classes)
        self.teacher = nn.Linear(features, teacher).requires_grad_(False) if teacher else None
        self.project = nn.Linear(width, teacher) if teacher else None
        self.make_metrics(num_classes)

    def hidden(self, row: Tensor) -> Tensor:
        """Features before the head (n, 8)."""
        hidden = torch.relu(self.norm(self.entry(row - self.centre)))
        return self.dropout(torch.relu(self.again(torch.relu(self.inner(hidden)))) + hidden)

    def forward(self, row: Tensor) -> Tensor:
        """Logits (n, classes)."""
        return self.head(self.hidden(row))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Cross-entropy, plus the distance to the teacher's features."""
        hidden = self.hidden(batch["row"])
        loss = nn.functional.cross_entropy(self.head(hidden), batch["label"])
        if self.teacher is not None and self.project is not None:
            loss = loss + 0.1 * nn.functional.mse_loss(self.project(hidden), self.teacher(batch["row"]))
        self.log("train/loss", loss, batch_size=len(batch["index"]))
        return loss

    def configure_optimizers(self) -> Any:
        """AdamW with a schedule over the whole run."""
        learned = [p for p in self.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(learned, lr=self.lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, trained_steps(self.trainer))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class ToyStudent(ToyClassifier):
    """The same learner as an entry of its own."""
