"""Attacks on models that also tell whether they are attacked: the attacker must fool both answers at once.

Such a model is attacked through a function that returns both, side by side: logits of K classes, then two logits, of no
attack and of an attack, (N, K + 2). A detector means nothing as long as no attack has tried to evade it (Carlini and
Wagner, "Adversarial Examples Are Not Easily Detected", 2017).
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from zoo.nn.attacks.core import Objective, Success

__all__ = ["misclassified_undetected", "undetected"]


def undetected(weight: float = 1.0) -> Objective:
    """Objective: cross-entropy of the classes, less `weight` times that of "no attack".

    Args:
        weight: of staying undetected.
    """

    def value(logits: Tensor, target: Tensor) -> Tensor:
        classes, attack = logits[:, :-2], logits[:, -2:]
        wrong = F.cross_entropy(classes, target, reduction="none")
        return wrong + weight * attack.log_softmax(1)[:, 0]

    return value


def misclassified_undetected() -> Success:
    """Whether another class than the label wins, and "no attack" does."""
    return lambda logits, target: (logits[:, :-2].argmax(1) != target) & (logits[:, -2:].argmax(1) == 0)
