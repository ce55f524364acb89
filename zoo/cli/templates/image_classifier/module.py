"""The classifier as a Lightning module; the paper and its equations are in the package's docstring."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.base.image_classifier import ImageClassifier
from zoo.cli.templates.image_classifier.network import Network

__all__ = ["NewMethod"]


class NewMethod(ImageClassifier):
    """Say what it is, with its source.

    Args:
        width: features.
        lr: learning rate of AdamW.
        num_classes: K.
        class_names: K names; numbers if None.
        channels: of the images, 1 or 3.
        img_size: side of the square images in pixels.
    """

    def __init__(
        self,
        width: int = 32,
        lr: float = 0.01,
        num_classes: int = 10,
        class_names: list[str] | None = None,
        channels: int = 1,
        img_size: int = 28,
    ) -> None:
        super().__init__()

    def make_network(self) -> nn.Module:
        """The network of equation (1)."""
        return Network(self.hparams["channels"], self.hparams["width"], self.hparams["num_classes"])

    def training_step(self, batch: dict[str, Any], batch_idx: int = 0) -> Tensor:
        """Equation (2)."""
        loss = F.cross_entropy(self(batch["image"]).float(), batch["label"])
        self.log("train/loss", loss.detach(), batch_size=len(batch["index"]))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=self.hparams["lr"])
