"""How robust the weights of cas are against attacks that know the suppression, as `robustness.json` of the card.

    python -m zoo.methods.cas.robustness evaluate --n 300     # about an hour for both
    python -m zoo.methods.cas.robustness table

The mask of an evaluation jumps where the likeliest class of an auxiliary head changes, and no gradient goes through
that choice. An attack on the final logits may therefore stop where a better point exists. The battery adds to the
standard attacks, AutoAttack among them: joint losses with several weights, attacks that first turn the auxiliary heads
and continue from there, masks of each of the three classes likeliest at first, masks that are a softmax mixture of all
rows, examples made on the network without suppression, and a search without gradients. Every example is judged by the
network as it is; what counts is the worst of all of them for each picture.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from zoo.methods.cas.module import CAS
from zoo.methods.cas.suppression import Choice
from zoo.nn.attacks import cw_margin, pgd, square, transfer
from zoo.robustness.stored import main

TAGS = ("fmnist-resnet10w16-plain", "fmnist-resnet10w16")
TWIN = "cas:fmnist-resnet10w16-plain"
WEIGHTS = (0.1, 1.0, 2.0, 10.0, 100.0)
"""Weights of the auxiliary losses in joint attacks."""
TEMPERATURES = (1.0, 0.1)
"""Of the softmax that mixes the rows of a soft mask."""
RANKS = (0, 1, 2)
"""Which of the likeliest classes a mask is forced to."""
STEPS = 50
QUERIES = 5000

Attack = Callable[[Any, Tensor, Tensor], Tensor]


def adaptive_attacks(model: CAS) -> dict[str, Attack]:
    """Attacks that know the suppressions, by name: every evaluation of these models runs them."""
    eps = float(model.hparams["eps"])
    return _aimed(model, {"eps": eps, "step": eps / 10, "check": False}) if len(model.suppressions) else {}


def battery(model: CAS) -> dict[str, str | Attack]:
    """Attacks by name, for `zoo.evaluate_robustness`.

    Args:
        model: with or without suppressions; without, what aims at them is left out.
    """
    eps = float(model.hparams["eps"])
    common: dict[str, Any] = {"eps": eps, "step": eps / 10, "check": False}
    chosen: dict[str, str | Attack] = {
        f"pgd-{STEPS}": lambda m, x, y: pgd(model, x, y, steps=STEPS, keep="best", **common),
        f"cw-{STEPS}": lambda m, x, y: cw_margin(model, x, y, steps=STEPS, **common),
    }
    if len(model.suppressions):
        chosen |= _aimed(model, common) | {"transfer-plain": partial(_transferred, eps)}
    chosen[f"square-{QUERIES}"] = lambda m, x, y: square(model, x, y, eps=eps, queries=QUERIES, check=False)
    chosen["autoattack"] = "autoattack"
    return chosen


def _aimed(model: CAS, common: dict[str, Any]) -> dict[str, Attack]:
    """Attacks that aim at the suppressions."""
    count = int(model.hparams["num_classes"])

    def beaten(logits: Tensor, y: Tensor) -> Tensor:
        return logits[:, :count].argmax(1) != y  # the verdict is that of the final logits

    def joint(weight: float, m: Any, x: Tensor, y: Tensor) -> Tensor:
        options: dict[str, Any] = {"loss": model.joint("ce", weight), "steps": STEPS, "keep": "best", **common}
        return pgd(model.joint_logits, x, y, success=beaten, **options)

    def head_first(number: int, m: Any, x: Tensor, y: Tensor) -> Tensor:
        def auxiliary(images: Tensor) -> Tensor:
            return model.heads(images)[1 + number]

        turned = pgd(auxiliary, x, y, steps=STEPS // 2, mode="keep", **common)
        return pgd(model, x, y, steps=STEPS, start=turned, keep="best", **common)

    def surrogate(masks: Callable[[CAS, Tensor], list[Choice]], m: Any, x: Tensor, y: Tensor) -> Tensor:
        choices = masks(model, x)

        def changed(images: Tensor) -> Tensor:
            with model.masks(choices):
                return model.logits(images)

        return transfer(model, x, y, surrogates=[changed], steps=STEPS, **common)

    chosen: dict[str, Attack] = {f"joint-{w:g}": partial(joint, w) for w in WEIGHTS}
    chosen |= {f"head-{k + 1}-first": partial(head_first, k) for k in range(len(model.suppressions))}
    chosen |= {f"mask-{rank + 1}": partial(surrogate, forced(rank)) for rank in RANKS}
    return chosen | {f"soft-mask-{t:g}": partial(surrogate, soft(t)) for t in TEMPERATURES}


def forced(rank: int) -> Callable[[CAS, Tensor], list[Choice]]:
    """At each place the row of the class that is `rank`-th likeliest (from 0) on the images as they are."""

    def masks(model: CAS, x: Tensor) -> list[Choice]:
        with torch.no_grad():
            classes = [a.topk(rank + 1, 1).indices[:, rank] for a in model.heads(x)[1:]]
        return [partial(_row, labels) for labels in classes]

    return masks


def _row(labels: Tensor, logits: Tensor, weight: Tensor) -> Tensor:
    return weight[labels]


def soft(temperature: float) -> Callable[[CAS, Tensor], list[Choice]]:
    """All rows, mixed by the softmax of the auxiliary logits: it has a gradient everywhere."""

    def mixed(logits: Tensor, weight: Tensor) -> Tensor:
        return (logits / temperature).softmax(1) @ weight

    return lambda model, x: [mixed] * len(model.suppressions)


def _transferred(eps: float, model: Any, x: Tensor, y: Tensor) -> Tensor:
    from zoo.store import load

    twin: Any = load(TWIN)
    options: dict[str, Any] = {"eps": eps, "step": eps / 10, "steps": STEPS, "check": False}
    return transfer(model, x, y, surrogates=[twin], **options)


COLUMNS = {
    f"PGD-{STEPS}": [f"pgd-{STEPS}"],
    "margin": [f"cw-{STEPS}"],
    "joint losses": [f"joint-{w:g}" for w in WEIGHTS],
    "heads first": ["head-1-first", "head-2-first"],
    "forced masks": [f"mask-{rank + 1}" for rank in RANKS],
    "soft masks": [f"soft-mask-{t:g}" for t in TEMPERATURES],
    "transfer": ["transfer-plain"],
    "Square": [f"square-{QUERIES}"],
    "AutoAttack": ["autoattack"],
}
"""Headings of the card's table -> attacks."""

if __name__ == "__main__":
    main("cas", __doc__, TAGS, COLUMNS, battery)
