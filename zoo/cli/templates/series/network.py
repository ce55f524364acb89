"""The example network; replace it by the paper's."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Network"]


class Network(nn.Module):
    """Equation (1).

    Args:
        channels: C.
        width: features.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, width, 7, padding=3)

    def forward(self, series: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Features (n, width) of series (n, C, L), of which the points from `lengths` on are filling."""
        hidden = self.conv(series).relu()
        if lengths is None:
            return hidden.mean(2)  # type: ignore[no-any-return]
        valid = torch.arange(series.shape[2], device=series.device) < lengths[:, None]
        return (hidden * valid[:, None]).sum(2) / lengths[:, None]  # type: ignore[no-any-return]
