"""The robust classifier as a Lightning module; the paper and its equations are in the package's docstring."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from zoo.base.adversarial_classifier import AdversarialClassifier
from zoo.cli.templates.image_classifier.network import Network

__all__ = ["NewMethod"]


class NewMethod(AdversarialClassifier):
    """Say what it is, with its source.

    Args:
        beta: weight of the KL term of equation (2).
        width: features.
        eps: radius of the attack, for pixels in [0, 1].
        attack_step: step size of the training attack.
        attack_steps: steps of the training attack.
        eps_warmup: epochs in which radius and step rise from 0.
        eval_steps: steps of PGD in validation and test.
        test_attacks: attacks that `test` measures.
        lr: learning rate of SGD.
        momentum: of SGD.
        weight_decay: of SGD.
        schedule: of the learning rate, `steps` or `cosine`.
        milestones: epochs, or shares of all, at which `steps` divides the rate by ten.
        num_classes: K.
        class_names: K names; numbers if None.
        channels: of the images, 1 or 3.
        img_size: side of the square images in pixels.
    """

    def __init__(
        self,
        beta: float = 6.0,
        width: int = 32,
        eps: float = 0.1,
        attack_step: float = 0.025,
        attack_steps: int = 7,
        eps_warmup: float = 0.0,
        eval_steps: int = 20,
        test_attacks: Sequence[str] = ("pgd",),
        lr: float = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        schedule: str = "cosine",
        milestones: Sequence[float] = (),
        num_classes: int = 10,
        class_names: list[str] | None = None,
        channels: int = 1,
        img_size: int = 28,
    ) -> None:
        super().__init__()

    def make_network(self) -> nn.Module:
        """The network that is made robust."""
        return Network(self.hparams["channels"], self.hparams["width"], self.hparams["num_classes"])

    def loss(self, x: Tensor, y: Tensor, index: Tensor | None = None, share: float = 1.0) -> Tensor:
        """Equation (2), with the attack of equation (1)."""
        return self.criterion("trades", x, y, index, share)
