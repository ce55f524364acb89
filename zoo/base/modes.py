"""Training and evaluation mode of a module: which parts stay frozen, and how training starts."""

from __future__ import annotations

from torch import nn

__all__ = ["train_as_a_whole"]


def train_as_a_whole(module: nn.Module) -> None:
    """Put a module that is in evaluation mode as a whole, as loading leaves it, into training mode.

    Lightning leaves modes as they are, and batch statistics and dropout would rest through the whole training. Within
    a module that is in training mode already, the parts in evaluation mode are the user's choice and stay so.
    """
    if not module.training:
        module.train()
