"""Tiles of LandCoverMap as a data set: rendered once, kept in the data cache."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict
from pathlib import Path

import numpy as np

from datamodules.cache import cached_arrays
from datamodules.images.read import Pictures
from datamodules.worlds import land_cover
from datamodules.worlds.land_cover import LandCoverConfig

__all__ = ["WORLD", "land_cover_pictures"]

WORLD = LandCoverConfig()
"""The world that `format: land-cover` means."""

_log = logging.getLogger(__name__)


def land_cover_pictures(split: str, folder: Path, config: LandCoverConfig | None = None) -> Pictures:
    """Tiles of a split with their labels, flights (as groups) and places, from the cache if they are there.

    Args:
        split: train, val or test.
        folder: the data cache.
        config: the world; None for `WORLD`.
    """
    config = config or WORLD
    key = json.dumps(asdict(config) | {"split": split, "version": land_cover.VERSION}, sort_keys=True)
    path = folder / "land-cover" / f"{split}-{hashlib.sha256(key.encode()).hexdigest()[:20]}.npz"

    def make() -> dict[str, np.ndarray]:
        _log.info(f"Rendering LandCoverMap ({split}), some seconds; kept in {path.parent}")
        return dict(vars(land_cover.render(config, split)))

    held = cached_arrays(path, make)
    return Pictures(held["pixels"], held["labels"], held["flights"], held["positions"])
