"""Pictures of detections: boxes with class names and scores."""

from __future__ import annotations

from collections.abc import Sequence

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
    image = Image.fromarray(pixels).resize((width * factor, height * factor), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    side = max(image.size)
    line = max(2, side // 400)
    font = ImageFont.load_default(size=max(11, min(22, side // 48)))
    # weak detections first, so that the strongest lie on top
    for box, label, text in reversed(list(zip(boxes.tolist(), labels, texts, strict=True))):
        colour = colour_of(int(label), CLASSES)
        x1, y1, x2, y2 = (v * factor for v in box)
        draw.rectangle((x1, y1, max(x1, x2), max(y1, y2)), outline=colour, width=line)
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        wide, tall = right - left + 6, bottom - top + 6
        tx = min(max(0.0, x1), image.width - wide)
        ty = y1 - tall if y1 >= tall else min(y1, image.height - tall)
        draw.rectangle((tx, ty, tx + wide, ty + tall), fill=colour)
        draw.text((tx + 3 - left, ty + 3 - top), text, fill="white", font=font)
    return image
