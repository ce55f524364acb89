"""What federated classifiers of images share: cross-entropy on clients, scores of the global model, stability."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.federated.learner import FederatedLearner
from zoo.nn.image_classifier import ImageClassifier

__all__ = ["CHANGES", "FederatedClassifier"]

CHANGES = 10
"""Rounds over which `val/change` is averaged."""


class FederatedClassifier(FederatedLearner, ImageClassifier):
    """Base of federated classifiers of square images with one label each.

    A subclass has the hyper-parameters of `ImageClassifier`, and its constructor ends with `federate`. Logged: `val/`
    and `test/` loss and accuracy of the global model, and `val/change`, the mean absolute change of the accuracy from
    round to round over the last ten.
    """

    monitor = ("val/accuracy", "max")
    logged = ("loss", "accuracy", "change")

    def __init__(self) -> None:
        super().__init__()
        self.accuracies: list[float] = []

    def local_step(self, network: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        """Cross-entropy of a client's batch."""
        return F.cross_entropy(self.logits_of(network, batch["image"]).float(), batch["label"]), None

    # Evaluation ---------------------------------------------------------------------------------------------------

    def log_scores(self, stage: str) -> dict[str, Any]:
        """Log loss and accuracy, and in validation the change of the accuracy from round to round."""
        values = super().log_scores(stage)
        if stage == "val" and self.trainer.training and not self.trainer.sanity_checking:
            self.accuracies = [*self.accuracies[-CHANGES:], float(values["accuracy"])]
            if len(self.accuracies) > 1:
                changes = torch.tensor(self.accuracies, dtype=torch.float64).diff().abs()
                self.log("val/change", changes.mean().float())
        return values

    def on_fit_start(self) -> None:
        """Forget the rounds of another run."""
        if not self._resumed:
            self.accuracies = []
        super().on_fit_start()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the last accuracies."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["federated"]["accuracies"] = list(self.accuracies)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take them back."""
        super().on_load_checkpoint(checkpoint)
        self.accuracies = list((checkpoint.get("federated") or {}).get("accuracies", []))
