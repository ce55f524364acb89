"""Pictures of the card: triggered test pictures and what two networks call them; how fast both parts are learned."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from zoo.pictures.axes import new_axes, new_figure
from zoo.pictures.card import CardFiles, card_picture
from zoo.pictures.palette import CURVES, GREY

__all__ = ["losses", "triggered"]

ATTACKS = {"badnets-grid": "BadNets", "four-corners": "four corners", "blend": "Blend", "sig": "SIG"}
"""Attack -> what the picture calls it."""
NETWORKS = {"backdoored-fmnist-wrn-16-1": "plain training", "fmnist-wrn-16-1": "ABL"}
_WRONG = CURVES[5]


@card_picture("triggered")
def triggered(card: CardFiles) -> Any:
    """For each class a picture as it is, under four triggers, and what both networks call the one that they met.

    Args:
        card: its files.
    """
    from datamodules.poisoned import PoisonedDataModule
    from zoo.index import entries
    from zoo.store import load

    known = entries()[card.method].weights
    if any(known[tag].file is None for tag in NETWORKS):
        return None
    models: dict[str, Any] = {name: load(f"{card.method}:{tag}") for tag, name in NETWORKS.items()}
    names = next(iter(models.values())).class_names
    parts: dict[str, Any] = {attack: PoisonedDataModule(attack=attack).split("test") for attack in ATTACKS}
    plain = next(iter(parts.values()))
    firsts = [int(np.flatnonzero(plain.labels == k)[0]) for k in range(len(names))]
    figure = new_figure(9.0, 5.6)
    grid = figure.subplots(1 + len(parts), len(firsts))
    for column, place in enumerate(firsts):
        rows = [plain[place]["image"], *(part[place]["triggered"] for part in parts.values())]
        for row, image in enumerate(rows):
            axes = grid[row, column]
            axes.imshow(image[0], cmap="gray", vmin=0, vmax=1)
            axes.set_xticks([])
            axes.set_yticks([])
            for spine in axes.spines.values():
                spine.set_visible(False)
        grid[0, column].set_title(_short(names[column]), fontsize=8, color=GREY)
        lines = []
        for model in models.values():
            with torch.no_grad():
                lines.append(int(model(rows[1][None]).argmax(1)))
        wrong = [said != column for said in lines]
        for number, said in enumerate(lines):
            grid[1, column].text(
                0.5, -0.14 - 0.19 * number, _short(names[said]), transform=grid[1, column].transAxes, ha="center",
                va="center", fontsize=8, color=_WRONG if wrong[number] else GREY,
            )  # fmt: skip
    grid[1, 0].text(
        -0.08, -0.14, "plain:", transform=grid[1, 0].transAxes, ha="right", va="center", fontsize=8, color=GREY
    )
    grid[1, 0].text(
        -0.08, -0.33, "ABL:", transform=grid[1, 0].transAxes, ha="right", va="center", fontsize=8, color=GREY
    )
    for row, name in enumerate(("as it is", *ATTACKS.values())):
        grid[row, 0].set_ylabel(name, fontsize=8, color=GREY)
    return figure


def _short(name: str) -> str:
    """The name of a class as it fits above a small picture."""
    return name.removesuffix("/top").removeprefix("Ankle ").capitalize()


@card_picture("losses")
def losses(card: CardFiles) -> Any:
    """Mean loss of poisoned and of clean training pictures in each epoch of plain training, for three attacks.

    Args:
        card: its files.
    """
    runs = [run for run in card.runs() if run["spec"].get("set", {}).get("trainer.max_epochs") == 3]
    figure, axes = new_axes(6.4, 3.6)
    drawn = False
    for number, (attack, name) in enumerate(ATTACKS.items()):
        mine = [run for run in runs if run["spec"]["set"].get("data.attack", "badnets-grid") == attack]
        for part, style in (("clean", "--"), ("poison", "-")):
            curves = [run["curves"].get(f"train/loss_{part}") for run in mine]
            points = [np.array(curve) for curve in curves if curve]
            if not points:
                continue
            drawn = True
            mean = np.mean([curve[:, 1] for curve in points], 0)
            axes.plot(points[0][:, 0], mean, style, marker="o", color=CURVES[number], label=f"{name}, {part}")
    if not drawn:
        return None
    axes.set_xlabel("epochs of plain training")
    axes.set_ylabel("mean cross-entropy")
    axes.set_xticks([1, 2, 3])
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8, labelcolor=GREY, frameon=False)
    return figure
