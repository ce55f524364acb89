"""Pictures of the card: robustness against what a network costs, and where each network spends it."""

from __future__ import annotations

from typing import Any

import torch

from zoo.methods.robust_wrn.network import CONFIGURATIONS, RobustWideResNet, multiply_adds
from zoo.pictures.axes import new_figure, style_axes
from zoo.pictures.card import CardFiles, card_picture
from zoo.pictures.palette import CURVES, GREY

__all__ = ["budget"]

NETWORKS = {
    "16-1": ("usual", CURVES[1]),
    "16-r": ("R, same parameters", CURVES[0]),
    "16-r-macs": ("R, same operations", CURVES[0]),
    "16-narrow-last": ("narrow last stage", CURVES[2]),
    "16-anti-r": ("reverse of R", CURVES[5]),
    "16-1.5": ("usual, wider", CURVES[1]),
}
"""Configuration -> what the picture calls it, colour."""

_RECIPES = {"fmnist-16-1": "16-1", "fmnist-16-r": "16-r"}
_SHAPE = (1, 28, 28)


def _cost(name: str) -> tuple[float, float]:
    """Parameters in thousands, multiply-adds in millions."""
    chosen = CONFIGURATIONS[name]
    with torch.device("meta"):
        network = RobustWideResNet(10, 1, chosen.widths, chosen.depths, stem_stride=chosen.stem_stride)
    return sum(p.numel() for p in network.parameters()) / 1e3, multiply_adds(network, _SHAPE) / 1e6


def _measured(card: CardFiles) -> dict[str, dict[str, list[float]]]:
    """Network -> metric -> one value for each seed, of the runs behind the claims."""
    measured: dict[str, dict[str, list[float]]] = {}
    for run in card.runs():
        recipe = run["spec"].get("recipe")
        if recipe in _RECIPES:
            name = run["spec"]["set"].get("model.network", _RECIPES[recipe])
            for metric in ("test/robust", "test/lipschitz"):
                measured.setdefault(name, {}).setdefault(metric, []).append(run["metrics"][metric])
    return measured


@card_picture("budget")
def budget(card: CardFiles) -> Any:
    """Accuracy under attack against parameters, operations, and the local Lipschitz constant.

    Args:
        card: its files.
    """
    measured = {name: values for name, values in _measured(card).items() if name in NETWORKS}
    if len(measured) < 2:
        return None
    figure = new_figure(9.0, 3.6)
    across = ("parameters, thousands", "multiply-adds, millions", "local Lipschitz constant")
    for axes, title in zip(figure.subplots(1, 3, sharey=True), across, strict=True):
        style_axes(axes)
        axes.set_xlabel(title)
        for name, values in measured.items():
            label, colour = NETWORKS[name]
            robust = values["test/robust"]
            cost = _cost(name)
            place = {across[0]: cost[0], across[1]: cost[1]}
            x = [place[title]] * len(robust) if title in place else values["test/lipschitz"]
            filled = name not in ("16-r-macs", "16-1.5")
            face = colour if filled else "none"
            axes.scatter(x, robust, s=26, facecolors=face, edgecolors=colour, linewidths=1.2, label=label)
        axes.margins(x=0.15)
    figure.axes[0].set_ylabel("accuracy under attack")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, labelcolor=GREY, fontsize=8)
    return figure
