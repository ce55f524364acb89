"""LandCoverMap: tiles of land that unmanned aircraft photograph, ten classes as in EuroSAT.

    ground   fields, woods, quarters and lakes are Voronoi cells with warped borders; each class has a procedural
             texture (rows, orchards, crowns, roofs and streets, ...), each cell its own direction, spacing and colour;
             rivers and highways run across. Classes have regions where they are frequent.
    flight   a lawn-mower or random-waypoint path over a part of the map, one photograph each few seconds
    light    colour (1 + slope along the sun / tan(elevation)) gain, haze blended in, sensor noise; sun, haze, gain and
             white balance belong to the flight
    label    highway or river if one runs through the middle; else the cover of at least 70 % of the tile; other tiles
             are left out, as mixed tiles are in EuroSAT

So a flight has few classes (label skew) and its own light (feature skew). Splits are different maps: no place, field or
flight of training is in validation or test. Flight `f` depends only on (config, split, f).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datamodules.worlds.land_cover.map import CLASSES, HIGHWAY, RIVER, Ground, make_ground
from zoo.errors import BadInput, nearest

__all__ = ["CLASSES", "SPLITS", "TILE", "VERSION", "LandCoverConfig", "Tiles", "render"]

VERSION = 1  # raise it when a pixel or label of any tile changes: caches and published metrics hang on it
SPLITS = ("train", "val", "test")
TILE = 64
"""Side of a tile in pixels."""

_RANGE = 480.0  # pixels, side of the square in which a flight stays
_STEP = 30.0  # pixels between two photographs and between two legs, so that they overlap by half
_SPREAD = np.array([0.7548776662466927, 0.5698402909980532])  # R2 sequence: flights are everywhere, no two alike


@dataclass(frozen=True)
class LandCoverConfig:
    """How much land, and how often it is flown over.

    Attributes:
        seed: everything random derives from it.
        sides: of the maps for train, val and test in pixels.
        flights: number of flights over each.
        tiles: photographs of a flight that are kept, at most.
    """

    seed: int = 0
    sides: tuple[int, int, int] = (3072, 1536, 2048)
    flights: tuple[int, int, int] = (120, 20, 40)
    tiles: int = 80

    def __post_init__(self) -> None:
        if min(self.sides) < 512:
            raise BadInput(f"sides: a map needs at least 512 pixels, got {self.sides}.")
        if min(*self.flights, self.tiles) < 1:
            raise BadInput(f"flights and tiles: expected at least 1, got {self.flights} and {self.tiles}.")


@dataclass
class Tiles:
    """What the flights of a split brought home.

    Attributes:
        pixels: uint8 (N, 3, 64, 64).
        labels: int64 (N,), index into `CLASSES`.
        flights: int64 (N,), number of the flight.
        positions: float32 (N, 2), x and y of the tile's middle on the map, in pixels.
    """

    pixels: np.ndarray
    labels: np.ndarray
    flights: np.ndarray
    positions: np.ndarray


def render(config: LandCoverConfig, split: str) -> Tiles:
    """Fly over the map of a split.

    Raises:
        BadInput: if there is no such split.
    """
    if split not in SPLITS:
        raise BadInput(f"split: expected one of {', '.join(SPLITS)}, got {split!r}.{nearest(split, SPLITS)}")
    number = SPLITS.index(split)
    ground = make_ground(np.random.default_rng((config.seed, number)), config.sides[number])
    parts = [_fly(ground, config, number, flight) for flight in range(config.flights[number])]
    return Tiles(
        np.concatenate([tiles.pixels for tiles in parts]),
        np.concatenate([tiles.labels for tiles in parts]),
        np.concatenate([tiles.flights for tiles in parts]),
        np.concatenate([tiles.positions for tiles in parts]),
    )


def _path(rng: np.random.Generator, flight: int, side: int, steps: int) -> np.ndarray:
    """Places of the photographs, float (steps, 2), x and y."""
    room = min(_RANGE, side - TILE)
    corner = TILE / 2 + (side - TILE - room) * (((flight + 1) * _SPREAD + rng.uniform(-0.02, 0.02, 2)) % 1)
    if rng.random() < 0.5:  # lawn-mower: parallel legs, each flown against the last one
        leg = int(room // _STEP)
        along, across = np.arange(steps) % leg, np.arange(steps) // leg
        along = np.where(across % 2, leg - 1 - along, along)
        # a second pass over the area flies between the legs of the first
        offset = np.stack([along * _STEP, (across * _STEP + across // leg * _STEP / 2) % room], 1)
        return corner + (offset[:, ::-1] if rng.random() < 0.5 else offset)
    points = corner + rng.random((steps, 2)) * room
    length = np.r_[0, np.cumsum(np.hypot(*np.diff(points, axis=0).T))]
    flown = np.arange(steps) * _STEP
    return np.stack([np.interp(flown, length, points[:, axis]) for axis in (0, 1)], 1)


def _label(cover: np.ndarray) -> int | None:
    """Class of a tile; None for a mixed one."""
    share = np.bincount(cover.reshape(-1), minlength=len(CLASSES)) / cover.size
    inner = cover[TILE // 4 : -TILE // 4, TILE // 4 : -TILE // 4]
    for line, least in ((HIGHWAY, 0.1), (RIVER, 0.2)):
        if (inner == line).mean() >= least and share[line] >= least:
            return line
    most = int(np.argmax(share))
    clear = share[HIGHWAY] + share[RIVER] < 0.04
    return most if clear and share[most] >= 0.7 else None


def _fly(ground: Ground, config: LandCoverConfig, split: int, flight: int) -> Tiles:
    """One flight: path, light, photographs."""
    rng = np.random.default_rng((config.seed, split, flight, 1))
    azimuth, elevation = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(28, 65))
    haze, gain, noise = rng.uniform(0, 0.35), rng.uniform(0.85, 1.15), rng.uniform(1.5, 5)
    balance = gain * (1 + rng.normal(0, 0.04, 3))
    sky = np.array([196, 204, 216], np.float32)
    sun = np.array([np.cos(azimuth), np.sin(azimuth)]) * (0.13 / np.tan(elevation))
    pixels, labels, places = [], [], []
    for x, y in np.rint(_path(rng, flight, len(ground.cover), 4 * config.tiles) - TILE / 2).astype(int).tolist():
        window = slice(y, y + TILE), slice(x, x + TILE)
        label = _label(ground.cover[window])
        if label is None:
            continue
        lit = np.clip(1 + ground.slope[window] @ sun, 0.45, 1.6)[..., None] * ground.colour[window] * balance
        seen = lit * (1 - haze) + sky * haze + rng.normal(0, noise, lit.shape)
        pixels.append(np.clip(seen + 0.5, 0, 255).astype(np.uint8).transpose(2, 0, 1))
        labels.append(label)
        places.append((x + TILE / 2, y + TILE / 2))
        if len(labels) == config.tiles:
            break
    return Tiles(
        np.array(pixels, np.uint8).reshape(-1, 3, TILE, TILE),
        np.array(labels, np.int64),
        np.full(len(labels), flight, np.int64),
        np.array(places, np.float32).reshape(-1, 2),
    )
