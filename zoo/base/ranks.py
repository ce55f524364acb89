"""Values of all ranks; in a single process, its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader

__all__ = ["copy_first_rank", "gather", "has_group", "own_batches", "rank", "sum_over_ranks", "world_size"]


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


def own_batches(data: Any, collate: Callable[[Any], Any], size: int) -> Iterator[Any]:
    """This rank's share of a data set in order, without augmentation; which samples make a batch never changes.

    Args:
        data: a data set with a length.
        collate: makes a batch of what the set returns.
        size: samples per batch.
    """
    plain = getattr(data, "without_augmentation", None)
    data = data if plain is None else plain()
    chunks = [list(range(start, min(start + size, len(data)))) for start in range(0, len(data), size)]
    generator = torch.Generator().manual_seed(0)  # the loader must not draw from the global random state
    mine: Any = _Chunks(chunks[rank() :: world_size()])
    yield from DataLoader(data, batch_sampler=mine, collate_fn=collate, generator=generator)


class _Chunks:
    """Batches that are fixed beforehand."""

    def __init__(self, chunks: list[list[int]]) -> None:
        self.chunks = chunks

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.chunks)

    def __len__(self) -> int:
        return len(self.chunks)
