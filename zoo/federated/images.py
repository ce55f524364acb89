"""What federated classifiers of images share: cross-entropy on clients, scores of the global model, stability."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.base.image_classifier import ImageClassifier
from zoo.federated.clients import ClientAlgorithm, ParamScope
from zoo.federated.learner import FederatedLearner
from zoo.federated.rules import Rule, create_rule

__all__ = ["CHANGES", "FederatedClassifier"]

CHANGES = 10
"""Rounds over which `val/change` is averaged."""


class FederatedClassifier(FederatedLearner, ImageClassifier):
    """Base of federated classifiers of square images with one label each.

    A subclass has the hyper-parameters of `ImageClassifier`, those of `local_training` that it wants, `transforms` and
    `client_processes`. Its constructor begins with `super().__init__()`, which builds all of it; the methods `make_...`
    say what is particular: `make_network`, `make_rule`, `make_client` and `make_scope`. Logged: `val/` and `test/` loss
    and accuracy of the global model, and `val/change`, the mean absolute change of the accuracy from round to round
    over the last ten.
    """

    logged = ("loss", "accuracy", "change")

    def __init__(self) -> None:
        super().__init__()
        self.accuracies: list[float] = []
        self.federate(
            self.network,
            self.make_rule(),
            self.make_client(),
            self.local_training(),
            scope=self.make_scope(),
            transforms=self.update_transforms(),
            client_processes=self.hparams.get("client_processes"),
        )

    # What a subclass may choose -----------------------------------------------------------------------------------

    def make_rule(self) -> Rule:
        """How updates become the next global model; by default their mean, weighted by samples."""
        return create_rule("fedavg")

    def make_client(self) -> ClientAlgorithm:
        """How clients train; by default plainly."""
        return ClientAlgorithm()

    def make_scope(self) -> ParamScope:
        """Which entries are shared with whom; by default all with everybody."""
        return ParamScope()

    def local_step(self, network: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        """Cross-entropy of a client's batch."""
        return F.cross_entropy(self.logits_of(network, batch["image"]).float(), batch["label"]), None

    # Evaluation ---------------------------------------------------------------------------------------------------

    def log_scores(self, stage: str) -> dict[str, Any]:
        """Log loss and accuracy, and in validation the change of the accuracy from round to round."""
        values = super().log_scores(stage)
        # while a fit validates, `trainer.training` is False
        if stage == "val" and self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            self.accuracies = [*self.accuracies[-CHANGES:], float(values["accuracy"])]
            if len(self.accuracies) > 1:
                values["change"] = torch.tensor(self.accuracies, dtype=torch.float64).diff().abs().mean().float()
                # all ranks hold the same value, of which the largest is exactly that
                self.log("val/change", values["change"], sync_dist=True, reduce_fx="max")
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
        """Restore them."""
        super().on_load_checkpoint(checkpoint)
        self.accuracies = list((checkpoint.get("federated") or {}).get("accuracies", []))
