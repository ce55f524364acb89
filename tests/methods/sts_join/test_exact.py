"""The join against exact rational arithmetic, over the range of times, places and speeds that users have."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

import zoo
from zoo.errors import BadInput, UnsafeFile
from zoo.inputs.tracks import pad_tracks
from zoo.methods.sts_join import STSJoin
from zoo.methods.sts_join.candidates import JoinPlan
from zoo.methods.sts_join.clients import JoinServer, clients_of
from zoo.methods.sts_join.distance import cdds, cdds_intervals
from zoo.methods.sts_join.index import STSIndex, make_table
from zoo.methods.sts_join.join import JoinResult, finish, join, partial_join, share_of
from zoo.methods.sts_join.motions import Motions, cut_at_bins, motions_of
from zoo.methods.sts_join.oracle import sts_join_bruteforce
from zoo.methods.sts_join.solve import settle
from zoo.methods.sts_join.studies import walkers

GUARD = 1e-9
Interval = tuple[Fraction, Fraction]
Pair = tuple[int, int]


# The oracle -------------------------------------------------------------------------------------------------------


def root(value: Fraction) -> Fraction:
    """Square root, right to 60 digits."""
    shift = 400 + max(0, 2 * (value.denominator.bit_length() - value.numerator.bit_length()))
    return Fraction(math.isqrt((value.numerator << (2 * shift)) // value.denominator), 1 << shift)


def close_intervals(a: np.ndarray, b: np.ndarray, delta: float | Fraction, gap: float) -> list[Interval]:
    """When two motions are within delta, from the definition, in rational numbers; what adjoins is one interval."""
    first, second = ([[Fraction(float(v)) for v in point] for point in track] for track in (a, b))
    reach = Fraction(delta) ** 2
    parts: list[Interval] = []
    for p, q in pairwise(first):
        for r, s in pairwise(second):
            start, end = max(p[2], r[2]), min(q[2], s[2])
            if end <= start or float(q[2] - p[2]) > gap or float(s[2] - r[2]) > gap:
                continue
            ours = [(q[k] - p[k]) / (q[2] - p[2]) for k in (0, 1)]
            theirs = [(s[k] - r[k]) / (s[2] - r[2]) for k in (0, 1)]
            ways = [v - w for v, w in zip(ours, theirs, strict=True)]
            places = [p[k] + ours[k] * (start - p[2]) - r[k] - theirs[k] * (start - r[2]) for k in (0, 1)]
            squared = ways[0] ** 2 + ways[1] ** 2
            mixed = places[0] * ways[0] + places[1] * ways[1]
            constant = places[0] ** 2 + places[1] ** 2 - reach
            low, high = Fraction(0), Fraction(0)
            if squared == 0:
                high = end - start if constant <= 0 else high
            elif mixed * mixed > squared * constant:
                half = root(mixed * mixed - squared * constant)
                low, high = (min(max((-mixed + sign * half) / squared, 0), end - start) for sign in (-1, 1))
            if high > low:
                parts.append((start + low, start + high))
    joined: list[Interval] = []
    for low, high in sorted(parts):
        if joined and low <= joined[-1][1] + Fraction(1, 10**40):
            joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
        else:
            joined.append((low, high))
    return joined


def length(intervals: list[Interval], least: float = 0.0) -> Fraction:
    """Seconds of the intervals that are long enough."""
    return sum((high - low for low, high in intervals if high - low >= least), Fraction(0))


class Truth:
    """Durations of all pairs of some tracks, by the oracle, and what is compared with them."""

    def __init__(self, tracks: list[np.ndarray], delta: float, gap: float) -> None:
        self.tracks, self.delta, self.gap = tracks, delta, gap
        count = range(len(tracks))
        self.intervals = {
            (i, j): close_intervals(tracks[i], tracks[j], delta, gap) for i in count for j in count if i < j
        }
        self.seconds = {pair: length(spans) for pair, spans in self.intervals.items()}

    def at_the_limit(self, pair: Pair) -> bool:
        """Whether 1e-20 m of delta decide about this pair."""
        a, b = (self.tracks[i] for i in pair)
        less, more = (close_intervals(a, b, Fraction(self.delta) + h * Fraction(1, 10**20), self.gap) for h in (-1, 1))
        return length(more) - length(less) > Fraction(GUARD) / 2

    def check(self, got: dict[Pair, float], eps: float, what: str, seconds: dict[Pair, Fraction] | None = None) -> None:
        """No pair is missing, none is invented, and all durations are right to a nanosecond."""
        for pair, true in (seconds or self.seconds).items():
            if abs(Fraction(got.get(pair, 0.0)) - true) > Fraction(GUARD) and self.at_the_limit(pair):
                continue
            if true >= eps and true > Fraction(1, 10**12):
                assert pair in got, f"{what}: {pair} is missing, {float(true)} s"
            if pair in got:
                allowed = GUARD + float(true) * 2.0**-50
                assert abs(Fraction(got[pair]) - true) <= allowed, f"{what}: {pair}: {got[pair]} s, not {float(true)}"
                assert true >= Fraction(eps) - Fraction(3 * GUARD), f"{what}: {pair} is too short"

    def check_intervals(self, pair: Pair, spans: Tensor, what: str) -> None:
        """Intervals are right as far as float64 can hold times; those of microseconds, and gaps, may be closed."""
        true = [span for span in self.intervals[pair] if span[1] - span[0] > Fraction(1, 10**10)]
        if any(after[0] - before[1] < Fraction(1, 10**5) for before, after in pairwise(true)):
            return
        true = [span for span in true if float(span[1] - span[0]) > 1e-5]
        got = [span for span in spans.tolist() if span[1] - span[0] > 5e-6]
        assert len(got) >= len(true), what
        for span, exact in zip(got, true, strict=False):
            for time, true_time in zip(span, exact, strict=True):
                assert abs(Fraction(time) - true_time) <= GUARD + 2 * np.spacing(abs(time)), what


# What is joined ---------------------------------------------------------------------------------------------------

TIMES = {"seconds of a day": 3e4, "ten years": 3.2e8, "today": 1.7e9, "the year 2096": 4e9}
PLACES = {"metres": (0.0, 0.0), "UTM": (692_000.3, 5_334_000.7), "far": (-1e7, 1e7), "micro-degrees": (4.9e6, 5.2e7)}
SPEEDS = [1e-9, 1e-3, 1.5, 300.0]
DELTAS = [5.0, 0.1, 2.0**-20, 150.0]


def place_of(begin: str, number: int) -> tuple[float, float]:
    """Another place for each time and number, so that every place meets every time."""
    return list(PLACES.values())[(list(TIMES).index(begin) + number) % len(PLACES)]


def wanderers(draw: np.random.Generator, begin: float, place: tuple[float, float], speed: float) -> list[np.ndarray]:
    """Tracks with irregular steps below and above a second, and long gaps in some of them."""
    tracks = []
    for _ in range(8):
        steps = draw.choice([0.1, 0.25, 0.7, 1.0, 5.0, 37.5], 11) + draw.choice([0.0, 1 / 3], 11)
        steps[draw.uniform(size=11) < 0.06] = 4000.0
        times = begin + np.cumsum(np.concatenate([[draw.uniform(0, 9)], steps]))
        way = np.cumsum(draw.normal(0, speed, (12, 2)) * np.concatenate([[1.0], steps])[:, None], 0)
        tracks.append(np.column_stack([np.array(place) + draw.uniform(0, 60, 2) + way, times]))
    return tracks


def lanes(begin: float, place: tuple[float, float], delta: float) -> list[np.ndarray]:
    """Neighbours at delta or a hair off it: at equal and other speeds, with equal and other times, at rest."""
    x, y = place
    side = y + delta
    out, back = math.nextafter(side, math.inf), math.nextafter(side, -math.inf)
    rows = {
        "straight": [(x, y, 0), (x + 40, y, 40)],
        "beside": [(x, side, 0), (x + 40, side, 40)],
        "beside, other times": [(x + 3, side, 3), (x + 11, side, 11), (x + 33, side, 33)],
        "beside, faster": [(x - 20, side, 0), (x + 60, side, 40)],
        "beside, against": [(x + 40, side, 0), (x, side, 40)],
        "at rest": [(x, y, 0), (x, y, 40)],
        "at rest beside": [(x, side, 5), (x, side, 37.5)],
        "a hair further": [(x, out, 0), (x + 40, out, 40)],
        "a hair nearer": [(x, back, 0), (x + 40, back, 40)],
        "hardly leaving": [(x, side, 0), (x, side + 1e-7, 40)],
        "hardly coming": [(x, side + 1e-7, 0), (x, side, 40)],
        "creeping": [(x, y, 0), (x + 1e-9, y + 1e-9, 40)],
    }
    return [np.array([(px, py, begin + t) for px, py, t in row], dtype=float) for row in rows.values()]


def lattice(draw: np.random.Generator, begin: float, place: tuple[float, float]) -> list[np.ndarray]:
    """Walks between the points of a lattice, where times coincide and distances are exactly delta all the time."""
    tracks = []
    for _ in range(7):
        times = begin + np.cumsum(draw.integers(1, 4, int(draw.integers(3, 8)))) * float(draw.choice([1, 0.1, 5]))
        way = np.array(place) + np.cumsum(draw.integers(-1, 2, (len(times), 2)), 0) * 50.0
        tracks.append(np.column_stack([way, times]))
    return tracks


def passing(draw: np.random.Generator, begin: float, place: tuple[float, float], delta: float) -> list[np.ndarray]:
    """One at rest, others who pass at delta, a hair nearer or a hair further, slowly and fast."""
    tracks = [np.array([[*place, begin], [*place, begin + 100.0]])]
    for _ in range(6):
        angle, speed = draw.uniform(0, 2 * np.pi), delta * 10 ** draw.uniform(-3, 1)
        off = draw.choice([0, 1e-15, -1e-15, 1e-12, -1e-12, 1e-9, -1e-9])
        middle = np.array(place) + delta * (1 + off) * np.array([np.cos(angle), np.sin(angle)])
        way = np.array([-np.sin(angle), np.cos(angle)]) * speed
        times = [begin + draw.uniform(0, 50), begin + 60.0 + draw.uniform(0, 40)]
        tracks.append(np.column_stack([[middle - way, middle + way], times]))
    return tracks


def index_of(tracks: list[np.ndarray], delta: float, gap: float, **options: float) -> STSIndex:
    motions = motions_of(*pad_tracks(tracks), gap)
    names = [str(i) for i in range(len(tracks))]
    return STSIndex().fill(make_table(motions, torch.arange(len(tracks)), names, reach=delta, **options))


def durations(result: JoinResult) -> dict[Pair, float]:
    rows = zip(result.query.tolist(), result.track.tolist(), result.upper.tolist(), strict=True)
    return {(q, t): seconds for q, t, seconds in rows if q < t}


def compare(
    tracks: list[np.ndarray], delta: float, gap: float = 120.0, min_run: float = 0.0, other_grid: bool = True
) -> int:
    """Hold everything that gives durations against the oracle; the number of pairs that are ever close."""
    truth = Truth(tracks, delta, gap)
    xyt, sizes = pad_tracks(tracks)
    i, j = torch.tensor(list(truth.seconds)).T
    seconds = cdds(xyt[i], xyt[j], delta, length_a=sizes[i], length_b=sizes[j], gap=gap).tolist()
    truth.check(dict(zip(truth.seconds, seconds, strict=True)), 0.0, "cdds")
    for p, q in truth.intervals:
        own, other = torch.from_numpy(tracks[p]), torch.from_numpy(tracks[q])
        truth.check_intervals((p, q), cdds_intervals(own, other, delta, gap), "cdds_intervals")
    pairs, all_seconds = sts_join_bruteforce(xyt, sizes, xyt, sizes, delta, 0.0, gap)
    rows = zip(pairs.tolist(), all_seconds.tolist(), strict=True)
    truth.check({(p, q): s for (p, q), s in rows if p < q}, 0.0, "brute force")
    some = sorted({float(s) for s in truth.seconds.values() if s > 0})
    for grid in ({}, {"width": 7.3, "cell": 4000.0})[: 1 + other_grid]:
        compare_joins(tracks, truth, delta, gap, some, grid)
    motions = motions_of(xyt, sizes, gap)
    borderline = (abs(float(h - low) - min_run) < 1e-5 for spans in truth.intervals.values() for low, h in spans)
    if min_run and not any(borderline):
        runs = {pair: length(spans, min_run) for pair, spans in truth.intervals.items()}
        index = index_of(tracks, delta, gap)
        result = join(index.motions, index, JoinPlan(delta, 0.0, min_run=min_run, same=True))
        truth.check(durations(result), min_run, "runs", {pair: s for pair, s in runs.items() if s})
    for tolerance, radius in ((0.0, 0.0), (1.0, 3.0)):
        clients = clients_of(motions, tolerance, radius, b"key")
        server = JoinServer(delta, 0.0, exact=True)
        server.register([client.obfuscate() for client in clients.values()])
        joined = server.run(clients, clients)
        rows = zip(joined.pairs.tolist(), joined.seconds.tolist(), strict=True)
        truth.check({(p, q): s for (p, q), s in rows if p < q}, 0.0, "server")
    return sum(seconds > 0 for seconds in truth.seconds.values())


def compare_joins(
    tracks: list[np.ndarray], truth: Truth, delta: float, gap: float, some: list[float], grid: dict[str, float]
) -> None:
    """The join, whole and in three shares, at thresholds that some durations meet exactly."""
    motions, index = motions_of(*pad_tracks(tracks), gap), index_of(tracks, delta, gap, **grid)
    draw = np.random.default_rng(len(some))
    for eps in (0.0, *(float(s) for s in draw.choice(some or [60.0], 3))):
        plan = JoinPlan(delta, eps, rounds=1 + len(grid))
        whole, own = join(motions, index, plan), join(index.motions, index, JoinPlan(delta, eps, same=True))
        for result in (whole, own):
            truth.check(durations(result), eps, f"join, grid {grid}, eps {eps}")
            assert result.certain.all()
        parts = [partial_join(motions, index, share_of(plan, index, rank, 3)) for rank in range(3)]
        assert durations(finish(parts, plan, len(index))) == durations(whole)
    for k, (p, q) in enumerate(zip(whole.query.tolist(), whole.track.tolist(), strict=True)):
        spans = slice(int(whole.offsets[k]), int(whole.offsets[k + 1]))
        if p < q:
            truth.check_intervals((p, q), torch.stack([whole.start[spans], whole.end[spans]], 1), "intervals")


# Tests ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("begin", TIMES)
def test_wanderers(begin: str, speed: float) -> None:
    number = SPEEDS.index(speed)
    draw = np.random.default_rng([int(TIMES[begin]), number])
    delta = float(10 ** draw.uniform(1.3, 2) * max(1, 5 * speed))
    gap = [20.0, 120.0, 1e5][(number + len(begin)) % 3]
    assert compare(wanderers(draw, TIMES[begin], place_of(begin, number), speed), delta, gap, min_run=2.5) > 0


@pytest.mark.parametrize("delta", DELTAS)
@pytest.mark.parametrize("begin", TIMES)
def test_touching(begin: str, delta: float) -> None:
    """A rounding error would decide about the whole of these, or about microseconds."""
    assert compare(lanes(TIMES[begin], place_of(begin, DELTAS.index(delta)), delta), delta) > 2


@pytest.mark.parametrize("begin", TIMES)
def test_lattices(begin: str) -> None:
    draw = np.random.default_rng(int(TIMES[begin]))
    for number, delta in enumerate((50.0, 100.0, 50 * 2**0.5, 250.0)):
        compare(lattice(draw, TIMES[begin], place_of(begin, number)), delta)


@pytest.mark.parametrize("begin", TIMES)
def test_grazing(begin: str) -> None:
    draw = np.random.default_rng(int(TIMES[begin]))
    for number in range(4):
        delta = float(10 ** draw.uniform(-1, 3))
        compare(passing(draw, TIMES[begin], place_of(begin, number), delta), delta)


def test_pairs_at_unix_times_are_those_of_the_day() -> None:
    """Bins had borders in single precision, 64 s off at Unix times: 35 of 129 pairs were missing."""
    xyt = walkers(80, 3, 900.0, 60)
    xyt[..., 2] = (xyt[..., 2] * 1024).round() / 1024  # so that moving them is exact
    late = xyt + torch.tensor([0, 0, 1.7e9], dtype=torch.float64)
    sizes = torch.full((80,), 61)
    truth, seconds = sts_join_bruteforce(xyt, sizes, xyt, sizes, 50.0, 20.0)
    assert len(truth) > 80 + 100
    for tracks in (xyt, late):
        motions = motions_of(tracks, sizes, 120.0)
        found = join(motions, index_of([t.numpy() for t in tracks], 50.0, 120.0), JoinPlan(50.0, 20.0))
        assert torch.equal(torch.stack([found.query, found.track], 1), truth)
        torch.testing.assert_close(found.upper, seconds, rtol=0, atol=GUARD)


def test_two_people_with_five_second_steps_today() -> None:
    times = 1.7e9 + 5.0 * np.arange(240)
    a = np.column_stack([np.arange(240) * 6.0, np.zeros(240), times])
    found = STSJoin(delta=10.0, eps=1195.0).index([a]).predict(a + np.array([0.0, 3.0, 0.0]))
    assert found.durations.tolist() == [1195.0]


def test_decades_in_steps_of_half_a_second() -> None:
    """More time bins than a key can number: those that share a number are not mixed up."""
    draw = np.random.default_rng(0)
    begins = np.concatenate([[0.0], draw.uniform(0, 4e9, 6), [4e9]])
    tracks = []
    for begin in begins:
        for _ in range(2):
            times = begin + 0.5 * np.arange(20) + draw.uniform(0, 0.4)
            tracks.append(np.column_stack([draw.normal(0, 3, (20, 2)).cumsum(0) / 5, times]))
    index = index_of(tracks, 4.0, 120.0)
    width = float(index.grid[0])
    assert width < 2
    assert int(index.pieces[:, 0].max()) > 1 << 23
    assert compare(tracks, 4.0, other_grid=False) >= len(begins)
    tracks += [t + np.array([0, 0, (1 << 23) * width]) for t in tracks[:4]]  # under the same keys
    assert compare(tracks, 4.0, other_grid=False) >= len(begins) + 2


@pytest.mark.parametrize("origin", [0.0, 1.7e9, 4e9])
def test_pieces_cover_every_instant_once(origin: float) -> None:
    """Also where a division says that a time is in the neighbouring bin."""
    draw = np.random.default_rng(2)
    width = 1 / 3
    borders = origin + draw.integers(0, 10**9, 4000) * width
    times = np.unique(np.concatenate([borders, np.nextafter(borders, -1), np.nextafter(borders, 1e10)]))
    segments = np.column_stack([times[:-1], times[1:], np.zeros((len(times) - 1, 4))])
    segments = torch.from_numpy(segments[segments[:, 1] - segments[:, 0] < 2])
    owner = torch.arange(len(segments))
    pieces = cut_at_bins(Motions(segments, owner, owner, len(owner)), width, origin)
    bins, begin, end = pieces.table[:, 0], pieces.times[:, 0], pieces.times[:, 1]
    assert (begin >= origin + bins.double() * width).all()
    assert (end <= origin + (bins + 1).double() * width).all()
    assert (end > begin).all()
    first = pieces.table[:, 1].diff(prepend=torch.tensor([-1])) > 0
    assert torch.equal(begin[first], segments[:, 0])
    assert torch.equal(begin[~first], end[:-1][~first[1:]])
    assert torch.equal(end[torch.cat([first[1:], torch.tensor([True])])], segments[:, 1])


def test_equal_velocities_are_recognised_whatever_their_digits() -> None:
    """Products of these numbers need 130 bits."""
    step, way = 2.0**20 + 2.0**-30 * 5, 2.0**30
    rest = 2.0**-40 * 12345679
    a = torch.tensor([[0.0], [step], [-way], [0.0], [rest], [0.0]], dtype=torch.float64)
    b = torch.tensor([[0.0], [3 * step], [-3 * way], [0.0], [3 * rest], [0.0]], dtype=torch.float64)  # 2 way behind
    assert Fraction(float(b[4])) == 3 * Fraction(rest)
    zero = torch.zeros(1, dtype=torch.float64)
    for delta, expected in ((2 * way, [0.0, 1.0]), (math.nextafter(2 * way, 0), [0.0, 0.0])):
        low, high = settle(list(a), list(b), zero, zero + step, delta, zero, zero)
        assert [float(low), float(high)] == expected


def test_bins_that_cut_segments_into_thousands_are_refused() -> None:
    with pytest.raises(BadInput, match="Time bins of 1e-06 s are too small"):
        index_of(lanes(1.7e9, (0.0, 0.0), 5.0), 5.0, 120.0, width=1e-6)


@pytest.mark.parametrize("outlier", ["a jump of 5,000 km", "a step of 30 years"])
def test_one_outlier_does_not_stop_the_default_grid(outlier: str) -> None:
    draw = np.random.default_rng(1)
    tracks = wanderers(draw, 1.7e9, (0.0, 0.0), 1.5)
    tracks[0][6:, : 2 if "km" in outlier else 0] += 5e6
    tracks[0][6:, 2] += 0.0 if "km" in outlier else 1e9
    assert compare(tracks, 30.0, 2e9, other_grid=False) > 2


def test_an_index_of_the_old_cut_is_cut_again() -> None:
    """Early versions wrote pieces whose borders were rounded to single precision."""
    tracks = [t.numpy() + np.array([0, 0, 1.7e9]) for t in walkers(40, 3, 600.0, 60)]
    right = STSJoin(delta=50.0, eps=20.0).index(tracks)
    state = {name: value.clone() for name, value in right.state_dict().items()}
    width, start = float(state["table.grid"][0]), float(state["table.grid"][2])
    bins, segments = state["table.pieces"][:, 0], state["table.segments"]
    border = (start + bins * width).double()  # single precision before it is widened
    assert not torch.equal(border, start + bins.double() * width)
    state["table.times"][:, 0] = torch.maximum(segments[state["table.pieces"][:, 1], 0], border)
    wrong = STSJoin(delta=50.0, eps=20.0)
    wrong.load_state_dict(state)
    first, second = right.self_join(), wrong.self_join()
    assert len(first.pairs) > 20
    assert first.pairs.tolist() == second.pairs.tolist()
    assert first.durations.tolist() == second.durations.tolist()
    assert all(torch.equal(a, b) for a, b in zip(right.state_dict().values(), wrong.state_dict().values(), strict=True))
    state["table.grid"][1] = 1e-9
    with pytest.raises(UnsafeFile, match="grid"):
        STSJoin().load_state_dict(state)


def test_the_bundled_index_holds_right_pieces_once_loaded() -> None:
    table = zoo.load("sts-join").table
    pieces = cut_at_bins(table.motions, float(table.grid[0]), float(table.grid[2]))
    assert torch.equal(table.pieces, pieces.table)
    assert torch.equal(table.times, pieces.times)
    assert torch.equal(table.boxes, pieces.boxes)


def test_eps_beyond_all_time_gives_nothing() -> None:
    tracks = lanes(1.7e9, (0.0, 0.0), 5.0)
    assert not len(STSJoin(delta=5.0, eps=1e12).index(tracks).self_join().pairs)
