"""How robust the weights of rslad are, and the pictures of its card.

    python benchmarks/rslad_robustness.py evaluate --tags fmnist-resnet10w8 --n 300     # minutes
    python benchmarks/rslad_robustness.py evaluate --tags cifar10-resnet10w16=last.ckpt --root data --n 200
    python benchmarks/rslad_robustness.py draw
    python benchmarks/rslad_robustness.py table

`evaluate` is `zoo.evaluate_robustness` with its standard attacks, AutoAttack (pyautoattack) among them, and the battery
against masked gradients, on test pictures drawn by seed 0, at eps 0.1 (Fashion-MNIST) or 8/255 (CIFAR-10). It writes
benchmarks/results/rslad_robustness.json, where reports of other weights stay; `draw` reads that file for the curves,
and attacks the first test picture of each class for the other picture; `table` prints the rows of the card.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import zoo
from zoo.nn.attacks import pgd

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "rslad_robustness.json"
IMAGES = HERE.parent / "model_cards" / "rslad" / "images"
EPS = {"fmnist": 0.1, "cifar10": 8 / 255}
NETWORKS = {
    "fmnist-resnet10w24-natural": ("without adversarial training", "#d97706"),
    "fmnist-resnet10w24-trades": ("the teacher", "#3f9d6a"),
    "fmnist-resnet10w8": ("the student", "#2f80c8"),
    "cifar10-resnet10w16-natural": ("without adversarial training", "#d97706"),
    "cifar10-resnet10w16-fgsm": ("trained with FGSM", "#b0548f"),
    "cifar10-resnet10w24-trades": ("the teacher", "#3f9d6a"),
    "cifar10-resnet10w16": ("the student", "#2f80c8"),
}
"""Tag -> what a picture calls it, colour."""

GREY, RED = "#808890", "#c2544f"


def eps_of(tag: str) -> float:
    """The radius of a tag's data."""
    return EPS[tag.partition("-")[0]]


def evaluate(tags: list[str], n: int, attacks: str | list[str], root: str | None) -> None:
    """Evaluate some weights, bundled (TAG) or not (TAG=PATH), and store the reports."""
    for text in tags:
        tag, _, path = text.partition("=")
        model = zoo.load(path or f"rslad:{tag}")
        data = zoo.datamodule(f"rslad:{tag}", **({} if root is None else {"root": root}))
        report = zoo.evaluate_robustness(model, data, eps_of(tag), n, attacks)
        print(report, end="\n\n", flush=True)
        # read after the computation: another process may have added a report meanwhile
        known = json.loads(RESULTS.read_text(encoding="utf-8"))["reports"] if RESULTS.is_file() else {}
        known[tag] = {**report.to_dict(), "model": f"rslad:{tag}", "sha256": getattr(model.report, "sha256", None)}
        found = {
            "versions": {"torch": torch.__version__, "python": platform.python_version()},
            "reports": {tag: known[tag] for tag in NETWORKS if tag in known},
        }
        RESULTS.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def table() -> None:
    """Print the stored reports as rows of Markdown."""
    head = ["weights", "pictures", "clean", "PGD-20", "CW-30", "APGD", "AutoAttack", "worst case (95 % interval)"]
    head.append("signs of masking")
    print(f"| {' | '.join(head)} |\n{'|---' * len(head)}|")
    for tag, report in json.loads(RESULTS.read_text(encoding="utf-8"))["reports"].items():
        rows = {row["attack"]: row["accuracy"] for row in report["rows"]}
        apgd = min(share for attack, share in rows.items() if attack.startswith("apgd"))
        values = [report["clean"], rows["pgd-20"], rows["cw-30"], apgd]
        low, high = report["worst_interval"]
        worst = f"{report['worst']:.1%} ({low:.1%} to {high:.1%})"
        ran = sum(check["ok"] is not None for check in report["checks"])
        signs = ", ".join(report["suspicious"]) or f"none in {ran} checks"
        cells = [f"`{tag}`", str(report["n"]), *(f"{v:.1%}" for v in values)]
        cells += [f"{rows['autoattack']:.1%}" if "autoattack" in rows else "not run", worst, signs]
        print(f"| {' | '.join(cells)} |")


def firsts() -> tuple[Tensor, Tensor]:
    """The first test picture (K, 1, 28, 28) of each class, and its label (K,)."""
    part: Any = zoo.datamodule("rslad").split("test")
    seen: dict[int, Tensor] = {}
    for position in range(len(part)):
        item = part[position]
        seen.setdefault(int(item["label"]), item["image"])
        if len(seen) == 10:
            break
    return torch.stack([seen[k] for k in sorted(seen)]), torch.tensor(sorted(seen))


def new_figure(width: float, height: float) -> Any:
    """A figure that needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def attacked(path: Path) -> None:
    """Clean pictures with what each network says, then each network's worst perturbation and what it says then."""
    x, y = firsts()
    models = {tag: zoo.load(f"rslad:{tag}") for tag in NETWORKS if tag.startswith("fmnist")}
    eps = EPS["fmnist"]
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
            axes.set_xlabel(text, fontsize=8, color=GREY if right else RED, labelpad=3)
        grid[row, 0].set_ylabel(NETWORKS[tag][0], fontsize=9, color=GREY)
    grid[0, 0].set_ylabel("clean", fontsize=9, color=GREY)
    for axes in grid.flat:
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_visible(False)
    figure.savefig(path, transparent=True, metadata={"Software": None})


def radius(path: Path, kind: str) -> None:
    """Accuracy against the radius, from the results file, of the networks of one kind of data."""
    reports = json.loads(RESULTS.read_text(encoding="utf-8"))["reports"]
    figure = new_figure(6.2, 3.6)
    axes = figure.add_subplot()
    here = EPS[kind]
    for tag, (name, colour) in NETWORKS.items():
        if tag not in reports or not tag.startswith(kind):
            continue
        report = reports[tag]
        eps, accuracy = zip(*(point for point in report["sweep"] if point[0] <= 4 * here), strict=True)
        axes.plot(eps, accuracy, marker="o", markersize=4, color=colour, label=name)
        axes.plot([here], [report["worst"]], marker="x", color=colour, linestyle="none")
    axes.axvline(here, color=GREY, linewidth=0.7, linestyle=":")
    axes.set_xlabel("eps, largest change of a pixel in [0, 1]", color=GREY)
    axes.set_ylabel("accuracy under PGD-20", color=GREY)
    axes.set_ylim(0, 1)
    axes.set_xlim(left=0)
    axes.tick_params(colors=GREY, labelsize=8)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(GREY)
    axes.legend(frameon=False, labelcolor=GREY, fontsize=9, title="x: worst case of all attacks", title_fontsize=8)
    axes.get_legend().get_title().set_color(GREY)
    figure.savefig(path, transparent=True, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["evaluate", "draw", "table"])
    parser.add_argument("--tags", nargs="+", default=list(NETWORKS)[:3], metavar="TAG[=PATH]", help=", ".join(NETWORKS))
    parser.add_argument("--root", help="folder of the data, for CIFAR-10")
    parser.add_argument("--n", type=int, default=300)
    parser.add_argument("--attacks", nargs="+", default="standard", help="as zoo.evaluate_robustness takes them")
    options = parser.parse_args()
    if options.what == "evaluate":
        unknown = [text for text in options.tags if text.partition("=")[0] not in NETWORKS]
        if unknown:
            parser.error(f"--tags: expected {', '.join(NETWORKS)}; got {', '.join(unknown)}")
        evaluate(options.tags, options.n, options.attacks, options.root)
        return
    if options.what == "table":
        table()
        return
    IMAGES.mkdir(parents=True, exist_ok=True)
    attacked(IMAGES / "attacked.png")
    radius(IMAGES / "radius.png", "fmnist")


if __name__ == "__main__":
    main()
