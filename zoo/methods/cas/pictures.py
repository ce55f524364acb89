"""Pictures of the card: how often channels are active on natural and on attacked images, and their magnitude."""

from __future__ import annotations

from typing import Any

import torch

from zoo.methods.cas.activity import ChannelActivity
from zoo.pictures.axes import new_figure
from zoo.pictures.card import CardFiles, card_picture
from zoo.pictures.palette import CURVES, GREY

__all__ = ["channels"]

NETWORKS = {"fmnist-resnet10w16-plain": "without suppression", "fmnist-resnet10w16": "with suppression"}
"""Tag -> what the picture calls it."""
CLASSES = (0, 7)
"""Which classes are shown: a hard one (T-shirts) and an easy one (sneakers)."""


@card_picture("channels")
def channels(card: CardFiles) -> Any:
    """Share of images in which each channel is active, sorted by natural frequency, for two classes and both networks.

    Args:
        card: its files.
    """
    from zoo.store import datamodule, load

    source: Any = datamodule(card.method)
    part = source.split("test")
    items = [part[k] for k in range(0, len(part), max(1, len(part) // 1000))]  # the pictures come class by class
    x, y = torch.stack([item["image"] for item in items]), torch.tensor([int(item["label"]) for item in items])
    figure = new_figure(9.0, 4.8)
    grid = figure.subplots(len(CLASSES), len(NETWORKS), sharex=True, sharey=True)
    for column, (tag, about) in enumerate(NETWORKS.items()):
        model: Any = load(f"{card.method}:{tag}")
        metric = ChannelActivity(len(model.class_names))
        for begin in range(0, len(x), 200):
            images, labels = x[begin : begin + 200], y[begin : begin + 200]
            batch = {"image": images, "label": labels, "index": torch.arange(begin, begin + len(images))}
            attacked = model.attacked("joint", batch)
            with torch.no_grad():
                metric.update(model.last_channels(images), model.last_channels(attacked), labels)
        natural, other = metric.frequencies()
        ratio = float(metric.compute()["activation_ratio"])
        for row, k in enumerate(CLASSES):
            axes, order = grid[row, column], natural[k].argsort(descending=True)
            axes.plot(other[k][order], color=CURVES[1], linewidth=1.0, label="attacked (joint)")
            axes.plot(natural[k][order], color=CURVES[0], linewidth=1.6, label="natural")
            axes.set_ylim(0, 1.02)
            if column == 0:
                axes.set_ylabel(f"{model.class_names[k]}:\nshare of images", fontsize=9, color=GREY)
        grid[0, column].set_title(f"{about} (magnitude x {ratio:.2f} under attack)", fontsize=10, color=GREY)
        grid[-1, column].set_xlabel("channel, by natural frequency", fontsize=9, color=GREY)
    grid[0, -1].legend(frameon=False, labelcolor=GREY, fontsize=9)
    return figure
