"""Closed form: w = (X'X + lambda I)^-1 X'y, where X'X and X'y are sums over samples, hence over ranks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import MeanMetric

from toys.common import TableModule
from zoo.base import RoundModule, Scores


class ToyRidge(RoundModule, TableModule):
    """Ridge regression with an intercept; learns nothing by gradients, its weights are buffers."""

    task = "tabular-regression"
    monitor = ("val/mse", "min")

    def __init__(self, features: int = 4, penalty: float = 1e-3) -> None:
        super().__init__()
        self.features, self.penalty = features, penalty
        self.register_buffer("weight", torch.zeros(features + 1, dtype=torch.float64))
        self.scores = Scores(loss=None, mse=MeanMetric())
        self._clear()

    def _clear(self) -> None:
        size = self.features + 1
        self.gram, self.moment = torch.zeros(size, size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)

    def forward(self, row: Tensor) -> Tensor:
        """Value (n,) of rows (n, features)."""
        return row @ self.weight[:-1].float() + self.weight[-1].float()

    def collect(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Add the batch to the Gram matrix."""
        rows = batch["row"].double()
        rows = torch.cat([rows, torch.ones_like(rows[:, :1])], 1)
        self.gram += rows.T @ rows
        self.moment += rows.T @ batch["value"].double()

    def update(self) -> dict[str, Tensor]:
        """Solve once, from the sums over all ranks."""
        gram, moment = self.sum_over_ranks(self.gram), self.sum_over_ranks(self.moment)
        self._clear()
        return {"weight": torch.linalg.solve(gram + self.penalty * torch.eye(len(gram), dtype=gram.dtype), moment)}

    def collected_state(self) -> dict[str, Any]:
        """The sums so far."""
        return {"gram": self.gram, "moment": self.moment}

    def load_collected_state(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.gram, self.moment = state["gram"], state["moment"]

    def evaluate_step(self, stage: str, batch: dict[str, Any]) -> None:
        """Squared error of each row."""
        self.scores.update(stage, "mse", (self(batch["row"]) - batch["value"]) ** 2)

    def predict_step(self, batch: dict[str, Any], batch_idx: int = 0) -> dict[str, Any]:
        """Value and a (meaningless) interval around it."""
        value = self(batch["row"])
        return {"value": value, "interval": torch.stack([value - 0.1, value + 0.1], 1)}
