"""Which client owns which image: pure functions of (labels, groups, positions) and a seed."""

from __future__ import annotations

import numpy as np

__all__ = ["iid"]


def iid(labels: np.ndarray, clients: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Shuffle, then deal: sizes differ by one at most."""
    return [np.sort(part) for part in np.array_split(rng.permutation(len(labels)), clients)]
