"""The aggregation rule of EWWA-FL, equations (1) to (6) of `zoo.methods.ewwa_fl`, and what a round needs around them.

Rows are clients, columns are elements. `EWWA.combine` is (6), `_walk` (1), `_own` and `_shared` (2) to (4), `_shares`
(5); the rest keeps moments over rounds in which clients are away, and reports shares.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.federated.rules import (
    Block,
    Chunk,
    Cohort,
    RoundContext,
    Rule,
    StateDict,
    register_preset,
    register_rule,
)
from zoo.federated.rules.options import above, at_least, one_of, share

__all__ = ["EWWA"]


@dataclass
class _Clock:
    """How old the moments of a client are.

    Attributes:
        steps: rounds they have seen with the current one, t + 1 in s_t.
        keep_m: factor of m for the rounds that the client missed.
        keep_v: factor of v for these rounds.
    """

    steps: int
    keep_m: float
    keep_v: float


@dataclass
class _Piece:
    """A chunk in the columns C' of this process.

    Attributes:
        block: of the chunk; its K members are the rows.
        chunk: the columns of all processes.
        span: those of this process.
        owners: prefixes, in the rule's state, of the moments: one per client, or one for all.
        rows: w_i, float64 (K, C').
        u: normalised steps (K, C').
        m: new first moments (K, C'), or (1, C') if clients share them.
        v: new second moments, of the same shape.
        still: (C',), whether no client moved the element.
    """

    block: Block
    chunk: Chunk
    span: slice
    owners: list[str]
    rows: Tensor
    u: Tensor
    m: Tensor
    v: Tensor
    still: Tensor


@register_rule("ewwa")
class EWWA(Rule):
    """Shares per element that follow each client's normalised step.

    Args:
        optimiser: "adam", "adagrad" or "yogi", for v.
        normaliser: "softmax" (the paper) or "log" (the authors' code).
        moments: "per-client", or "shared": one m and v, updated by one client after the other, as in the authors' code;
            shares then depend on the order of the clients.
        sign: "signed" (as published: clients that lower a weight get the larger share, which pulls the result below the
            mean) or "magnitude" (|u|).
        minimum: u_min over all entries ("global"), or of each entry by itself ("entry"): one extreme value then cannot
            flatten the shares of all others.
        prior: "uniform", or "examples": shares are multiplied by the number of samples.
        missed: what rounds without a client do to its moments: "age" (they count as rounds with g = 0) or "keep".
        reset_after: a client that missed so many rounds in a row starts with new moments; 0: never.
        noise: elements with |g| below it did not move: their g is 0, and where no client moved, shares are 1/K.
        shares: "computed", or "random": drawn from a Dirichlet distribution with, for each entry and round, the spread
            of the computed ones. A control: what remains of a gain with it is not due to whom the weights go to.
        beta1: b1.
        beta2: b2.
        eps: eps.
        options: of `Rule`.

    Metrics: `share/<client>/<entry>`, the mean share, and `spread/<entry>`, the standard deviation of the shares.
    """

    name = "ewwa"

    def __init__(
        self,
        *,
        optimiser: str = "adam",
        normaliser: str = "softmax",
        moments: str = "per-client",
        sign: str = "signed",
        minimum: str = "global",
        prior: str = "uniform",
        missed: str = "age",
        reset_after: int = 10,
        noise: float = 1e-12,
        shares: str = "computed",
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.optimiser = one_of("optimiser", optimiser, "adam", "adagrad", "yogi")
        self.normaliser = one_of("normaliser", normaliser, "softmax", "log")
        self.moments = one_of("moments", moments, "per-client", "shared")
        self.sign = one_of("sign", sign, "signed", "magnitude")
        self.minimum = one_of("minimum", minimum, "global", "entry")
        self.prior = one_of("prior", prior, "uniform", "examples")
        self.missed = one_of("missed", missed, "age", "keep")
        self.reset_after = at_least("reset_after", reset_after, 0)
        self.noise = above("noise", noise, -1e-300)
        self.shares = one_of("shares", shares, "computed", "random")
        self.beta1, self.beta2, self.eps = share("beta1", beta1), share("beta2", beta2), above("eps", eps, 0)
        self.draws = shares == "random"
        self.order_sensitive = moments == "shared" or self.draws
        self.couples_blocks = normaliser == "log" and minimum == "global"

    def combine(
        self, global_sd: Mapping[str, Tensor], cohort: Cohort, ctx: RoundContext, state: dict[str, Any]
    ) -> tuple[StateDict, dict[str, float]]:
        """(6): w_{t+1} = sum_i p_i w_i, after a survey of all elements where the shares need one."""
        clocks = self._clocks(cohort, ctx, state)
        keys = [key for block in cohort.blocks for key in block.keys]

        def walk() -> Iterator[_Piece]:
            return self._walk(global_sd, cohort, state, clocks)

        lows = self._lows(walk(), cohort, keys) if self.normaliser == "log" else {}
        shares: Callable[[_Piece], Tensor] = partial(self._shares, cohort=cohort, lows=lows)
        if self.draws:
            shares = partial(_random_shares, ctx=ctx, variances=_survey(walk(), shares, cohort, keys))
        new, report = _Results(global_sd, cohort, self._owners), _Report(cohort, keys)
        for piece in walk():
            p = shares(piece)
            report.add(piece, p)
            new.write(piece, (p * piece.rows).sum(0, keepdim=True))
        state |= new.moments_by_name()
        return new.model, report.metrics()

    # Steps --------------------------------------------------------------------------------------------------------

    def _walk(
        self, global_sd: Mapping[str, Tensor], cohort: Cohort, state: Mapping[str, Any], clocks: list[_Clock]
    ) -> Iterator[_Piece]:
        """(1): g_i = w_t - w_i, chunk by chunk, and what follows from it; reads the former moments from the state."""
        for block in cohort.blocks:
            owners, members = self._owners(cohort, block), [clocks[i] for i in block.members]
            for chunk in block.chunks:
                span = cohort.comm.span(chunk.width)
                rows = cohort.columns(block, chunk)
                g = chunk.read(global_sd)[span].to(torch.float64) - rows
                g = torch.where(g.abs() < self.noise, 0.0, g)
                m, v = (_former(state, moment, owners, chunk, span) for moment in "mv")
                u, m, v = self._shared(g, m, v, members) if self.moments == "shared" else self._own(g, m, v, members)
                yield _Piece(block, chunk, span, owners, rows, u, m, v, (g == 0).all(0))

    def _own(self, g: Tensor, m: Tensor, v: Tensor, clocks: list[_Clock]) -> tuple[Tensor, Tensor, Tensor]:
        """(2) to (4) with moments (K, C') of each client."""
        keep = torch.tensor([[clock.keep_m, clock.keep_v] for clock in clocks], dtype=torch.float64)
        m = self.beta1 * (m * keep[:, :1]) + (1 - self.beta1) * g
        v = self._second(v * keep[:, 1:], g)
        scale = torch.tensor([[self._scale(clock)] for clock in clocks], dtype=torch.float64)
        return scale * m / (v.sqrt() + self.eps), m, v

    def _shared(self, g: Tensor, m: Tensor, v: Tensor, clocks: list[_Clock]) -> tuple[Tensor, Tensor, Tensor]:
        """(2) to (4) with moments (1, C') that the clients update one after the other."""
        steps = []
        for row, clock in zip(g, clocks, strict=True):
            m = self.beta1 * m + (1 - self.beta1) * row
            v = self._second(v, row)
            steps.append(self._scale(clock) * m / (v.sqrt() + self.eps))
        return torch.cat(steps), m, v

    def _second(self, v: Tensor, g: Tensor) -> Tensor:
        """(3)."""
        square = g.square()
        if self.optimiser == "adam":
            return v * self.beta2 + square * (1 - self.beta2)
        if self.optimiser == "adagrad":
            return v + square
        return v - (1 - self.beta2) * square * (v - square).sign()

    def _scale(self, clock: _Clock) -> float:
        """s_t of (4)."""
        return float((1 - self.beta2**clock.steps) ** 0.5 / (1 - self.beta1**clock.steps))

    # Shares -------------------------------------------------------------------------------------------------------

    def _shares(self, piece: _Piece, cohort: Cohort, lows: Mapping[str, float]) -> Tensor:
        """(5): p (K, C'), whose columns sum to 1; `lows` holds u_min of each entry."""
        u = self._signed(piece.u)
        if self.normaliser == "softmax":
            p = u.softmax(0)
        else:
            low = torch.empty(u.shape[1], dtype=torch.float64)
            for key, first, end in piece.chunk.places(piece.span):
                low[first:end] = lows[key]
            c = (u - low).log1p() + 1e-8
            p = c / c.sum(0)
        p = torch.where(piece.still, 1 / len(p), p)
        if self.prior == "examples":
            p = p * torch.tensor([[cohort.examples[i]] for i in piece.block.members], dtype=torch.float64)
            p = p / p.sum(0)
        return p

    def _signed(self, u: Tensor) -> Tensor:
        return u.abs() if self.sign == "magnitude" else u

    def _lows(self, pieces: Iterable[_Piece], cohort: Cohort, keys: list[str]) -> dict[str, float]:
        """u_min of each entry, or the one of all."""
        lowest = dict.fromkeys(keys, float("inf"))
        for piece in pieces:
            least = self._signed(piece.u).amin(0)
            for key, first, end in piece.chunk.places(piece.span):
                lowest[key] = min(lowest[key], float(least[first:end].min()))
        lows = cohort.comm.minimum(torch.tensor([lowest[key] for key in keys], dtype=torch.float64))
        if self.minimum == "global":
            lows = lows.min().expand(len(keys))
        return dict(zip(keys, lows.tolist(), strict=True))

    # Moments over rounds ------------------------------------------------------------------------------------------

    def _owners(self, cohort: Cohort, block: Block) -> list[str]:
        """Prefixes, in the state, of the moments that a block updates."""
        return [""] if self.moments == "shared" else [f"{cohort.ids[i]}/" for i in block.members]

    def _clocks(self, cohort: Cohort, ctx: RoundContext, state: dict[str, Any]) -> list[_Clock]:
        """The clock of each client, equal ones if moments are shared; the state gets the new times."""
        if self.moments == "shared":
            state["steps"] = int(state.get("steps", 0)) + 1
            return [_Clock(state["steps"], 1.0, 1.0) for _ in cohort.headers]
        clocks = []
        for client in cohort.ids:
            steps, seen = int(state.get(f"steps/{client}", 0)), int(state.get(f"seen/{client}", ctx.round - 1))
            away = max(0, ctx.round - seen - 1)
            if steps and self.reset_after and away >= self.reset_after:
                steps, keep_m, keep_v = 0, 0.0, 0.0
            else:
                aged = away if self.missed == "age" else 0
                steps, keep_m = steps + aged, self.beta1**aged
                keep_v = self.beta2**aged if self.optimiser == "adam" else 1.0
            state[f"steps/{client}"], state[f"seen/{client}"] = steps + 1, ctx.round
            clocks.append(_Clock(steps + 1, keep_m, keep_v))
        return clocks


def _former(state: Mapping[str, Any], moment: str, owners: list[str], chunk: Chunk, span: slice) -> Tensor:
    """Moments (K or 1, C') of a chunk before the round; 0 where there are none yet."""
    moments = torch.zeros(len(owners), chunk.width, dtype=torch.float64)
    for row, owner in zip(moments, owners, strict=True):
        start = 0
        for key, first, end in chunk.pieces:
            if (value := state.get(f"{moment}/{owner}{key}")) is not None:
                row[start : start + end - first] = value.reshape(-1)[first:end]
            start += end - first
    return moments[:, span]


class _Results:
    """The new global model and the new moments, put together chunk by chunk on all processes."""

    def __init__(
        self, global_sd: Mapping[str, Tensor], cohort: Cohort, owners: Callable[[Cohort, Block], list[str]]
    ) -> None:
        self.comm = cohort.comm
        self.model: dict[str, Tensor] = {}
        self.moments: dict[tuple[str, str], dict[str, Tensor]] = {}
        for block in cohort.blocks:
            self.model |= cohort.empty(global_sd, block.keys)
            for owner in owners(cohort, block):
                for moment in "mv":
                    self.moments.setdefault((moment, owner), {}).update(cohort.empty(global_sd, block.keys))

    def write(self, piece: _Piece, combined: Tensor) -> None:
        """Write the new weights (1, C') and the new moments of a chunk."""
        whole = self.comm.join(torch.cat([combined, piece.m, piece.v]), piece.chunk.width)
        piece.chunk.write(self.model, whole[0])
        for moment, rows in zip("mv", whole[1:].chunk(2), strict=True):
            for owner, row in zip(piece.owners, rows, strict=True):
                piece.chunk.write(self.moments[moment, owner], row)

    def moments_by_name(self) -> dict[str, Tensor]:
        """Moments as the rule's state names them: `m/<client>/<entry>`, without the client if they are shared."""
        return {f"{m}/{owner}{key}": value for (m, owner), row in self.moments.items() for key, value in row.items()}


# What becomes of shares -----------------------------------------------------------------------------------------------


class _Report:
    """Mean and variance of the shares of each entry, over all processes."""

    def __init__(self, cohort: Cohort, keys: list[str]) -> None:
        self.cohort, self.keys = cohort, keys
        self.rows = {key: row for row, key in enumerate(keys)}
        self.members = {key: block.members for block in cohort.blocks for key in block.keys}
        self.sums = torch.zeros(len(keys), len(cohort.headers) + 2, dtype=torch.float64)

    def add(self, piece: _Piece, p: Tensor) -> None:
        """Add the shares (K, C') of a chunk."""
        members = list(piece.block.members)
        for key, first, end in piece.chunk.places(piece.span):
            part = p[:, first:end]
            row = self.sums[self.rows[key]]
            row[members] += part.sum(1)
            row[-2] += (part - 1 / len(members)).square().sum()
            row[-1] += part.numel()

    def _totals(self) -> list[list[float]]:
        return self.cohort.comm.sum(self.sums).tolist()

    def variances(self) -> dict[str, float]:
        """Variance of the shares of each entry around 1/K."""
        return {key: row[-2] / max(row[-1], 1) for key, row in zip(self.keys, self._totals(), strict=True)}

    def metrics(self) -> dict[str, float]:
        """`share/<client>/<entry>` and `spread/<entry>`."""
        metrics: dict[str, float] = {}
        for key, row in zip(self.keys, self._totals(), strict=True):
            members = self.members[key]
            columns = row[-1] / len(members)
            if columns:
                metrics |= {f"share/{self.cohort.ids[i]}/{key}": row[i] / columns for i in members}
                metrics[f"spread/{key}"] = (row[-2] / row[-1]) ** 0.5
        return metrics


def _survey(
    pieces: Iterable[_Piece], shares: Callable[[_Piece], Tensor], cohort: Cohort, keys: list[str]
) -> dict[str, float]:
    """How far the computed shares of each entry spread: their variance."""
    report = _Report(cohort, keys)
    for piece in pieces:
        report.add(piece, shares(piece))
    return report.variances()


def _random_shares(piece: _Piece, ctx: RoundContext, variances: Mapping[str, float]) -> Tensor:
    """Dirichlet shares (K, C') whose variance per entry is given; the same wherever the columns live."""
    count, chunk = len(piece.rows), piece.chunk
    alpha = np.full(chunk.width, np.inf)
    for key, first, end in chunk.places():
        if variances[key] > 1e-12 and count > 1:
            # the variance of a share of a symmetric Dirichlet distribution is (K - 1) / (K^2 (K alpha + 1))
            alpha[first:end] = max(((count - 1) / (count**2 * variances[key]) - 1) / count, 0.05)
    first_key, offset, _ = chunk.pieces[0]
    generator = np.random.default_rng([ctx.seed % 2**63, ctx.round, zlib.crc32(first_key.encode()), offset])
    drawn = generator.standard_gamma(np.where(np.isinf(alpha), 1.0, alpha), (count, chunk.width)) + 1e-300
    drawn[:, np.isinf(alpha)] = 1.0
    return torch.from_numpy(drawn / drawn.sum(0))[:, piece.span]


for _optimiser in ("adam", "adagrad", "yogi"):
    register_preset(f"ewwa-{_optimiser}", EWWA, optimiser=_optimiser)
register_preset("ewwa-official", EWWA, normaliser="log", moments="shared", sign="signed", noise=0.0)
register_preset("random-shares", EWWA, shares="random")
