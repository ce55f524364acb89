"""Saliency maps and their measures against loops, by cases with a known answer, and against captum's occlusion."""

from __future__ import annotations

import captum.attr
import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from zoo.errors import BadInput
from zoo.nn.saliency import (
    blurred,
    bumps,
    deletion,
    enlarged,
    foreground,
    gini,
    gradient_saliency,
    insertion,
    mass_inside,
    occlusion,
    perturbation_saliency,
    rank_correlation,
    scaled,
)


def network(side: int = 12) -> nn.Module:
    torch.manual_seed(0)
    last = nn.Linear(4 * (side - 2) ** 2, 3)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Dropout(0.5), nn.Flatten(), last)


def images(count: int = 4, side: int = 12) -> Tensor:
    return torch.rand(count, 1, side, side, generator=torch.Generator().manual_seed(1))


# Maps ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fill", ["blur", "zero"])
def test_perturbation_by_loops(fill: str) -> None:
    """One place at a time, each pixel of its bump by the formula; the network is in evaluation mode meanwhile."""
    net, x = network().train(), images()
    found = perturbation_saliency(net, x, 4, fill)
    assert net.training
    assert net[2].training
    net.eval()
    other = blurred(x) if fill == "blur" else torch.zeros_like(x)
    p = net(x).softmax(1)
    for row in range(3):
        for column in range(3):
            i, j = 1.5 + 4 * row, 1.5 + 4 * column
            m = torch.tensor([[np.exp(-((a - i) ** 2 + (b - j) ** 2) / 32) for b in range(12)] for a in range(12)])
            q = net((x * (1 - m) + other * m).float()).softmax(1)
            expected = 0.5 * (p - q).square().sum(1)
            torch.testing.assert_close(found[:, row, column], expected, rtol=1e-3, atol=1e-7)


def test_grids_of_the_usual_sizes() -> None:
    assert bumps(28, 28, 4).shape == (49, 28, 28)
    assert bumps(8, 8, 2).shape == (16, 8, 8)
    assert bumps(10, 7, 4).shape == (6, 10, 7)
    assert perturbation_saliency(network(8), images(2, 8), 2).shape == (2, 4, 4)


def test_an_image_that_is_too_small_is_named() -> None:
    with pytest.raises(BadInput, match="grid of 1x1 on images of 12x12"):
        perturbation_saliency(network(), images(), 12)


def test_pixels_that_are_not_finite_are_named() -> None:
    x = images()
    x[0, 0, 0, 0] = float("nan")
    with pytest.raises(BadInput, match="not finite"):
        perturbation_saliency(network(), x)
    with pytest.raises(BadInput, match="not finite"):
        occlusion(network(), x, torch.zeros(4, dtype=torch.long))


def test_maps_point_at_the_only_pixels_that_matter() -> None:
    """The logits depend on one corner of the image alone."""

    def model(x: Tensor) -> Tensor:
        seen = x[:, 0, 8:12, 8:12].sum((1, 2))
        return torch.stack([seen, -seen], 1)

    x, y = images(), torch.zeros(4, dtype=torch.long)
    for maps in (
        enlarged(perturbation_saliency(model, x, 4, "zero"), (12, 12)),
        gradient_saliency(model, x, y),
        occlusion(model, x, y, 4, 4),
    ):
        assert maps.shape == (4, 12, 12)
        assert bool((maps[:, 8:, 8:].flatten(1).amax(1) == maps.flatten(1).amax(1)).all())
        assert bool((maps[:, :4, :4] <= 0.05 * maps.flatten(1).amax(1)[:, None, None]).all())


def test_flipping_moves_the_map_along() -> None:
    """S of a mirrored image is the mirrored S, if the network does not mind."""

    def model(x: Tensor) -> Tensor:
        rows = x[:, 0].mean(2)
        return torch.stack([rows[:, :6].sum(1), rows[:, 6:].square().sum(1)], 1) * 5

    x = images()
    found = perturbation_saliency(model, x.flip(3), 4)
    torch.testing.assert_close(found, perturbation_saliency(model, x, 4).flip(2), rtol=1e-3, atol=1e-8)


def test_gradient_by_autograd() -> None:
    net, x = network().eval(), images().requires_grad_()
    y = torch.tensor([0, 1, 2, 0])
    net(x).log_softmax(1)[range(4), y].sum().backward()
    with torch.inference_mode():  # as in validation
        found = gradient_saliency(net, x.detach(), y)
    assert x.grad is not None
    torch.testing.assert_close(found, x.grad.abs()[:, 0])


def test_zeros_stay_zeros() -> None:
    assert torch.equal(scaled(torch.zeros(2, 3, 3)), torch.zeros(2, 3, 3))
    assert torch.equal(enlarged(torch.zeros(2, 3, 3), (6, 6)), torch.zeros(2, 6, 6))


def test_occlusion_orders_pixels_as_captum_does() -> None:
    """Ten images, zero fill, windows of 4x4 every 2 pixels."""
    net, x = network().eval(), images(10)
    y = net(x).argmax(1)
    ours = occlusion(net, x, y, 4, 2)
    theirs = captum.attr.Occlusion(net).attribute(x, (1, 4, 4), strides=(1, 2, 2), baselines=0.0, target=y)[:, 0]
    for one, other in zip(ours.flatten(1), theirs.flatten(1), strict=True):
        assert spearmanr(one.numpy(), other.detach().numpy()).statistic > 0.95


def test_gradient_is_captums() -> None:
    net, x, y = network().eval(), images(4), torch.tensor([0, 1, 2, 0])
    theirs = captum.attr.Saliency(lambda images: net(images).log_softmax(1)).attribute(x.clone().requires_grad_(), y)
    torch.testing.assert_close(gradient_saliency(net, x, y), theirs[:, 0])


# Measures -----------------------------------------------------------------------------------------------------------


def test_rank_correlation_is_scipys_with_ties() -> None:
    one = torch.randint(0, 5, (3, 4, 5), generator=torch.Generator().manual_seed(0)).float()
    other = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(1))
    found = rank_correlation(one, other)
    expected = [spearmanr(a.flatten(), b.flatten()).statistic for a, b in zip(one, other, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert rank_correlation(torch.ones(1, 2, 2), torch.rand(1, 2, 2)).item() == 0


def test_gini_of_known_distributions() -> None:
    even, one = torch.ones(1, 4, 4), torch.zeros(1, 4, 4)
    one[0, 1, 2] = -3.0
    assert gini(even).item() == pytest.approx(0, abs=1e-6)
    assert gini(one).item() == pytest.approx(15 / 16)
    values = torch.rand(1, 4, 4)
    flat = values.flatten().numpy()
    literal = np.abs(flat[:, None] - flat[None]).sum() / (2 * len(flat) * flat.sum())
    assert gini(values).item() == pytest.approx(literal, rel=1e-5)


def test_mass_in_the_foreground() -> None:
    x = torch.zeros(1, 1, 2, 2)
    x[0, 0, 0] = 0.5
    maps = torch.tensor([[[1.0, -2.0], [1.0, 0.0]]])
    assert mass_inside(maps, foreground(x)).item() == pytest.approx(3 / 4)


def test_deletion_and_insertion_by_loops() -> None:
    net, x, y = network(6).eval(), images(2, 6), torch.tensor([1, 2])
    maps = torch.rand(2, 6, 6, generator=torch.Generator().manual_seed(3))
    for measure, begin, end in ((deletion, x, torch.zeros_like(x)), (insertion, blurred(x), x)):
        found = measure(net, x, y, maps, 9)
        for n in range(2):
            order = np.argsort(-maps[n].flatten().numpy(), kind="stable")
            heights = []
            for step in range(10):
                now = begin[n].clone().flatten()
                for pixel in order[: step * 4]:
                    now[pixel] = end[n].flatten()[pixel]
                heights.append(net(now.view(1, 1, 6, 6)).softmax(1)[0, y[n]].item())
            assert found[n].item() == pytest.approx(np.trapezoid(heights) / 9, rel=1e-4)


def test_maps_of_another_size_are_named() -> None:
    with pytest.raises(BadInput, match="maps: expected"):
        deletion(network(), images(), torch.zeros(4, dtype=torch.long), torch.rand(4, 6, 6))
    with pytest.raises(BadInput, match="one shape"):
        rank_correlation(torch.rand(2, 3), torch.rand(2, 4))
