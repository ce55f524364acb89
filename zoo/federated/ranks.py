"""Rules over the processes of a Lightning strategy: gloo on CPU, NCCL on GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from zoo.base.ranks import gather, has_group, rank, world_size
from zoo.errors import BadInput
from zoo.federated.rules.updates import LOCAL, Comm

__all__ = ["RanksComm", "comm_of_run"]


class RanksComm:
    """`Comm` over the default process group of torch.distributed.

    Tensors travel on the device that the backend needs, and come back where they were.

    Raises:
        BadInput: if no process group was initialised.
    """

    def __init__(self) -> None:
        if not has_group():
            raise BadInput("RanksComm needs an initialised process group; use LOCAL in a single process.")
        self.rank, self.size = rank(), world_size()
        on_gpu = dist.get_backend() == "nccl"
        self.device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")

    def gather(self, value: Any) -> list[Any]:
        """A small plain value of every process, in the order of ranks."""
        return gather(value)

    def _reduce(self, value: Tensor, operation: Any) -> Tensor:
        sent = value.detach().to(self.device, copy=True).contiguous()
        dist.all_reduce(sent, operation)
        return sent.to(value.device)

    def sum(self, value: Tensor) -> Tensor:
        """Sum over the processes."""
        return self._reduce(value, dist.ReduceOp.SUM)

    def minimum(self, value: Tensor) -> Tensor:
        """Element-wise minimum over the processes."""
        return self._reduce(value, dist.ReduceOp.MIN)

    def maximum(self, value: Tensor) -> Tensor:
        """Element-wise maximum over the processes."""
        return self._reduce(value, dist.ReduceOp.MAX)

    def _width(self, width: int) -> int:
        return -(-width // self.size)

    def span(self, width: int) -> slice:
        """The columns of this process: an equal share, less or none for the last ones."""
        each = self._width(width)
        return slice(min(width, self.rank * each), min(width, (self.rank + 1) * each))

    def columns(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        """Each process sends every other one its columns: (K, C') of `span`, rows in the order of ranks."""
        each, width = self._width(rows.shape[1]), rows.shape[1]
        padded = torch.zeros(len(rows), each * self.size, dtype=rows.dtype)
        padded[:, :width] = rows
        sent = padded.reshape(len(rows), self.size, each).transpose(0, 1).contiguous().to(self.device)
        received = torch.empty(sum(counts), each, dtype=rows.dtype, device=self.device)
        dist.all_to_all_single(
            received, sent.reshape(len(rows) * self.size, each), list(counts), [len(rows)] * self.size
        )
        own = self.span(width)
        return received.to(rows.device)[:, : own.stop - own.start]

    def join(self, part: Tensor, width: int) -> Tensor:
        """(n, C') of each process side by side: (n, C), on all of them."""
        each = self._width(width)
        sent = torch.zeros(len(part), each, dtype=part.dtype)
        sent[:, : part.shape[1]] = part
        sent = sent.to(self.device)
        received = [torch.empty_like(sent) for _ in range(self.size)]
        dist.all_gather(received, sent)
        return torch.cat(received, 1)[:, :width].to(part.device)


def comm_of_run() -> Comm:
    """`RanksComm` where torch.distributed runs with several processes, else `LOCAL`."""
    return RanksComm() if world_size() > 1 else LOCAL
