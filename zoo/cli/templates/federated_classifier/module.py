"""The federated classifier as a Lightning module; the paper and its equations are in the package's docstring."""

from __future__ import annotations

from torch import nn

from zoo.cli.templates.image_classifier.network import Network
from zoo.federated.images import FederatedClassifier
from zoo.federated.rules import Rule, create_rule

__all__ = ["NewMethod"]


class NewMethod(FederatedClassifier):
    """Say what it is, with its source.

    Args:
        width: features.
        local_epochs: passes over a client's images in a round.
        lr: learning rate of the clients.
        momentum: of the clients' SGD.
        client_processes: processes that train clients side by side on this machine; None: one per thread of torch.
        num_classes: K.
        class_names: K names; numbers if None.
        channels: of the images, 1 or 3.
        img_size: side of the square images in pixels.
    """

    def __init__(
        self,
        width: int = 32,
        local_epochs: int = 1,
        lr: float = 0.05,
        momentum: float = 0.9,
        client_processes: int | None = None,
        num_classes: int = 10,
        class_names: list[str] | None = None,
        channels: int = 1,
        img_size: int = 28,
    ) -> None:
        super().__init__()

    def make_network(self) -> nn.Module:
        """The network that is learned together."""
        return Network(self.hparams["channels"], self.hparams["width"], self.hparams["num_classes"])

    def make_rule(self) -> Rule:
        """Equation (2)."""
        return create_rule("fedavg")
