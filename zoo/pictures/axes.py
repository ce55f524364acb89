"""One style for all plots: grey axes on a transparent ground, readable on light and on dark pages; small PNG files.

matplotlib comes with the extra `test`.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from PIL import Image

from zoo.errors import require
from zoo.files import write_whole
from zoo.pictures.palette import GREY

__all__ = ["new_axes", "new_figure", "save_png", "style_axes"]

_DPI = 130


def new_figure(width: float, height: float) -> Any:
    """A figure that needs no display.

    Args:
        width: in inches; an inch has 130 pixels.
        height: in inches.

    Raises:
        MissingExtra: if matplotlib is not installed.
    """
    require("matplotlib", "test")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def new_axes(width: float = 6.4, height: float = 3.6) -> tuple[Any, Any]:
    """A figure with one pair of styled axes.

    Args:
        width: in inches; an inch has 130 pixels.
        height: in inches.

    Raises:
        MissingExtra: if matplotlib is not installed.
    """
    figure = new_figure(width, height)
    axes = figure.add_subplot()
    style_axes(axes)
    return figure, axes


def style_axes(axes: Any) -> None:
    """Give axes the common style: grey lines and letters, nothing at the top and on the right.

    Args:
        axes: of matplotlib.
    """
    axes.patch.set_alpha(0)
    axes.tick_params(which="both", colors=GREY, labelsize=8)
    axes.xaxis.label.set_color(GREY)
    axes.yaxis.label.set_color(GREY)
    axes.title.set_color(GREY)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(GREY)


def save_png(drawn: Any, path: Path) -> None:
    """Write a picture with a palette of 256 colours, whole or not at all; the same picture gives the same bytes.

    Args:
        drawn: a PIL image, or a figure of matplotlib, whose ground becomes transparent.
        path: PNG to write; its folder is made.
    """
    if not isinstance(drawn, Image.Image):
        buffer = io.BytesIO()
        drawn.savefig(buffer, format="png", transparent=True, metadata={"Software": None})
        drawn = Image.open(buffer, formats=("PNG",))
    # the octree is the one method of Pillow that keeps transparency; dithering would only add noise
    small = drawn.convert("RGBA").quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    out = io.BytesIO()
    small.save(out, format="PNG", optimize=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, out.getvalue())
