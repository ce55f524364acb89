"""Rounds: every rank trains a copy of the weights on its share, and the copies are averaged (FedAvg)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from toys.common import ClassMetrics, TableModule
from zoo.base import RoundModule


class ToyFedAvg(ClassMetrics, RoundModule, TableModule):
    """Federated averaging of a linear classifier, one client per rank, one epoch per round."""

    parameter_roles = {"head": "head"}
    task = "tabular-classification"
    rank_invariant = False

    def __init__(
        self, features: int = 4, num_classes: int = 3, class_names: list[str] | None = None, lr: float = 0.5
    ) -> None:
        super().__init__()
        self.features, self.num_classes, self.lr = features, num_classes, lr
        self.head = nn.Linear(features, num_classes)
        self.noise = 0.01
        self.samples = 0
        self.copy: dict[str, Tensor] | None = None
        self.make_metrics(num_classes)

    def forward(self, row: Tensor) -> Tensor:
        """Logits (n, classes)."""
        return self.head(row)

    def collect(self, batch: dict[str, Any], batch_idx: int) -> None:
        """One step of local training, with noise so that the random state matters."""
        if self.copy is None:
            self.copy = {k: v.detach().clone() for k, v in self.head.named_parameters()}
        with torch.enable_grad():
            weights = {k: v.requires_grad_(True) for k, v in self.copy.items()}
            logits = torch.func.functional_call(self.head, weights, batch["row"])
            loss = nn.functional.cross_entropy(logits, batch["label"])
            grads = torch.autograd.grad(loss, list(weights.values()))
        self.copy = {
            k: (v - self.lr * (g + self.noise * torch.randn_like(g))).detach()
            for (k, v), g in zip(self.copy.items(), grads, strict=True)
        }
        self.samples += len(batch["index"])
        self.log("train/loss", loss.detach(), batch_size=len(batch["index"]))

    def update(self) -> dict[str, Tensor]:
        """Average weighted by the number of samples."""
        assert self.copy is not None
        total = self.sum_over_ranks(torch.tensor(float(self.samples)))
        mean = {f"head.{k}": self.sum_over_ranks(v * self.samples) / total for k, v in self.copy.items()}
        self.copy, self.samples = None, 0
        return mean

    def collected_state(self) -> dict[str, Any]:
        """The copy in training."""
        return {"copy": self.copy, "samples": self.samples}

    def load_collected_state(self, state: dict[str, Any]) -> None:
        """Go on with it."""
        self.copy, self.samples = state["copy"], state["samples"]
