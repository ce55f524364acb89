"""Several pictures as one that a page can show without shrinking it."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

__all__ = ["tiled"]


def tiled(pictures: Sequence[Image.Image], width: int = 1160, tile: int = 400, gap: int = 6) -> Image.Image:
    """Lay pictures out in rows of about equal length, with transparent gaps.

    Args:
        pictures: of any size; all get the size of the first one.
        width: largest width of the whole in pixels.
        tile: largest width of a picture in pixels; larger ones are reduced.
        gap: between pictures.

    Returns:
        RGBA.
    """
    first = pictures[0]
    wide = min(tile, first.width)
    tall = max(1, round(first.height * wide / first.width))
    rows = -(-len(pictures) // max(1, (width + gap) // (wide + gap)))
    columns = -(-len(pictures) // rows)
    whole = Image.new("RGBA", (columns * (wide + gap) - gap, rows * (tall + gap) - gap))
    for number, picture in enumerate(pictures):
        place = (number % columns * (wide + gap), number // columns * (tall + gap))
        whole.paste(picture.resize((wide, tall), Image.Resampling.LANCZOS), place)
    return whole
