"""Letterbox and the way back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zoo.errors import BadInput
from zoo.inputs.geometry import GREY, check_size, letterbox, to_letterbox, to_original


@pytest.mark.parametrize(
    "shape", [(480, 640), (640, 480), (33, 47), (1, 500), (500, 1), (1000, 3), (160, 160), (97, 101)]
)
@pytest.mark.parametrize("size", [160, (96, 320)])
def test_boxes_come_back_exactly(shape: tuple[int, int], size: int | tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    boxed, scale, pad = letterbox(image, size)
    height, width = (size, size) if isinstance(size, int) else size
    assert boxed.shape == (height, width, 3)
    assert boxed.dtype == np.uint8
    corners = rng.uniform(0, 1, (50, 2, 2)) * np.array([shape[1], shape[0]])
    boxes = np.concatenate([corners.min(1), corners.max(1)], 1).astype(np.float32)
    there = to_letterbox(boxes, scale, pad)
    assert there.min() >= -1e-3
    assert there[:, 2].max() <= width + 1e-3 + scale
    back = to_original(there, scale, pad, shape)
    np.testing.assert_allclose(back, boxes, atol=1e-3)
    tensor = to_original(torch.from_numpy(there), scale, pad, shape)
    np.testing.assert_allclose(tensor.numpy(), back, atol=1e-5)


def test_boxes_come_back_from_the_float32_geometry_of_a_batch() -> None:
    scale, pad, size = torch.tensor(160 / 641.0), torch.tensor([0.0, 20.0]), torch.tensor([480, 641])
    boxes = torch.tensor([[0.0, 0.0, 641.0, 480.0], [12.5, 100.25, 400.0, 333.0]])
    back = to_original(to_letterbox(boxes, float(scale), pad), scale, pad, size)
    torch.testing.assert_close(back, boxes, atol=1e-3, rtol=0)


def test_pixels_land_where_boxes_say() -> None:
    image = np.zeros((300, 500, 3), np.uint8)
    image[60:180, 100:350] = 255
    boxed, scale, pad = letterbox(image, 160)
    inside = np.argwhere(boxed[..., 0] > 180)
    x1, y1, x2, y2 = to_letterbox(np.array([100.0, 60, 350, 180]), scale, pad)
    np.testing.assert_allclose([inside[:, 1].min(), inside[:, 0].min()], [x1, y1], atol=0.7)
    np.testing.assert_allclose([inside[:, 1].max() + 1, inside[:, 0].max() + 1], [x2, y2], atol=0.7)
    assert (boxed[: pad[1]] == GREY).all()
    assert (boxed[-pad[1] :] == GREY).all()


def test_right_size_is_left_alone() -> None:
    image = np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3)
    boxed, scale, pad = letterbox(image, 32)
    assert boxed is image
    assert (scale, pad) == (1.0, (0, 0))


def test_inputs_are_not_changed_and_boxes_are_clipped() -> None:
    boxes = torch.tensor([[-10.0, -10.0, 900.0, 900.0]])
    kept = boxes.clone()
    back = to_original(boxes, 2.0, (4, 6), (50, 100))
    assert torch.equal(boxes, kept)
    assert back.tolist() == [[0.0, 0.0, 100.0, 50.0]]
    assert to_original(torch.zeros(0, 4), 2.0, (4, 6), (50, 100)).shape == (0, 4)


@pytest.mark.parametrize("size", [0, 31, 100, -32])
def test_sizes_are_multiples_of_32(size: int) -> None:
    with pytest.raises(BadInput, match="multiple of 32"):
        check_size(size)
