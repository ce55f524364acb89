"""Element-wise weights aggregation (Hu, Ren, Hu, Deng and Xie, ICDM Workshops 2023, arXiv 2404.15919).

Per element, for clients i = 1..K whose weights came back as w_i:

    g_i = w_t - w_i                                              pseudo-gradient
    m   = b1 m + (1 - b1) g_i                                    moments, per client or shared
    v   = b2 v + (1 - b2) g_i^2                                  adam
          v + g_i^2                                              adagrad
          v - (1 - b2) g_i^2 sign(v - g_i^2)                     yogi
    u_i = s_t m / (sqrt(v) + eps),  s_t = sqrt(1 - b2^(t+1)) / (1 - b1^(t+1)), t from 0
    p_i = exp(u_i) / sum_j exp(u_j)                              the paper's text
          c_i / sum_j c_j,  c_i = log(u_i - u_min + 1) + 1e-8    the authors' code; u_min over all clients and entries
    w_{t+1} = sum_i p_i w_i
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.federated._rules_base import Rule, register_preset, register_rule
from zoo.federated._rules_cohort import Block, Chunk, Cohort
from zoo.federated._rules_columns import at_least
from zoo.federated._rules_mean import above, one_of, share
from zoo.federated._rules_updates import RoundContext, StateDict

__all__ = ["EWWA"]


@dataclass
class _Clock:
    """How a client's moments have aged: rounds they have seen, and the factors of what came before."""

    steps: int
    keep_m: float
    keep_v: float


@dataclass
class _Piece:
    """A chunk in the columns of this process: rows (K, C'), steps u (K, C'), new moments (K or 1, C')."""

    block: Block
    chunk: Chunk
    span: slice
    rows: Tensor
    u: Tensor
    m: Tensor
    v: Tensor
    still: Tensor
    """(C',), no client moved these."""


@register_rule("ewwa")
class EWWA(Rule):
    """Shares per element that follow each client's normalised step; the equations are at the top of this file.

    Args:
        optimiser: "adam", "adagrad" or "yogi", for v.
        normaliser: "softmax" (the paper) or "log" (the authors' code).
        moments: "per-client", or "shared": one m and v, updated by one client after the other, as in the authors' code;
            shares then depend on the order of the clients.
        sign: "signed" (as published: who lowers a weight gets the larger share, which pulls the result below the mean)
            or "magnitude" (|u|).
        minimum: u_min over all entries ("global"), or of each entry by itself ("entry"): one extreme value then cannot
            flatten the shares of all others.
        prior: "uniform", or "examples": shares are multiplied by the number of samples.
        missed: what rounds without a client do to its moments: "age" (they count as rounds with g = 0) or "keep".
        reset_after: a client that missed so many rounds in a row starts anew; 0: never.
        noise: elements with |g| below it did not move: their g is 0, and where nobody moved, shares are 1/K.
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
        self.order_sensitive = moments == "shared"

    def combine(
        self, global_sd: Mapping[str, Tensor], cohort: Cohort, ctx: RoundContext, state: dict[str, Any]
    ) -> tuple[StateDict, dict[str, float]]:
        """Survey what all elements share (u_min, the spread of random shares), then compute each chunk."""
        clocks = self._clocks(cohort, ctx, state)
        keys = [key for block in cohort.blocks for key in block.keys]
        lows = self._lows(global_sd, cohort, state, clocks, keys) if self.normaliser == "log" else {}
        report = _Report(cohort, keys)
        spreads: dict[str, float] = {}
        if self.shares == "random":
            for piece in self._walk(global_sd, cohort, state, clocks):
                report.add(piece, self._shares(piece, cohort, lows))
            spreads, report = report.variances(), _Report(cohort, keys)
        new, moments = cohort.empty(global_sd, keys), self._new_moments(global_sd, cohort)
        for piece in self._walk(global_sd, cohort, state, clocks):
            if self.shares == "random":
                p = _random_shares(piece, ctx, spreads)
            else:
                p = self._shares(piece, cohort, lows)
            report.add(piece, p)
            result = torch.cat([(p * piece.rows).sum(0, keepdim=True), piece.m, piece.v])
            whole = cohort.comm.join(result, piece.chunk.width)
            piece.chunk.write(new, whole[0])
            owners = self._owners(cohort, piece.block)
            for moment, rows in zip("mv", whole[1:].chunk(2), strict=True):
                for owner, row in zip(owners, rows, strict=True):
                    piece.chunk.write(moments[moment, owner], row)
        for (moment, owner), entries in moments.items():
            state |= {f"{moment}/{owner}{key}": value for key, value in entries.items()}
        return new, report.metrics()

    # Moments ------------------------------------------------------------------------------------------------------

    def _owners(self, cohort: Cohort, block: Block) -> list[str]:
        """Prefixes, in the state, of the moments that a block updates."""
        return [""] if self.moments == "shared" else [f"{cohort.ids[i]}/" for i in block.members]

    def _new_moments(self, global_sd: Mapping[str, Tensor], cohort: Cohort) -> dict[tuple[str, str], dict[str, Tensor]]:
        found: dict[tuple[str, str], dict[str, Tensor]] = {}
        for block in cohort.blocks:
            for owner in self._owners(cohort, block):
                for moment in "mv":
                    found.setdefault((moment, owner), {}).update(cohort.empty(global_sd, block.keys))
        return found

    def _clocks(self, cohort: Cohort, ctx: RoundContext, state: dict[str, Any]) -> list[_Clock]:
        """The clock of each client (one for all, if moments are shared); the state gets the new times."""
        if self.moments == "shared":
            state["steps"] = int(state.get("steps", 0)) + 1
            return [_Clock(state["steps"], 1.0, 1.0) for _ in cohort.headers]
        found = []
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
            found.append(_Clock(steps + 1, keep_m, keep_v))
        return found

    def _second(self, v: Tensor, g: Tensor) -> Tensor:
        square = g.square()
        if self.optimiser == "adam":
            return v * self.beta2 + square * (1 - self.beta2)
        if self.optimiser == "adagrad":
            return v + square
        return v - (1 - self.beta2) * square * (v - square).sign()

    def _walk(
        self, global_sd: Mapping[str, Tensor], cohort: Cohort, state: Mapping[str, Any], clocks: list[_Clock]
    ) -> Iterator[_Piece]:
        """Steps and new moments, chunk by chunk; the former moments are read from the state, which stays as it is."""
        for block in cohort.blocks:
            owners = self._owners(cohort, block)
            mine = [clocks[i] for i in block.members]
            for chunk in block.chunks:
                span = cohort.comm.span(chunk.width)
                rows = cohort.columns(block, chunk)
                g = chunk.read(global_sd)[span].to(torch.float64) - rows
                g = torch.where(g.abs() < self.noise, 0.0, g)
                m, v = (_old(state, moment, owners, chunk, span) for moment in "mv")
                u, m, v = self._shared(g, m, v, mine) if self.moments == "shared" else self._own(g, m, v, mine)
                yield _Piece(block, chunk, span, rows, u, m, v, (g == 0).all(0))

    def _own(self, g: Tensor, m: Tensor, v: Tensor, clocks: list[_Clock]) -> tuple[Tensor, Tensor, Tensor]:
        keep = torch.tensor([[clock.keep_m, clock.keep_v] for clock in clocks], dtype=torch.float64)
        m = self.beta1 * (m * keep[:, :1]) + (1 - self.beta1) * g
        v = self._second(v * keep[:, 1:], g)
        scale = torch.tensor([[self._scale(clock)] for clock in clocks], dtype=torch.float64)
        return scale * m / (v.sqrt() + self.eps), m, v

    def _shared(self, g: Tensor, m: Tensor, v: Tensor, clocks: list[_Clock]) -> tuple[Tensor, Tensor, Tensor]:
        found = []
        for row, clock in zip(g, clocks, strict=True):
            m = self.beta1 * m + (1 - self.beta1) * row
            v = self._second(v, row)
            found.append(self._scale(clock) * m / (v.sqrt() + self.eps))
        return torch.cat(found), m, v

    def _scale(self, clock: _Clock) -> float:
        return float((1 - self.beta2**clock.steps) ** 0.5 / (1 - self.beta1**clock.steps))

    # Shares -------------------------------------------------------------------------------------------------------

    def _signed(self, u: Tensor) -> Tensor:
        return u.abs() if self.sign == "magnitude" else u

    def _lows(
        self,
        global_sd: Mapping[str, Tensor],
        cohort: Cohort,
        state: Mapping[str, Any],
        clocks: list[_Clock],
        keys: list[str],
    ) -> dict[str, float]:
        """u_min of each entry, or the one of all."""
        found = dict.fromkeys(keys, float("inf"))
        for piece in self._walk(global_sd, cohort, state, clocks):
            least = self._signed(piece.u).amin(0)
            for key, first, end in piece.chunk.places(piece.span):
                found[key] = min(found[key], float(least[first:end].min()))
        lows = cohort.comm.minimum(torch.tensor([found[key] for key in keys], dtype=torch.float64))
        if self.minimum == "global":
            lows = lows.min().expand(len(keys))
        return dict(zip(keys, lows.tolist(), strict=True))

    def _shares(self, piece: _Piece, cohort: Cohort, lows: Mapping[str, float]) -> Tensor:
        """P (K, C'), columns sum to 1."""
        u = self._signed(piece.u)
        if self.normaliser == "softmax":
            p = u.softmax(0)
        else:
            places = piece.chunk.places(piece.span)
            low = torch.empty(u.shape[1], dtype=torch.float64)
            for key, first, end in places:
                low[first:end] = lows[key]
            c = (u - low).log1p() + 1e-8
            p = c / c.sum(0)
        p = torch.where(piece.still, 1 / len(p), p)
        if self.prior == "examples":
            p = p * torch.tensor([[cohort.examples[i]] for i in piece.block.members], dtype=torch.float64)
            p = p / p.sum(0)
        return p


class _Report:
    """Mean and variance of the shares of each entry, over all processes."""

    def __init__(self, cohort: Cohort, keys: list[str]) -> None:
        self.cohort, self.keys = cohort, keys
        self.rows = {key: row for row, key in enumerate(keys)}
        self.members = {key: block.members for block in cohort.blocks for key in block.keys}
        self.sums = torch.zeros(len(keys), len(cohort.headers) + 2, dtype=torch.float64)

    def add(self, piece: _Piece, p: Tensor) -> None:
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
        """Of the shares around 1/K."""
        return {key: row[-2] / max(row[-1], 1) for key, row in zip(self.keys, self._totals(), strict=True)}

    def metrics(self) -> dict[str, float]:
        """`share/<client>/<entry>` and `spread/<entry>`."""
        found: dict[str, float] = {}
        for key, row in zip(self.keys, self._totals(), strict=True):
            members = self.members[key]
            columns = row[-1] / len(members)
            if columns:
                found |= {f"share/{self.cohort.ids[i]}/{key}": row[i] / columns for i in members}
                found[f"spread/{key}"] = (row[-2] / row[-1]) ** 0.5
        return found


def _old(state: Mapping[str, Any], moment: str, owners: list[str], chunk: Chunk, span: slice) -> Tensor:
    """Former moments (K or 1, C') of a chunk; 0 where there are none yet."""
    found = torch.zeros(len(owners), chunk.width, dtype=torch.float64)
    for row, owner in zip(found, owners, strict=True):
        start = 0
        for key, first, end in chunk.pieces:
            if (value := state.get(f"{moment}/{owner}{key}")) is not None:
                row[start : start + end - first] = value.reshape(-1)[first:end]
            start += end - first
    return found[:, span]


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
