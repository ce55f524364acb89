"""Pictures of classified images: the image above bars of its most probable classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from zoo.pictures.palette import BAR, GROUND, INK

__all__ = ["draw_probabilities"]

SIDE, LINE = 224, 24


def draw_probabilities(pixels: np.ndarray, probs: np.ndarray, names: Sequence[str], top: int = 3) -> Image.Image:
    """Draw a picture above bars of its most probable classes.

    Args:
        pixels: uint8 (H, W, 1) or (H, W, 3).
        probs: (K,).
        names: K names.
        top: number of bars.

    Returns:
        RGB, 224 pixels wide.
    """
    grey = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    small = Image.fromarray(grey).convert("RGB")
    scale = Image.Resampling.NEAREST if max(small.size) < SIDE else Image.Resampling.BILINEAR
    order = np.argsort(-probs, kind="stable")[:top]
    canvas = Image.new("RGB", (SIDE, SIDE + LINE * len(order) + 4), GROUND)
    canvas.paste(small.resize((SIDE, SIDE), scale), (0, 0))
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(15)
    for row, label in enumerate(order.tolist()):
        y = SIDE + 4 + row * LINE
        value = float(probs[label])
        draw.rectangle((0, y, round(SIDE * value), y + LINE - 5), fill=BAR)
        draw.text((6, y), names[label], fill=INK, font=font)
        draw.text((SIDE - 6, y), f"{100 * value:.0f} %", fill=INK, font=font, anchor="ra")
    return canvas
