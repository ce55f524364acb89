"""The picture of a section with the roughness that was read from it."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

__all__ = ["draw_section"]


def draw_section(signal: np.ndarray, pitch_um: float, name: str, value: float, low: float, high: float) -> Image.Image:
    """Detectors over the strip as a picture, with the roughness and its interval below."""
    channels, length = signal.shape
    size, margin = (440, 176), 50
    shade = np.clip(signal / max(float(signal.max()), 1e-6), 0, 1) ** 0.6
    # dark blue to yellow by way of green: readable without telling red from green
    stops = np.array([[20, 24, 70], [30, 110, 140], [90, 190, 120], [250, 230, 70]], np.float64)
    at = shade * (len(stops) - 1)
    lower = np.minimum(at.astype(int), len(stops) - 2)
    part = (at - lower)[..., None]
    colours = (stops[lower] * (1 - part) + stops[lower + 1] * part).astype(np.uint8)
    picture = Image.fromarray(colours[::-1]).resize(size, Image.Resampling.BOX)
    canvas = Image.new("RGB", (picture.width, picture.height + margin), "white")
    canvas.paste(picture)
    draw = ImageDraw.Draw(canvas)
    unit = "peaks per 10 mm" if name == "rpc" else "micrometres"
    label = {"ra": "Ra", "rq": "Rq", "rz": "Rz", "rpc": "RPc"}.get(name, name)
    text = f"{label} {value:.2f} {unit} ({low:.2f} to {high:.2f})"
    draw.text((8, picture.height + 6), text, fill="#1a1a1a", font=ImageFont.load_default(size=20))
    scale = f"{channels} detectors over {length * pitch_um / 1000:.1f} mm of strip"
    draw.text((8, picture.height + 31), scale, fill="#555555", font=ImageFont.load_default(size=13))
    return canvas
