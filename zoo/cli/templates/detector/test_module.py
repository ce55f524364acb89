"""The equations of new-method, against the paper or a slow reference."""

from __future__ import annotations

import torch

from zoo.cli.templates.detector.module import NewMethod


def test_boxes_are_around_their_points() -> None:
    """Equation (1); replace it by the equations of the paper."""
    torch.manual_seed(0)
    model = NewMethod(width=4, img_size=64).eval()
    out = model.raw(*model.example_input())
    assert out["points"].shape == (16, 2)
    assert out["points"][1].tolist() == [24.0, 8.0]  # rows of points, 16 pixels apart
    assert bool((out["boxes"][..., :2] < out["points"]).all())
    assert bool((out["boxes"][..., 2:] > out["points"]).all())
