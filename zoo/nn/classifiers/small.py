"""Small image classifiers of the literature on federated learning and on leaking gradients."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.errors import BadInput

__all__ = ["SMOOTH", "LeNet5", "OptionAResNet", "StridedLeNet", "with_activation", "with_group_norm"]


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(10 x)) / 10: near ReLU, with derivatives of all orders."""
    return F.softplus(x, 10.0)


SMOOTH: dict[str, Callable[[Tensor], Tensor]] = {"softplus": softplus, "silu": F.silu}
"""What may replace ReLU, by the ending of a network's name."""


class LeNet5(nn.Module):
    """LeNet-5 with ReLU and maximum pooling: 44,426 parameters for 1x28x28 and ten classes.

    The network of the NIID-Bench (Li, Diao, Chen, He 2022) and of many federated baselines.

    Args:
        num_classes: K.
        channels: of the images.
        img_size: their side, at least 16; the network takes no other.
    """

    activation = staticmethod(F.relu)

    def __init__(self, num_classes: int, channels: int, img_size: int) -> None:
        super().__init__()
        side = ((img_size - 4) // 2 - 4) // 2
        if side < 1:
            raise BadInput(f"lenet5 needs images of at least 16x16, got {img_size}x{img_size}.")
        self.conv1, self.conv2 = nn.Conv2d(channels, 6, 5), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2 = nn.Linear(16 * side * side, 120), nn.Linear(120, 84)
        self.linear = nn.Linear(84, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, S, S) -> logits (N, K)."""
        x = F.max_pool2d(self.activation(self.conv1(x)), 2)
        x = F.max_pool2d(self.activation(self.conv2(x)), 2)
        x = self.activation(self.fc1(x.flatten(1)))
        return self.linear(self.activation(self.fc2(x)))


class StridedLeNet(nn.Module):
    """Three strided convolutions with sigmoids: 15,826 parameters for 3x32x32 and ten classes.

    The network of Zhu, Liu, Han: Deep Leakage from Gradients, 2019, whose smoothness gradient inversion needs.

    Args:
        num_classes: K.
        channels: of the images.
        img_size: their side; the network takes no other.
    """

    def __init__(self, num_classes: int, channels: int, img_size: int) -> None:
        super().__init__()
        side = -(-img_size // 4)
        self.conv1 = nn.Conv2d(channels, 12, 5, 2, 2)
        self.conv2 = nn.Conv2d(12, 12, 5, 2, 2)
        self.conv3 = nn.Conv2d(12, 12, 5, 1, 2)
        self.linear = nn.Linear(12 * side * side, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, S, S) -> logits (N, K)."""
        for layer in (self.conv1, self.conv2, self.conv3):
            x = torch.sigmoid(layer(x))
        return self.linear(x.flatten(1))


class PaddedBlock(nn.Module):
    """Two 3x3 convolutions; where the shape changes, the shortcut takes every other pixel and adds zero channels."""

    activation = staticmethod(F.relu)

    def __init__(self, inside: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inside, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        self.stride, self.extra = stride, (out - inside) // 2

    def forward(self, x: Tensor) -> Tensor:
        """(N, inside, H, W) -> (N, out, H / stride, W / stride)."""
        y = self.activation(self.bn1(self.conv1(x)))
        if self.extra or self.stride > 1:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.extra, self.extra))
        return self.activation(self.bn2(self.conv2(y)) + x)


class OptionAResNet(nn.Module):
    """Residual network for 32x32 with shortcuts without parameters (He et al. 2016, section 4.2, option A).

    Widths 16, 32, 64; (depth - 2) / 6 blocks in each stage.

    Args:
        depth: 6 n + 2: 8, 20, 32, 44, 56, 110.
        num_classes: K.
        channels: of the images.
    """

    activation = staticmethod(F.relu)

    def __init__(self, depth: int, num_classes: int, channels: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        inside = 16
        for stage, out in enumerate((16, 32, 64), 1):
            parts = []
            for number in range((depth - 2) // 6):
                parts.append(PaddedBlock(inside, out, 2 if stage > 1 and number == 0 else 1))
                inside = out
            self.add_module(f"layer{stage}", nn.Sequential(*parts))
        self.linear = nn.Linear(64, num_classes)
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> logits (N, K)."""
        x = self.activation(self.bn1(self.conv1(x)))
        for stage in (1, 2, 3):
            x = self.get_submodule(f"layer{stage}")(x)
        return self.linear(x.mean((2, 3)))


def with_group_norm(network: nn.Module) -> nn.Module:
    """Replace batch normalisation by group normalisation, which has no statistics that clients would disagree about.

    Groups of at least eight channels, at most 32 groups. Names in the state dict stay, but for the statistics.

    Args:
        network: changed in place.

    Returns:
        The network.

    Raises:
        BadInput: if it has none, or one that is fused with an activation.
    """
    norms = [(name, m) for name, m in network.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for name, norm in norms:
        if type(norm) is not nn.BatchNorm2d:
            raise BadInput(
                f"group normalisation cannot replace {type(norm).__name__} ({name}): choose another network."
            )
        parent, _, last = name.rpartition(".")
        groups = max(1, min(32, norm.num_features // 8))
        groups = next(g for g in range(groups, 0, -1) if norm.num_features % g == 0)
        setattr(network.get_submodule(parent), last, nn.GroupNorm(groups, norm.num_features))
    if not norms:
        raise BadInput(f"{type(network).__name__} has no batch normalisation to replace: leave out -gn.")
    return network


def with_activation(network: nn.Module, name: str) -> nn.Module:
    """Replace ReLU by a smooth function, so that gradients of gradients know how the slopes change.

    Args:
        network: changed in place, and returned; without parameters of its own in the new parts.
        name: one of `SMOOTH`.

    Raises:
        BadInput: if the network has no ReLU.
    """
    replaced = 0
    for part in list(network.modules()):
        if hasattr(part, "activation") and part.activation is F.relu:
            part.activation = SMOOTH[name]  # type: ignore[assignment]
            replaced += 1
        for child, layer in part.named_children():
            if isinstance(layer, nn.ReLU):
                setattr(part, child, nn.Softplus(10.0) if name == "softplus" else nn.SiLU())
                replaced += 1
    if not replaced:
        raise BadInput(f"network: {type(network).__name__} has no ReLU that -{name} could replace.")
    return network
