"""Pictures of federated runs: who owns what, and accuracy per round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zoo.pictures.axes import new_figure, style_axes
from zoo.pictures.palette import CLASSES, CURVES, GREY, colour_of

__all__ = ["algorithm_name", "draw_partition_and_accuracy"]

_NAMES = {"fedavg": "FedAvg", "fedprox": "FedProx", "fedadam": "FedAdam", "moon": "MOON"}
_FAINT = 6  # with more algorithms than these, single seeds are left out


def algorithm_name(name: str) -> str:
    """How the papers write the name of an algorithm.

    Args:
        name: of the argument `algorithm`.
    """
    return _NAMES.get(name, name.upper())


def draw_partition_and_accuracy(
    data: Any, curves: Mapping[str, Sequence[Sequence[float]]], *, who: str, partition: str
) -> Any:
    """Draw the images of each class that each client owns, and beside them the accuracy per round of each algorithm.

    Args:
        data: a data module with clients, of seed 0.
        curves: name of an algorithm -> validation accuracy per round of each seed.
        who: owns the images, as in client.
        partition: its name in the title.

    Returns:
        A figure of matplotlib.
    """
    figure = new_figure(8.6, 4.2)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    counts, start = data.class_counts(), np.zeros(data.num_clients)
    for label, name in enumerate(data.facts()["class_names"]):
        colour = colour_of(label, CLASSES)
        left.barh(range(len(counts)), counts[:, label], left=start, color=colour, label=name)
        start = start + counts[:, label]
    left.set(xlabel="training images", ylabel=who, title=f"Who owns what ({partition}, seed 0)")
    left.set_yticks(range(len(counts)))
    left.invert_yaxis()
    place: dict[str, Any] = {"ncols": 3, "loc": "upper center", "bbox_to_anchor": (0.46, -0.16)}
    left.legend(fontsize=8, frameon=False, labelcolor=GREY, **place)
    for number, (name, seeds) in enumerate(sorted(curves.items(), key=lambda item: ("," in item[0], item[0]))):
        rounds = range(1, len(seeds[0]) + 1)
        for values in seeds if len(curves) <= _FAINT else []:
            right.plot(rounds, values, color=colour_of(number), alpha=0.2, linewidth=0.8)
        dashes = ("-", "--", ":")[number // len(CURVES) % 3]
        right.plot(rounds, np.mean(seeds, axis=0), dashes, color=colour_of(number), linewidth=2, label=name)
    many = max(len(seeds) for seeds in curves.values())
    right.set(xlabel="round", ylabel="validation accuracy", title=f"Accuracy per round, mean of {many} seeds")
    right.legend(fontsize=8, loc="lower right", frameon=False, labelcolor=GREY)
    for axes in (left, right):
        style_axes(axes)
    return figure
