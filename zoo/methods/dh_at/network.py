"""Two heads behind one stem, and what merges their logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.errors import BadInput
from zoo.nn.classifiers import WideResNet, create_classifier

__all__ = ["MERGES", "Aggregator", "DualHead", "Head"]

MERGES = ("network", "mean", "main")
"""What turns two logits into one: the aggregator, their mean, or the main head alone."""

HIDDEN = 8
"""Features of a class in the aggregator."""

PAIRED = 16
"""Features of a pair of classes, at each of the 8 places."""


class Aggregator(nn.Module):
    """The paper's "lightweight CNN" on two logits, with 28,930 parameters for ten classes.

    Args:
        num_classes: K >= 2.
        pool_kernel: how many of the 16 features of a pair are averaged; 2, or 16 where there are many classes, since
            the last layer has K (K - 1) / 2 * 8 * 16 / pool_kernel inputs.
    """

    first: Tensor
    second: Tensor

    def __init__(self, num_classes: int, pool_kernel: int = 2) -> None:
        super().__init__()
        if pool_kernel not in (1, 2, 4, 8, 16):
            raise BadInput(f"pool_kernel: expected a divisor of 16 (1, 2, 4, 8, 16), got {pool_kernel}.")
        self.pool_kernel = pool_kernel
        self.conv1, self.bn1 = nn.Conv1d(2, HIDDEN, 1), nn.BatchNorm1d(HIDDEN)
        self.conv2, self.bn2 = nn.Conv1d(2, PAIRED, 1), nn.BatchNorm1d(PAIRED)
        pairs = num_classes * (num_classes - 1) // 2
        self.linear = nn.Linear(pairs * HIDDEN * PAIRED // pool_kernel, num_classes)
        first, second = torch.triu_indices(num_classes, num_classes, 1)
        self.register_buffer("first", first, persistent=False)
        self.register_buffer("second", second, persistent=False)

    def forward(self, main: Tensor, second: Tensor) -> Tensor:
        """Logits (N, K) of two logits (N, K)."""
        u = F.relu(self.bn1(self.conv1(torch.stack([main, second], 1))))  # (N, 8, K)
        pairs = torch.stack([u[:, :, self.first], u[:, :, self.second]], 1)  # (N, 2, 8, pairs)
        v = self.bn2(self.conv2(pairs.transpose(2, 3).flatten(2)))  # (N, 16, pairs * 8)
        pooled = v.mT.unflatten(2, (-1, self.pool_kernel)).mean(3)  # (N, pairs * 8, 16 / kernel)
        return self.linear(pooled.flatten(1))  # type: ignore[no-any-return]


class Head(nn.Module):
    """Second and third stage of a wide residual network, and its classifier.

    Args:
        network: the layers are taken from it.
    """

    def __init__(self, network: WideResNet) -> None:
        super().__init__()
        self.block2, self.block3 = network.get_submodule("block2"), network.get_submodule("block3")
        self.bn1, self.fc = network.bn1, network.fc

    def forward(self, h: Tensor) -> Tensor:
        """Map of the first stage (N, C, H, W) -> logits (N, K)."""
        h = F.relu(self.bn1(self.block3(self.block2(h))))
        return self.fc(h.mean((2, 3)))  # type: ignore[no-any-return]


class DualHead(nn.Module):
    """A wide residual network with a second head behind its first stage.

    Args:
        network: name of a wide residual network in `zoo.nn.classifiers`, such as `wrn34-10`.
        num_classes: K.
        channels: of the images.
        merge: one of `MERGES`; `main` leaves the second head out.
        pool_kernel: of the aggregator.

    Raises:
        BadInput: for a network of another kind.
    """

    def __init__(self, network: str, num_classes: int, channels: int, merge: str, pool_kernel: int) -> None:
        super().__init__()
        first, other = (create_classifier(network, num_classes, channels) for _ in range(2))
        if not isinstance(first, WideResNet) or not isinstance(other, WideResNet):
            raise BadInput(f"network: expected a wide residual network such as wrn34-10, got {network!r}.")
        self.conv1, self.block1 = first.conv1, first.get_submodule("block1")
        self.main = Head(first)
        self.second = Head(other) if merge != "main" else None
        self.merge = Aggregator(num_classes, pool_kernel) if merge == "network" else None

    def shared(self, x: Tensor) -> Tensor:
        """H (N, C, H, W), what both heads see."""
        return self.block1(self.conv1(x))  # type: ignore[no-any-return]

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z1 and z2 (N, K) of images (N, C, H, W); the same twice where there is no second head."""
        h = self.shared(x)
        main = self.main(h)
        return main, main if self.second is None else self.second(h)

    def merged(self, main: Tensor, second: Tensor) -> Tensor:
        """Z (N, K) of both heads' logits."""
        if self.second is None:
            return main
        return (main + second) / 2 if self.merge is None else self.merge(main, second)  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> merged logits (N, K)."""
        return self.merged(*self.heads(x))
