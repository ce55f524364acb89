"""The paper's backbones, locked, or with an affine batch normalisation in place of the lock as a control."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from zoo import checks
from zoo.methods.fedkl.lock import KeyLock2d, lockify
from zoo.nn.classifiers import VGG16, ResNet, create_classifier

__all__ = ["BACKBONES", "CONTROLS", "make_backbone", "make_network", "with_batch_norm"]

BACKBONES = ("lenet", "resnet20", "resnet32", "resnet18", "resnet34", "vgg16")
"""The networks of the paper; any other name is one of `zoo.nn.classifiers`."""

CONTROLS = ("lock", "batch-norm", "none")
"""Locked; the same network with affine batch normalisation in place of each lock; or the network as it is."""


class FrontedVGG16(nn.Module):
    """VGG16 with batch normalisation behind one more convolution of 64 channels.

    Args:
        num_classes: K.
        channels: of the images.
    """

    head_name = "vgg.linear"

    def __init__(self, num_classes: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 64, 3, padding=1)
        self.act = nn.ReLU()
        self.vgg = VGG16(num_classes, 64)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> logits (N, K)."""
        return self.vgg(self.act(self.conv1(x)))  # type: ignore[no-any-return]


def make_backbone(name: str, num_classes: int, channels: int, img_size: int) -> nn.Module:
    """A network without locks.

    The LeNet's weights are uniform on [-0.5, 0.5), as in the first work on inverting gradients (Zhu, Liu, Han 2019).

    Args:
        name: lenet, resnet20, resnet32, resnet18, resnet34 or vgg16, as in the paper; or a name of
            `zoo.nn.classifiers`.
        num_classes: K.
        channels: of the images.
        img_size: their side.
    """
    if name == "lenet":  # from usual small weights its sigmoids learn nothing for many rounds
        network: nn.Module = create_classifier("strided-lenet", num_classes, channels, img_size=img_size)
        for parameter in network.parameters():
            nn.init.uniform_(parameter, -0.5, 0.5)
        return network
    if name in ("resnet20", "resnet32"):  # shortcuts are projections in the authors' locked networks
        count = (int(name[6:]) - 2) // 6
        return ResNet([count] * 3, 16, 1, num_classes, channels)
    if name in ("resnet18", "resnet34"):  # a stem of 7x7 without pooling
        network = ResNet((2, 2, 2, 2) if name == "resnet18" else (3, 4, 6, 3), 64, 1, num_classes, channels)
        network.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
        return network
    if name == "vgg16":
        return FrontedVGG16(num_classes, channels)
    return create_classifier(name, num_classes, channels, img_size=img_size)


def with_batch_norm(block: KeyLock2d) -> nn.Sequential:
    """The control of a locked block: its convolution and an affine batch normalisation."""
    return nn.Sequential(block.conv, nn.BatchNorm2d(block.conv.out_channels))


def make_network(
    name: str, num_classes: int, channels: int, img_size: int, control: str, layers: Any, **lock: Any
) -> nn.Module:
    """The network of a hyper-parameter.

    Args:
        name: of the backbone.
        num_classes: K.
        channels: of the images.
        img_size: their side.
        control: lock, batch-norm or none.
        layers: what is locked, as `lockify` takes it.
        lock: further arguments of `lockify`.
    """
    checks.one_of("control", control, CONTROLS)
    backbone = make_backbone(name, num_classes, channels, img_size)
    if control == "none":
        return backbone
    locked = lockify(backbone, layers, **lock)
    if control == "lock":
        return locked
    for block in locked.names:
        part: Any = locked.network.get_submodule(block)
        locked.network.set_submodule(block, with_batch_norm(part))
    return locked.network
