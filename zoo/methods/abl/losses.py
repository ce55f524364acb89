"""The loss of the isolation phase, from the cross-entropy of each sample."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo import checks
from zoo.base import sum_over_ranks, world_size

__all__ = ["KINDS", "REDUCTIONS", "isolation_loss"]

KINDS = ("lga", "flooding", "plain")
REDUCTIONS = ("batch", "sample")


def isolation_loss(losses: Tensor, kind: str = "lga", gamma: float = 0.5, reduction: str = "batch") -> Tensor:
    """L1 = sign(l - gamma) l (lga), |l - gamma| + gamma (flooding) or l (plain).

    With `batch`, l is the mean over the batch, of all ranks as far as its side of gamma is concerned: a batch of which
    a few pictures are learned already still descends on them while its mean is above gamma. With `sample` each picture
    has its own sign.

    Args:
        losses: (N,) cross-entropy of each sample.
        kind: one of `KINDS`.
        gamma: floor of the loss.
        reduction: one of `REDUCTIONS`.

    Returns:
        A scalar.
    """
    checks.one_of("isolation", kind, KINDS)
    checks.one_of("reduction", reduction, REDUCTIONS)
    if kind == "plain":
        return losses.mean()
    if reduction == "sample":
        level, values = losses.detach(), losses
    else:
        values = losses.mean()
        level = sum_over_ranks(values.detach()) / world_size()
    sign = torch.sign(level - gamma)
    if kind == "lga":
        return (sign * values).mean()
    return (sign * (values - gamma) + gamma).mean()
