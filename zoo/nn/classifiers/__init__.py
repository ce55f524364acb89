"""Image classifiers by name: small residual nets, the CIFAR networks of the robustness papers, and every timm model.

    create_classifier("resnet10-w8", num_classes=10, channels=1)     # 78 k parameters, for 28x28
    create_classifier("cifar-resnet18", num_classes=10)              # 11.2 M; also cifar-resnet34
    create_classifier("cifar-mobilenetv2", num_classes=10)           # 2.3 M
    create_classifier("cifar-vgg16", num_classes=10)                 # 15.2 M
    create_classifier("wrn34-10", num_classes=10)                    # 46.2 M; any wrnD-K with D = 6 n + 4
    create_classifier("wrn16-1-s2", num_classes=10, channels=1)      # 0.17 M; stem of stride 2, a quarter of the work
    create_classifier("cifar-resnet20", num_classes=10)              # 0.27 M; any cifar-resnetD with D = 6 n + 2
    create_classifier("lenet5", num_classes=10, channels=1, img_size=28)   # 44 k; also strided-lenet
    create_classifier("cifar-resnet18-gn", num_classes=10)           # group instead of batch normalisation, of any
    create_classifier("resnet10-w16-softplus", num_classes=10)       # smooth in place of ReLU, of any; also -silu
    create_classifier("timm/convnext_atto", num_classes=10)

All map images (N, C, H, W) to logits (N, K) and, but for the two LeNets, end in global average pooling, so other sizes
than the usual ones work.
State-dict keys are those of the files that circulate: `conv1, bn1, layer1.0.conv1, ..., linear` for residual nets and
MobileNetV2, `conv1, block1.layer.0.bn1, ..., fc` for wide ones. `head_of` names the layer that depends on the classes.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.errors import BadInput, UnknownName, nearest
from zoo.nn.classifiers.small import SMOOTH, LeNet5, OptionAResNet, StridedLeNet, with_activation, with_group_norm
from zoo.nn.classifiers.vgg import VGG16
from zoo.nn.timm_models import create_timm
from zoo.store.conversion import read_foreign_state

__all__ = [
    "VGG16",
    "LeNet5",
    "MobileNetV2",
    "Normalize",
    "OptionAResNet",
    "ResNet",
    "StridedLeNet",
    "WideResNet",
    "create_classifier",
    "head_of",
    "laid_out",
    "layout_of",
    "load_classifier_weights",
    "normalised",
]

_EXAMPLES: tuple[str, ...] = (
    "resnet10-w8",
    "cifar-resnet18",
    "cifar-resnet34",
    "cifar-mobilenetv2",
    "cifar-vgg16",
    "wrn34-10",
    "timm/resnet18",
)
_EXAMPLES += ("lenet5", "strided-lenet", "cifar-resnet8", "cifar-resnet20", "cifar-resnet32", "cifar-resnet18-gn")


class Normalize(nn.Module):
    """(x - mean) / std per channel, as a layer: perturbations stay in pixel units. It has no state.

    Args:
        mean: of each channel, in [0, 1].
        std: of each channel.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std) or not all(s > 0 for s in std):
            raise BadInput(f"mean and std need one value per channel and std above 0, got {list(mean)}, {list(std)}.")
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        return (x - self.mean) / self.std


def _conv(inside: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inside, out, kernel, stride, kernel // 2, groups=groups, bias=False)


def _he(network: nn.Module) -> None:
    """Normal weights of variance 2 / fan-out, as wide residual networks are initialised."""
    for part in network.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(part, nn.Linear):
            nn.init.zeros_(part.bias)


def normalised(conv: nn.Conv2d, bn: nn.Module, x: Tensor) -> Tensor:
    """bn(conv(x)). With frozen batch statistics it is one convolution: an attack's passes cost a fifth less.

    Not where somebody has hooked one of the two, and waits for its output, or with another kind of normalisation.
    """
    hooked = any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in (conv, bn))
    if hooked or not isinstance(bn, nn.BatchNorm2d) or bn.training or bn.running_mean is None or bn.running_var is None:
        return bn(conv(x))  # type: ignore[no-any-return]
    scale = bn.weight * torch.rsqrt(bn.running_var + bn.eps)
    shift = bn.bias - bn.running_mean * scale
    weight = conv.weight * scale[:, None, None, None]
    return F.conv2d(x, weight, shift, conv.stride, conv.padding, conv.dilation, conv.groups)


# Residual networks ------------------------------------------------------------------------------------------------


class _Projection(nn.Sequential):
    """A shortcut's convolution and its normalisation."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, inside, H, W) -> (N, out, H / stride, W / stride)."""
        conv, bn = self
        return normalised(conv, bn, x)  # type: ignore[arg-type]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with the activation after the sum; a projection where the shape changes."""

    activation = staticmethod(F.relu)

    def __init__(self, inside: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(inside, out, 3, stride), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = _conv(out, out, 3), nn.BatchNorm2d(out)
        self.shortcut = nn.Sequential()
        if stride != 1 or inside != out:
            self.shortcut = _Projection(_conv(inside, out, 1, stride), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        """(N, inside, H, W) -> (N, out, H / stride, W / stride)."""
        y = self.activation(normalised(self.conv1, self.bn1, x))
        return self.activation(normalised(self.conv2, self.bn2, y) + self.shortcut(x))


class ResNet(nn.Module):
    """Four stages of basic blocks with widths W, 2W, 4W, 8W and strides 1, 2, 2, 2 behind a 3x3 stem without pooling.

    Args:
        blocks: per stage.
        width: W.
        stem_stride: 1 for 32x32, 2 makes it cheap.
        num_classes: K.
        channels: of the images.
    """

    activation = staticmethod(F.relu)

    def __init__(self, blocks: Sequence[int], width: int, stem_stride: int, num_classes: int, channels: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(channels, width, 3, stem_stride), nn.BatchNorm2d(width)
        inside = width
        for stage, count in enumerate(blocks):
            out = width * 2**stage
            parts = []
            for number in range(count):
                parts.append(BasicBlock(inside, out, 2 if number == 0 and stage > 0 else 1))
                inside = out
            self.add_module(f"layer{stage + 1}", nn.Sequential(*parts))
        self.stages = len(blocks)
        self.linear = nn.Linear(inside, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> logits (N, K)."""
        x = self.activation(normalised(self.conv1, self.bn1, x))
        for stage in range(self.stages):
            x = self.get_submodule(f"layer{stage + 1}")(x)
        return self.linear(x.mean((2, 3)))


class WideBlock(nn.Module):
    """Pre-activation block; where the width changes, the shortcut starts behind the first activation."""

    activation = staticmethod(F.relu)

    def __init__(self, inside: int, out: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inside), _conv(inside, out, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(out), _conv(out, out, 3)
        if inside != out:
            self.convShortcut = _conv(inside, out, 1, stride)
        self.projects = inside != out

    def forward(self, x: Tensor) -> Tensor:
        """(N, inside, H, W) -> (N, out, H / stride, W / stride)."""
        y = self.activation(self.bn1(x))
        short = self.convShortcut(y) if self.projects else x
        return short + self.conv2(self.activation(self.bn2(self.conv1(y))))


class WideResNet(nn.Module):
    """Wide residual network (Zagoruyko and Komodakis 2016): widths 16, 16k, 32k, 64k; (depth - 4) / 6 blocks a stage.

    Args:
        depth: 6 n + 4.
        widen: k, a whole number in the paper; a fraction must give whole widths (1.5: 16, 24, 48, 96).
        num_classes: K.
        channels: of the images.
        stem_stride: of the first convolution; 1 in the paper, 2 makes it cheap.
    """

    activation = staticmethod(F.relu)

    foreign = ("sub_block1.",)
    """Prefixes of parts that circulating files hold and that no forward pass uses."""

    def __init__(self, depth: int, widen: float, num_classes: int, channels: int, stem_stride: int = 1) -> None:
        super().__init__()
        widths = [16, *(round(base * widen) for base in (16, 32, 64))]
        self.conv1 = _conv(channels, widths[0], 3, stem_stride)
        for stage in (1, 2, 3):
            parts = [WideBlock(widths[stage - 1], widths[stage], 1 if stage == 1 else 2)]
            parts += [WideBlock(widths[stage], widths[stage], 1) for _ in range((depth - 4) // 6 - 1)]
            self.add_module(f"block{stage}", nn.Sequential(OrderedDict(layer=nn.Sequential(*parts))))
        self.bn1 = nn.BatchNorm2d(widths[3])
        self.fc = nn.Linear(widths[3], num_classes)
        _he(self)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> logits (N, K)."""
        x = self.conv1(x)
        for stage in (1, 2, 3):
            x = self.get_submodule(f"block{stage}")(x)
        return self.fc(self.activation(self.bn1(x)).mean((2, 3)))


# MobileNetV2 ------------------------------------------------------------------------------------------------------


class InvertedBlock(nn.Module):
    """Expand, filter each channel, project; at stride 1 always with a shortcut, projected where widths differ."""

    activation = staticmethod(F.relu)

    def __init__(self, inside: int, out: int, expansion: int, stride: int) -> None:
        super().__init__()
        width = expansion * inside
        self.conv1, self.bn1 = _conv(inside, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = _conv(width, width, 3, stride, width), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = _conv(width, out, 1), nn.BatchNorm2d(out)
        self.residual = stride == 1
        self.shortcut = nn.Sequential()
        if stride == 1 and inside != out:
            self.shortcut = _Projection(_conv(inside, out, 1), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        """(N, inside, H, W) -> (N, out, H / stride, W / stride)."""
        y = self.activation(normalised(self.conv1, self.bn1, x))
        y = normalised(self.conv3, self.bn3, self.activation(normalised(self.conv2, self.bn2, y)))
        return y + self.shortcut(x) if self.residual else y


class MobileNetV2(nn.Module):
    """MobileNetV2 (Sandler et al. 2018) for 32x32, as robustness papers use it: ReLU, and two downsamplings less.

    Args:
        num_classes: K.
        channels: of the images.
    """

    activation = staticmethod(F.relu)

    # expansion, channels, repeats, stride
    table = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))

    def __init__(self, num_classes: int, channels: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(channels, 32, 3), nn.BatchNorm2d(32)
        inside = 32
        parts = []
        for expansion, out, repeats, stride in self.table:
            for number in range(repeats):
                parts.append(InvertedBlock(inside, out, expansion, stride if number == 0 else 1))
                inside = out
        self.layers = nn.Sequential(*parts)
        self.conv2, self.bn2 = _conv(inside, 1280, 1), nn.BatchNorm2d(1280)
        self.linear = nn.Linear(1280, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> logits (N, K)."""
        x = self.layers(self.activation(normalised(self.conv1, self.bn1, x)))
        return self.linear(self.activation(normalised(self.conv2, self.bn2, x)).mean((2, 3)))


# By name ----------------------------------------------------------------------------------------------------------


_WIDE = re.compile(r"wrn-?(\d+)-(\d+(?:\.\d+)?)(?:-s([12]))?")


def create_classifier(
    name: str, num_classes: int, channels: int = 3, *, pretrained: bool = False, img_size: int = 32
) -> nn.Module:
    """Build a classifier.

    Args:
        name: `resnet10-wW`, `cifar-resnet18`, `cifar-resnet34`, `cifar-resnetD` with D = 6 n + 2, `cifar-mobilenetv2`,
            `cifar-vgg16`, `wrnD-K` (`-s2` behind it: stem of stride 2), `lenet5`, `strided-lenet`, or `timm/NAME`; with
            `-gn` behind it, group normalisation replaces batch normalisation, with `-softplus` (beta 10) or `-silu` a
            smooth function replaces ReLU.
        num_classes: K.
        channels: of the images.
        pretrained: let timm fetch its weights (timm models only).
        img_size: side of the images, which the LeNets must know.

    Raises:
        UnknownName: with the nearest names.
        BadInput: for an impossible size.
    """
    network: nn.Module
    if num_classes < 2:
        raise BadInput(f"num_classes must be at least 2, got {num_classes}.")
    if name.endswith("-gn"):
        network = create_classifier(name[:-3], num_classes, channels, pretrained=pretrained, img_size=img_size)
        return with_group_norm(network)
    for ending in SMOOTH:
        if name.endswith(f"-{ending}"):
            plain = name.removesuffix(f"-{ending}")
            network = create_classifier(plain, num_classes, channels, pretrained=pretrained, img_size=img_size)
            return with_activation(network, ending)
    if name.startswith("timm/"):
        options = {"pretrained": pretrained, "num_classes": num_classes, "in_chans": channels}
        network = create_timm(name.removeprefix("timm/"), **options)
        return network
    if pretrained:
        raise BadInput(f"There are no weights to fetch for the network {name!r}: pretrained needs a timm model.")
    if match := re.fullmatch(r"resnet10-w(\d+)", name):
        if (width := int(match[1])) < 1:
            raise BadInput(f"network: the width in {name!r} must be at least 1.")
        network = ResNet((1, 1, 1, 1), width, 2, num_classes, channels)
        _he(network)
        return network
    if name.startswith("wrn") and (match := _WIDE.fullmatch(name)):
        return _wide(match, num_classes, channels)
    if name in ("cifar-resnet18", "cifar-resnet34"):
        blocks = (2, 2, 2, 2) if name.endswith("18") else (3, 4, 6, 3)
        return ResNet(blocks, 64, 1, num_classes, channels)
    if match := re.fullmatch(r"cifar-resnet(\d+)", name):
        return _option_a(match, num_classes, channels)
    if name == "cifar-mobilenetv2":
        return MobileNetV2(num_classes, channels)
    if name == "cifar-vgg16":
        return VGG16(num_classes, channels)
    if name in ("lenet5", "strided-lenet"):
        return (LeNet5 if name == "lenet5" else StridedLeNet)(num_classes, channels, img_size)
    raise UnknownName(
        f"There is no network {name!r}.{nearest(name, _EXAMPLES)} Names: resnet10-wW, cifar-resnetD, "
        "cifar-mobilenetv2, cifar-vgg16, wrnD-K, lenet5, strided-lenet, and timm/NAME for every model of timm; "
        "behind a name -gn for group normalisation, -softplus or -silu for smooth activations."
    )


def _option_a(match: re.Match[str], num_classes: int, channels: int) -> OptionAResNet:
    depth = int(match[1])
    if depth < 8 or (depth - 2) % 6:
        raise BadInput(f"network: the depth in {match[0]!r} must be 18, 34, or 6 n + 2 (8, 20, 32, 44, 56, ...).")
    return OptionAResNet(depth, num_classes, channels)


def _wide(match: re.Match[str], num_classes: int, channels: int) -> WideResNet:
    depth, widen, stride = int(match[1]), float(match[2]), int(match[3] or 1)
    if depth < 10 or (depth - 4) % 6:
        raise BadInput(f"network: the depth in {match[0]!r} must be 6 n + 4 (10, 16, 22, 28, 34, 70, ...).")
    if widen <= 0 or 16 * widen % 1:
        raise BadInput(f"network: 16 times the widening factor in {match[0]!r} must be a whole number of channels.")
    return WideResNet(depth, widen, num_classes, channels, stride)


def head_of(network: nn.Module) -> str:
    """State-dict prefix of the layer whose shape depends on the number of classes; `head_name` of a network says it."""
    if own := getattr(network, "head_name", None):
        return str(own)
    named: Any = getattr(network, "default_cfg", None)
    if named is not None:
        name = named["classifier"]
        return str(name if isinstance(name, str) else name[0])
    network = getattr(network, "_orig_mod", network)  # of torch.compile
    return "fc" if isinstance(network, WideResNet) else "linear"


def layout_of(network: nn.Module, channels_last: bool) -> torch.memory_format:
    """Memory layout for the images and weights of a network.

    Networks with a strided 1x1 convolution of fewer than 8 input channels keep the usual layout: in channels_last its
    gradient is written behind its memory (torch 2.14 and 2.15 on processors with AVX2; not from 8 channels on).

    Args:
        network: any module.
        channels_last: whether that layout is wanted.
    """
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    narrow = any(m.kernel_size == (1, 1) and max(m.stride) > 1 and m.in_channels < 8 for m in convolutions)
    return torch.channels_last if channels_last and not narrow else torch.contiguous_format


def laid_out(x: Tensor, layout: torch.memory_format) -> Tensor:
    """Images (N, C, H, W) in a memory layout.

    With one channel, `contiguous()` calls both layouts contiguous and keeps channels_last strides, by which
    convolutions then choose; flattening resets them.
    """
    if layout == torch.channels_last:
        return x.contiguous(memory_format=layout)
    return x.flatten(1).reshape(x.shape)


def load_classifier_weights(network: nn.Module, path: str | Path) -> None:
    """Fill a network from a state dict in a `.safetensors` or PyTorch file, as other projects publish them.

    A `module.` prefix, a surrounding dict (`state_dict`, `model`, `net`) and parts that no forward pass uses are left
    out; everything else must match. Nothing in the file is executed.

    Raises:
        BadInput: if there is no such file, it holds no state dict, or another network's.
        UnsafeFile: if it holds more than tensors and plain values, or asks for more memory than its size explains.
        CorruptFile: if it is damaged.
    """
    state = read_foreign_state(path)
    unused = tuple(getattr(network, "foreign", ()))
    state = {key: value for key, value in state.items() if not (unused and key.startswith(unused))}
    wanted = network.state_dict()
    missing = [k for k in wanted if k not in state and not k.endswith("num_batches_tracked")]
    foreign = [k for k in state if k not in wanted]
    shapes = [k for k in wanted if k in state and state[k].shape != wanted[k].shape]
    if missing or foreign or shapes:
        first = (missing or foreign or shapes)[0]
        raise BadInput(
            f"{path} is not this {type(network).__name__}: {len(missing)} of its tensors are missing, {len(foreign)} "
            f"are foreign, {len(shapes)} have another shape (the first: {first}). Name the right network, width and "
            "number of classes."
        )
    network.load_state_dict(state, strict=False)
