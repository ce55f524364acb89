"""Attacked copies of training beats: which attack a beat gets, and how it is computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from zoo.nn.attacks import Model, cw_margin, fgsm, pgd, smooth, square
from zoo.nn.attacks.noise import integers

__all__ = ["ATTACKS", "attack_of", "craft"]

ATTACKS = ("fgsm", "bim", "pgd", "cw", "square", "smooth")
"""Those of the paper's mix first."""

STEPS = 10
CW_STEP = 0.01


def attack_of(index: Tensor, kinds: Sequence[str], seed: int = 0) -> Tensor:
    """Number (N,) of each beat's attack among `kinds`, drawn by the beat's own number."""
    return integers((len(kinds),), seed + 20_221, index)[:, 0]


def craft(
    model: Model, x: Tensor, y: Tensor, index: Tensor, kinds: Sequence[str], *, eps: float, cw_eps: float, seed: int = 0
) -> Tensor:
    """Attacked beats (N, C, L), each by the attack that is its own.

    Args:
        model: returns class logits; attacked in evaluation mode.
        x: (N, C, L) beats in [0, 1].
        y: (N,) classes.
        index: (N,) their numbers.
        kinds: names of `ATTACKS`.
        eps: radius of all but C&W.
        cw_eps: radius of C&W.
        seed: of the draws.
    """
    chosen, x_adv = attack_of(index, kinds, seed), x.clone()
    for number, kind in enumerate(kinds):
        rows = (chosen == number).nonzero()[:, 0]
        if len(rows):
            common: dict[str, Any] = {"index": index[rows], "seed": seed, "check": False}
            x_adv[rows] = _one(kind, model, x[rows], y[rows], eps, cw_eps, common)
    return x_adv


def _one(kind: str, model: Model, x: Tensor, y: Tensor, eps: float, cw_eps: float, common: dict[str, Any]) -> Tensor:
    if kind == "fgsm":
        return fgsm(model, x, y, eps=eps, **common)
    if kind == "cw":  # every step is taken, as in the authors' library, so the last point is wanted
        return cw_margin(model, x, y, eps=cw_eps, steps=STEPS, step=CW_STEP, start="none", keep="last", **common)
    if kind == "square":
        return square(model, x, y, eps=eps, queries=200, **common)
    if kind == "smooth":
        return smooth(model, x, y, eps=eps, steps=STEPS, step=eps / 4, **common)
    start = "none" if kind == "bim" else "uniform"
    return pgd(model, x, y, eps=eps, steps=STEPS, step=eps / 4, start=start, **common)  # type: ignore[arg-type]


def spread(values: Tensor, rows: Tensor, into: Tensor) -> Tensor:
    """`into` with `values` (M, ...) in the rows where `rows` (N,) is true."""
    return torch.where(rows.view(-1, *[1] * (into.ndim - 1)), values, into)
