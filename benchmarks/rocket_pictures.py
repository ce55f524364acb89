"""Draws the pictures of soft-rocket's card that need real data.

    python benchmarks/rocket_pictures.py --gunpoint data/GunPoint          # predictions of the default weights
    python benchmarks/rocket_pictures.py --ucr data/UCR-A-H data/UCR-H-P   # scatter of accuracies

The second one computes our side of `benchmarks/results/rocket_ucr_aeon.json` with one seed into `rocket_ucr.json`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "rocket_ucr.json"
PICTURE = HERE.parent / "model_cards" / "soft-rocket" / "images" / "accuracy-against-aeon.png"
GREY, BLUE = "#808890", "#2f80c8"


def draw(ours: dict[str, float], theirs: dict[str, float], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    x, y = (np.array([side[name] for name in theirs]) for side in (theirs, ours))
    wins, ties, losses = int((y > x).sum()), int((y == x).sum()), int((y < x).sum())
    rank = 1 + (losses + 0.5 * ties) / len(x)
    figure = Figure(figsize=(5.2, 5.2), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    low = min(x.min(), y.min()) - 0.03
    axes.plot([low, 1], [low, 1], color=GREY, linewidth=0.8)
    axes.scatter(x, y, s=16, color=BLUE, alpha=0.75, linewidths=0)
    text = f"ours better on {wins}, equal on {ties}, worse on {losses} of {len(x)} sets\nmean rank {rank:.2f} and "
    text += f"{3 - rank:.2f}, mean difference {100 * (y - x).mean():+.2f} points"
    axes.text(0.03, 0.97, text, transform=axes.transAxes, va="top", fontsize=8, color=GREY)
    axes.set_xlabel("accuracy of aeon's Rocket", color=GREY)
    axes.set_ylabel("accuracy of soft-rocket, hard pooling", color=GREY)
    axes.set_xlim(low, 1.01)
    axes.set_ylim(low, 1.01)
    axes.set_aspect("equal")
    axes.tick_params(colors=GREY, labelsize=8)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(GREY)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, transparent=True, metadata={"Software": None})


def outputs(root: str) -> None:
    """Real predictions of the default weights on test series."""
    import zoo
    from datamodules.series import SeriesDataModule
    from zoo.card import _side_by_side

    model, data = zoo.load("soft-rocket"), SeriesDataModule(root=root)
    samples = [data.split("test")[i]["series"] for i in (0, 1, 3, 4)]
    pictures = [model.show(x, found) for x, found in zip(samples, model.predict(samples), strict=True)]
    _side_by_side(pictures).save(PICTURE.with_name("output-gunpoint.png"), optimize=True)


def main() -> None:
    from zoo.studies.soft_rocket import archive

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gunpoint")
    parser.add_argument("--ucr", nargs=2)
    options = parser.parse_args()
    if options.gunpoint:
        outputs(options.gunpoint)
    if options.ucr:
        print(archive(*options.ucr, out=str(RESULTS)).metrics)
        stored = json.loads(RESULTS.read_text())
        draw(stored["ours"], stored["aeon"], PICTURE)


if __name__ == "__main__":
    main()
