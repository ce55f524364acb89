"""Names of tensors in parts that `torch.compile` has wrapped: outside of the process they are those without it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from torch import nn

__all__ = ["own_names", "plain_name", "plain_names"]

_WRAPPED = "_orig_mod."
V = TypeVar("V")


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
