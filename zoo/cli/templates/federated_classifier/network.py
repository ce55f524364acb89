"""The example network; replace it by the paper's."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["Network"]


class Network(nn.Module):
    """Equation (1), and a linear layer.

    Args:
        channels: of the images.
        width: features.
        num_classes: K.
    """

    def __init__(self, channels: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3, padding=1)
        self.linear = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, K) of images (n, channels, height, width)."""
        return self.linear(self.conv(x).relu().mean((2, 3)))  # type: ignore[no-any-return]
