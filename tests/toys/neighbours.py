"""An index as a model: the memory of all training rows is an elastic buffer, whose size the file decides."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from toys.common import ClassMetrics, TableModule
from zoo.base import RoundModule


class ToyNeighbours(ClassMetrics, RoundModule, TableModule):
    """Classification by the nearest training rows, each voting with its nearness."""

    parameter_roles = {"memory": "elastic", "labels": "elastic"}
    task = "tabular-classification"

    def __init__(self, features: int = 4, num_classes: int = 3, class_names: list[str] | None = None) -> None:
        super().__init__()
        self.features, self.num_classes = features, num_classes
        self.register_buffer("memory", torch.zeros(1, features))
        self.register_buffer("labels", torch.zeros(1, dtype=torch.long))
        self.seen: list[tuple[Tensor, Tensor, Tensor]] = []
        self.make_metrics(num_classes)

    def forward(self, row: Tensor) -> Tensor:
        """Logits (n, classes): log of the votes."""
        votes = torch.softmax(-torch.cdist(row, self.memory, compute_mode="donot_use_mm_for_euclid_dist"), 1)
        onehot = torch.nn.functional.one_hot(self.labels, self.num_classes).to(votes.dtype)
        return (votes[:, :, None] * onehot).sum(1).clamp_min(1e-9).log()

    def collect(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Keep the rows."""
        self.seen.append((batch["index"], batch["row"], batch["label"]))

    def update(self) -> dict[str, Tensor]:
        """Join the rows of all ranks, in the order of the data set."""
        shares = self.gather(self.seen)
        self.seen = []
        index, rows, labels = (torch.cat(part) for part in zip(*(b for s in shares for b in s), strict=True))
        order = index.argsort()
        return {"memory": rows[order], "labels": labels[order]}

    def collected_state(self) -> dict[str, Any]:
        """Rows so far."""
        return {"seen": [list(part) for part in self.seen]}

    def load_collected_state(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self.seen = [(index, row, label) for index, row, label in state["seen"]]
