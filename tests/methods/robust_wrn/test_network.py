"""Sizes of the named configurations, the block against a literal one, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from zoo.errors import BadInput
from zoo.methods.robust_wrn import ACTIVATIONS, CONFIGURATIONS, RobustWideResNet, RobustWRN, multiply_adds
from zoo.methods.robust_wrn.network import RobustBlock

SIZES = {
    # name: parameters, multiply-adds
    "34-10": (46.2e6, 6.66e9),
    "34-12": (66.5e6, 9.58e9),
    "34-r": (68.1e6, 19.13e9),
    "16-1": (174.8e3, 5.54e6),
    "16-r": (180.0e3, 9.77e6),
    "16-r-macs": (106.9e3, 5.93e6),
    "16-narrow-last": (69.6e3, 3.87e6),
    "16-anti-r": (183.3e3, 4.59e6),
    "16-1.5": (390.5e3, 12.16e6),
    "16-1.5-231": (265.9e3, 11.5e6),
    "16-1.5-123": (546.3e3, 12.8e6),
}
"""As published for the large ones, and computed by hand for the small ones; the last digit given is rounded."""


def built(name: str, **options: Any) -> tuple[RobustWideResNet, tuple[int, int, int]]:
    chosen = CONFIGURATIONS[name]
    shape = (1, 28, 28) if name.startswith("16") else (3, 32, 32)
    given = {"stem_stride": chosen.stem_stride, **options}
    with torch.device("meta"):
        return RobustWideResNet(10, shape[0], chosen.widths, chosen.depths, **given), shape


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_parameters_and_operations(name: str) -> None:
    network, shape = built(name)
    count = sum(p.numel() for p in network.parameters())
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network.eval()(torch.empty(1, *shape))
    operations = multiply_adds(network, shape)
    assert operations == counter.get_total_flops() / 2
    if name in SIZES:
        assert (count, operations) == pytest.approx(SIZES[name], rel=4e-3)


def test_sizes_of_the_later_study_and_the_equal_budgets() -> None:
    """a1 has depths 14, 14, 7 and widening 5, 7, 3; R costs twice the operations of the control with its parameters."""
    assert CONFIGURATIONS["a1"] == ((16, 80, 224, 192), (14, 14, 7), 1)
    assert CONFIGURATIONS["34-r"].widths == (16, 20 * 16, 20 * 32, 8 * 64)
    counts = {name: sum(p.numel() for p in built(name)[0].parameters()) for name in ("34-r", "34-12", "16-r", "16-1")}
    assert counts["34-r"] / counts["34-12"] == pytest.approx(1, abs=0.03)
    assert counts["16-r"] / counts["16-1"] == pytest.approx(1, abs=0.03)
    assert multiply_adds(*built("34-r")) / multiply_adds(*built("34-12")) == pytest.approx(2, abs=0.01)


def test_counting_leaves_the_network_as_it_was() -> None:
    network = RobustWideResNet(3, 1, (4, 4, 8, 8), (1, 1, 1)).train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    multiply_adds(network, (1, 8, 8))
    assert all(part.training and not part._forward_hooks for part in network.modules())
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def literal(block: RobustBlock, x: Tensor) -> Tensor:
    """The block as the paper's code computes it."""
    equal = block.conv1.in_channels == block.conv1.out_channels
    stride = block.conv1.stride[0]
    active = F.relu(F.batch_norm(x, block.bn1.running_mean, block.bn1.running_var, block.bn1.weight, block.bn1.bias))
    y = F.conv2d(active, block.conv1.weight, stride=stride, padding=1)
    y = F.relu(F.batch_norm(y, block.bn2.running_mean, block.bn2.running_var, block.bn2.weight, block.bn2.bias))
    y = F.conv2d(y, block.conv2.weight, padding=1)
    if not equal:
        return y + F.conv2d(active, block.convShortcut.weight, stride=stride)  # type: ignore[arg-type]
    return y + (x if stride == 1 else F.conv2d(x, block.convShortcut.weight, stride=stride))  # type: ignore[arg-type]


@pytest.mark.parametrize(("inside", "out", "stride"), [(4, 6, 1), (4, 6, 2), (5, 5, 1), (5, 5, 2)])
def test_block_and_its_shortcut(inside: int, out: int, stride: int) -> None:
    torch.manual_seed(0)
    block = RobustBlock(inside, out, stride)
    for bn in (block.bn1, block.bn2):
        for value in (bn.weight, bn.running_var):
            nn.init.uniform_(value, 0.5, 2)  # type: ignore[arg-type]
        for value in (bn.bias, bn.running_mean):
            nn.init.normal_(value)  # type: ignore[arg-type]
    block.eval()
    x = torch.randn(3, inside, 8, 8)
    torch.testing.assert_close(block(x), literal(block, x), rtol=1e-4, atol=1e-5)
    assert isinstance(block.convShortcut, nn.Conv2d) == (inside != out or stride != 1)


def test_initial_weights() -> None:
    torch.manual_seed(0)
    network = RobustWideResNet(10, 3, (16, 64, 64, 64), (1, 1, 1))
    for part in network.modules():
        if isinstance(part, nn.Conv2d) and part.weight.numel() > 5000:
            expected = math.sqrt(2 / (part.kernel_size[0] * part.kernel_size[1] * part.out_channels))
            assert part.weight.std().item() == pytest.approx(expected, rel=0.05)
        elif isinstance(part, nn.BatchNorm2d):
            assert (part.weight == 1).all()
            assert (part.bias == 0).all()
    assert (network.fc.bias == 0).all()


def test_only_the_first_block_of_a_stage_strides() -> None:
    network, _ = built("34-r")
    strides = [[block.conv1.stride[0] for block in stage.layer] for stage in network.blocks]  # type: ignore[union-attr]
    assert strides == [[1] * 5, [2, 1, 1, 1, 1], [2, 1, 1, 1, 1]]


def test_names_of_the_public_weights() -> None:
    names = set(built("34-r")[0].state_dict())
    for known in (
        "stem_conv.weight",
        "blocks.0.layer.0.bn1.running_mean",
        "blocks.0.layer.0.convShortcut.weight",
        "blocks.2.layer.4.conv2.weight",
        "bn1.weight",
        "fc.bias",
    ):
        assert known in names
    assert "blocks.1.layer.1.convShortcut.weight" not in names


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(activation: str) -> None:
    torch.manual_seed(0)
    network = RobustWideResNet(3, 1, (4, 4, 8, 8), (1, 1, 1), activation=activation, dropout=(0.1, 0.2, 0))
    x = torch.randn(2, 1, 9, 9, requires_grad=True)
    network(x).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert network(x).shape == (2, 3)


def test_imagenet_stem_divides_the_side_by_four() -> None:
    network = RobustWideResNet(3, 3, (4, 4, 8, 8), (1, 1, 1), stem="imagenet").eval()
    assert network.stem_conv(torch.zeros(1, 3, 64, 64)).shape == (1, 4, 16, 16)
    assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 3)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"widths": [16, 32, 64]}, "widths: expected 4 values, for the stem and each of the 3 stages"),
        ({"depths": [1, 1]}, "widths: expected 3 values"),
        ({"strides": [1, 2]}, "strides: expected 3 values"),
        ({"dropout": [0.1]}, "dropout: expected 3 values"),
        ({"dropout": [0.0, 0.0, 1.0]}, r"dropout must be in \[0, 1\)"),
        ({"widths": [16, 0, 8, 8]}, "widths must be at least 1"),
        ({"depths": [1, 0, 1]}, "depths must be at least 1"),
        ({"depths": []}, "depths"),
        ({"strides": [1, 0, 2]}, "strides must be at least 1"),
        ({"stem_stride": 0}, "stem_stride"),
        ({"stem": "resnet"}, "stem: expected one of cifar, imagenet"),
        ({"activation": "rleu"}, "Did you mean 'relu'|relu"),
        ({"network": "34-R10"}, "34-r"),
        ({"num_classes": 1}, "num_classes"),
    ],
)
def test_impossible_networks_are_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        RobustWRN(**({"network": "16-1", "channels": 1} | given))
