"""Changes to the training labels, drawn once per seed: noisy boxes and subsets of the images."""

from __future__ import annotations

import numpy as np

from zoo.errors import BadInput

__all__ = ["draw_subset", "jitter", "noisy_boxes", "parse_noise"]

_SMALL, _LARGE = 0.05, 0.5  # the two rates of the mixture


def parse_noise(text: str | None) -> tuple[str, float] | None:
    """Read "uniform:0.2" or "mixture:0.4".

    Raises:
        BadInput: if it is neither, or the number is out of range.
    """
    if text is None:
        return None
    kind, _, number = text.partition(":")
    try:
        value = float(number)
    except ValueError:
        value = -1.0
    limit = {"uniform": 0.5, "mixture": 1.0}.get(kind, -1.0)
    if not 0 <= value <= limit:
        raise BadInput(f'label_noise: expected "uniform:E" (0 <= E <= 0.5) or "mixture:P" (0 <= P <= 1), got {text!r}.')
    return kind, value


def jitter(boxes: np.ndarray, rate: float | np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shift centres by U(-rate, rate) of the sides and change the sides by U(-rate, rate) of themselves.

    Args:
        boxes: (n, 4) xyxy.
        rate: one rate, or one per box.
        rng: source of randomness.
    """
    draws = rng.uniform(-1, 1, (len(boxes), 4)) * np.reshape(rate, (-1, 1))
    sides = boxes[:, 2:] - boxes[:, :2]
    centres = (boxes[:, 2:] + boxes[:, :2]) / 2 + draws[:, :2] * sides
    half = sides * (1 + draws[:, 2:]) / 2
    return np.concatenate([centres - half, centres + half], 1).astype(np.float32)


def noisy_boxes(
    boxes: np.ndarray, noise: tuple[str, float], size: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """Apply label noise to the boxes of one image of `size` (height, width), clipped to it."""
    kind, value = noise
    rate = value if kind == "uniform" else np.where(rng.random(len(boxes)) < value, _LARGE, _SMALL)
    height, width = size
    return jitter(boxes, rate, rng).clip(0, np.array([width, height, width, height], dtype=np.float32))


def draw_subset(count: int, fraction: float, seed: int) -> np.ndarray:
    """Draw a sorted subset of `range(count)`; a smaller fraction of one seed is part of a larger one.

    Raises:
        BadInput: if the fraction is not in (0, 1].
    """
    if not 0 < fraction <= 1:
        raise BadInput(f"subset: expected a fraction in (0, 1], got {fraction}.")
    if fraction == 1:
        return np.arange(count)
    order = np.random.default_rng((seed, 11)).permutation(count)
    return np.sort(order[: max(1, round(count * fraction))])
