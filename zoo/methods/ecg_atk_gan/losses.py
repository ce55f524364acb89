"""The losses of both players; outputs are logits, in single precision."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["discriminator_loss", "generator_loss"]

Outputs = tuple[Tensor, Tensor, Tensor]


def three_terms(outputs: Outputs, real: bool, t: Tensor, y: Tensor, weights: Sequence[float]) -> Tensor:
    """Weighted sum of MSE(s, real), CE(a, t) and CE(c, y), means over the batch. A term of weight 0 is not computed.

    Args:
        outputs: logit of real (N, 1), of no attack and attack (N, 2), of the classes (N, K).
        real: what s should say.
        t: (N,) int64, 1 for attacked beats.
        y: (N,) int64 classes.
        weights: of the three.
    """
    score, attack, classes = (out.float() for out in outputs)
    total = classes.new_zeros(())
    if weights[0]:
        total = total + weights[0] * (torch.sigmoid(score) - float(real)).square().mean()
    if weights[1]:
        total = total + weights[1] * F.cross_entropy(attack, t)
    if weights[2]:
        total = total + weights[2] * F.cross_entropy(classes, y)
    return total


def discriminator_loss(
    real: Outputs, fake: Outputs | None, t: Tensor, y: Tensor, weights: Sequence[float] = (1.0, 1.0, 1.0)
) -> Tensor:
    """Of D: beats are real, generated ones are not, and have flag and class of their source.

    Args:
        real: D's outputs on E'.
        fake: on G(E', z, y); None without a generator.
        t: (N,) flags.
        y: (N,) classes.
        weights: of real or not, attack and class.
    """
    loss = three_terms(real, True, t, y, weights)
    return loss if fake is None else loss + three_terms(fake, False, t, y, weights)


def generator_loss(fake: Outputs, t: Tensor, y: Tensor, weights: Sequence[float] = (1.0, 10.0, 10.0)) -> Tensor:
    """Of G, the class-weighted objective: D takes its beats for real, and sees flag and class of their source."""
    return three_terms(fake, True, t, y, weights)
