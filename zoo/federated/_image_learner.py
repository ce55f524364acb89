"""What federated classifiers of images share: cross-entropy on clients, scores of the global model, stability."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from zoo.errors import BadInput
from zoo.federated.learner import FederatedLearner
from zoo.nn.classifiers import Normalize
from zoo.nn.image_classifier import ImageClassifier

__all__ = ["CHANGES", "FederatedClassifier"]

CHANGES = 10
"""Rounds over which `val/change` is averaged."""


class FederatedClassifier(FederatedLearner, ImageClassifier):
    """Base of federated classifiers of square images with one label each.

    A subclass has the hyper-parameters num_classes, class_names, channels, img_size, mean and std, and calls
    `prepare_images` and `federate`. Logged: `val/` and `test/` loss and accuracy of the global model, and `val/change`,
    the mean absolute change of the accuracy from round to round over the last ten.
    """

    task = "image-classification"
    monitor = ("val/accuracy", "max")
    logged = ("loss", "accuracy", "change")

    def prepare_images(self) -> None:
        """Normalisation and scores."""
        hp = self.hparams
        if (hp["mean"] is None) != (hp["std"] is None) or len(hp["mean"] or [0] * hp["channels"]) != hp["channels"]:
            raise BadInput(
                f"mean and std need one value for each of the {hp['channels']} channels, or both be left out."
            )
        if hp["class_names"] is not None and len(hp["class_names"]) != hp["num_classes"]:
            raise BadInput(f"{len(hp['class_names'])} class_names were given for {hp['num_classes']} classes.")
        self.normalize = Normalize(hp["mean"], hp["std"]) if hp["mean"] is not None else nn.Identity()
        self.scores = nn.ModuleDict(
            {k: MulticlassAccuracy(hp["num_classes"], average="micro") for k in ("val_accuracy", "test_accuracy")}
        )
        self.losses = nn.ModuleDict({k: MeanMetric() for k in ("val_loss", "test_loss")})
        self.accuracies: list[float] = []

    def forward(self, image: Tensor) -> Tensor:
        """Logits (N, K) of images float (N, C, H, W) in [0, 1]."""
        channels = int(self.hparams["channels"])
        if image.ndim != 4 or image.shape[1] != channels:
            raise BadInput(f"forward takes images (N, {channels}, H, W) in [0, 1], got {tuple(image.shape)}.")
        return self.logits_of(self.network, image)

    def logits_of(self, network: nn.Module, image: Tensor) -> Tensor:
        """Logits (N, K) of a network of this kind, whichever its weights."""
        return network(self.normalize(image))  # type: ignore[no-any-return]

    def local_step(self, network: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        """Cross-entropy of a client's batch."""
        return F.cross_entropy(self.logits_of(network, batch["image"]).float(), batch["label"]), None

    # Evaluation ---------------------------------------------------------------------------------------------------

    def _evaluate(self, stage: str, batch: dict[str, Any]) -> None:
        scores: Any = self.scores
        losses: Any = self.losses
        logits, count = self(batch["image"]).float(), len(batch["index"])
        losses[f"{stage}_loss"].update(F.cross_entropy(logits, batch["label"]), weight=count)
        scores[f"{stage}_accuracy"].update(logits, batch["label"])
        found = {f"{stage}/loss": losses[f"{stage}_loss"], f"{stage}/accuracy": scores[f"{stage}_accuracy"]}
        self.log_dict(found, batch_size=count)

    def validation_step(self, batch: dict[str, Any], batch_idx: int = 0) -> None:
        """Log `val/loss` and `val/accuracy` of the global model."""
        self._evaluate("val", batch)

    def on_validation_epoch_end(self) -> None:
        """Log `val/change`."""
        if not self.trainer.training or self.trainer.sanity_checking:
            return
        scores: Any = self.scores
        self.accuracies = [*self.accuracies[-CHANGES:], float(scores["val_accuracy"].compute())]
        if len(self.accuracies) > 1:
            changes = torch.tensor(self.accuracies, dtype=torch.float64).diff().abs()
            self.log("val/change", changes.mean().float())

    def test_step(self, batch: dict[str, Any], batch_idx: int = 0) -> None:
        """Log the same for `test`."""
        self._evaluate("test", batch)

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
