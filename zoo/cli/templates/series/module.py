"""The method as a Lightning module; the paper and its equations are in the package's docstring."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.base.series import SeriesModel
from zoo.cli.templates.series.network import Network

__all__ = ["NewMethod"]


class NewMethod(SeriesModel):
    """Say what it is, with its source.

    Args:
        width: features.
        lr: learning rate of AdamW.
        num_classes: K; 0 to predict values.
        class_names: K names; numbers if None.
        channels: C of the series.
        length: L of the training series.
    """

    parameter_roles: ClassVar[dict[str, str]] = {"head": "head", "spread": "head"}
    task = "time-series-classification"  # zoo new: task

    def __init__(
        self,
        width: int = 16,
        lr: float = 0.01,
        num_classes: int = 3,  # zoo new: classes
        class_names: list[str] | None = None,
        channels: int = 1,
        length: int = 128,
    ) -> None:
        super().__init__()
        self.network = Network(channels, width)
        self.head = nn.Linear(width, self.outputs)
        self.register_buffer("spread", torch.ones(self.outputs))

    def forward(self, series: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Logits (n, K), or values (n, 1), by equation (2).

        Args:
            series: float (n, C, L).
            lengths: int (n,), where series are filled up to the longest.
        """
        return self.head(self.network(series, lengths))  # type: ignore[no-any-return]

    def training_step(self, batch: dict[str, Any], batch_idx: int = 0) -> Tensor:
        """Equation (3)."""
        out = self(*self.inputs_of(batch)).float()
        loss = F.cross_entropy(out, batch["label"]) if self.classifies else F.mse_loss(out, self.values_of(batch))
        self.log("train/loss", loss.detach(), batch_size=len(batch["index"]))
        return loss

    def interval_of(self, value: Tensor) -> Tensor:
        """Ends of the intervals; measure `spread` on validation series before you promise a coverage."""
        half = 1.96 * self.get_buffer("spread")
        return torch.stack([value - half, value + half], dim=-1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=self.hparams["lr"])
