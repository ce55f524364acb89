"""The example network; replace it by the paper's."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["STRIDE", "Network"]

STRIDE = 16
"""Pixels between neighbouring points."""


class Network(nn.Module):
    """Four strided convolutions, and at each point four distances and a score for each class.

    Args:
        width: channels.
        num_classes: K.
    """

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inside in (3, width, width, width):
            layers += [nn.Conv2d(inside, width, 3, stride=2, padding=1), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.distances = nn.Conv2d(width, 4, 1)
        self.classes = nn.Conv2d(width, num_classes, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (n, A, 4) in pixels by equation (1), logits (n, A, K) and points (A, 2), of images (n, 3, H, W)."""
        features = self.body(images)
        rows, columns = (torch.arange(size, device=images.device) * STRIDE + STRIDE / 2 for size in features.shape[-2:])
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        points = torch.stack([x.flatten(), y.flatten()], 1)
        reach = self.distances(features).flatten(2).mT.float().clamp(max=4).exp() * STRIDE
        boxes = torch.cat([points - reach[..., :2], points + reach[..., 2:]], dim=-1)
        return boxes, self.classes(features).flatten(2).mT, points
