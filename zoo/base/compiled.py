"""Parts that `torch.compile` has wrapped: their class, and their tensors' names, which are the plain ones in files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from torch import nn

__all__ = ["own_names", "plain_name", "plain_names", "unwrapped"]

_WRAPPED = "_orig_mod."
V = TypeVar("V")


def unwrapped(network: nn.Module) -> nn.Module:
    """The network that `torch.compile` has wrapped, or the network itself: its class tells what it can do."""
    inside = getattr(network, "_orig_mod", network)
    return inside if isinstance(inside, nn.Module) else network


def plain_name(key: str) -> str:
    """The name of a tensor or module without the parts that `torch.compile` adds."""
    return key.replace(_WRAPPED, "")


def plain_names(state: Mapping[str, V]) -> Mapping[str, V]:
    """A state dict by plain names; the same object if it has these already."""
    return {plain_name(key): value for key, value in state.items()} if any(_WRAPPED in key for key in state) else state


def own_names(state: Mapping[str, V], module: nn.Module) -> Mapping[str, V]:
    """A state dict by the names that a module uses itself, whichever of the two are wrapped."""
    own = list(module.state_dict())
    if not any(_WRAPPED in key for key in (*own, *state)):
        return state
    names = {plain_name(key): key for key in own}
    return {names.get(plain_name(key), key): value for key, value in state.items()}
