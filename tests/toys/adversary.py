"""Two optimisers: a regressor and a critic that guesses which rows belong to its errors; manual optimisation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from toys.common import TableModule
from zoo.base import Scores


class ToyAdversary(TableModule):
    """Regression against a critic of the residuals. Takes no clipping and no accumulation from the Trainer."""

    parameter_roles = {"critic": "training"}
    partial_backward = True
    task = "tabular-regression"

    def __init__(self, features: int = 4, lr: float = 0.05) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.features, self.lr = features, lr
        self.body = nn.Linear(features, 1)
        self.critic = nn.Linear(features, 1)
        self.scores = Scores()

    def forward(self, row: Tensor) -> Tensor:
        """Value (n,)."""
        return self.body(row)[:, 0]

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """The critic explains the residual, the regressor removes what it finds."""
        optimizers: Any = self.optimizers()
        residual = batch["value"] - self(batch["row"])
        noise = 0.01 * torch.randn_like(residual)
        critic_loss = (self.critic(batch["row"])[:, 0] - residual.detach() - noise).square().mean()
        loss = residual.square().mean() + 0.1 * (self.critic(batch["row"]).detach()[:, 0] * residual).mean()
        for optimizer, value in zip(optimizers, (loss, critic_loss), strict=True):
            optimizer.zero_grad()
            self.manual_backward(value)
            optimizer.step()
        self.log("train/loss", residual.square().mean(), batch_size=len(batch["index"]))

    def evaluate_step(self, stage: str, batch: dict[str, Any]) -> None:
        """Squared error of each row."""
        self.scores.update_loss(stage, (self(batch["row"]) - batch["value"]) ** 2, len(batch["index"]))

    def predict_step(self, batch: dict[str, Any], batch_idx: int = 0) -> dict[str, Any]:
        """Value and interval."""
        value = self(batch["row"])
        return {"value": value, "interval": torch.stack([value, value], 1)}

    def configure_optimizers(self) -> Any:
        """One optimiser per player."""
        return [torch.optim.Adam(part.parameters(), lr=self.lr) for part in (self.body, self.critic)]
