"""Draws the pictures of soft-rocket's card that need real data or the claims' runs.

    python benchmarks/rocket_pictures.py --gunpoint data/GunPoint    # predictions of the default weights
    python benchmarks/rocket_pictures.py                             # accuracies over the sets of the UCR archive

The second one reads the runs of the claims `as-accurate-as-aeon` and `as-accurate-on-large-sets` from the card's
`results.json`, and aeon's side from the folder `aeon` of the method (`rocket_ucr.py`). It draws a scatter of
accuracies, and mean ranks with the critical difference of Nemenyi's test (Demsar, JMLR 2006): aeon beside each seed of
ours, so that a difference between libraries can be compared with that between seeds.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
CARD = ROOT / "model_cards" / "soft-rocket"
AEON = ROOT / "zoo" / "methods" / "soft_rocket" / "aeon"
GREY, BLUE, ORANGE = "#808890", "#2f80c8", "#d97706"


def accuracies(large: bool) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names of the sets, aeon's accuracies (S,), and ours (seeds, S)."""
    path = AEON / f"accuracy{'_large' * large}.json"
    theirs = json.loads(path.read_text())["accuracy"] if path.is_file() else {}
    names = sorted(theirs)
    runs = json.loads((CARD / "results.json").read_text())["runs"].values()
    mine = [r for r in runs if r["spec"].get("study") == "archive" and bool(r["spec"]["set"].get("large")) == large]
    mine = sorted(mine, key=lambda r: r["spec"]["seed"] or 0)
    scores = [[y for _, y in run["curves"]["accuracy per set"]] for run in mine]
    ours = [found for found in scores if len(found) == len(names)]
    return names, np.array([theirs[n] for n in names]), np.array(ours).reshape(len(ours), len(names))


def axes(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    plot = figure.add_subplot()
    plot.tick_params(colors=GREY, labelsize=8)
    for side, spine in plot.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(GREY)
    return figure, plot


def save(figure: Any, name: str) -> None:
    path = CARD / "images" / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, transparent=True, metadata={"Software": None})


def draw_scatter() -> None:
    """Ours over aeon's: the mean of the seeds, and a line from the lowest to the highest one."""
    from scipy.stats import wilcoxon

    figure, plot = axes(5.2, 5.2)
    gaps: list[float] = []
    low = 1.0
    for large, colour, label in ((False, BLUE, "three seeds"), (True, ORANGE, "large sets, one seed")):
        _, x, seeds = accuracies(large)
        if not len(seeds):
            continue
        y = seeds.mean(0)
        plot.vlines(x, seeds.min(0), seeds.max(0), color=colour, alpha=0.5, linewidth=1)
        plot.scatter(x, y, s=16, color=colour, alpha=0.75, linewidths=0, label=label)
        gaps += (y - x).tolist()
        low = min(low, x.min() - 0.03, seeds.min() - 0.03)
    gap = np.array(gaps)
    plot.plot([low, 1], [low, 1], color=GREY, linewidth=0.8, zorder=0)
    wins, losses = int((gap > 1e-9).sum()), int((gap < -1e-9).sum())
    text = f"ours better on {wins}, equal on {len(gap) - wins - losses}, worse on {losses} of {len(gap)} sets\n"
    text += f"mean difference {100 * gap.mean():+.2f} points, median {100 * np.median(gap):+.2f}\n"
    text += f"Wilcoxon signed ranks p = {wilcoxon(gap).pvalue:.2f}"
    print(text)
    plot.text(0.03, 0.97, text, transform=plot.transAxes, va="top", fontsize=8, color=GREY)
    plot.set_xlabel("accuracy of aeon's Rocket", color=GREY)
    plot.set_ylabel("accuracy of soft-rocket, hard pooling", color=GREY)
    plot.set_xlim(low, 1.01)
    plot.set_ylim(low, 1.01)
    plot.set_aspect("equal")
    plot.legend(loc="lower right", frameon=False, fontsize=8, labelcolor=GREY)
    save(figure, "accuracy-against-aeon")


def draw_ranks() -> None:
    """Mean ranks of aeon and of each of our seeds, joined by bars where they differ by less than the critical one."""
    from scipy.stats import rankdata, studentized_range

    _, theirs, seeds = accuracies(False)
    table = np.vstack([theirs, seeds])
    names = ["aeon's Rocket", *(f"soft-rocket, seed {i}" for i in range(len(seeds)))]
    ranks = rankdata(-np.round(table, 9), axis=0).mean(1)
    count, sets = table.shape
    critical = studentized_range.ppf(0.95, count, np.inf) * np.sqrt(count * (count + 1) / (12 * sets))
    print({n: round(float(r), 3) for n, r in zip(names, ranks, strict=True)}, "critical difference", round(critical, 3))
    figure, plot = axes(6.0, 2.0)
    plot.spines["left"].set_visible(False)
    plot.set_yticks([])
    order = np.argsort(ranks)
    half = (count + 1) // 2
    for place, i in enumerate(order):  # the better half to the left, the others to the right, no line through a label
        colour = ORANGE if i == 0 else BLUE
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
    save(figure, "mean-ranks")


def outputs(root: str) -> None:
    """Real predictions of the default weights on test series."""
    import zoo
    from datamodules.series import SeriesDataModule
    from zoo.card import _side_by_side

    model, data = zoo.load("soft-rocket"), SeriesDataModule(root=root)
    samples = [data.split("test")[i]["series"] for i in (0, 1, 3, 4)]
    pictures = [model.show(x, found) for x, found in zip(samples, model.predict(samples), strict=True)]
    _side_by_side(pictures).save(CARD / "images" / "output-gunpoint.png", optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gunpoint")
    options = parser.parse_args()
    if options.gunpoint:
        outputs(options.gunpoint)
    else:
        draw_scatter()
        draw_ranks()


if __name__ == "__main__":
    main()
