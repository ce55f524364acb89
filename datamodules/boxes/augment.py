"""Training augmentation of images with boxes, on uint8 arrays; every draw comes from the generator passed in."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from PIL import Image

from zoo.errors import BadInput, nearest
from zoo.inputs.geometry import GREY

__all__ = ["PRESETS", "Augment", "Sample", "apply", "make_augment"]


@dataclass(frozen=True)
class Augment:
    """Strengths of augmentation; zero is off.

    Attributes:
        flip: probability of mirroring left to right.
        flip_vertical: probability of mirroring top to bottom.
        hsv: largest relative change of hue, saturation and value.
        degrees: largest rotation.
        translate: largest shift, as a fraction of the side.
        scale: zoom factor drawn from 1 - scale to 1 + scale.
        shear: largest shear in degrees.
        mosaic: probability of joining four images.
        mixup: probability of blending in a second image.
    """

    flip: float = 0.0
    flip_vertical: float = 0.0
    hsv: tuple[float, float, float] = (0.0, 0.0, 0.0)
    degrees: float = 0.0
    translate: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    mosaic: float = 0.0
    mixup: float = 0.0

    @property
    def moves(self) -> bool:
        """Whether an affine map is drawn."""
        return bool(self.degrees or self.translate or self.scale or self.shear)


PRESETS = {
    "none": Augment(),
    "light": Augment(flip=0.5, hsv=(0.015, 0.4, 0.3), translate=0.1, scale=0.2),
    "full": Augment(flip=0.5, hsv=(0.015, 0.7, 0.4), translate=0.1, scale=0.5, mosaic=1.0, mixup=0.1),
}


@dataclass
class Sample:
    """A square input image uint8 (S, S, 3) with boxes float32 (n, 4) in its pixels and labels int64 (n,).

    `content` is the part (left, top, right, bottom) inside the margins of the letterbox; None: all of it.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    content: tuple[int, int, int, int] | None = None


def make_augment(preset: str, overrides: dict[str, Any]) -> Augment:
    """Combine a preset with the values that were given (None: the preset's).

    Raises:
        BadInput: for an unknown preset or a value out of range.
    """
    if preset not in PRESETS:
        raise BadInput(f"augment: expected {', '.join(PRESETS)}, got {preset!r}.{nearest(preset, PRESETS)}")
    given = {key: value for key, value in overrides.items() if value is not None}
    if "hsv" in given:
        given["hsv"] = tuple(float(value) for value in given["hsv"])
        if len(given["hsv"]) != 3:
            raise BadInput(f"hsv: expected three numbers (hue, saturation, value), got {list(given['hsv'])}.")
    made = replace(PRESETS[preset], **given)
    limits = {"degrees": 180.0, "shear": 80.0, "scale": 0.95}
    for item in fields(made):
        values = getattr(made, item.name)
        for value in values if isinstance(values, tuple) else (values,):
            if not 0 <= value <= limits.get(item.name, 1.0):
                raise BadInput(f"{item.name}: expected a number in 0..{limits.get(item.name, 1.0):g}, got {value:g}.")
    return made


def apply(
    augment: Augment, load: Callable[[int], Sample], index: int, count: int, rng: np.random.Generator, combine: bool
) -> Sample:
    """Augment sample `index`.

    Args:
        augment: strengths.
        load: returns the plain sample of an index; its arrays are not changed.
        index: the sample.
        count: number of samples that mosaic and mixup may draw from.
        rng: source of randomness.
        combine: whether mosaic and mixup are on (they are usually off in the last epochs).
    """
    sample = _geometric(augment, load, index, count, rng, combine)
    if combine and augment.mixup and rng.random() < augment.mixup:
        other = _geometric(augment, load, int(rng.integers(count)), count, rng, combine)
        weight = np.float32(rng.beta(8.0, 8.0))
        mixed = sample.image * weight + other.image * (1 - weight)
        sample = Sample(
            (mixed + 0.5).astype(np.uint8),
            np.concatenate([sample.boxes, other.boxes]),
            np.concatenate([sample.labels, other.labels]),
        )
    if any(augment.hsv):
        sample.image = change_colour(sample.image, augment.hsv, rng)
    if augment.flip and rng.random() < augment.flip:
        sample = mirror(sample, axis=1)
    if augment.flip_vertical and rng.random() < augment.flip_vertical:
        sample = mirror(sample, axis=0)
    return sample


def _geometric(
    augment: Augment, load: Callable[[int], Sample], index: int, count: int, rng: np.random.Generator, combine: bool
) -> Sample:
    sample = load(index)
    size = sample.image.shape[0]
    joined = combine and augment.mosaic and rng.random() < augment.mosaic
    if joined:
        sample = mosaic([sample, *(load(int(rng.integers(count))) for _ in range(3))], rng)
    if joined or augment.moves:
        matrix = random_matrix(augment, sample.image.shape[0], size, rng)
        return warp(sample, matrix, size)
    return Sample(sample.image, sample.boxes.copy(), sample.labels)


def mosaic(samples: list[Sample], rng: np.random.Generator) -> Sample:
    """Join four samples of side S, without their margins, around a random centre on a grey canvas of side 2 S."""
    size = samples[0].image.shape[0]
    canvas = np.full((2 * size, 2 * size, 3), GREY, dtype=np.uint8)
    x, y = (int(rng.integers(size // 2, size * 3 // 2 + 1)) for _ in range(2))
    boxes, labels = [], []
    for number, sample in enumerate(samples):
        a, b, c, d = sample.content or (0, 0, size, size)
        # shift of the sample that brings the corner of its content to the centre: upper left, upper right, lower ...
        left, top = x - (a if number % 2 else c), y - (b if number >= 2 else d)
        x1, y1, x2, y2 = max(left + a, 0), max(top + b, 0), min(left + c, 2 * size), min(top + d, 2 * size)
        canvas[y1:y2, x1:x2] = sample.image[y1 - top : y2 - top, x1 - left : x2 - left]
        moved = sample.boxes + np.array([left, top, left, top], dtype=np.float32)
        cut, keep = clip_boxes(moved, 2 * size)
        boxes.append(cut[keep])
        labels.append(sample.labels[keep])
    return Sample(canvas, np.concatenate(boxes), np.concatenate(labels))


def random_matrix(augment: Augment, side_in: int, side_out: int, rng: np.random.Generator) -> np.ndarray:
    """Draw the 3x3 map from pixels of the old image (side `side_in`) to the new one, about the centres."""
    angle = math.radians(rng.uniform(-augment.degrees, augment.degrees))
    zoom = rng.uniform(1 - augment.scale, 1 + augment.scale)
    shear_x, shear_y = (math.tan(math.radians(rng.uniform(-augment.shear, augment.shear))) for _ in range(2))
    shift = rng.uniform(-augment.translate, augment.translate, 2) * side_out
    linear = zoom * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    linear = linear @ np.array([[1.0, shear_x], [shear_y, 1.0]])
    matrix = np.eye(3)
    matrix[:2, :2] = linear
    matrix[:2, 2] = side_out / 2 + shift - linear @ np.full(2, side_in / 2)
    return matrix


def warp(sample: Sample, matrix: np.ndarray, size: int) -> Sample:
    """Apply an affine map (3x3, old to new pixels); boxes become the bounds of their moved corners."""
    try:
        inverse = np.linalg.inv(matrix)
    except np.linalg.LinAlgError:  # shear of both axes can flatten the plane
        return sample
    coefficients = tuple(float(value) for value in inverse[:2].reshape(-1))
    image = Image.fromarray(sample.image).transform(
        (size, size), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR, fillcolor=(GREY, GREY, GREY)
    )
    x1, y1, x2, y2 = sample.boxes.T
    corners = np.stack([np.stack([x1, x2, x2, x1]), np.stack([y1, y1, y2, y2])])  # (2, 4, n)
    moved = np.einsum("ij,jkn->ikn", matrix[:2, :2], corners) + matrix[:2, 2, None, None]
    bounds = np.stack([moved[0].min(0), moved[1].min(0), moved[0].max(0), moved[1].max(0)], 1).astype(np.float32)
    cut, keep = clip_boxes(bounds.reshape(-1, 4), size)
    return Sample(np.asarray(image), cut[keep], sample.labels[keep])


def clip_boxes(
    boxes: np.ndarray, size: int, least: float = 0.2, min_side: float = 2.0
) -> tuple[np.ndarray, np.ndarray]:
    """Cut boxes to a square; the mask says which still show at least a fifth of the object."""
    cut = boxes.clip(0, size)
    sides, before = cut[:, 2:] - cut[:, :2], boxes[:, 2:] - boxes[:, :2]
    keep = (sides.min(1, initial=np.inf) >= min_side) & (sides.prod(1) >= least * before.prod(1))
    return cut, keep


def change_colour(image: np.ndarray, amounts: tuple[float, float, float], rng: np.random.Generator) -> np.ndarray:
    """Turn the hue and scale saturation and value by random relative amounts."""
    turn, *gains = rng.uniform(-1, 1, 3) * amounts
    channels = list(Image.fromarray(image).convert("HSV").split())
    levels = np.arange(256)
    channels[0] = channels[0].point(((levels + round(turn * 256)) % 256).tolist())
    for number, gain in enumerate(gains, start=1):
        channels[number] = channels[number].point(np.clip(levels * (1 + gain), 0, 255).astype(int).tolist())
    return np.asarray(Image.merge("HSV", channels).convert("RGB"))


def mirror(sample: Sample, axis: int) -> Sample:
    """Mirror left to right (axis 1) or top to bottom (axis 0)."""
    size = sample.image.shape[axis]
    boxes = sample.boxes.copy()
    low, high = (0, 2) if axis == 1 else (1, 3)
    boxes[:, low], boxes[:, high] = size - sample.boxes[:, high], size - sample.boxes[:, low]
    return Sample(np.ascontiguousarray(np.flip(sample.image, axis)), boxes, sample.labels)
