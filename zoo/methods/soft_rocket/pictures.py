"""Pictures of the card: predictions of the default weights, and accuracies over the sets of the UCR archive.

The accuracies are the runs of the claims `as-accurate-as-aeon` and `as-accurate-on-large-sets`, and aeon's side is in
the folder `aeon` beside this file. They are drawn as a scatter, and as mean ranks with the critical difference of
Nemenyi's test (Demsar, JMLR 2006): aeon beside each seed of ours, so that a difference between libraries can be
compared with that between seeds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zoo.pictures.axes import new_axes
from zoo.pictures.card import CardFiles, card_picture
from zoo.pictures.palette import CURVES, GREY

__all__ = ["mean_ranks", "output", "scatter"]

_AEON = Path(__file__).with_name("aeon")
_BLUE, _ORANGE = CURVES[:2]
_GUNPOINT = {"1": "Gun", "2": "Point"}
"""The archive's numbers of the classes of GunPoint in words: a gun is drawn, or a finger points."""


@card_picture("output-gunpoint")
def output(card: CardFiles) -> Any:
    """The default weights on test series of GunPoint, those that are kept with aeon's features; two of each class.

    Args:
        card: its files.
    """
    from zoo.pictures.tiles import tiled
    from zoo.store import load

    model: Any = load(card.method)
    with np.load(_AEON / "features.npz") as file:
        series = torch.from_numpy(file["GunPoint.x"])
    results = model.predict(list(series))
    chosen = [i for name in _GUNPOINT for i in [i for i, r in enumerate(results) if r["name"] == name][:2]]
    return tiled([model.show(series[i], {**results[i], "name": _GUNPOINT[results[i]["name"]]}) for i in chosen], 830)


def _accuracies(card: CardFiles, large: bool) -> tuple[np.ndarray, np.ndarray]:
    """Accuracies of aeon (S,) and ours (seeds, S) on the same sets."""
    theirs = json.loads((_AEON / f"accuracy{'_large' * large}.json").read_text(encoding="utf-8"))["accuracy"]
    mine = [r for r in card.runs("archive") if bool(r["spec"]["set"].get("large")) == large]
    mine = sorted(mine, key=lambda r: r["spec"]["seed"] or 0)
    scores = [[y for _, y in run["curves"]["accuracy per set"]] for run in mine]
    ours = [row for row in scores if len(row) == len(theirs)]
    return np.array([theirs[n] for n in sorted(theirs)]), np.array(ours).reshape(len(ours), len(theirs))


@card_picture("accuracy-against-aeon")
def scatter(card: CardFiles) -> Any:
    """Ours over aeon's: the mean of the seeds, and a line from the lowest to the highest one.

    Args:
        card: its files.
    """
    from scipy.stats import wilcoxon

    figure, plot = new_axes(5.2, 5.2)
    gaps: list[float] = []
    low = 1.0
    for large, colour, label in ((False, _BLUE, "three seeds"), (True, _ORANGE, "large sets, one seed")):
        x, seeds = _accuracies(card, large)
        if not len(seeds):
            continue
        y = seeds.mean(0)
        plot.vlines(x, seeds.min(0), seeds.max(0), color=colour, alpha=0.5, linewidth=1)
        plot.scatter(x, y, s=16, color=colour, alpha=0.75, linewidths=0, label=label)
        gaps += (y - x).tolist()
        low = min(low, x.min() - 0.03, seeds.min() - 0.03)
    if not gaps:
        return None
    gap = np.array(gaps)
    plot.plot([low, 1], [low, 1], color=GREY, linewidth=0.8, zorder=0)
    wins, losses = int((gap > 1e-9).sum()), int((gap < -1e-9).sum())
    text = f"ours better on {wins}, equal on {len(gap) - wins - losses}, worse on {losses} of {len(gap)} sets\n"
    text += f"mean difference {100 * gap.mean():+.2f} points, median {100 * np.median(gap):+.2f}\n"
    text += f"Wilcoxon signed ranks p = {wilcoxon(gap).pvalue:.2f}"
    plot.text(0.03, 0.97, text, transform=plot.transAxes, va="top", fontsize=8, color=GREY)
    plot.set_xlabel("accuracy of aeon's Rocket")
    plot.set_ylabel("accuracy of soft-rocket, hard pooling")
    plot.set_xlim(low, 1.01)
    plot.set_ylim(low, 1.01)
    plot.set_aspect("equal")
    plot.legend(loc="lower right", frameon=False, fontsize=8, labelcolor=GREY)
    return figure


@card_picture("mean-ranks")
def mean_ranks(card: CardFiles) -> Any:
    """Mean ranks of aeon and of each of our seeds, joined by bars where they differ by less than the critical one.

    Args:
        card: its files.
    """
    from scipy.stats import rankdata, studentized_range

    theirs, seeds = _accuracies(card, False)
    if not len(seeds):
        return None
    table = np.vstack([theirs, seeds])
    names = ["aeon's Rocket", *(f"soft-rocket, seed {i}" for i in range(len(seeds)))]
    ranks = rankdata(-np.round(table, 9), axis=0).mean(1)
    count, sets = table.shape
    critical = studentized_range.ppf(0.95, count, np.inf) * np.sqrt(count * (count + 1) / (12 * sets))
    figure, plot = new_axes(6.0, 2.0)
    plot.spines["left"].set_visible(False)
    plot.set_yticks([])
    order = np.argsort(ranks)
    half = (count + 1) // 2
    for place, i in enumerate(order):  # the better half to the left, the others to the right, no line through a label
        colour = _ORANGE if i == 0 else _BLUE
        left = place < half
        depth, end = -1.2 - (place if left else count - 1 - place), 1.8 if left else count - 0.8
        plot.plot([ranks[i], ranks[i], end], [0, depth, depth], color=colour, linewidth=1)
        side, shift = ("right", -0.03) if left else ("left", 0.03)
        plot.text(end + shift, depth, f"{names[i]}  {ranks[i]:.2f}", color=colour, fontsize=8, va="center", ha=side)
    first = 0
    while first < count:  # the largest groups within the critical difference
        last = max(j for j in range(first, count) if ranks[order[j]] - ranks[order[first]] < critical)
        if last > first:
            plot.plot([ranks[order[first]] - 0.02, ranks[order[last]] + 0.02], [-0.35, -0.35], color=GREY, linewidth=4)
        first = last + 1
    plot.plot([1, 1 + critical], [0.7, 0.7], color=GREY, linewidth=1.5)
    plot.text(1, 1.0, f"critical difference {critical:.2f} (Nemenyi, 5 %, {sets} sets)", color=GREY, fontsize=8)
    plot.spines["bottom"].set_position(("data", 0))
    plot.set_xlim(0.95, count + 0.05)
    plot.set_ylim(-half - 1.0, 1.8)
    plot.set_xticks(range(1, count + 1))
    return figure
