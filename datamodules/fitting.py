"""How many samples a step and how many epochs suit a small set: what every data module suggests for a user's data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

__all__ = ["small_set"]


def small_set(
    count: int,
    batch_size: int,
    epochs: int,
    *,
    batches: Sequence[tuple[int, int]] = ((100, 16), (1000, 32)),
    steps: int = 400,
    most: int = 100,
) -> dict[str, Any]:
    """Settings for few samples; nothing where there are enough.

    Args:
        count: training samples.
        batch_size: as it is set.
        epochs: as they are set.
        batches: below so many samples, at most so many in a batch.
        steps: as many as a training should have.
        most: epochs at most.

    Returns:
        `data.batch_size` and `trainer.max_epochs`, as far as they should be others.
    """
    limits = [size for below, size in batches if count < below]
    if count < 1 or not limits:
        return {}
    size = min(batch_size, limits[0])
    better = {"data.batch_size": size, "trainer.max_epochs": max(epochs, min(most, math.ceil(steps * size / count)))}
    now = {"data.batch_size": batch_size, "trainer.max_epochs": epochs}
    return {key: value for key, value in better.items() if value != now[key]}
