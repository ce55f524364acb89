"""What clients send, what is known of a round, and how the processes of a run share it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

__all__ = ["LOCAL", "ClientUpdate", "Comm", "RoundContext", "StateDict"]

StateDict = dict[str, Tensor]
"""Detached, contiguous CPU tensors by state-dict name."""


@dataclass(frozen=True)
class ClientUpdate:
    """What a client sends after its local training.

    Args:
        client_id: number of the client, 0 or more, the same in every round.
        num_examples: training samples of the client, at least 1.
        state: only the entries that this client trained and may share; shapes as in the global model.
        metrics: numbers of the local training, such as its loss.
        extras: data of a method (validation losses, control variates, ciphertexts).
    """

    client_id: int
    num_examples: int
    state: StateDict
    metrics: dict[str, float] = field(default_factory=dict)
    extras: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RoundContext:
    """Which round it is.

    Args:
        round: from 0.
        seed: of the run; rules that draw numbers derive them from it and the round.
        cohort: clients that were asked in this round; fewer may have answered.
        total_clients: of the whole swarm.
    """

    round: int
    seed: int
    cohort: tuple[int, ...]
    total_clients: int


class Comm(Protocol):
    """How the processes of a run share what needs more than one client.

    Each process holds the updates of its own clients. All of them call the same methods in the same order.
    """

    rank: int
    size: int

    def gather(self, value: Any) -> list[Any]:
        """A small plain value of every process, in the order of ranks."""

    def sum(self, value: Tensor) -> Tensor:
        """Sum over the processes."""

    def minimum(self, value: Tensor) -> Tensor:
        """Element-wise minimum over the processes."""

    def maximum(self, value: Tensor) -> Tensor:
        """Element-wise maximum over the processes."""

    def span(self, width: int) -> slice:
        """The columns, of `width`, for which this process is responsible."""

    def columns(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        """Rows of all processes, in the order of ranks, restricted to the columns of this process.

        Args:
            rows: (k, C), k >= 0 rows of this process.
            counts: rows of each process.

        Returns:
            (K, C'), K = sum of `counts`, C' = length of `span(C)`.
        """

    def join(self, part: Tensor, width: int) -> Tensor:
        """The inverse of `columns` for results: (n, C') of each process to (n, C), C = `width`, on all of them."""


class _Local:
    rank = 0
    size = 1

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def sum(self, value: Tensor) -> Tensor:
        return value

    def minimum(self, value: Tensor) -> Tensor:
        return value

    def maximum(self, value: Tensor) -> Tensor:
        return value

    def span(self, width: int) -> slice:
        return slice(0, width)

    def columns(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        return rows

    def join(self, part: Tensor, width: int) -> Tensor:
        return part


LOCAL: Comm = _Local()
"""All clients are in this process."""
