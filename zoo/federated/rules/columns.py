"""Rules that treat each coordinate on its own: median, trimmed mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from zoo.errors import BadInput
from zoo.federated.rules.base import Rule, register_rule
from zoo.federated.rules.cohort import Chunk, Cohort
from zoo.federated.rules.options import at_least
from zoo.federated.rules.updates import RoundContext, StateDict

__all__ = ["ColumnRule", "Median", "TrimmedMean"]


class ColumnRule(Rule):
    """A function of the sorted values of each coordinate.

    Args:
        options: of `Rule`.
    """

    def reduce(self, ordered: Tensor) -> Tensor:
        """(K, C) sorted along the clients to (C,), float64."""
        raise NotImplementedError(f"{type(self).__name__} must implement reduce()")

    def combine(
        self, global_sd: Mapping[str, Tensor], cohort: Cohort, ctx: RoundContext, state: dict[str, Any]
    ) -> tuple[StateDict, dict[str, float]]:
        """Sort and reduce, chunk by chunk."""

        def middle(values: Tensor, chunk: Chunk) -> Tensor:
            return self.reduce(sort_rows(values))

        new: StateDict = {}
        for block in cohort.blocks:
            new |= cohort.by_columns(global_sd, block, middle)
        return new, {}


@register_rule("median")
class Median(ColumnRule):
    """The median of each coordinate (Yin et al. 2018); between the middle two where the number of clients is even."""

    name: ClassVar[str] = "median"

    def reduce(self, ordered: Tensor) -> Tensor:
        """The middle."""
        return middle_of(ordered)


@register_rule("trimmed-mean")
class TrimmedMean(ColumnRule):
    """The mean of each coordinate without its greatest and least values (Yin et al. 2018).

    Args:
        trim: values to leave out on each side: a number of clients (int), or a share of them (float in [0, 0.5),
            rounded down).
        options: of `Rule`.
    """

    name: ClassVar[str] = "trimmed-mean"

    def __init__(self, *, trim: int | float = 1, **options: Any) -> None:
        super().__init__(**options)
        if isinstance(trim, float) and not trim.is_integer():
            if not 0 <= trim < 0.5:
                raise BadInput(f"trim must be a number of clients, or a share from 0 to below 0.5, got {trim!r}.")
            self.trim: int | float = trim
        else:
            self.trim = at_least("trim", trim, 0)

    def cut(self, clients: int) -> int:
        """Values left out on each side."""
        return self.trim if isinstance(self.trim, int) else int(self.trim * clients)

    def check(self, clients: int) -> None:
        """More clients than values left out.

        Raises:
            BadInput: if not.
        """
        if 2 * self.cut(clients) >= clients:
            raise BadInput(
                f"trimmed-mean leaves out {self.trim} clients on each side, and only {clients} sent an update; lower "
                "trim or let more clients take part."
            )

    def reduce(self, ordered: Tensor) -> Tensor:
        """The mean of the inner values."""
        cut = self.cut(len(ordered))
        return ordered[cut : len(ordered) - cut].mean(0)


def sort_rows(values: Tensor) -> Tensor:
    """Sort (K, C) along the first axis, by a network of exchanges (Batcher's odd-even merge sort).

    Each exchange works on whole rows, which for the few clients of a round is far faster than sorting each column.
    """
    rows = list(values.unbind(0))
    for low, high in _network(len(rows)):
        rows[low], rows[high] = torch.minimum(rows[low], rows[high]), torch.maximum(rows[low], rows[high])
    return torch.stack(rows)


def _network(count: int) -> list[tuple[int, int]]:
    exchanges = []
    size = 1
    while size < count:
        step = size
        while step >= 1:
            for first in range(step % size, count - step, 2 * step):
                for low in range(first, min(first + step, count - step)):
                    if low // (2 * size) == (low + step) // (2 * size):
                        exchanges.append((low, low + step))
            step //= 2
        size *= 2
    return exchanges


def middle_of(ordered: Tensor) -> Tensor:
    """Median (C,) of sorted rows (K, C)."""
    count = len(ordered)
    return ordered[count // 2] if count % 2 else (ordered[count // 2 - 1] + ordered[count // 2]) / 2


def closest_mean(values: Tensor, count: int) -> Tensor:
    """Mean of the `count` values of each column (K, C) that are closest to its median.

    In sorted order these are neighbours, so that the best of the K - count + 1 windows is searched.
    """
    ordered = sort_rows(values)
    middle = middle_of(ordered)
    sums = ordered[:count].sum(0)
    best, worst = sums, torch.maximum((ordered[0] - middle).abs(), (ordered[count - 1] - middle).abs())
    for first in range(1, len(ordered) - count + 1):
        sums = ordered[first : first + count].sum(0)
        farthest = torch.maximum((ordered[first] - middle).abs(), (ordered[first + count - 1] - middle).abs())
        best = torch.where(farthest < worst, sums, best)
        worst = torch.minimum(worst, farthest)
    return best / count
