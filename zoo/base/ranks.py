"""Values of all ranks; in a single process, its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch.distributed as dist
from torch import Tensor

__all__ = ["copy_first_rank", "gather", "has_group", "rank", "sum_over_ranks", "world_size"]


def has_group() -> bool:
    """Whether a process group is initialised, be it of a single rank."""
    return dist.is_available() and dist.is_initialized()


def world_size() -> int:
    """Number of ranks; 1 without a process group."""
    return dist.get_world_size() if has_group() else 1


def rank() -> int:
    """Number of this rank, from 0."""
    return dist.get_rank() if has_group() else 0


def gather(value: Any) -> list[Any]:
    """`value` of every rank, on every rank, in their order. All ranks must call it."""
    if not has_group():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def copy_first_rank(tensors: Iterable[Tensor]) -> None:
    """Give tensors the values that they have on rank 0, in place. All ranks must call it.

    Batch statistics differ between ranks until the next forward pass in training mode.
    """
    if has_group():
        for tensor in tensors:
            dist.broadcast(tensor, 0)


def sum_over_ranks(value: Tensor) -> Tensor:
    """Sum of `value` over the ranks, a new tensor where there are several. All ranks must call it."""
    if has_group():
        value = value.clone()
        dist.all_reduce(value)
    return value
