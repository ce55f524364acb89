"""Cylinder, bell, funnel: three shapes in noise, the classic artificial problem of time series classification.

Saito, "Local feature extraction and its applications using a library of bases", 1994. With eta and the noise N(0, 1),
a ~ U(L/8, L/4) and b - a ~ U(L/4, 3L/4), at time t:

    cylinder (6 + eta) 1[a <= t <= b],   bell: that times (t - a)/(b - a),   funnel: that times (b - t)/(b - a)
"""

from __future__ import annotations

import numpy as np

__all__ = ["CLASS_NAMES", "cylinder_bell_funnel"]

CLASS_NAMES = ("cylinder", "bell", "funnel")


def cylinder_bell_funnel(count: int, length: int = 128, seed: tuple[int, ...] = (0,)) -> tuple[np.ndarray, np.ndarray]:
    """Draw series.

    Args:
        count: M; the classes take turns.
        length: L in samples.
        seed: whole numbers.

    Returns:
        Series float32 (M, 1, L) and labels int64 (M,), positions in `CLASS_NAMES`.
    """
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    start = rng.uniform(length / 8, length / 4, (count, 1))
    width = rng.uniform(length / 4, 3 * length / 4, (count, 1))
    height = 6 + rng.standard_normal((count, 1))
    time = np.arange(length)
    rise = (time - start) / width
    shape = np.select([labels[:, None] == 0, labels[:, None] == 1], [np.ones_like(rise), rise], 1 - rise)
    series = height * shape * ((rise >= 0) & (rise <= 1)) + rng.standard_normal((count, length))
    return series[:, None].astype(np.float32), labels.astype(np.int64)
