"""A picture of a series with what was predicted for it."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from zoo.pictures.palette import GREY, colour_of

__all__ = ["draw_series"]

_SIZE = (440, 240)
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 12, 46, 34


def draw_series(series: Tensor, title: str) -> Image.Image:
    """Draw the channels of a series (C, L) over each other, each in its own range, below a title.

    The horizontal axis counts points. The vertical one has the values of a single channel; several channels have
    ranges of their own, so it has none for them.

    Args:
        series: (C, L).
        title: above the curves.
    """
    width, height = _SIZE
    picture = Image.new("RGB", _SIZE, "white")
    draw = ImageDraw.Draw(picture)
    draw.text((16, 8), title, fill="#202428", font=ImageFont.load_default(20))
    bottom = height - _BOTTOM
    step = (width - _LEFT - _RIGHT) / max(1, series.shape[-1] - 1)
    for number, channel in enumerate(series):
        low, high = float(channel.min()), float(channel.max())
        scale = (bottom - 6 - _TOP) / (high - low if high > low else 1.0)
        line = [(_LEFT + i * step, bottom - 6 - (float(v) - low) * scale) for i, v in enumerate(channel)]
        draw.line(line, fill=colour_of(number), width=2, joint="curve")
    _draw_axes(draw, series, bottom)
    return picture


def _draw_axes(draw: ImageDraw.ImageDraw, series: Tensor, bottom: int) -> None:
    """Lines to the left and below, with the ends of both ranges."""
    font, right = ImageFont.load_default(13), _SIZE[0] - _RIGHT
    draw.line([(_LEFT - 6, _TOP - 2), (_LEFT - 6, bottom), (right, bottom)], fill=GREY)
    draw.text((_LEFT, bottom + 4), "1", fill=GREY, font=font, anchor="ma")
    draw.text((right, bottom + 4), str(series.shape[-1]), fill=GREY, font=font, anchor="ra")
    draw.text(((_LEFT + right) / 2, bottom + 4), "point", fill=GREY, font=font, anchor="ma")
    if len(series) == 1:
        for value, y in ((float(series.max()), _TOP), (float(series.min()), bottom - 6)):
            draw.text((_LEFT - 10, y), f"{value:.3g}", fill=GREY, font=font, anchor="rm")
