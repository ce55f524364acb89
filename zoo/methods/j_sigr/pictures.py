"""Saliency maps as pictures: beside an answer, and for the card."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from zoo.pictures.axes import new_figure
from zoo.pictures.card import CardFiles, card_picture
from zoo.pictures.palette import GREY, GROUND, INK

__all__ = ["beside", "maps"]

GAP = 6
NETWORKS = {"fmnist-resnet10w16-plain": "plain", "fmnist-resnet10w16": "J-SIGR"}
"""Tag -> what the picture calls it."""
CLASSES = (1, 3, 7, 8, 9)
"""Which classes are shown: trouser, dress, sneaker, bag, ankle boot."""


def heat(values: np.ndarray, side: int) -> Image.Image:
    """A map in [0, 1] as an RGB picture, from black over red to white, enlarged."""
    v = np.clip(values, 0, 1)[..., None] * np.array([3.0, 3.0, 3.0]) - np.array([0.0, 1.0, 2.0])
    small = Image.fromarray(np.rint(np.clip(v, 0, 1) * 255).astype(np.uint8))
    return small.resize((side, side), Image.Resampling.NEAREST)


def beside(picture: Image.Image, values: np.ndarray) -> Image.Image:
    """A picture of an answer, and to its right the map of what it depends on.

    Args:
        picture: its upper part is a square.
        values: (H, W) in [0, 1].
    """
    side = picture.width
    canvas = Image.new("RGB", (2 * side + GAP, picture.height), GROUND)
    canvas.paste(picture, (0, 0))
    canvas.paste(heat(values, side), (side + GAP, 0))
    draw = ImageDraw.Draw(canvas)
    text = "where the answer depends on it"
    draw.text((side + GAP + 4, side + 4), text, fill=INK, font=ImageFont.load_default(14))
    return canvas


@card_picture("maps")
def maps(card: CardFiles) -> Any:
    """Input gradients of the plain network and of J-SIGR on the same pictures, and the latter's perturbation map.

    None before there are weights.

    Args:
        card: its files.
    """
    from zoo.index import info
    from zoo.store import datamodule, load

    weights = info(card.method).weights
    if any(weights[tag].file is None for tag in NETWORKS):
        return None
    source: Any = datamodule(card.method)
    part = source.split("test")
    items = [part[k] for k in range(len(part))]
    chosen = [next(item for item in items if int(item["label"]) == k) for k in CLASSES]
    x = torch.stack([item["image"] for item in chosen])
    models: dict[str, Any] = {text: load(f"{card.method}:{tag}") for tag, text in NETWORKS.items()}
    rows = [("input", x[:, 0])]
    rows += [(f"gradient,\n{text}", model.explain(x)) for text, model in models.items()]
    rows.append(("perturbation,\nJ-SIGR", models["J-SIGR"].explain(x, kind="perturbation")))
    figure = new_figure(7.6, 6.2)
    grid = figure.subplots(len(rows), len(CLASSES))
    for axes_of_row, (text, values) in zip(grid, rows, strict=True):
        for axes, value, item in zip(axes_of_row, values, chosen, strict=True):
            axes.imshow(value.cpu().numpy(), cmap="gray" if text == "input" else "magma", vmin=0, vmax=1)
            axes.set_xticks([]), axes.set_yticks([])
            if text == "input":
                axes.set_title(models["J-SIGR"].class_names[int(item["label"])], fontsize=10, color=GREY)
        axes_of_row[0].set_ylabel(text, fontsize=10, color=GREY)
    return figure
