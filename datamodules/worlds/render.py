"""Drawing helpers of the simulators: alpha masks of digits and shapes under an affine map, tight boxes, blending."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

SHAPES = ("ellipse", "polygon", "star", "ring", "cross")


def random_affine(rng: np.random.Generator, max_degrees: float, max_shear: float) -> np.ndarray:
    """Draw a 2x2 matrix: shear and a mild change of aspect, then a rotation."""
    angle = math.radians(rng.uniform(-max_degrees, max_degrees))
    shear = rng.uniform(-max_shear, max_shear)
    aspect = math.exp(rng.uniform(-0.15, 0.15))
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix: np.ndarray = rotation @ np.array([[aspect, shear], [0.0, 1.0 / aspect]])
    return matrix


def glyph_alpha(glyph: np.ndarray, height: float, matrix: np.ndarray, sharpen: float) -> np.ndarray | None:
    """Draw a digit whose upright ink is `height` px tall under `matrix`; uint8 alpha (h, w), None if it has no ink."""
    ys, xs = np.nonzero(glyph > 127)
    if len(ys) == 0:
        return None
    scale = height / (ys.max() - ys.min() + 1)
    forward = matrix * scale
    centre = np.array([(xs.min() + xs.max() + 1) / 2, (ys.min() + ys.max() + 1) / 2])
    # two source pixels around the ink leave room for the soft edge that the interpolation makes
    half = np.array([(xs.max() - xs.min() + 5) / 2, (ys.max() - ys.min() + 5) / 2])
    width, tall = np.ceil(2 * np.abs(forward) @ half).astype(int)
    inverse = np.linalg.inv(forward)
    offset = centre - inverse @ np.array([width / 2, tall / 2])
    coefficients = (inverse[0, 0], inverse[0, 1], offset[0], inverse[1, 0], inverse[1, 1], offset[1])
    drawn = Image.fromarray(glyph).transform(
        (int(width), int(tall)), Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC
    )
    return _sharpen(np.asarray(drawn), max(1.0, sharpen * scale))


def shape_alpha(kind: str, height: float, matrix: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """Draw a filled shape with soft edges; uint8 alpha (h, w)."""
    turn = rng.uniform(0, 2 * math.pi)
    corners = int(rng.integers(3, 8))
    outline, hole = _outline(kind, corners, turn)
    over = 4
    mapped = [points @ (matrix * height / 2).T for points in (outline, hole) if points is not None]
    low = np.floor(mapped[0].min(0)) - 2
    size = (np.ceil(mapped[0].max(0)) + 2 - low).astype(int)
    canvas = Image.new("L", (int(size[0]) * over, int(size[1]) * over))
    draw = ImageDraw.Draw(canvas)
    for points, fill in zip(mapped, (255, 0), strict=False):
        draw.polygon([tuple(point) for point in (points - low) * over], fill=fill)
    return np.asarray(canvas.resize((int(size[0]), int(size[1])), Image.Resampling.BOX))


def _outline(kind: str, corners: int, turn: float) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the outline (n, 2) inside the unit circle, and that of a hole."""

    def circle(count: int, radius: np.ndarray | float = 1.0) -> np.ndarray:
        angles = turn + np.arange(count) * 2 * math.pi / count
        points: np.ndarray = np.stack([np.cos(angles), np.sin(angles)], 1) * np.reshape(radius, (-1, 1))
        return points

    if kind == "ellipse":
        return circle(48) * np.array([1.0, 0.7]), None
    if kind == "ring":
        return circle(48), circle(48, 0.55)
    if kind == "polygon":
        return circle(corners), None
    if kind == "star":
        return circle(10, np.tile([1.0, 0.45], 5)), None
    arm = 0.33
    cross = [(arm, -1), (arm, -arm), (1, -arm), (1, arm), (arm, arm), (arm, 1)]
    points = np.array(cross + [(-x, -y) for x, y in cross], dtype=float)
    spin = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    return points @ spin.T, None


def _sharpen(alpha: np.ndarray, gain: float) -> np.ndarray:
    """Steepen the edge around alpha one half, which therefore stays where it was."""
    table = np.clip((np.arange(256) - 127.5) * gain + 127.5, 0, 255).astype(np.uint8)
    steep: np.ndarray = table[alpha]
    return steep


def tight_box(alpha: np.ndarray) -> tuple[int, int, int, int] | None:
    """Bounds of alpha > 0.5 as half-open (x1, y1, x2, y2), or None."""
    inside = alpha > 127
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    if len(rows) == 0:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def blend(image: np.ndarray, alpha: np.ndarray, left: int, top: int, colour: np.ndarray, opacity: float) -> None:
    """Paint `colour` through `alpha` onto `image` in place; what lies outside the image is cut off."""
    height, width = image.shape[:2]
    x1, y1 = max(left, 0), max(top, 0)
    x2, y2 = min(left + alpha.shape[1], width), min(top + alpha.shape[0], height)
    part = alpha[y1 - top : y2 - top, x1 - left : x2 - left, None].astype(np.float32) * (opacity / 255)
    region = image[y1:y2, x1:x2].astype(np.float32)
    region += part * (colour.astype(np.float32) - region)
    image[y1:y2, x1:x2] = region + 0.5


def contrasting_colour(rng: np.random.Generator, background: np.ndarray) -> np.ndarray:
    """Draw a random RGB colour that a person can tell from the mean of `background` (H, W, 3)."""
    mean = background.reshape(-1, 3).mean(0)
    candidates = rng.uniform(0, 255, (6, 3))
    # luminance decides what the eye can read; a colour that differs in hue alone is hard to see
    weights = np.array([0.30, 0.59, 0.11])
    contrast = np.abs((candidates - mean) @ weights)
    good = np.flatnonzero(contrast >= 55)
    chosen: np.ndarray = candidates[good[0] if len(good) else contrast.argmax()]
    return chosen
