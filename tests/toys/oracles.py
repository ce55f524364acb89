"""Losses in double precision, one sample at a time: what tests of classifiers compare with."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["each_ce", "each_kl", "probs", "six_images"]


def probs(z: Tensor) -> np.ndarray:
    """Softmax of logits (N, K)."""
    values = z.detach().double().numpy()
    e = np.exp(values - values.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def each_ce(z: Tensor, y: Tensor) -> np.ndarray:
    """Cross-entropy of each sample (N,)."""
    return -np.log(probs(z)[np.arange(len(y)), y.numpy()])


def each_kl(z: Tensor, z_adv: Tensor) -> np.ndarray:
    """KL(p || q) of each sample (N,)."""
    p, q = probs(z), probs(z_adv)
    return (p * (np.log(p) - np.log(q))).sum(1)


def six_images(side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Images (6, 1, S, S), labels of four classes, and numbers."""
    torch.manual_seed(7)
    return torch.rand(6, 1, side, side), torch.tensor([0, 1, 2, 3, 0, 1]), torch.arange(6)
