"""How robust the weights of j-sigr are, with and without access to them, as `robustness.json` of the card.

    python -m zoo.methods.j_sigr.robustness evaluate --n 150 --eps 0.05
    python -m zoo.methods.j_sigr.robustness evaluate --n 150               # at 0.1
    python -m zoo.methods.j_sigr.robustness evaluate --n 150 --eps 0.2
    python -m zoo.methods.j_sigr.robustness table

The white-box columns are what an attacker reaches who has the weights: PGD, the margin, AutoAttack, and Square without
gradients, with the battery against masked gradients. The transfer columns
are examples made on other networks, the worst of three for each picture, and on the mean of their logits.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from zoo.nn.attacks import cw_margin, di_fgsm, mi_fgsm, pgd, ti_fgsm, transfer
from zoo.robustness.stored import main

TAGS = ("fmnist-resnet10w16-plain", "fmnist-resnet10w16")
SURROGATES = ("rslad:fmnist-resnet10w24-natural", "cas:fmnist-resnet10w16-plain", "robust-wrn:fmnist-16-1")
"""Networks of other widths, trainings and kinds."""
KINDS = {"mi": mi_fgsm, "di": di_fgsm, "ti": ti_fgsm}

Attack = Callable[[Any, Tensor, Tensor], Tensor]


def battery(model: Any) -> dict[str, str | Attack]:
    """Attacks by name, for `zoo.evaluate_robustness`; the same for every model.

    Args:
        model: with the radius of its evaluation.
    """
    from zoo.store import load

    eps = float(model.hparams["eps"])
    others: list[Any] = [load(name) for name in SURROGATES]
    common: dict[str, Any] = {"eps": eps, "check": False}

    def made(kind: str, m: Any, x: Tensor, y: Tensor) -> Tensor:
        return transfer(m, x, y, surrogates=others, attack=KINDS[kind], **common)

    def on_all(m: Any, x: Tensor, y: Tensor) -> Tensor:
        return mi_fgsm(others, x, y, **common)

    chosen: dict[str, str | Attack] = {f"{kind}-transfer": partial(made, kind) for kind in KINDS}
    chosen["mi-ensemble"] = on_all
    chosen |= {
        "pgd-20": "pgd-20",
        "pgd-100": lambda m, x, y: pgd(m, x, y, eps=eps, step=eps / 10, steps=100, keep="best", check=False),
        "cw-30": lambda m, x, y: cw_margin(m, x, y, eps=eps, step=eps / 10, check=False),
        "square-1000": "square-1000",
        "autoattack": "autoattack",
    }
    return chosen


COLUMNS = {
    "PGD-20": ["pgd-20"],
    "PGD-100": ["pgd-100"],
    "margin": ["cw-30"],
    "AutoAttack": ["autoattack"],
    "Square": ["square-1000"],
    "MI": ["mi-transfer"],
    "DI": ["di-transfer"],
    "TI": ["ti-transfer"],
    "ensemble MI": ["mi-ensemble"],
}
"""Headings of the card's table -> attacks; the first five have the weights, the others do not."""

if __name__ == "__main__":
    main("j-sigr", __doc__, TAGS, COLUMNS, battery)
