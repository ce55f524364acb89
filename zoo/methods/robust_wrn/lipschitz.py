"""How far a network moves its answer for a small change of the image."""

from __future__ import annotations

from torch import Tensor

from zoo import checks

__all__ = ["DISTANCES", "local_lipschitz"]

DISTANCES = ("l1", "kl")
"""How far two answers are from each other."""


def local_lipschitz(z: Tensor, z_adv: Tensor, x: Tensor, x_adv: Tensor, distance: str = "l1") -> Tensor:
    """||f(x) - f(x')||_1 / ||x - x'||_inf of each sample (N,), or KL(p(x) || p(x')) / ||x - x'||_inf.

    Args:
        z: (N, K) logits on x.
        z_adv: (N, K) logits on x'.
        x: (N, ...) images.
        x_adv: (N, ...) the same, attacked.
        distance: `l1` or `kl`.

    Returns:
        0 for samples that the attack left as they were.
    """
    checks.one_of("distance", distance, DISTANCES)
    if distance == "l1":
        above = (z - z_adv).abs().sum(1)
    else:
        log_p = z.log_softmax(1)
        above = (log_p.exp() * (log_p - z_adv.log_softmax(1))).sum(1)
    below = (x - x_adv).abs().flatten(1).amax(1)
    return above / below.masked_fill(below == 0, 1)
