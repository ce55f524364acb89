"""Losses of adversarial training and robust distillation, as functions of logits.

Student S, teacher T, x' an adversarial example of x, y labels, p softmax of logits, all means over the N samples:

    natural  CE(S(x), y)
    sat      CE(S(x'), y)                                                          Madry et al. 2018
    trades   CE(S(x), y) + beta KL(p_S(x) || p_S(x'))                              Zhang et al. 2019
    mart     BCE(S(x'), y) + beta KL(p_S(x) || p_S(x')) (1 - p_S(y | x))           Wang et al. 2020
    ard      (1 - a) CE(S(x), y) + a t^2 KL(p_T(x) || p_S(x'))  at temperature t   Goldblum et al. 2020
    iad      ard + a (1 - p_T(y | x')^b) KL(p_S(x) || p_S(x'))                     Zhu et al. 2022, IAD-I

The arguments are always the same: `z` (N, K) the student's logits on x, `z_adv` on x', `t` and `t_adv` those of the
teacher, `y` (N,) int64. Logits are in single precision at least; every loss is a scalar through which gradients flow to
all logits of the student.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

__all__ = ["ard", "boosted_cross_entropy", "doubt", "iad", "kl", "mart", "natural", "sat", "soft_targets", "trades"]


def kl(log_p: Tensor, log_q: Tensor, weight: Tensor | None = None) -> Tensor:
    """KL(p || q) = sum_k p_k (log p_k - log q_k): sum over classes, mean over samples.

    Args:
        log_p: log-probabilities (N, K).
        log_q: log-probabilities (N, K).
        weight: of each sample (N,).
    """
    each = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)
    return (each if weight is None else weight * each).mean()


def natural(z: Tensor, y: Tensor) -> Tensor:
    """CE(S(x), y)."""
    return F.cross_entropy(z, y)


def sat(z_adv: Tensor, y: Tensor) -> Tensor:
    """CE(S(x'), y)."""
    return F.cross_entropy(z_adv, y)


def trades(z: Tensor, z_adv: Tensor, y: Tensor, beta: float) -> Tensor:
    """CE(S(x), y) + beta KL(p_S(x) || p_S(x'))."""
    return F.cross_entropy(z, y) + beta * kl(z.log_softmax(1), z_adv.log_softmax(1))


def boosted_cross_entropy(z_adv: Tensor, y: Tensor) -> Tensor:
    """BCE = CE(S(x'), y) - log(1.0001 - max_{k != y} p_S(k | x')): the margin to the likeliest wrong class counts too.

    The small surplus, as in MART's published code, keeps the logarithm finite.
    """
    wrong = z_adv.softmax(1).scatter(1, y[:, None], -1.0).amax(1)
    return F.cross_entropy(z_adv, y) - (1.0001 - wrong).log().mean()


def doubt(z: Tensor, y: Tensor) -> Tensor:
    """1 - p_S(y | x) of each sample (N,)."""
    return 1 - z.softmax(1).gather(1, y[:, None])[:, 0]


def mart(z: Tensor, z_adv: Tensor, y: Tensor, beta: float, weight: Tensor | None = None) -> Tensor:
    """BCE(S(x'), y) + beta mean[KL(p_S(x) || p_S(x')) (1 - p_S(y | x))]: samples that S gets wrong weigh more.

    Args:
        z: (N, K) on x.
        z_adv: (N, K) on x'.
        y: (N,) labels.
        beta: weight of the KL term.
        weight: (N,) in place of the doubt of `z`, where another head decides which samples weigh more.
    """
    weight = doubt(z, y) if weight is None else weight
    return boosted_cross_entropy(z_adv, y) + beta * kl(z.log_softmax(1), z_adv.log_softmax(1), weight)


def soft_targets(t: Tensor, z: Tensor, temperature: float = 1.0) -> Tensor:
    """t^2 KL(p_T || p_S), both at temperature t; its square keeps the gradient's size (Hinton et al. 2015)."""
    return temperature * temperature * kl((t / temperature).log_softmax(1), (z / temperature).log_softmax(1))


def ard(z: Tensor | None, z_adv: Tensor, t: Tensor, y: Tensor, alpha: float, temperature: float) -> Tensor:
    """(1 - a) CE(S(x), y) + a t^2 KL(p_T(x) || p_S(x')); with a = 1, the authors' default, z is not used."""
    term = soft_targets(t, z_adv, temperature)
    if alpha == 1:
        return term
    assert z is not None
    return alpha * term + (1 - alpha) * F.cross_entropy(z, y)


def iad(
    z: Tensor,
    z_adv: Tensor,
    t: Tensor,
    t_adv: Tensor | None,
    y: Tensor,
    alpha: float,
    temperature: float,
    power: float,
) -> Tensor:
    """ARD + a mean[(1 - p_T(y | x')^b) KL(p_S(x) || p_S(x'))]: where the teacher errs on x', the student trusts itself.

    As in the authors' code, the gradient also flows through p_S(x). Without `t_adv` the teacher is trusted fully, which
    is ARD with z used for every a.
    """
    term = soft_targets(t, z_adv, temperature)
    if t_adv is not None:
        trust = t_adv.softmax(1).gather(1, y[:, None])[:, 0] ** power
        term = term + kl(z.log_softmax(1), z_adv.log_softmax(1), 1 - trust)
    return term * alpha + (1 - alpha) * F.cross_entropy(z, y)
