"""The colours of all pictures; people who confuse red and green can distinguish them."""

from __future__ import annotations

__all__ = ["BAR", "CLASSES", "CURVES", "GREY", "GROUND", "INK", "colour_of"]

CURVES = ("#2f80c8", "#d97706", "#3f9d6a", "#b05fb8", "#7f8c8d", "#c2544f")
"""Lines and areas: mid tones, with contrast on white as on black."""

CLASSES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#7B5EA7", "#B8860B", "#3B8EA5", "#A23B3B", "#4F772D", "#5C5C5C")
"""Classes of objects: Okabe and Ito's and some more, dark enough for white text on most."""

GREY = "#808890"
"""Axes and labels, on white as on black."""

GROUND, INK, BAR = (250, 250, 250), (20, 20, 20), (120, 170, 220)
"""Background, text and bars of probabilities."""


def colour_of(number: int, colours: tuple[str, ...] = CURVES) -> str:
    """The colour of a curve or class; they repeat where there are more than colours."""
    return colours[number % len(colours)]
