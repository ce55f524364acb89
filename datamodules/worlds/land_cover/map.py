"""The ground of LandCoverMap: which land is where, its colours and its heights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

__all__ = ["CLASSES", "HIGHWAY", "RIVER", "Ground", "make_ground", "smooth_noise"]

CLASSES = (
    "AnnualCrop",
    "Forest",
    "HerbaceousVegetation",
    "Highway",
    "Industrial",
    "Pasture",
    "PermanentCrop",
    "Residential",
    "River",
    "SeaLake",
)
"""As in EuroSAT (Helber et al. 2019), in its order."""

HIGHWAY, RIVER, LAKE = CLASSES.index("Highway"), CLASSES.index("River"), CLASSES.index("SeaLake")
_AREAS = [i for i in range(len(CLASSES)) if i not in (HIGHWAY, RIVER)]
_CELL = 150  # pixels from one field, wood or quarter to the next

# mean colour, and how much it differs from field to field
_COLOURS: dict[str, tuple[tuple[float, float, float], float]] = {
    "AnnualCrop": ((128, 122, 82), 22),
    "Forest": ((50, 74, 46), 9),
    "HerbaceousVegetation": ((112, 120, 72), 16),
    "Highway": ((132, 130, 128), 10),
    "Industrial": ((140, 136, 132), 12),
    "Pasture": ((104, 134, 70), 16),
    "PermanentCrop": ((112, 116, 72), 18),
    "Residential": ((110, 112, 92), 12),
    "River": ((72, 94, 96), 14),
    "SeaLake": ((42, 68, 96), 6),
}


@dataclass
class Ground:
    """A square of land seen from above, without sun or haze.

    Attributes:
        colour: float32 (side, side, 3), 0..255.
        slope: float32 (side, side, 2), rise of the surface per pixel along x and y.
        cover: uint8 (side, side), index into `CLASSES`.
    """

    colour: np.ndarray
    slope: np.ndarray
    cover: np.ndarray


def smooth_noise(rng: np.random.Generator, side: int, wavelength: float, octaves: int = 1) -> np.ndarray:
    """Random relief: a coarse grid of normal numbers, interpolated; each octave halves wavelength and height.

    Returns:
        float32 (side, side) with mean 0 and standard deviation 1.
    """
    total = np.zeros((side, side), np.float32)
    for octave in range(octaves):
        points = max(2, round(side * 2 / wavelength * 2**octave)) + 3
        grid = Image.fromarray(rng.standard_normal((points, points), np.float32))
        shift = rng.uniform(0, 1, 2) + 1
        span = points - 3
        box = (float(shift[0]), float(shift[1]), float(shift[0] + span), float(shift[1] + span))
        total += np.asarray(grid.resize((side, side), Image.Resampling.BICUBIC, box=box)) * 0.5**octave
    total -= total.mean()
    return np.asarray(total / total.std(), np.float32)


def _cells(rng: np.random.Generator, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Voronoi cells of a jittered grid, their borders warped by noise.

    Returns:
        int32 (side, side), the cell of each pixel; float (n, 2), the cells' centres as x and y.
    """
    count = -(-side // _CELL) + 2
    axis = (np.arange(count) - 0.5) * _CELL
    centres = np.stack(np.meshgrid(axis, axis), -1) + rng.uniform(-0.38, 0.38, (count, count, 2)) * _CELL
    centres = centres.astype(np.float32)
    pixels = np.arange(side, dtype=np.float32)
    x = pixels[None] + 14 * smooth_noise(rng, side, 260, 3)
    y = pixels[:, None] + 14 * smooth_noise(rng, side, 260, 3)
    column = np.clip(((x / _CELL) + 1).astype(np.int32), 0, count - 1)
    row = np.clip(((y / _CELL) + 1).astype(np.int32), 0, count - 1)
    nearest = np.full((side, side), np.inf, np.float32)
    cell = np.zeros((side, side), np.int32)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            at = np.clip(row + down, 0, count - 1) * count + np.clip(column + right, 0, count - 1)
            place = centres.reshape(-1, 2)[at]
            distance = (place[..., 0] - x) ** 2 + (place[..., 1] - y) ** 2
            closer = distance < nearest
            nearest[closer], cell[closer] = distance[closer], at[closer]
    return cell, centres.reshape(-1, 2)


def _plan(rng: np.random.Generator, centres: np.ndarray, side: int) -> np.ndarray:
    """Class of each cell: kinds of land have regions where they are frequent, as woods and crops have.

    This is what makes the shares of the classes differ from one flight to the next.
    """
    at = np.clip(centres.astype(np.int64), 0, side - 1)
    score = np.stack([1.7 * smooth_noise(rng, side, 1500)[at[:, 1], at[:, 0]] for _ in _AREAS], axis=1)
    score += rng.gumbel(size=score.shape)
    for _ in range(30):  # about equally many cells of each class
        counts = np.bincount(np.argmax(score, axis=1), minlength=len(_AREAS))
        score -= 0.3 * np.log((counts + 1) * len(_AREAS) / len(score))
    return np.array(_AREAS)[np.argmax(score, axis=1)]


def _lines(rng: np.random.Generator, cover: np.ndarray) -> np.ndarray:
    """Lay rivers and highways over the land, in place; returns the distance to the middle of the next highway."""
    side = len(cover)
    pixels = np.arange(side, dtype=np.float32)
    relief = smooth_noise(rng, side, 1100, 2)
    down, right = np.gradient(relief)
    width = 9 + 3 * smooth_noise(rng, side, 900)
    river = np.abs(relief) < width * np.sqrt(down**2 + right**2)
    cover[river & (cover != LAKE)] = RIVER
    nearest = np.full((side, side), np.inf, np.float32)
    for _ in range(max(2, side // 400)):
        angle, start = rng.uniform(0, np.pi), rng.uniform(0.05, 0.95, 2) * side
        bend = 40 * smooth_noise(rng, side, 1400)
        across = (pixels[None] - start[0]) * np.sin(angle) - (pixels[:, None] - start[1]) * np.cos(angle) + bend
        nearest = np.where(np.abs(across) < np.abs(nearest), across, nearest)
    cover[np.abs(nearest) < 5.5] = HIGHWAY
    return nearest


def _hashed(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """A number in [0, 1) for each triple of whole numbers."""
    with np.errstate(over="ignore"):
        mixed = a.astype(np.uint32) * np.uint32(73856093) ^ b.astype(np.uint32) * np.uint32(19349663)
        mixed = (mixed ^ c.astype(np.uint32) * np.uint32(83492791)) * np.uint32(2654435761)
        mixed ^= mixed >> np.uint32(15)
        mixed = mixed * np.uint32(2246822519)
    return (mixed >> np.uint32(8)).astype(np.float32) / np.float32(2**24)


@dataclass
class _Patch:
    """All pixels of one class: coordinates along and across their field's direction, and noises."""

    u: np.ndarray
    v: np.ndarray
    cell: np.ndarray
    fine: np.ndarray
    medium: np.ndarray
    coarse: np.ndarray
    spacing: np.ndarray  # in [0, 1), one per field
    contrast: np.ndarray  # in [0, 1), one per field


def _rows(p: _Patch) -> tuple[np.ndarray, np.ndarray]:
    """Crop rows: a plane wave across the field."""
    wave = np.sin(2 * np.pi * p.v / (7 + 7 * p.spacing) + 0.5 * p.coarse)
    strength = 7 + 13 * p.contrast
    return strength * wave + 5 * p.medium + 2 * p.fine, 0.4 * wave


def _orchard(p: _Patch) -> tuple[np.ndarray, np.ndarray]:
    """Trees on a grid."""
    spacing = 9 + 6 * p.spacing
    crowns = np.cos(2 * np.pi * p.u / spacing) + np.cos(2 * np.pi * p.v / (spacing * (1 + 0.5 * p.contrast)))
    crowns = np.clip(crowns + 0.3 * p.fine, 0, 2)
    return -(11 + 12 * p.contrast) * crowns + 5 * p.medium + 3 * p.fine, 1.3 * crowns


def _forest(p: _Patch) -> tuple[np.ndarray, np.ndarray]:
    """Crowns beside crowns."""
    crowns = 0.75 * p.fine + 0.6 * p.medium
    return (7 + 6 * p.contrast) * crowns, 1.6 * crowns


def _shrubs(p: _Patch) -> tuple[np.ndarray, np.ndarray]:
    """Patches of grass, bushes and bare soil."""
    bushes = np.clip(p.medium - 0.4, 0, 2)
    return 8 * p.coarse + 5 * p.fine - (8 + 10 * p.contrast) * bushes, 0.8 * bushes + 0.2 * p.fine


def _pasture(p: _Patch) -> tuple[np.ndarray, np.ndarray]:
    """Grass: nearly even."""
    return 5 * p.coarse + (1.5 + 3 * p.contrast) * p.fine + 2 * p.medium, 0.1 * p.fine


def _water(p: _Patch) -> tuple[np.ndarray, np.ndarray]:
    """Waves."""
    return 3 * p.coarse + (1 + 2 * p.contrast) * p.fine, 0.15 * p.fine


def _blocks(p: _Patch, road: float, block: tuple[float, float], roof: float, tall: float) -> tuple[np.ndarray, ...]:
    """Streets, and houses on lots along them.

    Returns:
        brightness, height, and 1 where a roof is.
    """
    length, depth = block[0] * (0.8 + 0.4 * p.spacing), block[1] * (0.8 + 0.4 * p.contrast)
    lot_u, lot_v = np.floor(p.u / length), np.floor(p.v / depth)
    in_u, in_v = p.u / length - lot_u, p.v / depth - lot_v
    size = roof * (0.75 + 0.4 * _hashed(lot_u, lot_v, p.cell))
    built = (np.abs(in_u - 0.5) < size / 2) & (np.abs(in_v - 0.5) < size / 2)
    built &= _hashed(lot_v, lot_u, p.cell + 7) < 0.85
    street = np.minimum((p.v % (3 * depth)), (p.u % (4 * length))) < road
    tone = _hashed(lot_u + 3, lot_v, p.cell) - 0.4
    light = np.where(street, 16.0, np.where(built, 60 * tone + 18, -10 + 8 * p.medium)) + 3 * p.fine
    houses = built & ~street
    return light, tall * houses, houses.astype(np.float32)


def _paint(name: str, p: _Patch, colour: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colour (n, 3) and height (n,) of a class's pixels, given the mean colour of their field."""
    if name in ("Residential", "Industrial"):
        small = name == "Residential"
        parts = _blocks(p, 4.0, (11.0, 12.0) if small else (30.0, 24.0), 0.62 if small else 0.8, 1.5 if small else 2.5)
        light, height, houses = parts
        tint = np.array([26, -8, -16] if small else [0, 2, 10], np.float32)
        gardens = np.array([-18, 4, -22] if small else [-6, -4, -6], np.float32)
        return colour + light[:, None] + houses[:, None] * tint + (1 - houses)[:, None] * gardens, height
    draw = {
        "AnnualCrop": _rows,
        "Forest": _forest,
        "HerbaceousVegetation": _shrubs,
        "Pasture": _pasture,
        "PermanentCrop": _orchard,
        "River": _water,
        "SeaLake": _water,
        "Highway": _pasture,
    }[name]
    light, height = draw(p)
    return colour + light[:, None] * np.array([1.0, 0.95, 0.8], np.float32), height


def make_ground(rng: np.random.Generator, side: int) -> Ground:
    """Make a square of land.

    Args:
        rng: everything random comes from it.
        side: in pixels, at least 256.
    """
    cell, centres = _cells(rng, side)
    cover = _plan(rng, centres, side)[cell].astype(np.uint8)
    middle = _lines(rng, cover)
    noises = [smooth_noise(rng, side, wavelength, octaves) for wavelength, octaves in ((6, 1), (22, 2), (130, 3))]
    fields = len(centres)
    direction, spacing, contrast = rng.uniform(0, np.pi, fields), rng.random(fields), rng.random(fields)
    tone, tint = rng.standard_normal((fields, 1)), rng.standard_normal((fields, 3))
    colour = np.empty((side, side, 3), np.float32)
    height = np.empty((side, side), np.float32)
    for number, name in enumerate(CLASSES):
        y, x = np.nonzero(cover == number)
        own = cell[y, x]
        cos, sin = np.cos(direction[own]), np.sin(direction[own])
        fine, medium, coarse = (array[y, x] for array in noises)
        along, across = x * cos + y * sin, y * cos - x * sin
        patch = _Patch(along, across, own, fine, medium, coarse, spacing[own], contrast[own])
        mean, spread = _COLOURS[name]
        of_field = np.array(mean) + spread * (0.8 * tone + 0.45 * tint)
        colour[y, x], height[y, x] = _paint(name, patch, of_field[own])
    marking = (np.abs(np.abs(middle) - 5) < 0.7) | (np.abs(middle) < 0.6)
    colour[marking & (cover == HIGHWAY)] += 50
    height += 3 * smooth_noise(rng, side, 500, 2)
    down, right = np.gradient(height)
    return Ground(np.clip(colour, 0, 255), np.stack([right, down], -1), cover)
