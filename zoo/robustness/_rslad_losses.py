"""KL divergence of soft labels, and the losses of the baselines (equations at the top of `rslad.py`).

Each takes the module, clean images (N, C, H, W), labels (N,), the samples' identity (N,) and the share of eps, and
returns the mean over the batch. All students see x' before x, in training mode.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from zoo.robustness.rslad import RSLAD

__all__ = ["BASELINES", "kl"]


def kl(log_p: Tensor, log_q: Tensor, weight: Tensor | None = None) -> Tensor:
    """KL(p || q): sum over classes, mean over samples.

    Args:
        log_p: log-probabilities (N, K).
        log_q: likewise.
        weight: of each sample (N,).
    """
    each = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)
    return (each if weight is None else weight * each).mean()


def natural(model: RSLAD, x: Tensor, y: Tensor, index: Tensor | None, share: float) -> Tensor:
    """CE(S(x), y)."""
    return F.cross_entropy(model(x).float(), y)


def sat(model: RSLAD, x: Tensor, y: Tensor, index: Tensor | None, share: float) -> Tensor:
    """CE(S(x'), y)."""
    return F.cross_entropy(model(model.attack(x, y, "ce", index, share)).float(), y)


def trades(model: RSLAD, x: Tensor, y: Tensor, index: Tensor | None, share: float) -> Tensor:
    """CE(S(x), y) + beta KL(p_S(x) || p_S(x')); the attack's target comes from the student in evaluation mode."""
    network, training = model.network, model.network.training
    network.eval()
    try:
        with torch.no_grad():
            target = model(x).float().softmax(1)
    finally:
        network.train(training)
    z_adv, z = model(model.attack(x, target, "kl", index, share)).float(), model(x).float()
    return F.cross_entropy(z, y) + model.hparams["beta"] * kl(z.log_softmax(1), z_adv.log_softmax(1))


def ard(model: RSLAD, x: Tensor, y: Tensor, index: Tensor | None, share: float) -> Tensor:
    """(1 - a) CE(S(x), y) + a t^2 KL(p_T(x) || p_S(x')); with a = 1, the authors' default, x is not looked at."""
    adv = model.attack(x, y, "ce", index, share)
    alpha = model.hparams["alpha"]
    term = _from_teacher(model, x, model(adv).float())
    return term if alpha == 1 else alpha * term + (1 - alpha) * F.cross_entropy(model(x).float(), y)


def iad(model: RSLAD, x: Tensor, y: Tensor, index: Tensor | None, share: float) -> Tensor:
    """ARD + a mean (1 - p_T(y | x')^b) KL(p_S(x) || p_S(x')): where the teacher errs on x', the student trusts itself.

    As in the authors' code, the gradient also flows through p_S(x).
    """
    adv = model.attack(x, y, "ce", index, share)
    alpha = model.hparams["alpha"]
    z_adv, z = model(adv).float(), model(x).float()
    term = _from_teacher(model, x, z_adv)
    if model.introspects():
        trust = model.taught(adv).softmax(1).gather(1, y[:, None])[:, 0] ** model.hparams["iad_power"]
        term = term + kl(z.log_softmax(1), z_adv.log_softmax(1), 1 - trust)
    return term * alpha + (1 - alpha) * F.cross_entropy(z, y)


def _from_teacher(model: RSLAD, x: Tensor, z_adv: Tensor) -> Tensor:
    t = model.hparams["temperature"]
    return t * t * kl((model.taught(x) / t).log_softmax(1), (z_adv / t).log_softmax(1))


BASELINES: dict[str, Callable[[RSLAD, Tensor, Tensor, Tensor | None, float], Tensor]] = {
    "iad": iad,
    "ard": ard,
    "trades": trades,
    "sat": sat,
    "natural": natural,
}
