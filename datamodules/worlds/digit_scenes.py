"""DigitScenes: handwritten digits on crops of real photographs, with exact boxes.

A scene is a square crop of a photograph at reduced contrast with one to six MNIST digits drawn on it (height
log-uniform, 18-80 px at 160 px; rotated, sheared, coloured, with soft edges). A box is the tight bounds of
alpha > 0.5 after the transform, half-open xyxy. Any two boxes have IoU < 0.3 and no box is covered by more than half.

Splits share neither digits (per class 0-399 train, 400-449 val, 450-499 test) nor photographs. Scene number `index`
depends only on (config, split, index): not on the order of rendering nor on how many scenes are asked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from datamodules import assets
from datamodules.worlds.render import (
    SHAPES,
    blend,
    contrasting_colour,
    glyph_alpha,
    random_affine,
    shape_alpha,
    tight_box,
)
from zoo.errors import BadInput, nearest

__all__ = ["DIGITS", "SHAPES", "SPLITS", "VERSION", "SceneConfig", "compose", "render"]

VERSION = 1  # raise it when pixels or boxes of any scene change: caches and published metrics hang on it
SPLITS = ("train", "val", "test")
DIGITS = tuple(str(digit) for digit in range(10))
_DIGIT_RANGE = {"train": (0, 400), "val": (400, 450), "test": (450, 500)}
_PER_CLASS = 500
_Boxes = list[tuple[int, int, int, int]]


@dataclass(frozen=True)
class SceneConfig:
    """What a scene may contain.

    Attributes:
        size: side of the scene in pixels; heights scale with size / 160.
        seed: everything random derives from it.
        classes: class names in label order: digits "0".."9" and, with `shapes`, the names in `SHAPES`. None: all.
        shapes: also draw rendered shapes (ellipse, polygon, star, ring, cross).
        extra_photos: use photographs of other installed packages for training scenes. Off by default, because
            the data then differ from machine to machine.
        objects: least and largest number of objects.
        heights: least and largest height in pixels at size 160.
    """

    size: int = 160
    seed: int = 0
    classes: tuple[str, ...] | None = None
    shapes: bool = False
    extra_photos: bool = False
    objects: tuple[int, int] = (1, 6)
    heights: tuple[float, float] = (18.0, 80.0)
    names: tuple[str, ...] = field(init=False, default=())

    def __post_init__(self) -> None:
        known = DIGITS + (SHAPES if self.shapes else ())
        wanted = tuple(str(name) for name in (known if self.classes is None else self.classes))
        for name in wanted:
            if name not in known:
                hint = " Pass shapes=True for the rendered shapes." if name in SHAPES else nearest(name, known)
                raise BadInput(f"classes: DigitScenes knows {', '.join(known)}; got {name!r}.{hint}")
        if not wanted or len(set(wanted)) != len(wanted):
            raise BadInput(f"classes: expected at least one name and none twice, got {list(wanted)}.")
        if self.size < 32:
            raise BadInput(f"size: scenes are at least 32 px wide, got {self.size}.")
        object.__setattr__(self, "names", wanted)


@lru_cache(maxsize=128)
def _photograph(path: Path) -> Image.Image:
    with Image.open(path, formats=("JPEG", "PNG")) as image:
        return image.convert("RGB")


@lru_cache(maxsize=8)
def _photographs(split: str, extra: bool) -> tuple[Path, ...]:
    paths = list(assets.photographs(split).values())
    if extra and split == "train":
        paths += assets.extra_photographs().values()
    return tuple(paths)


def render(config: SceneConfig, split: str, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Render one scene.

    Returns:
        image uint8 (size, size, 3); boxes float32 (n, 4), half-open xyxy in pixels; labels int64 (n,).
    """
    if split not in SPLITS:
        raise BadInput(f"split: expected one of {', '.join(SPLITS)}, got {split!r}.{nearest(split, SPLITS)}")
    rng = np.random.default_rng((config.seed, SPLITS.index(split), index))
    paths = _photographs(split, config.extra_photos)
    canvas = _background(rng, _photograph(paths[int(rng.integers(len(paths)))]), (config.size, config.size))
    count = int(rng.integers(config.objects[0], config.objects[1] + 1))
    return _draw(rng, canvas, config, split, count, config.size / 160)


def compose(
    photo: str | Path | Image.Image,
    seed: int,
    size: tuple[int, int] = (320, 224),
    digits: Sequence[int | str] | None = None,
    *,
    split: str = "test",
    heights: tuple[float, float] = (18.0, 80.0),
    contrast: float | None = None,
) -> tuple[Image.Image, np.ndarray, np.ndarray]:
    """Compose a larger scene over one whole photograph (cut to the aspect of `size`).

    Args:
        photo: name of a photograph in `datamodules.assets`, a path, or an image.
        seed: draws digits, places, colours.
        size: (width, height) in pixels.
        digits: the digits to draw, in order; None for six random ones.
        split: which split's handwriting to use; "test" has not been seen by any weights.
        heights: heights in pixels (not scaled with size).
        contrast: of the background; None for a random one like in `render`.

    Returns:
        The picture, boxes float32 (n, 4), labels int64 (n,). Digits that find no free place are left out.
    """
    if isinstance(photo, str) and photo not in assets.photographs() and not Path(photo).is_file():
        hint = nearest(photo, assets.photographs())
        raise BadInput(f"photo: expected a photograph of the assets or a file, got {photo!r}.{hint}")
    if not isinstance(photo, Image.Image):
        photo = _photograph(Path(assets.photographs().get(str(photo), Path(photo))))
    rng = np.random.default_rng((seed, 7))
    canvas = _background(rng, photo.convert("RGB"), size, whole=True, contrast=contrast)
    config = SceneConfig(heights=heights)
    labels = None if digits is None else [DIGITS.index(str(digit)) for digit in digits]
    image, boxes, classes = _draw(rng, canvas, config, split, 6 if labels is None else len(labels), 1.0, labels)
    return Image.fromarray(image), boxes, classes


def _background(
    rng: np.random.Generator,
    photo: Image.Image,
    size: tuple[int, int],
    whole: bool = False,
    contrast: float | None = None,
) -> np.ndarray:
    """Crop, scale, flip and flatten a photograph into a uint8 canvas (H, W, 3)."""
    width, height = photo.size
    largest = min(width / size[0], height / size[1])
    smallest = min(1.0, largest)
    zoom = largest if whole else math.exp(rng.uniform(math.log(smallest), math.log(largest)))
    crop = (size[0] * zoom, size[1] * zoom)
    left, top = (float(rng.uniform(0, 1)) * max(0.0, room) for room in (width - crop[0], height - crop[1]))
    box = (left, top, min(left + crop[0], width), min(top + crop[1], height))
    scene = photo.resize(size, Image.Resampling.BILINEAR, box=box, reducing_gap=2.0)
    if not whole and rng.random() < 0.5:
        scene = scene.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    keep = rng.uniform(0.35, 0.8) if contrast is None else contrast
    mean = float(np.asarray(scene.resize((8, 8), Image.Resampling.BOX)).mean())
    shift = mean + (rng.uniform(-25, 25) if contrast is None else 0.0)
    table = np.clip((np.arange(256) - mean) * keep + shift, 0, 255).astype(np.uint8)
    flat: np.ndarray = table[np.asarray(scene)]
    return flat


def _draw(
    rng: np.random.Generator,
    canvas: np.ndarray,
    config: SceneConfig,
    split: str,
    count: int,
    scale: float,
    labels: Sequence[int] | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw up to `count` objects (at least one) on the canvas, in place."""
    placed: _Boxes = []
    kept: list[int] = []
    for number in range(count):
        for _ in range(4):  # a large object may find no free place: then try another one
            label = int(rng.integers(len(config.names))) if labels is None else labels[number]
            alpha = _object(rng, config, split, config.names[label], scale)
            place = None if alpha is None else _place(rng, alpha, canvas.shape, placed)
            if alpha is None or place is None:
                continue
            left, top, box = place
            colour = contrasting_colour(rng, canvas[box[1] : box[3], box[0] : box[2]])
            blend(canvas, alpha, left, top, colour, rng.uniform(0.8, 1.0))
            placed.append(box)
            kept.append(label)
            break
    boxes = np.asarray(placed, dtype=np.float32).reshape(-1, 4)
    return canvas, boxes, np.asarray(kept, dtype=np.int64)


def _object(rng: np.random.Generator, config: SceneConfig, split: str, name: str, scale: float) -> np.ndarray | None:
    low, high = config.heights
    height = scale * math.exp(rng.uniform(math.log(low), math.log(high)))
    matrix = random_affine(rng, max_degrees=25.0, max_shear=0.2)
    if name in SHAPES:
        return shape_alpha(name, height, matrix, rng)
    first, last = _DIGIT_RANGE[split]
    glyph = assets.digits()[0][int(name) * _PER_CLASS + int(rng.integers(first, last))]
    return glyph_alpha(glyph, height, matrix, sharpen=rng.uniform(0.4, 0.8))


def _place(
    rng: np.random.Generator, alpha: np.ndarray, shape: tuple[int, ...], placed: _Boxes
) -> tuple[int, int, tuple[int, int, int, int]] | None:
    """Find a place where the box lies in the image and overlaps no other box too much."""
    tight = tight_box(alpha)
    if tight is None:
        return None
    width, height = tight[2] - tight[0], tight[3] - tight[1]
    room_x, room_y = shape[1] - width, shape[0] - height
    if room_x < 0 or room_y < 0 or width < 3 or height < 3:
        return None
    for _ in range(12):
        x, y = int(rng.integers(room_x + 1)), int(rng.integers(room_y + 1))
        box = (x, y, x + width, y + height)
        if all(_apart(box, other) for other in placed):
            return x - tight[0], y - tight[1], box
    return None


def _apart(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    across = min(a[2], b[2]) - max(a[0], b[0])
    down = min(a[3], b[3]) - max(a[1], b[1])
    if across <= 0 or down <= 0:
        return True
    inter = across * down
    area_a, area_b = (a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1])
    return inter < 0.3 * (area_a + area_b - inter) and inter <= 0.5 * min(area_a, area_b)
