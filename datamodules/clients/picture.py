"""Who owns what, as a table and as a picture."""

from __future__ import annotations

import colorsys
import csv
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

__all__ = ["counts_picture", "counts_table", "skew", "table_csv"]

_WIDTH, _ROW, _HEAD, _LEFT, _RIGHT = 760, 20, 46, 92, 64
_MOST_LETTERS = 13  # of a client's name, left of its bar
_MOST_ROWS = 60
_MOST_NAMES = 24
# Okabe and Ito's colours, which people with any colour vision can distinguish, then lighter ones
_COLOURS = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
    "#F0E442",
    "#999999",
    "#332288",
    "#882255",
)


def counts_table(
    counts: np.ndarray, names: Sequence[str], client_names: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """One row per client: its id, its number of images, of each class, and how far its classes are from everyone's.

    Args:
        counts: int (K, C), images of each client and class.
        names: C names of the classes.
        client_names: K names, a column of their own; None: there are none.
    """
    table = []
    for client, (row, far) in enumerate(zip(counts, skew(counts).tolist(), strict=True)):
        of_class = {f"label {name}": int(count) for name, count in zip(names, row, strict=True)}
        name = {} if client_names is None else {"name": client_names[client]}
        table.append({"client": client, **name, "images": int(row.sum()), "skew": far, **of_class})
    return table


def skew(counts: np.ndarray) -> np.ndarray:
    """Total variation distance of each client's class shares to those of all images, float (K,): 0 means alike."""
    everyone = counts.sum(0) / max(1, counts.sum())
    own = counts / np.maximum(1, counts.sum(1, keepdims=True))
    return np.round(np.abs(own - everyone).sum(1) / 2, 4)


def table_csv(table: Sequence[dict[str, Any]]) -> str:
    """The table as CSV."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(table[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return stream.getvalue()


def counts_picture(
    counts: np.ndarray, names: Sequence[str], title: str, client_names: Sequence[str] | None = None
) -> Image.Image:
    """A bar per client, as long as its number of images, divided by class.

    Args:
        counts: int (K, C).
        names: C names of the classes.
        title: first line.
        client_names: K names to show beside the bars; None: numbers.

    Returns:
        RGB. More than 60 clients: every so many of them, which the title says.
    """
    step = -(-len(counts) // _MOST_ROWS)
    shown = np.arange(0, len(counts), step)
    font = ImageFont.load_default(12)
    colours = _colours(len(names))
    legend_rows = _legend_rows(names, font) if len(names) <= _MOST_NAMES else []
    height = _HEAD + _ROW * len(shown) + 22 + 18 * len(legend_rows) + 8
    image = Image.new("RGB", (_WIDTH, height), "white")
    draw = ImageDraw.Draw(image)
    every = f", every {step}. client" if step > 1 else ""
    every += f", {len(names)} classes by hue" if not legend_rows else ""
    draw.text((12, 8), title + every, "black", ImageFont.load_default(15))
    most = max(1, int(counts.sum(1).max()))
    scale = (_WIDTH - _LEFT - _RIGHT) / most
    for line, client in enumerate(shown.tolist()):
        top = _HEAD + _ROW * line
        called = f"client {client}" if client_names is None else _shortened(client_names[client])
        draw.text((_LEFT - 8, top + 8), called, "black", font, anchor="rm")
        edges = _LEFT + np.r_[0, np.cumsum(counts[client])] * scale
        for kind in range(len(names)):
            if counts[client, kind]:
                box = (round(edges[kind]), top, max(round(edges[kind]), round(edges[kind + 1]) - 1), top + _ROW - 5)
                draw.rectangle(box, colours[kind])
        draw.text((round(edges[-1]) + 6, top + 8), f"{counts[client].sum():,}", "#444444", font, anchor="lm")
    top = _HEAD + _ROW * len(shown) + 16
    for row in legend_rows:
        for x, kind in row:
            draw.rectangle((x, top, x + 10, top + 10), colours[kind])
            draw.text((x + 15, top + 5), names[kind], "black", font, anchor="lm")
        top += 18
    return image


def _shortened(name: str) -> str:
    return name if len(name) <= _MOST_LETTERS else f"{name[: _MOST_LETTERS - 2]}.."


def _colours(classes: int) -> list[str]:
    if classes <= len(_COLOURS):
        return list(_COLOURS)
    rgb = [colorsys.hsv_to_rgb(kind / classes, 0.55 + 0.35 * (kind % 2), 0.85) for kind in range(classes)]
    return ["#" + "".join(f"{round(255 * part):02x}" for part in colour) for colour in rgb]


def _legend_rows(names: Sequence[str], font: Any) -> list[list[tuple[int, int]]]:
    """Places of the legend's entries, in as many rows as they need."""
    rows: list[list[tuple[int, int]]] = [[]]
    x = 12
    for kind, name in enumerate(names):
        width = 15 + round(font.getlength(name)) + 16
        if x + width > _WIDTH - 12 and rows[-1]:
            rows.append([])
            x = 12
        rows[-1].append((x, kind))
        x += width
    return rows
