"""How robust the weights of robust-wrn are, as `robustness.json` of the card.

    python -m zoo.methods.robust_wrn.robustness evaluate --n 150     # a quarter of an hour for both
    python -m zoo.methods.robust_wrn.robustness table

`evaluate` is `zoo.evaluate_robustness` with its standard attacks, AutoAttack (pyautoattack) among them, GAMA-PGD, and
the battery against masked gradients, on test pictures drawn by seed 0 at the radius of the training. `table` prints the
rows of the card.
"""

from __future__ import annotations

from typing import Any

from zoo.robustness.stored import main

TAGS = ("fmnist-16-1", "fmnist-16-r")

COLUMNS = {
    "PGD-20": ["pgd-20"],
    "CW-30": ["cw-30"],
    "GAMA-100": ["gama-100"],
    "APGD": ["apgd-ce", "apgd-dlr"],
    "AutoAttack": ["autoattack"],
}
"""Headings of the card's table -> attacks."""


def battery(_: Any) -> dict[str, str]:
    """The standard attacks and GAMA-PGD, by name; the same for every model."""
    return {name: name for name in ("fgsm", "pgd-20", "cw-30", "gama-100", "apgd-ce", "apgd-dlr", "autoattack")}


if __name__ == "__main__":
    main("robust-wrn", __doc__, TAGS, COLUMNS, battery)
