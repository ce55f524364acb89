"""The strategy of rounds: ranks work on their own share and combine when a round ends."""

from __future__ import annotations

import torch
from lightning.pytorch.strategies import DDPStrategy, StrategyRegistry

__all__ = ["RoundStrategy", "broadcast_only"]


def broadcast_only(strategy: DDPStrategy) -> None:
    """Make the ranks start equal, and wrap nothing: there are no gradients to reduce."""
    from torch.distributed.utils import _sync_module_states

    module = strategy.model
    assert module is not None
    group = torch.distributed.group.WORLD
    assert group is not None
    _sync_module_states(module, group, 250 * 1024 * 1024, 0, [], True)


class RoundStrategy(DDPStrategy):
    """DDP that broadcasts once and never reduces gradients: ranks work on their own share and combine in rounds."""

    def configure_ddp(self) -> None:
        """Make the ranks start equal."""
        broadcast_only(self)


if "fed_ddp" not in StrategyRegistry:
    StrategyRegistry.register("fed_ddp", RoundStrategy, description="ranks combine in rounds, no gradient reduction")
