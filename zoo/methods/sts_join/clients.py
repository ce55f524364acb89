"""Clients, who own raw motions, and the server, which only ever gets obfuscated ones.

A client reports its motion simplified (synchronous distance at most `tolerance`) and with every kept vertex displaced
by an independent, uniform point of a disc of `radius`. Displacements interpolate linearly, and the disc is convex, so
the report is never further than `E = tolerance + radius` from the truth, at any time. E is public and the same for all.
Then `| |A - B| - |A~ - B~| | <= 2E`, hence

    CDDS(A~, B~; delta - 2E) <= CDDS(A, B; delta) <= CDDS(A~, B~; delta + 2E).

The server drops pairs whose upper bound is below eps, accepts those whose lower bound reaches it, and asks the two
clients about the others: one gives the other its raw points inside the windows of the upper bound, directly; the other
answers with a number of seconds. Times are exact, and bounded noise is no differential privacy.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.errors import BadInput
from zoo.methods.sts_join.candidates import GUARD, JoinPlan
from zoo.methods.sts_join.index import STSIndex, make_table, tick_rate
from zoo.methods.sts_join.join import JoinResult, join
from zoo.methods.sts_join.motions import Motions, columns_of, longest_of
from zoo.methods.sts_join.stretches import Solver, StretchOrigin, merge_runs

__all__ = ["Answer", "JoinServer", "Joined", "RefineRequest", "Report", "TrajectoryClient", "clients_of", "simplify"]

WINDOW = 60.0
"""Seconds to which the borders of request windows are rounded outwards."""

_ROUNDED = 1e-6  # seconds by which the borders of an interval may be rounded, at Unix times


def simplify(motions: Motions, tolerance: float) -> Motions:
    """Leave out vertices, top-down, while the synchronous distance stays within tolerance; gaps are not bridged.

    Args:
        motions: of any number of tracks.
        tolerance: metres, at least 0; 0 leaves out only what lies on a straight, even motion.

    Returns:
        Motions whose vertices are some of the given ones, at most `tolerance` away from the given motion at any time.
    """
    points, run, owner = _vertices(motions)
    count = len(points)
    if not count:
        return motions
    number = torch.arange(count)
    kept = torch.ones(count, dtype=torch.bool)
    kept[1:-1] = (run[1:-1] != run[:-2]) | (run[1:-1] != run[2:])
    for _ in range(count):
        left = torch.where(kept, number, 0).cummax(0).values
        right = (count - 1) - torch.where(kept, count - 1 - number, 0).flip(0).cummax(0).values.flip(0)
        a, b = points[left], points[right]
        share = ((points[:, 2] - a[:, 2]) / (b[:, 2] - a[:, 2]).clamp_min(1e-300))[:, None]
        away = (points[:, :2] - torch.lerp(a[:, :2], b[:, :2], share)).norm(dim=1).masked_fill(kept, 0.0)
        worst = torch.zeros(count, dtype=torch.float64).scatter_reduce_(0, left, away, "amax")[left]
        split = (away > tolerance + 1e-9) & (away == worst)
        if not split.any():
            break
        chosen = number[split]
        first = torch.ones(len(chosen), dtype=torch.bool)
        first[1:] = left[chosen[1:]] != left[chosen[:-1]]
        kept[chosen[first]] = True
    return _motions(points[kept], run[kept], owner[kept], motions.count)


def _vertices(motions: Motions) -> tuple[Tensor, Tensor, Tensor]:
    """Points x, y, t (V, 3), runs numbered from 0, and owners."""
    segments = motions.segments
    run = torch.unique_consecutive(motions.run, return_inverse=True)[1] if len(segments) else motions.run
    total = len(segments) + (int(run[-1]) + 1 if len(run) else 0)
    points = segments.new_zeros(total, 3)
    where = torch.arange(len(segments)) + run
    points[where + 1] = segments[:, [4, 5, 1]]
    points[where] = segments[:, [2, 3, 0]]
    runs, owner = torch.zeros(total, dtype=torch.int64), torch.zeros(total, dtype=torch.int64)
    for at in (where, where + 1):
        runs[at], owner[at] = run, motions.owner
    return points, runs, owner


def _motions(points: Tensor, run: Tensor, owner: Tensor, count: int) -> Motions:
    joined = run[1:] == run[:-1]
    a, b = points[:-1][joined], points[1:][joined]
    rows = torch.cat([a[:, 2:], b[:, 2:], a[:, :2], b[:, :2]], 1)
    return Motions(rows, owner[:-1][joined], run[:-1][joined], count)


@dataclass(frozen=True)
class Report:
    """What the server gets of a motion.

    Attributes:
        number: of the client.
        motions: obfuscated, of one track, owner 0.
        error: E in metres, the same for every client of a join.
    """

    number: int
    motions: Motions
    error: float


@dataclass(frozen=True)
class RefineRequest:
    """The server's question about one pair.

    Attributes:
        query, track: numbers of the two clients.
        windows: (n, 2) seconds, rounded outwards to 60 s, outside of which they are certainly further than delta apart.
        delta: metres.
        min_run: seconds; shorter contiguous runs do not count.
    """

    query: int
    track: int
    windows: Tensor
    delta: float
    min_run: float


@dataclass(frozen=True)
class Answer:
    """Exact seconds within delta, all the server learns from a refinement."""

    query: int
    track: int
    seconds: float


class TrajectoryClient:
    """Owner of one raw motion.

    Args:
        number: by which the server knows it.
        motions: raw, of one track.
        tolerance: of the simplification, metres.
        radius: of the disc, metres.
        key: secret from which the displacements are drawn; the same key and number give the same report again, so that
            asking repeatedly averages nothing away. A fresh random one if None.
    """

    def __init__(
        self, number: int, motions: Motions, tolerance: float, radius: float, key: bytes | None = None
    ) -> None:
        for name, value in (("tolerance", tolerance), ("radius", radius)):
            if not 0 <= value < math.inf:
                raise BadInput(f"{name} must be at least 0 metres, got {value}.")
        self.number, self.tolerance, self.radius = number, float(tolerance), float(radius)
        self._raw = motions
        self._key = secrets.token_bytes(32) if key is None else key
        self._report: Report | None = None
        self.sent = 0

    @property
    def error(self) -> float:
        """E, the public bound on how far a report is from the truth, metres."""
        return self.tolerance + self.radius

    def obfuscate(self) -> Report:
        """The report; drawn once."""
        if self._report is None:
            points, run, owner = _vertices(simplify(self._raw, self.tolerance))
            if self.radius > 0:
                points[:, :2] += torch.from_numpy(self._displacements(len(points)))
            self._report = Report(self.number, _motions(points, run, owner, 1), self.error)
            self.sent += 24 * len(points)
        return self._report

    def _displacements(self, count: int) -> np.ndarray:
        seed = hmac.new(self._key, str(self.number).encode(), hashlib.sha256).digest()
        draw = np.random.default_rng(np.frombuffer(seed, dtype=np.uint32))
        angle = draw.uniform(0, 2 * np.pi, count)
        # not quite the whole disc, so that rounding cannot leave it
        distance = self.radius * np.sqrt(draw.uniform(0, 1, count)) * (1 - 1e-9)
        return np.stack([distance * np.cos(angle), distance * np.sin(angle)], 1)

    def share(self, request: RefineRequest) -> Tensor:
        """Raw segments that reach into the windows, for the other client only, (n, 6)."""
        near = self._near(request)
        self.sent += 24 * (len(near) + len(request.windows))
        return near

    def _near(self, request: RefineRequest) -> Tensor:
        rows = self._raw.segments
        return rows[((rows[:, 1:2] > request.windows[:, 0]) & (rows[:, 0:1] < request.windows[:, 1])).any(1)]

    def settle(self, request: RefineRequest, theirs: Tensor) -> Answer:
        """Seconds within delta of the other client's raw segments."""
        self.sent += 8
        return Answer(
            request.query, request.track, _close_time(self._near(request), theirs, request.delta, request.min_run)
        )


def _close_time(a: Tensor, b: Tensor, delta: float, min_run: float) -> float:
    """CDDS of two lists of segments, in seconds."""
    start, end = torch.maximum(a[:, None, 0], b[None, :, 0]), torch.minimum(a[:, None, 1], b[None, :, 1])
    i, j = (end > start).nonzero().unbind(1)
    pair = torch.zeros_like(i)
    rate = tick_rate(float((a[:, 1] - a[:, 0]).sum()))
    solver = Solver(columns_of(a), columns_of(b), max(longest_of(a), longest_of(b)), rate, JoinPlan(delta, 0.0))
    close = solver.close(solver.stretches(StretchOrigin(i, j, pair), start[i, j], end[i, j]), pair)
    if min_run <= 0:
        return float(close.upper.sum()) / rate
    used = close.upper > 0
    lengths = merge_runs(pair[used], close.start[used], close.end[used], close.upper[used])[3]
    return float(lengths[lengths >= round((min_run - GUARD) * rate)].sum()) / rate


def clients_of(
    motions: Motions, tolerance: float, radius: float, key: bytes | None = None, ids: Sequence[int] | None = None
) -> dict[int, TrajectoryClient]:
    """One client per track, by number.

    Args:
        motions: raw, of any number of tracks.
        tolerance: of the simplification, metres.
        radius: of the discs, metres.
        key: common secret; each client draws its own if None.
        ids: numbers of the tracks; 0, 1, ... if None.
    """
    order = motions.owner.argsort(stable=True)
    parts = torch.split(order, torch.bincount(motions.owner, minlength=motions.count).tolist())
    clients = {}
    for i, rows in enumerate(parts):
        one = Motions(motions.segments[rows], torch.zeros_like(rows), motions.run[rows], 1)
        number = i if ids is None else int(ids[i])
        clients[number] = TrajectoryClient(number, one, tolerance, radius, key)
    return clients


@dataclass
class Joined:
    """Result of a join between clients.

    Attributes:
        pairs: (K, 2) numbers of query and track.
        seconds: (K,); exact where refined, the lower bound where the pair was accepted without asking.
        exact: (K,) whether `seconds` is exact.
        stats: candidates, accepted, refined, and bytes exchanged in all.
    """

    pairs: Tensor
    seconds: Tensor
    exact: Tensor
    stats: dict[str, int]


@dataclass
class JoinServer:
    """Holds reports, finds candidates, relays questions; `received` is everything that ever reached it.

    Attributes:
        delta, eps, min_run: of the join, see `JoinPlan`.
        two_way: let the indexed client share its raw points and the querying one answer, instead of the reverse.
        exact: ask about accepted pairs as well, so that every duration is exact.
    """

    delta: float
    eps: float
    min_run: float = 0.0
    two_way: bool = False
    exact: bool = False
    received: list[Any] = field(default_factory=list)
    index: STSIndex | None = None
    numbers: list[int] = field(default_factory=list)

    def register(self, reports: Sequence[Report]) -> None:
        """Build the index of the indexed side's reports."""
        if len({r.error for r in reports}) > 1:
            raise BadInput("Clients of one join share one public error bound; tolerance and radius must be the same.")
        self.received += reports
        self.numbers = [r.number for r in reports]
        error = reports[0].error if reports else 0.0
        table = make_table(
            _stack(reports),
            torch.tensor(self.numbers, dtype=torch.int64),
            [str(n) for n in self.numbers],
            reach=self.delta + 2 * error,
            error=error,
        )
        self.index = STSIndex().fill(table)

    def candidates(self, reports: Sequence[Report]) -> JoinResult:
        """Pairs that may belong to the result."""
        if self.index is None:
            raise BadInput("The server has no index yet: call register() first.")
        self.received += reports
        slack = float(self.index.error) + max((r.error for r in reports), default=0.0)
        return join(_stack(reports), self.index, JoinPlan(self.delta, self.eps, slack, self.min_run))

    def run(
        self, queries: Mapping[int, TrajectoryClient], tracks: Mapping[int, TrajectoryClient] | None = None
    ) -> Joined:
        """Join the queries' clients with the registered ones.

        Args:
            queries: by number.
            tracks: the clients behind the index, by number; without them only bounds can be given.
        """
        asked = list(queries)
        result = self.candidates([queries[n].obfuscate() for n in asked])
        sure = result.certain
        pairs, seconds, exact = [], [], []
        refined = 0
        for k in range(len(result.query)):
            q, t = asked[int(result.query[k])], self.numbers[int(result.track[k])]
            value, known = float(result.lower[k]), False
            if tracks is not None and (self.exact or not sure[k]):
                refined += 1
                value, known = self.ask(result, k, queries[q], tracks), True
                if value < self.eps - GUARD or value <= 0:
                    continue
            pairs.append([q, t])
            seconds.append(value)
            exact.append(known)
        stats = {"candidates": len(result.query), "accepted": int(sure.sum()), "refined": refined}
        stats["bytes"] = sum(c.sent for c in queries.values()) + sum(c.sent for c in (tracks or {}).values())
        return Joined(
            torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2),
            torch.tensor(seconds, dtype=torch.float64),
            torch.tensor(exact, dtype=torch.bool),
            stats,
        )

    def ask(self, result: JoinResult, k: int, query: TrajectoryClient, tracks: Mapping[int, TrajectoryClient]) -> float:
        """Exact seconds of candidate k, from its two clients."""
        track = self.numbers[int(result.track[k])]
        return self._refine(self._request(result, k, query.number, track), query, tracks[track])

    def _request(self, result: JoinResult, k: int, query: int, track: int) -> RefineRequest:
        part = slice(int(result.offsets[k]), int(result.offsets[k + 1]))
        begin = ((result.start[part] - _ROUNDED) / WINDOW).floor()
        end = ((result.end[part] + _ROUNDED) / WINDOW).ceil()
        windows = torch.stack([begin, end], 1) * WINDOW
        return RefineRequest(query, track, windows, self.delta, self.min_run)

    def _refine(self, request: RefineRequest, query: TrajectoryClient, track: TrajectoryClient) -> float:
        """Ask; raw points go from one client to the other, the server gets the answer alone."""
        sender, judge = (track, query) if self.two_way else (query, track)
        answer = _between(sender, judge, request)
        self.received.append(answer)
        return answer.seconds


def _between(sender: TrajectoryClient, judge: TrajectoryClient, request: RefineRequest) -> Answer:
    """The channel between two clients, which the server is no part of."""
    return judge.settle(request, sender.share(request))


def _stack(reports: Sequence[Report]) -> Motions:
    """Reports as motions of many tracks."""
    rows = [r.motions.segments for r in reports]
    owner = torch.repeat_interleave(torch.tensor([len(r) for r in rows], dtype=torch.int64))
    runs, shift = [], 0
    for report in reports:
        run = report.motions.run
        runs.append(run - (int(run[0]) if len(run) else 0) + shift)
        shift = int(runs[-1][-1]) + 1 if len(run) else shift
    if not rows:
        return Motions(torch.zeros(0, 6, dtype=torch.float64), owner, owner, 0)
    return Motions(torch.cat(rows), owner, torch.cat(runs), len(reports))
