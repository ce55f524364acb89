"""Pictures of the card: attacked pictures of three networks, and accuracy against the radius of the attack."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zoo.nn.attacks import pgd
from zoo.pictures.axes import new_axes, new_figure
from zoo.pictures.card import CardFiles, card_picture
from zoo.pictures.palette import CURVES, GREY

__all__ = ["attacked", "radius"]

EPS = 0.1
NETWORKS = {
    "fmnist-resnet10w24-natural": ("without adversarial training", CURVES[1]),
    "fmnist-resnet10w24-trades": ("the teacher", CURVES[2]),
    "fmnist-resnet10w8": ("the student", CURVES[0]),
}
"""Tag -> what a picture calls it, colour."""
_WRONG = CURVES[5]


def _firsts() -> tuple[Tensor, Tensor]:
    """The first test picture (K, 1, 28, 28) of each class, and its label (K,)."""
    from zoo.store import datamodule

    source: Any = datamodule("rslad")
    part = source.split("test")
    seen: dict[int, Tensor] = {}
    for position in range(len(part)):
        item = part[position]
        seen.setdefault(int(item["label"]), item["image"])
        if len(seen) == 10:
            break
    return torch.stack([seen[k] for k in sorted(seen)]), torch.tensor(sorted(seen))


@card_picture("attacked")
def attacked(card: CardFiles) -> Any:
    """Clean pictures with what each network says, then each network's worst perturbation and what it says then.

    Args:
        card: its files.
    """
    from zoo.store import load

    x, y = _firsts()
    models: dict[str, Any] = {tag: load(f"{card.method}:{tag}") for tag in NETWORKS}
    eps = EPS
    figure = new_figure(12.5, 7.0)
    grid = figure.subplots(1 + len(models), len(x))
    for column, image in enumerate(x):
        axes = grid[0, column]
        axes.imshow(image[0], cmap="gray", vmin=0, vmax=1)
        axes.set_title(next(iter(models.values())).class_names[int(y[column])], fontsize=9, color=GREY)
    for row, (tag, model) in enumerate(models.items(), start=1):
        adv = pgd(model, x, y, eps=eps, step=eps / 10, steps=50, keep="best", restarts=5)
        with torch.no_grad():
            before, after = model(x).argmax(1), model(adv).softmax(1)
        names = model.class_names
        for column in range(len(x)):
            axes = grid[row, column]
            axes.imshow((adv - x)[column, 0], cmap="RdBu_r", vmin=-eps, vmax=eps)
            said, share = int(after[column].argmax()), float(after[column].max())
            right = said == int(y[column])
            text = f"{names[int(before[column])]}\n→ {names[said]} {share:.0%}"
            axes.set_xlabel(text, fontsize=8, color=GREY if right else _WRONG, labelpad=3)
        grid[row, 0].set_ylabel(NETWORKS[tag][0], fontsize=9, color=GREY)
    grid[0, 0].set_ylabel("clean", fontsize=9, color=GREY)
    for axes in grid.flat:
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_visible(False)
    return figure


@card_picture("radius")
def radius(card: CardFiles) -> Any:
    """Accuracy against the radius, from the card's reports.

    Args:
        card: its files.
    """
    reports = (card.read("robustness.json") or {}).get("reports", {})
    if not reports.keys() & NETWORKS.keys():
        return None
    figure, axes = new_axes(6.2, 3.6)
    here = EPS
    for tag, (name, colour) in NETWORKS.items():
        if tag not in reports:
            continue
        report = reports[tag]
        eps, accuracy = zip(*(point for point in report["sweep"] if point[0] <= 4 * here), strict=True)
        axes.plot(eps, accuracy, marker="o", markersize=4, color=colour, label=name)
        axes.plot([here], [report["worst"]], marker="x", color=colour, linestyle="none")
    axes.axvline(here, color=GREY, linewidth=0.7, linestyle=":")
    axes.set_xlabel("eps, largest change of a pixel in [0, 1]")
    axes.set_ylabel("accuracy under PGD-20")
    axes.set_ylim(0, 1)
    axes.set_xlim(left=0)
    axes.legend(frameon=False, labelcolor=GREY, fontsize=9, title="x: worst case of all attacks", title_fontsize=8)
    axes.get_legend().get_title().set_color(GREY)
    return figure
