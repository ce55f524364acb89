"""Pictures of detections: boxes with class names and scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from zoo.pictures.palette import CLASSES, colour_of

__all__ = ["draw_boxes"]


def draw_boxes(
    pixels: np.ndarray,
    boxes: np.ndarray,
    labels: Sequence[int],
    texts: Sequence[str],
    longest: int = 900,
) -> Image.Image:
    """Draw boxes on an image; small images are enlarged so that the text can be read.

    Args:
        pixels: uint8 (H, W, 3).
        boxes: (n, 4) xyxy in the image's pixels.
        labels: class numbers, which choose the colours.
        texts: what to write at each box.
        longest: images with a smaller longer side are enlarged by a whole factor, up to this.
    """
    height, width = pixels.shape[:2]
    factor = max(1, min(4, longest // max(height, width, 1)))
    image = Image.fromarray(pixels).copy()
    if factor > 1:
        image = image.resize((width * factor, height * factor), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    side = max(image.size)
    line = max(2, side // 400)
    font = ImageFont.load_default(size=max(11, min(22, side // 32)))
    drawn = list(zip(boxes.tolist(), labels, texts, strict=True))
    # the strongest choose where their text stands; a second class on the same object is written below the first
    signs: list[tuple[float, float, float, float]] = []
    for box, _, text in drawn:
        signs.append(_place(draw, [v * factor for v in box], text, font, signs))
    # weak detections first, so that the strongest lie on top
    for (box, label, text), sign in reversed(list(zip(drawn, signs, strict=True))):
        colour = colour_of(int(label), CLASSES)
        x1, y1, x2, y2 = (v * factor for v in box)
        draw.rectangle((x1, y1, max(x1, x2), max(y1, y2)), outline=colour, width=line)
        left, top, _, _ = draw.textbbox((0, 0), text, font=font)
        draw.rectangle(sign, fill=colour)
        draw.text((sign[0] + 3 - left, sign[1] + 3 - top), text, fill="white", font=font)
    return image


def _place(
    draw: ImageDraw.ImageDraw,
    box: Sequence[float],
    text: str,
    font: Any,
    taken: Sequence[tuple[float, float, float, float]],
) -> tuple[float, float, float, float]:
    """Where the text of a box stands: above it, or inside at the edge of the image, and on no other text."""
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    wide, tall = right - left + 6, bottom - top + 6
    width, height = draw.im.size
    x = min(max(0.0, box[0]), width - wide)
    start = y = box[1] - tall if box[1] >= tall else min(box[1], height - tall)
    while any(x < x2 and x1 < x + wide and y < y2 and y1 < y + tall for x1, y1, x2, y2 in taken):
        y += tall
        if y + tall > height:
            y = start  # no room: better over another text than not at all
            break
    return x, y, x + wide, y + tall
