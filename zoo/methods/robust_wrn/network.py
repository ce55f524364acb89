"""Wide residual networks with free widths, depths, strides and activation, and the named configurations.

The names of the layers are those of the authors' code and of the files on public leaderboards.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from zoo import checks
from zoo.errors import BadInput
from zoo.nn.classifiers import normalised

__all__ = ["ACTIVATIONS", "CONFIGURATIONS", "Configuration", "RobustBlock", "RobustWideResNet", "multiply_adds"]


class Configuration(NamedTuple):
    """Where a network spends its width and depth.

    Attributes:
        widths: channels of the stem and of each stage.
        depths: blocks of each stage.
        stem_stride: 1 for 32x32, 2 makes it cheap.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    stem_stride: int = 1


def _widened(factors: Sequence[float], depths: Sequence[int], stem_stride: int = 1) -> Configuration:
    """Stages of 16, 32, 64 channels, each times its own factor."""
    stages = [round(base * factor) for base, factor in zip((16, 32, 64), factors, strict=True)]
    return Configuration((16, *stages), tuple(depths), stem_stride)


CONFIGURATIONS: dict[str, Configuration] = {
    # the paper's, for 32x32 pictures of three channels
    "34-10": _widened((10, 10, 10), (5, 5, 5)),
    "34-12": _widened((12, 12, 12), (5, 5, 5)),
    "34-r": _widened((20, 20, 8), (5, 5, 5)),
    # widths and depths that a later study measured to be best
    "a1": _widened((5, 7, 3), (14, 14, 7)),
    # small ones for 28x28 pictures of one channel
    "16-1": _widened((1, 1, 1), (2, 2, 2), 2),
    "16-r": Configuration((16, 26, 52, 42), (2, 2, 2), 2),
    "16-r-macs": Configuration((16, 20, 40, 32), (2, 2, 2), 2),
    "16-narrow-last": Configuration((16, 16, 32, 26), (2, 2, 2), 2),
    "16-anti-r": Configuration((16, 12, 24, 72), (2, 2, 2), 2),
    "16-1.5": _widened((1.5, 1.5, 1.5), (2, 2, 2), 2),
    "16-1.5-231": _widened((1.5, 1.5, 1.5), (2, 3, 1), 2),
    "16-1.5-123": _widened((1.5, 1.5, 1.5), (1, 2, 3), 2),
}
"""Name -> widths and depths. R: the last stage gets two fifths of the widening of the first two."""


class Sine(nn.Module):
    """sin(x)."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape, kept."""
        return torch.sin(x)


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "swish": nn.SiLU,
    "mish": nn.Mish,
    "gelu": nn.GELU,
    "prelu": nn.PReLU,
    "leaky-relu": nn.LeakyReLU,
    "sine": Sine,
}
"""Name -> layer. Swish is SiLU under its older name."""


def _conv(inside: int, out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inside, out, kernel, stride, kernel // 2, bias=False)


class RobustBlock(nn.Module):
    """Pre-activation block: bn1, act, conv1, bn2, act, [dropout], conv2, plus the shortcut.

    Where the width changes, the activated tensor also feeds a 1x1 convolution, the shortcut. Where it stays, the raw
    input is the shortcut; with a stride, which stages of equal width need, a 1x1 convolution of the raw input.

    Args:
        inside: channels of the input.
        out: channels of the output.
        stride: of the first convolution.
        activation: one of `ACTIVATIONS`.
        dropout: probability.
    """

    def __init__(self, inside: int, out: int, stride: int = 1, activation: str = "relu", dropout: float = 0.0) -> None:
        super().__init__()
        self.bn1, self.relu1 = nn.BatchNorm2d(inside), ACTIVATIONS[activation]()
        self.conv1 = _conv(inside, out, 3, stride)
        self.bn2, self.relu2 = nn.BatchNorm2d(out), ACTIVATIONS[activation]()
        self.dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()
        self.conv2 = _conv(out, out, 3)
        self.widens = inside != out
        self.convShortcut = _conv(inside, out, 1, stride) if self.widens or stride != 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, inside, H, W) -> (N, out, H / stride, W / stride)."""
        active = self.relu1(self.bn1(x))
        y = self.conv2(self.dropout(self.relu2(normalised(self.conv1, self.bn2, active))))
        return y + self.convShortcut(active if self.widens else x)  # type: ignore[no-any-return]


class RobustWideResNet(nn.Module):
    """Stem, stages of `RobustBlock`, batch normalisation, ReLU, global average pooling, linear layer.

    Args:
        num_classes: K.
        channels: of the images.
        widths: channels of the stem and of each stage.
        depths: blocks of each stage.
        strides: of the first block of each stage.
        stem_stride: of the 3x3 convolution in front; not used by the other stem.
        stem: `cifar` (a 3x3 convolution), or `imagenet` (7x7 with stride 2, normalisation, ReLU, 3x3 max-pooling).
        activation: one of `ACTIVATIONS`, inside of the blocks.
        dropout: of each stage, in [0, 1).

    Raises:
        BadInput: for lists whose lengths do not fit, and for sizes that no network has.
    """

    head_name = "fc"

    def __init__(
        self,
        num_classes: int,
        channels: int,
        widths: Sequence[int],
        depths: Sequence[int],
        strides: Sequence[int] = (1, 2, 2),
        stem_stride: int = 1,
        stem: str = "cifar",
        activation: str = "relu",
        dropout: Sequence[float] = (0.0, 0.0, 0.0),
    ) -> None:
        super().__init__()
        _check(widths, depths, strides, dropout, stem_stride)
        checks.at_least("num_classes", num_classes, 2)
        checks.one_of("stem", stem, ("cifar", "imagenet"))
        checks.one_of("activation", activation, ACTIVATIONS)
        self.stem_conv: nn.Module = _conv(channels, widths[0], 3, stem_stride)
        if stem == "imagenet":
            first = _conv(channels, widths[0], 7, 2)
            self.stem_conv = nn.Sequential(first, nn.BatchNorm2d(widths[0]), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        self.blocks = nn.ModuleList()
        for number, (out, depth) in enumerate(zip(widths[1:], depths, strict=True)):
            parts = [RobustBlock(widths[number], out, strides[number], activation, dropout[number])]
            parts += [RobustBlock(out, out, 1, activation, dropout[number]) for _ in range(depth - 1)]
            self.blocks.append(nn.Sequential(OrderedDict(layer=nn.Sequential(*parts))))
        self.bn1, self.relu = nn.BatchNorm2d(widths[-1]), nn.ReLU()
        self.fc = nn.Linear(widths[-1], num_classes)
        self._draw()

    def _draw(self) -> None:
        """Convolutions from N(0, 2 / (k k out)); no bias at the end."""
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.normal_(
                    part.weight, 0, math.sqrt(2 / (part.kernel_size[0] * part.kernel_size[1] * part.out_channels))
                )
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> logits (N, K)."""
        x = self.stem_conv(x)
        for stage in self.blocks:
            x = stage(x)
        return self.fc(self.relu(self.bn1(x)).mean((2, 3)))  # type: ignore[no-any-return]


def _check(
    widths: Sequence[int], depths: Sequence[int], strides: Sequence[int], dropout: Sequence[float], stem_stride: int
) -> None:
    """Refuse lists of lengths that do not fit, or with values that no network has."""
    if not depths:
        raise BadInput("depths: expected one number of blocks for each stage, got none.")
    for name, values, count, what in (
        ("widths", widths, len(depths) + 1, "the stem and each of the"),
        ("strides", strides, len(depths), "each of the"),
        ("dropout", dropout, len(depths), "each of the"),
    ):
        if len(values) != count:
            raise BadInput(
                f"{name}: expected {count} values, for {what} {len(depths)} stages in depths; got {len(values)}."
            )
    for name, values in (("widths", widths), ("depths", depths), ("strides", strides), ("stem_stride", [stem_stride])):
        for value in values:
            checks.at_least(name, value, 1)
    for share in dropout:
        if not 0 <= share < 1:
            raise BadInput(f"dropout must be in [0, 1), got {share}.")


def multiply_adds(network: nn.Module, shape: Sequence[int]) -> int:
    """Multiply-adds of the convolutions and linear layers for one image; nothing is computed.

    Args:
        network: any.
        shape: (C, H, W).
    """
    total = 0

    def count(part: nn.Module, _: object, output: Tensor) -> None:
        nonlocal total
        if isinstance(part, nn.Conv2d):
            per_output = part.kernel_size[0] * part.kernel_size[1] * part.in_channels // part.groups
            total += output[0].numel() * per_output
        elif isinstance(part, nn.Linear):
            total += part.in_features * part.out_features

    modes = [part for part in network.modules() if part.training]
    hooks = [part.register_forward_hook(count) for part in network.modules()]
    try:
        network.eval()
        state = {name: torch.empty_like(value, device="meta") for name, value in network.state_dict().items()}
        with torch.no_grad():
            torch.func.functional_call(network, state, (torch.empty(1, *shape, device="meta"),), strict=False)
    finally:
        for hook in hooks:
            hook.remove()
        for part in modes:
            part.training = True
    return total
