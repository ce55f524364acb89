"""The updates of one round: checked, the same order in every process, and cut into pieces that fit a cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from zoo.checks import repeated
from zoo.errors import BadInput, KeyMismatch, NotFinite, ShapeMismatch, ZooError
from zoo.federated.rules.updates import ClientUpdate, Comm

__all__ = ["Block", "Chunk", "Cohort"]

CHUNK = 1 << 14
"""Columns that are worked on at once: those of ten clients, in float64, fit a cache of 1.3 MB."""


@dataclass(frozen=True)
class Chunk:
    """Neighbouring columns of a block: pieces (key, first, end) of flattened entries, `width` in all."""

    pieces: tuple[tuple[str, int, int], ...]
    width: int

    def read(self, state: Mapping[str, Tensor]) -> Tensor:
        """These columns of a state dict, (width,), in its own type."""
        parts = [state[key].reshape(-1)[first:end] for key, first, end in self.pieces]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def write(self, state: Mapping[str, Tensor], values: Tensor) -> None:
        """Copy values (width,) into the contiguous tensors of a state dict."""
        start = 0
        for key, first, end in self.pieces:
            state[key].view(-1)[first:end].copy_(values[start : start + end - first])
            start += end - first

    def places(self, span: slice | None = None) -> list[tuple[str, int, int]]:
        """Entries and where their columns lie, relative to the start of `span` (default: the whole chunk)."""
        places, start = [], 0
        low, high = (0, self.width) if span is None else (span.start, span.stop)
        for key, first, end in self.pieces:
            left, right = max(start, low), min(start + end - first, high)
            if left < right:
                places.append((key, left - low, right - low))
            start += end - first
        return places


@dataclass(frozen=True)
class Block:
    """Floating-point entries that the same clients sent; rules treat each block on its own.

    Args:
        keys: sorted.
        members: positions, in the cohort, of the clients that sent them.
        chunks: all columns, in pieces.
    """

    keys: tuple[str, ...]
    members: tuple[int, ...]
    chunks: tuple[Chunk, ...]

    @property
    def width(self) -> int:
        """Number of columns."""
        return sum(chunk.width for chunk in self.chunks)


@dataclass(frozen=True)
class Cohort:
    """All clients of a round that can be used, sorted by id, and the updates of those in this process.

    Args:
        headers: of every client, without their states.
        own: position -> update, of the clients of this process.
        ranks: process of each client.
        blocks: the floating-point entries.
        counters: the other entries that somebody sent.
        dropped: clients left out because their update was not finite.
        comm: what the processes share.
    """

    headers: list[ClientUpdate]
    own: dict[int, ClientUpdate]
    ranks: list[int]
    blocks: list[Block]
    counters: list[str]
    dropped: list[int]
    comm: Comm

    @classmethod
    def of(
        cls,
        global_sd: Mapping[str, Tensor],
        updates: Sequence[ClientUpdate],
        comm: Comm,
        *,
        drop: bool = False,
        extras: Sequence[str] = (),
    ) -> Cohort:
        """Check the updates of all processes; what one of them finds wrong is raised in all of them.

        Raises:
            ZooError: see `Rule.__call__`.
        """
        slips = [_slip(update, global_sd, extras) for update in updates]
        slips_of_ranks = [(slip, rank) for rank, theirs in enumerate(comm.gather(slips)) for slip in theirs]
        for slip, _ in slips_of_ranks:
            if slip.problem is not None:
                raise slip.problem
        slips_of_ranks.sort(key=lambda entry: entry[0].header.client_id)
        if twice := repeated(slip.header.client_id for slip, _ in slips_of_ranks):
            raise BadInput(f"Client {twice[0]} sent more than one update in this round; clients are numbered uniquely.")
        bad = [slip for slip, _ in slips_of_ranks if slip.not_finite]
        if bad and not drop:
            raise NotFinite(
                f"The update of client {bad[0].header.client_id} is not finite: {bad[0].not_finite!r} holds NaN or "
                "infinity. Lower its learning rate or clip its gradients; non_finite='drop' goes on without it.",
                of_all_ranks=True,
            )
        kept = [(slip, rank) for slip, rank in slips_of_ranks if not slip.not_finite]
        mine = {update.client_id: update for update in updates}
        return cls(
            headers=[slip.header for slip, _ in kept],
            own={i: mine[slip.header.client_id] for i, (slip, _) in enumerate(kept) if slip.header.client_id in mine},
            ranks=[rank for _, rank in kept],
            blocks=_blocks(global_sd, [slip.keys for slip, _ in kept]),
            counters=[
                key
                for key, value in global_sd.items()
                if not value.is_floating_point() and any(slip.sent(key) for slip, _ in kept)
            ],
            dropped=[slip.header.client_id for slip in bad],
            comm=comm,
        )

    @property
    def ids(self) -> list[int]:
        """Numbers of the clients."""
        return [header.client_id for header in self.headers]

    @property
    def examples(self) -> list[int]:
        """Training samples of the clients."""
        return [header.num_examples for header in self.headers]

    def metrics(self) -> dict[str, float]:
        """How many took part, and who was dropped."""
        counts = {"clients": len(self.headers), "examples": sum(self.examples), "dropped": len(self.dropped)}
        return {k: float(v) for k, v in counts.items()} | {f"dropped/{client}": 1.0 for client in self.dropped}

    def untouched(self, global_sd: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Entries that no client sent."""
        sent = {key for block in self.blocks for key in block.keys} | set(self.counters)
        return {key: value for key, value in global_sd.items() if key not in sent}

    def integers(self, global_sd: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Integer entries: the element-wise maximum over the clients that sent them."""
        if not self.counters:
            return {}
        lowest = torch.iinfo(torch.int64).min
        own = []
        for key in self.counters:
            rows = [u.state[key].reshape(-1).to(torch.int64) for u in self.own.values() if key in u.state]
            count = global_sd[key].numel()
            own.append(torch.stack(rows).amax(0) if rows else torch.full((count,), lowest, dtype=torch.int64))
        whole, highest, start = self.comm.maximum(torch.cat(own)), {}, 0
        for key, part in zip(self.counters, own, strict=True):
            values = whole[start : start + len(part)]
            highest[key] = values.to(global_sd[key].dtype).reshape(global_sd[key].shape).clone()
            start += len(part)
        return highest

    # What rules compute with --------------------------------------------------------------------------------------

    def empty(self, global_sd: Mapping[str, Tensor], keys: Sequence[str]) -> dict[str, Tensor]:
        """Contiguous, uninitialised tensors for results."""
        return {
            key: torch.empty(global_sd[key].shape, dtype=global_sd[key].dtype, device=global_sd[key].device)
            for key in keys
        }

    def total(self, chunk: Chunk, weights: Mapping[int, float]) -> Tensor:
        """Weighted sum of a chunk over all clients, float64 (C,).

        Args:
            chunk: the columns.
            weights: position -> weight; positions that are left out, or have weight 0, are not read.
        """
        total: Tensor | None = None
        for position, update in self.own.items():
            if (weight := weights.get(position, 0.0)) == 0.0:
                continue
            row = chunk.read(update.state)
            total = row.to(torch.float64).mul_(weight) if total is None else total.add_(row, alpha=weight)
        return self.comm.sum(torch.zeros(chunk.width, dtype=torch.float64) if total is None else total)

    def columns(self, block: Block, chunk: Chunk) -> Tensor:
        """Updates (K, C') of the members of a block, in their order, in the columns of this process. Float64."""
        own = [position for position in block.members if position in self.own]
        rows = torch.empty(len(own), chunk.width, dtype=torch.float64)
        for row, position in zip(rows, own, strict=True):
            row.copy_(chunk.read(self.own[position].state))
        counts = [0] * self.comm.size
        for position in block.members:
            counts[self.ranks[position]] += 1
        gathered = self.comm.columns(rows, counts)
        if self.comm.size == 1:
            return gathered
        sent = sorted(block.members, key=lambda position: (self.ranks[position], position))
        return gathered[[sent.index(position) for position in block.members]]

    def by_columns(
        self, global_sd: Mapping[str, Tensor], block: Block, combine: Callable[[Tensor, Chunk], Tensor]
    ) -> dict[str, Tensor]:
        """Combine each chunk (K, C') to (C',), wherever its columns live; the results are in every process."""
        results = self.empty(global_sd, block.keys)
        for chunk in block.chunks:
            part = combine(self.columns(block, chunk), chunk)
            chunk.write(results, self.comm.join(part.unsqueeze(0), chunk.width)[0])
        return results


@dataclass
class _Slip:
    """What the other processes have to know of an update."""

    header: ClientUpdate
    keys: frozenset[str] | None = None
    """Entries that it holds; None: all."""
    not_finite: str | None = None
    problem: ZooError | None = None

    def sent(self, key: str) -> bool:
        return self.keys is None or key in self.keys


def _slip(update: ClientUpdate, global_sd: Mapping[str, Tensor], extras: Sequence[str]) -> _Slip:
    small = {key: update.extras[key] for key in extras if key in update.extras}
    slip = _Slip(replace(update, state={}, extras=small))
    try:
        _check(update, global_sd)
    except ZooError as error:
        slip.problem = error
        return slip
    slip.keys = None if len(update.state) == len(global_sd) else frozenset(update.state)
    slip.not_finite = next((k for k, v in update.state.items() if v.is_floating_point() and not _is_finite(v)), None)
    return slip


def _check(update: ClientUpdate, global_sd: Mapping[str, Tensor]) -> None:
    who = f"The update of client {update.client_id}"
    if isinstance(update.client_id, bool) or not isinstance(update.client_id, int) or update.client_id < 0:
        raise BadInput(f"client_id must be a whole number from 0, got {update.client_id!r}.")
    if isinstance(update.num_examples, bool) or not isinstance(update.num_examples, int) or update.num_examples < 1:
        raise BadInput(f"{who} says num_examples={update.num_examples!r}; a client without data cannot take part.")
    if unknown := [key for key in update.state if key not in global_sd]:
        raise KeyMismatch(
            f"{who} holds {unknown[0]!r} and {len(unknown) - 1} more entries that the global model lacks."
            if len(unknown) > 1
            else f"{who} holds {unknown[0]!r}, which the global model lacks."
        )
    for key, value in update.state.items():
        wanted = global_sd[key]
        if value.shape != wanted.shape:
            raise ShapeMismatch(
                f"{who}: {key!r} has shape {tuple(value.shape)}, the global model {tuple(wanted.shape)}."
            )
        if value.is_complex() or value.is_floating_point() != wanted.is_floating_point():
            raise BadInput(f"{who}: {key!r} is {value.dtype}, the global model's is {wanted.dtype}.")
        if value.device.type != "cpu":
            raise BadInput(f"{who}: {key!r} is on {value.device}; updates are in host memory (tensor.cpu()).")


def _is_finite(value: Tensor) -> bool:
    # a sum is finite only if all its terms are; it is several times faster than looking at each
    return bool(value.sum(dtype=torch.float64).isfinite()) or bool(value.isfinite().all())


def _blocks(global_sd: Mapping[str, Tensor], keys: Sequence[frozenset[str] | None]) -> list[Block]:
    groups: dict[tuple[int, ...], list[str]] = {}
    for key in sorted(key for key, value in global_sd.items() if value.is_floating_point()):
        members = tuple(i for i, sent in enumerate(keys) if sent is None or key in sent)
        if members:
            groups.setdefault(members, []).append(key)
    return [
        Block(tuple(names), members, _chunks([(name, global_sd[name].numel()) for name in names]))
        for members, names in groups.items()
    ]


def _chunks(sizes: Sequence[tuple[str, int]]) -> tuple[Chunk, ...]:
    chunks: list[Chunk] = []
    pieces: list[tuple[str, int, int]] = []
    width = 0
    for key, size in sizes:
        first = 0
        while first < size:
            end = min(size, first + CHUNK - width)
            pieces.append((key, first, end))
            width, first = width + end - first, end
            if width == CHUNK:
                chunks.append(Chunk(tuple(pieces), width))
                pieces, width = [], 0
    if pieces:
        chunks.append(Chunk(tuple(pieces), width))
    return tuple(chunks)
