"""Augmentation keeps boxes on the pixels they belong to."""

from __future__ import annotations

import numpy as np
import pytest

from datamodules.boxes.augment import (
    PRESETS,
    Augment,
    Sample,
    apply,
    change_colour,
    clip_boxes,
    make_augment,
    mirror,
    mosaic,
    random_matrix,
    warp,
)
from zoo.inputs.geometry import GREY

SIZE = 96


def rectangle(box: tuple[int, int, int, int], label: int = 0, value: int = 255) -> Sample:
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    image[box[1] : box[3], box[0] : box[2]] = value
    return Sample(image, np.array([box], np.float32), np.array([label]))


def bounds(image: np.ndarray) -> list[int]:
    ys, xs = np.nonzero(image[..., 0] > 127)
    return [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


@pytest.mark.parametrize("axis", [0, 1])
def test_mirrored_boxes_fit_exactly(axis: int) -> None:
    sample = mirror(rectangle((5, 20, 41, 33)), axis)
    assert sample.boxes[0].tolist() == bounds(sample.image)
    assert mirror(sample, axis).boxes[0].tolist() == [5, 20, 41, 33]


def test_moved_boxes_are_tight() -> None:
    augment = Augment(degrees=20, translate=0.1, scale=0.3, shear=8)
    rng = np.random.default_rng(0)
    worst = 0.0
    for _ in range(60):
        sample = rectangle((30, 36, 66, 60))
        moved = warp(sample, random_matrix(augment, SIZE, SIZE, rng), SIZE)
        if not len(moved.boxes):
            continue
        bright = np.where(moved.image == GREY, 0, moved.image)  # margins are grey
        worst = max(worst, np.abs(moved.boxes[0] - bounds(bright)).max())
    # the corner of a turned rectangle is a point, which no pixel shows fully
    assert worst < 3


def test_pure_shift_and_zoom_are_exact_to_a_pixel() -> None:
    matrix = np.array([[1.5, 0, -20.0], [0, 1.5, -10.0], [0, 0, 1]])
    moved = warp(rectangle((30, 36, 60, 50)), matrix, SIZE)
    np.testing.assert_allclose(moved.boxes[0], [25, 44, 70, 65], atol=1e-4)
    np.testing.assert_allclose(moved.boxes[0], bounds(np.where(moved.image == GREY, 0, moved.image)), atol=1)


def test_objects_that_leave_the_picture_are_dropped() -> None:
    boxes = np.array([[0, 0, 10, 10], [-8, 0, 4, 10], [-9, 0, 1, 10], [-50, 0, -10, 9], [95, 0, 99, 90]], np.float32)
    cut, keep = clip_boxes(boxes, SIZE)
    assert keep.tolist() == [True, True, False, False, False]
    assert cut[1].tolist() == [0, 0, 4, 10]
    empty = Sample(np.zeros((SIZE, SIZE, 3), np.uint8), np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    assert warp(empty, np.eye(3), SIZE).boxes.shape == (0, 4)
    assert mirror(empty, 1).boxes.shape == (0, 4)


def test_mosaic_puts_each_object_where_its_box_says() -> None:
    rng = np.random.default_rng(1)
    for _ in range(10):
        samples = [rectangle((20, 30, 60, 70), label, 150 + 25 * label) for label in range(4)]
        joined = mosaic(samples, rng)
        assert joined.image.shape == (2 * SIZE, 2 * SIZE, 3)
        assert len(set(joined.labels)) == len(joined.labels) >= 1
        for box, label in zip(joined.boxes, joined.labels, strict=True):
            ys, xs = np.nonzero(joined.image[..., 0] == 150 + 25 * label)
            assert box.tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


def test_mosaic_leaves_margins_out() -> None:
    sample = rectangle((10, 30, 90, 70))
    sample.content = (0, 24, SIZE, 72)
    joined = mosaic([sample] * 4, np.random.default_rng(0))
    rows = np.flatnonzero((joined.image[..., 0] != GREY).any(1))
    assert len(rows) == rows[-1] - rows[0] + 1 == 96  # two contents of 48 rows, nothing between them
    for box in joined.boxes:
        x1, y1, x2, y2 = box.astype(int)
        assert (joined.image[y1:y2, x1:x2] == 255).all()


def test_full_augmentation_is_repeatable_and_leaves_its_sources_alone() -> None:
    sources = [rectangle((10, 10, 40 + 5 * number, 50), number) for number in range(6)]
    before = [(s.image.copy(), s.boxes.copy()) for s in sources]
    augment = make_augment("full", {"mixup": 1.0, "degrees": 10.0, "flip_vertical": 0.5})
    results = [apply(augment, sources.__getitem__, 2, 6, np.random.default_rng(7), True) for _ in range(2)]
    assert np.array_equal(results[0].image, results[1].image)
    assert np.array_equal(results[0].boxes, results[1].boxes)
    for index in range(30):
        sample = apply(augment, sources.__getitem__, index % 6, 6, np.random.default_rng(index), True)
        assert sample.image.shape == (SIZE, SIZE, 3)
        assert sample.image.dtype == np.uint8
        assert len(sample.boxes) == len(sample.labels)
        assert sample.boxes.dtype == np.float32
        assert (sample.boxes >= 0).all()
        assert (sample.boxes <= SIZE).all()
        assert (sample.boxes[:, 2:] > sample.boxes[:, :2]).all()
    for source, (image, boxes) in zip(sources, before, strict=True):
        assert np.array_equal(source.image, image)
        assert np.array_equal(source.boxes, boxes)


def test_combining_can_be_switched_off() -> None:
    seen: list[int] = []

    def load(index: int) -> Sample:
        seen.append(index)
        return rectangle((10, 10, 40, 50))

    apply(make_augment("full", {"mixup": 1.0}), load, 3, 6, np.random.default_rng(0), combine=False)
    assert seen == [3]


def test_colour_changes_keep_shape_and_grey() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    assert change_colour(image, (0.0, 0.0, 0.0), rng).shape == image.shape
    assert np.abs(change_colour(image, (0.0, 0.0, 0.0), rng).astype(int) - image).max() <= 6  # 8-bit HSV rounds
    grey = np.full((SIZE, SIZE, 3), 90, np.uint8)
    changed = change_colour(grey, (0.5, 0.9, 0.4), rng)
    assert np.ptp(changed, axis=-1).max() == 0


def test_presets() -> None:
    assert make_augment("none", {}) == Augment()
    assert make_augment("light", {"flip": 0.0, "hsv": None}) == Augment(hsv=(0.015, 0.4, 0.3), translate=0.1, scale=0.2)
    assert PRESETS["full"].mosaic == 1.0
