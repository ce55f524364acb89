"""The optimiser of methods that compute their new values instead of following gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from zoo.errors import InvalidConfig, UnknownName, nearest

__all__ = ["AssignOptimizer"]


class AssignOptimizer(torch.optim.Optimizer):
    """An optimiser whose step copies values that were computed elsewhere.

    With it, methods without gradients advance `global_step`, so that checkpoints, early stopping and resume work.

    Args:
        module: its parameters and buffers can be assigned by their state-dict names.
    """

    def __init__(self, module: nn.Module) -> None:
        named = [*module.named_parameters(), *module.named_buffers()]
        if not named:
            raise InvalidConfig(f"{type(module).__name__} has neither parameters nor buffers for a round to update.")
        self.targets = dict(named)
        self.staged: dict[str, Tensor] = {}
        super().__init__([tensor for _, tensor in named], {})

    def assign(self, values: dict[str, Tensor]) -> None:
        """Stage new values by state-dict name; the next `step()` copies them. Shapes may change.

        Raises:
            UnknownName: if a name is not in the module.
        """
        for name, value in values.items():
            if name not in self.targets:
                raise UnknownName(f"No parameter or buffer {name!r} to assign.{nearest(name, self.targets)}")
            self.staged[name] = value

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Copy the staged values."""
        result = closure() if closure is not None else None
        for name, value in self.staged.items():
            target = self.targets[name]
            if target.shape == value.shape:
                target.copy_(value)
            else:
                target.data = value.to(target.device, target.dtype)
        self.staged = {}
        return result
