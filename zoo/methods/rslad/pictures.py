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
    "fmnist-resnet10w24-natural": ("plain training", CURVES[1]),
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
    """For each class the original, and for each network the attacked picture, what was added, and what it says.

    Args:
        card: its files.
    """
    from zoo.store import load

    x, y = _firsts()
    models: dict[str, Any] = {tag: load(f"{card.method}:{tag}") for tag in NETWORKS}
    figure = new_figure(9.0, 7.6)
    grid = figure.subplots(1 + 2 * len(models), len(x))
    names = next(iter(models.values())).class_names
    for column, image in enumerate(x):
        grid[0, column].imshow(image[0], cmap="gray", vmin=0, vmax=1)
        grid[0, column].set_title(_short(names[int(y[column])]), fontsize=8, color=GREY)
    grid[0, 0].set_ylabel("original", fontsize=8, color=GREY)
    for number, (tag, model) in enumerate(models.items()):
        above, below = grid[1 + 2 * number], grid[2 + 2 * number]
        adv = pgd(model, x, y, eps=EPS, step=EPS / 10, steps=50, keep="best", restarts=5)
        with torch.no_grad():
            probs = model(adv).softmax(1)
        for column in range(len(x)):
            above[column].imshow(adv[column, 0], cmap="gray", vmin=0, vmax=1)
            below[column].imshow((adv - x)[column, 0], cmap="RdBu_r", vmin=-EPS, vmax=EPS)
            said, share = int(probs[column].argmax()), float(probs[column].max())
            colour = GREY if said == int(y[column]) else _WRONG
            below[column].set_xlabel(f"{_short(names[said])}\n{share:.0%}", fontsize=8, color=colour, labelpad=2)
        above[0].set_ylabel(f"{NETWORKS[tag][0]}:\nattacked", fontsize=8, color=GREY)
        below[0].set_ylabel("added", fontsize=8, color=GREY)
    for axes in grid.flat:
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_visible(False)
    return figure


def _short(name: str) -> str:
    """The name of a class as it fits above a small picture."""
    return name.removesuffix("/top").removeprefix("Ankle ").capitalize()


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
