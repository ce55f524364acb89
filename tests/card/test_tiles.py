"""Output pictures of cards: one per class or as many classes as possible, laid out so that no page shrinks them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from zoo import card
from zoo.card.plots import words_of
from zoo.pictures.boxes import draw_boxes
from zoo.pictures.series import draw_series
from zoo.pictures.tiles import tiled


def test_tiles_stand_in_rows_of_about_equal_length() -> None:
    whole = tiled([Image.new("RGB", (224, 300), "red")] * 10)
    assert whole.size == (5 * 224 + 4 * 6, 2 * 300 + 6)
    assert whole.getpixel((226, 10))[3] == 0, "gaps are transparent"
    assert tiled([Image.new("RGB", (640, 320))] * 4).size == (806, 406), "larger ones are reduced"
    assert tiled([Image.new("RGB", (50, 20))]).size == (50, 20)


def test_one_sample_of_each_class_also_where_a_split_is_sorted() -> None:
    part = [{"image": torch.full((1, 2, 2), float(i)), "label": i // 100} for i in range(1000)]
    assert [int(image[0, 0, 0]) // 100 for image in card._samples(part)] == list(range(10))


def test_scenes_are_chosen_for_their_classes() -> None:
    labels = [[1], [1, 2], [3], [4, 5, 6], [1, 2]]
    part = [{"image": torch.tensor(float(i)), "labels": torch.tensor(held)} for i, held in enumerate(labels)]
    assert [int(image) for image in card._samples(part)] == [3, 1, 2, 0]


def test_samples_without_labels_are_the_first_of_an_even_walk() -> None:
    part: list[dict[str, Any]] = [{"index": i, "signal": torch.full((2, 3), float(i))} for i in range(600)]
    assert [int(signal[0, 0]) for signal in card._samples(part)] == [0, 2, 4, 6]


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("val/map_50", "validation mAP (IoU 0.50)"),
        ("val/accuracy", "validation accuracy"),
        ("test/rmse_relative", "test rmse relative"),
        ("seconds against segments", "seconds against segments"),
    ],
)
def test_axes_have_words(key: str, words: str) -> None:
    assert words_of(key) == words


def test_text_of_boxes_is_as_large_on_small_images_as_on_large_ones() -> None:
    """A small image is enlarged, and a card shows it with about 400 pixels: 20 of 640 are 12 then."""
    heights = []
    for side in (160, 1280):
        pixels = np.full((side, side, 3), 255, np.uint8)
        box = np.array([[side / 2, side / 2, side - 10, side - 10]])
        drawn = np.asarray(draw_boxes(pixels, box, [0], ["0.90"])).astype(int)
        column = drawn[:, int(drawn.shape[1] / 2) + 8]
        filled = np.flatnonzero((column != 255).any(1))
        heights.append(int((np.diff(filled) == 1).argmin()) if (np.diff(filled) > 1).any() else len(filled))
    assert min(heights) >= 16


def test_a_series_has_axes() -> None:
    series = torch.linspace(-1, 2, 50)[None]
    one, many = (np.asarray(draw_series(x, "up")).astype(int) for x in (series, series.repeat(2, 1)))
    assert (one[-30:] != 255).any(), "points are counted below"
    left = slice(0, 52)
    assert (one[:, left] != many[:, left]).any(), "a single channel has its values to the left"
