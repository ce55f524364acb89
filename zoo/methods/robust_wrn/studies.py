"""What can be said about the networks without training any, and what a foreign attack says about the bundled ones."""

from __future__ import annotations

from typing import Any

import torch

from zoo.methods.robust_wrn.network import CONFIGURATIONS, RobustWideResNet, multiply_adds
from zoo.robustness.evaluate import evaluate_robustness
from zoo.store import datamodule, load
from zoo.studies import Outcome, study

PUBLISHED = {"34-12": (66.5e6, 9.60e9), "34-r": (68.1e6, 19.1e9)}
"""Configuration -> parameters and multiply-adds, as a later study states them."""


@study("largest_error", "parameters_34-12", "parameters_34-r", "operations_34-12", "operations_34-r")
def sizes() -> Outcome:
    """Largest relative difference of parameters and multiply-adds from the published ones, for 32x32 pictures."""
    metrics: dict[str, float] = {}
    worst = 0.0
    for name, published in PUBLISHED.items():
        chosen = CONFIGURATIONS[name]
        with torch.device("meta"):
            network = RobustWideResNet(10, 3, chosen.widths, chosen.depths)
        counts = sum(p.numel() for p in network.parameters()), multiply_adds(network, (3, 32, 32))
        metrics |= {f"parameters_{name}": float(counts[0]), f"operations_{name}": float(counts[1])}
        worst = max(worst, *(abs(a / b - 1) for a, b in zip(counts, published, strict=True)))
    return Outcome({"largest_error": worst, **metrics})


@study("missed", "autoattack", "own")
def autoattack(tag: str = "fmnist-16-r", pictures: int = 100) -> Outcome:
    """How far AutoAttack (pyautoattack) gets below the worst case of our PGD-20 and CW-30, on bundled weights.

    Args:
        tag: of the weights.
        pictures: test pictures, drawn by seed 0.
    """
    model: Any = load(f"robust-wrn:{tag}")
    data = datamodule(f"robust-wrn:{tag}")
    shares = {}
    for name, attacks in (("own", ["pgd-20", "cw-30"]), ("autoattack", ["autoattack"])):
        report = evaluate_robustness(model, data, 0.1, pictures, attacks, checks=False).to_dict()
        shares[name] = float(report["worst"])
    return Outcome({"missed": shares["own"] - shares["autoattack"], **shares})
