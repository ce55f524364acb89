"""A picture of a series with what was predicted for it."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from zoo.pictures.palette import colour_of

__all__ = ["draw_series"]

_SIZE = (440, 240)
_MARGIN = 16


def draw_series(series: Tensor, title: str) -> Image.Image:
    """Draw the channels of a series (C, L) over each other, each in its own range, below a title."""
    width, height = _SIZE
    picture = Image.new("RGB", _SIZE, "white")
    draw = ImageDraw.Draw(picture)
    draw.text((_MARGIN, 8), title, fill="#202428", font=ImageFont.load_default(20))
    top, bottom = 44, height - _MARGIN
    for number, channel in enumerate(series):
        low, high = float(channel.min()), float(channel.max())
        scale = (bottom - top) / (high - low if high > low else 1.0)
        step = (width - 2 * _MARGIN) / max(1, len(channel) - 1)
        line = [(_MARGIN + i * step, bottom - (float(v) - low) * scale) for i, v in enumerate(channel)]
        draw.line(line, fill=colour_of(number), width=2, joint="curve")
    return picture
