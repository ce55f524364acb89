"""The example network; replace it by the paper's."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["Network"]


class Network(nn.Module):
    """Equations (1) and (2).

    Args:
        inputs: d, numbers per input.
        width: hidden features.
        outputs: m, numbers per output.
    """

    def __init__(self, inputs: int, width: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Linear(inputs, width)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (n, m) of inputs (n, d)."""
        return self.head(self.body(x).relu())  # type: ignore[no-any-return]
