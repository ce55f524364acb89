"""The shares of the clients in each tensor, round by round, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from zoo.errors import BadInput

__all__ = ["draw_contributions"]

LOW, HIGH = np.array([202.0, 0.0, 32.0]), np.array([5.0, 113.0, 176.0])
"""Colours of the smallest and the largest share; white is 1/K. Colour-blind people can distinguish them."""

LEFT, TOP, GAP, WIDTH = 150, 26, 8, 640


def draw_contributions(rows: Sequence[Mapping[str, Any]]) -> Image.Image:
    """Draw the rows of `contribution_report`.

    One band per tensor: clients downwards, rounds to the right; red below, blue above an equal share. The scale is
    that of the largest deviation, which is written at the top.

    Args:
        rows: with `round`, `entry`, `client`, `share`.

    Returns:
        RGB.

    Raises:
        BadInput: if there are none.
    """
    if not rows:
        raise BadInput("There are no contributions to draw: train at least one round with element-wise shares.")
    rounds, clients = sorted({r["round"] for r in rows}), sorted({r["client"] for r in rows})
    entries = list(dict.fromkeys(r["entry"] for r in rows))
    table = np.full((len(entries), len(clients), len(rounds)), np.nan)
    places = [{value: i for i, value in enumerate(axis)} for axis in (entries, clients, rounds)]
    for row in rows:
        table[places[0][row["entry"]], places[1][row["client"]], places[2][row["round"]]] = row["share"]
    apart = table - np.nanmean(table, axis=1, keepdims=True)
    scale = float(np.nanmax(np.abs(apart))) or 1.0
    height = max(4, min(12, 90 // len(clients)))
    band = height * len(clients)
    canvas = Image.new("RGB", (LEFT + WIDTH + 12, TOP + (band + GAP) * len(entries) + 22), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(12)
    scale_text = f"share - 1/K: red -{scale:.3f}, white 0, blue +{scale:.3f}; {len(clients)} clients downwards"
    draw.text((LEFT, 6), scale_text, fill="black", font=font)
    for number, entry in enumerate(entries):
        top = TOP + number * (band + GAP)
        picture = Image.fromarray(_colours(apart[number] / scale))
        canvas.paste(picture.resize((WIDTH, band), Image.Resampling.NEAREST), (LEFT, top))
        draw.rectangle((LEFT, top, LEFT + WIDTH - 1, top + band - 1), outline=(200, 200, 200))
        name = entry if len(entry) <= 22 else "..." + entry[-19:]
        draw.text((LEFT - 8, top + band / 2), name, fill="black", font=font, anchor="rm")
    bottom = TOP + len(entries) * (band + GAP) + 2
    draw.text((LEFT, bottom), f"round {rounds[0] + 1}", fill="black", font=font)
    draw.text((LEFT + WIDTH, bottom), f"round {rounds[-1] + 1}", fill="black", font=font, anchor="ra")
    return canvas


def _colours(values: np.ndarray) -> np.ndarray:
    """Values in [-1, 1] as uint8 RGB; grey where there is none."""
    known = np.nan_to_num(values)[..., None]
    end = np.where(known < 0, LOW, HIGH)
    mixed = 255 + np.abs(known) * (end - 255)
    return np.where(np.isnan(values)[..., None], 225, mixed).round().astype(np.uint8)
