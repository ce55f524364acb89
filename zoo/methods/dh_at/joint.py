"""The joint strategy: the loss of both heads at once, as functions of probabilities and logits (earlier variant)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.nn.adversarial_losses import kl

__all__ = ["joint_loss", "reverse_smoothing", "weights_at"]

SMOOTHING = {"clean": 0.9, "success": 1.1, "failure": 1.0}
"""s of the targets of the second head: on clean images, where the attack succeeded, and where it failed."""


def reverse_smoothing(p: Tensor, y: Tensor, s: float) -> Tensor:
    """R(p, s): the entry of the label stays, every other one is multiplied by 1 + s p_y / (1.0001 - p_y).

    Rows sum to about 1 + s p_y: they are not scaled to distributions again. No gradient flows through them.

    Args:
        p: probabilities (N, K).
        y: labels (N,).
        s: strength.
    """
    p = p.detach()
    true = p.gather(1, y[:, None])
    factor = (1 + s * true / (1.0001 - true)).expand_as(p)
    return torch.where(F.one_hot(y, p.shape[1]).bool(), p, p * factor)


def divergence(target: Tensor, logits: Tensor) -> Tensor:
    """sum_k t_k (log t_k - log a_k) of each sample (N,); t (N, K) need not sum to 1, a = softmax(logits)."""
    return (torch.xlogy(target, target) - target * logits.log_softmax(1)).sum(1)


def joint_loss(
    main: Tensor, main_adv: Tensor, second: Tensor, second_adv: Tensor, y: Tensor, weights: Sequence[float]
) -> Tensor:
    """b0 CE(z1) + b1 KL(p || q) + b2 (L_success + L_failure) + b3 KL(R(p, 0.9) || a).

    p and q are the probabilities of the main head on x and x', a and a' those of the second. L_success counts samples
    that are right on x and wrong on x', with KL(R(q, 1.1) || a'); L_failure those that are right on both, with
    KL(R(q, 1.0) || a'); samples that are wrong on x are left out. All are divided by the size of the batch.

    Args:
        main: logits (N, K) of the main head on x.
        main_adv: on x'.
        second: of the second head on x.
        second_adv: on x'.
        y: labels (N,).
        weights: b0 to b3.
    """
    p, q = main.softmax(1), main_adv.softmax(1)
    right, right_adv = main.argmax(1) == y, main_adv.argmax(1) == y
    success = divergence(reverse_smoothing(q, y, SMOOTHING["success"]), second_adv) * (right & ~right_adv)
    failure = divergence(reverse_smoothing(q, y, SMOOTHING["failure"]), second_adv) * (right & right_adv)
    clean = divergence(reverse_smoothing(p, y, SMOOTHING["clean"]), second)
    b0, b1, b2, b3 = weights
    loss = b0 * F.cross_entropy(main, y) + b1 * kl(main.log_softmax(1), main_adv.log_softmax(1))
    return loss + b2 * (success + failure).mean() + b3 * clean.mean()


def weights_at(weights: Sequence[float], share: float) -> list[float]:
    """B after some share of the training: from 60 % on, five times a tenth apart, b0, b1 times 0.95 and b2, b3 0.8.

    Args:
        weights: b0 to b3 at the beginning.
        share: of the epochs, in [0, 1]; the paper's steps are at epochs 60, 70, 80, 90 and 100 of 100.
    """
    steps = sum(share >= at - 1e-9 for at in (0.6, 0.7, 0.8, 0.9, 1.0))
    return [w * factor**steps for w, factor in zip(weights, (0.95, 0.95, 0.8, 0.8), strict=True)]
