"""Draws who owns what and the accuracy per round of all algorithms, from the results of the claims.

python benchmarks/federated_pictures.py uav-swarm-fl    # model_cards/uav-swarm-fl/images/partition-and-accuracy.png
python benchmarks/federated_pictures.py ewwa-fl
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import zoo
from zoo.index import entries

CARDS = Path(__file__).parents[1] / "model_cards"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
NAMES = {"fedavg": "FedAvg", "fedprox": "FedProx", "fedadam": "FedAdam", "moon": "MOON", "ewwa": "EWWA"}

WHAT: dict[str, dict[str, Any]] = {
    "uav-swarm-fl": {
        "study": "partitions",
        "curve": "dirichlet",
        "keep": lambda settings: True,
        "data": {"num_clients": 10, "partition": "dirichlet-0.1", "train_size": 4000},
        "who": "UAV",
    },
    "ewwa-fl": {
        "study": "three_clients",
        "curve": "accuracy",
        "keep": lambda settings: settings.get("network") == "lenet5" and settings.get("eta", 0.01) == 0.01,
        "data": {"num_clients": 3, "partition": "shards-2", "train_size": 6000},
        "who": "client",
    },
}


def name_of(settings: dict[str, Any]) -> str:
    """How a legend calls an arm."""
    found = NAMES[settings.get("algorithm", "ewwa")]
    told = {"server": "{}", "variant": "{} code", "normaliser": "{}", "moments": "{} moments", "sign": "{}"}
    told |= {"shares": "{} shares"}
    extra = [text.format(settings[key]) for key, text in told.items() if key in settings]
    return ", ".join([found, *extra])


def curves_of(method: str) -> dict[str, list[list[float]]]:
    """Arm -> accuracy per round of each seed."""
    what = WHAT[method]
    runs = json.loads((CARDS / method / "results.json").read_text(encoding="utf-8"))["runs"]
    found: dict[str, dict[int, list[float]]] = defaultdict(dict)
    for run in runs.values():
        spec = run["spec"]
        if spec.get("study") == what["study"] and what["keep"](spec["set"]):
            found[name_of(spec["set"])][spec["seed"]] = [y for _, y in run["curves"][what["curve"]]]
    return {name: list(seeds.values()) for name, seeds in found.items()}


def draw(method: str) -> Path:
    """Draw and save."""
    what, curves = WHAT[method], curves_of(method)
    data: Any = zoo.datamodule(method, **what["data"])
    counts, names = data.class_counts(), data.facts()["class_names"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.6), width_ratios=(1, 1.35), layout="constrained")
    start = np.zeros(len(counts))
    palette = plt.get_cmap("tab10")
    for label, name in enumerate(names):
        left.barh(range(len(counts)), counts[:, label], left=start, color=palette(label % 10), label=name)
        start += counts[:, label]
    left.set(xlabel="training images", ylabel=what["who"], title=f"Who owns what ({what['data']['partition']}, seed 0)")
    left.set_yticks(range(len(counts)))
    left.invert_yaxis()
    left.legend(fontsize=7, ncols=5, loc="upper center", bbox_to_anchor=(0.5, -0.16), frameon=False)
    for number, (name, seeds) in enumerate(sorted(curves.items(), key=lambda item: ("," in item[0], item[0]))):
        colour = COLOURS[number % len(COLOURS)]
        rounds = range(1, len(seeds[0]) + 1)
        for values in seeds if len(curves) <= len(COLOURS) else []:
            right.plot(rounds, values, color=colour, alpha=0.2, linewidth=0.8)
        style = ("-", "--", ":")[number // len(COLOURS)]
        right.plot(rounds, np.mean(seeds, axis=0), style, color=colour, linewidth=2, label=name)
    many = max(len(seeds) for seeds in curves.values())
    right.set(xlabel="round", ylabel="validation accuracy", title=f"Accuracy per round, mean of {many} seeds")
    right.legend(fontsize=8, loc="lower right")
    right.grid(alpha=0.3)
    path = CARDS / method / "images" / "partition-and-accuracy.png"
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=110)
    return path


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in WHAT or sys.argv[1] not in entries():
        raise SystemExit(f"usage: python benchmarks/federated_pictures.py {'|'.join(WHAT)}")
    print(draw(sys.argv[1]))
