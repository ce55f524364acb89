"""The mathematics of the join: durations against PyMEOS, the index against brute force, bounds, clients, ranks."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from zoo.errors import UnsafeFile
from zoo.methods.sts_join.candidates import JoinPlan
from zoo.methods.sts_join.clients import JoinServer, TrajectoryClient, clients_of, simplify
from zoo.methods.sts_join.distance import CDDS, cdds, cdds_intervals
from zoo.methods.sts_join.index import STSIndex, make_table
from zoo.methods.sts_join.join import JoinResult, finish, join, partial_join, share_of
from zoo.methods.sts_join.motions import Motions, motions_of, positions
from zoo.methods.sts_join.oracle import all_durations, sts_join_bruteforce

A = torch.tensor([[0, 0, 0], [10, 0, 10], [20, 0, 20], [30, 0, 30]], dtype=torch.float64)
B = torch.tensor([[2, 2, 1], [5, 5, 5], [15, 5, 15], [25, -5, 28], [35, 5, 35]], dtype=torch.float64)
GAP = 120.0


def crowd(count: int = 40, seed: int = 0, side: float = 800.0, points: int = 25) -> tuple[Tensor, Tensor]:
    """Tracks of unequal length with gaps, and their lengths."""
    draw = np.random.default_rng(seed)
    steps = draw.uniform(1, 40, (count, points))
    steps[draw.uniform(size=steps.shape) < 0.04] = 300.0
    times = np.cumsum(steps, 1) + draw.uniform(0, 200, (count, 1))
    places = draw.uniform(0, side, (count, 1, 2)) + np.cumsum(draw.normal(0, 40, (count, points, 2)), 1)
    length = torch.from_numpy(draw.integers(2, points + 1, count))
    return torch.from_numpy(np.concatenate([places, times[..., None]], 2)), length


def index_of(motions: Motions, delta: float, **options: Any) -> STSIndex:
    numbers = torch.arange(motions.count)
    return STSIndex().fill(make_table(motions, numbers, [f"t{n}" for n in numbers.tolist()], reach=delta, **options))


def pairs_of(found: JoinResult) -> Tensor:
    return torch.stack([found.query, found.track], 1)


# Durations --------------------------------------------------------------------------------------------------------


def test_golden_case() -> None:
    assert cdds(A[None], B[None], 3.0).item() == pytest.approx(7.7834518, abs=1e-7)
    assert cdds(B[None], A[None], 3.0).item() == pytest.approx(7.7834518, abs=1e-7)
    spans = cdds_intervals(A, B, 3.0).diff(dim=1)[:, 0].tolist()
    assert spans == pytest.approx([1.2249, 2.3160 + 4.2426], abs=1e-4)  # the last two pieces adjoin
    assert CDDS(3.0)(A[None], B[None]).item() == pytest.approx(7.7834518, abs=1e-7)


MEOS = np.load(Path(__file__).with_name("oracles") / "sts_join_meos.npz")


@pytest.mark.parametrize("number", range(len(MEOS["names"])), ids=[str(n) for n in MEOS["names"]])
def test_pymeos_agrees(number: int) -> None:
    """Random and degenerate motions; see oracles/make_sts_join.py."""
    a, b = torch.from_numpy(MEOS[f"a{number}"]), torch.from_numpy(MEOS[f"b{number}"])
    found = cdds(a[None], b[None], float(MEOS["delta"][number])).item()
    assert found == pytest.approx(float(MEOS["seconds"][number]), abs=1e-5)


DEGENERATE = {
    "parallel, near": ([[0, 0, 0], [10, 0, 10]], [[0, 3, 0], [10, 3, 10]], 5.0, 10.0),
    "parallel, exactly delta": ([[0, 0, 0], [10, 0, 10]], [[0, 5, 0], [10, 5, 10]], 5.0, 10.0),
    "parallel, far": ([[0, 0, 0], [10, 0, 10]], [[0, 6, 0], [10, 6, 10]], 5.0, 0.0),
    "touching once": ([[-10, 5, 0], [10, 5, 20]], [[0, 0, 0], [0, 0, 20]], 5.0, 0.0),
    "both still, near": ([[0, 0, 0], [0, 0, 10]], [[3, 4, 2], [3, 4, 30]], 5.0, 8.0),
    "both still, far": ([[0, 0, 0], [0, 0, 10]], [[3, 4.1, 2], [3, 4.1, 30]], 5.0, 0.0),
    "the same": ([[0, 0, 0], [10, 0, 10]], [[0, 0, 0], [10, 0, 10]], 5.0, 10.0),
    "one common instant": ([[0, 0, 0], [0, 0, 10]], [[0, 0, 10], [0, 0, 20]], 5.0, 0.0),
    "no common time": ([[0, 0, 0], [0, 0, 10]], [[0, 0, 11], [0, 0, 20]], 5.0, 0.0),
    "head on": ([[0, 0, 0], [100, 0, 100]], [[100, 0, 0], [0, 0, 100]], 10.0, 10.0),
    "one point inside": ([[0, 0, 0], [20, 0, 20]], [[5, 0, 5], [5, 0, 15]], 2.0, 2.0),
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_motions(name: str) -> None:
    first, second, delta, expected = DEGENERATE[name]
    a, b = torch.tensor(first).double(), torch.tensor(second).double()
    for x, y in ((a, b), (b, a)):
        assert cdds(x[None], y[None], delta).item() == pytest.approx(expected, abs=1e-9)
        motions = [motions_of(m[None], torch.tensor([len(m)]), GAP) for m in (x, y)]
        found = join(motions[0], index_of(motions[1], delta), JoinPlan(delta, 0.0))
        assert float(found.upper.sum()) == pytest.approx(expected, abs=1e-9)


def literal(a: Tensor, b: Tensor, delta: float, gap: float) -> float:
    """By sampling each common straight stretch at its roots; written for people."""
    total = 0.0
    for i in range(len(a) - 1):
        for j in range(len(b) - 1):
            s, e = max(a[i, 2], b[j, 2]).item(), min(a[i + 1, 2], b[j + 1, 2]).item()
            if e <= s or a[i + 1, 2] - a[i, 2] > gap or b[j + 1, 2] - b[j, 2] > gap:
                continue

            def at(track: Tensor, k: int, t: float) -> np.ndarray:
                u = (t - track[k, 2]) / (track[k + 1, 2] - track[k, 2])
                return (track[k, :2] + u * (track[k + 1, :2] - track[k, :2])).numpy()

            d0, d1 = at(a, i, s) - at(b, j, s), at(a, i, e) - at(b, j, e)
            w = d1 - d0
            roots = np.roots([w @ w, 2 * d0 @ w, d0 @ d0 - delta**2])
            cuts = sorted([0.0, 1.0, *(float(r.real) for r in roots if abs(r.imag) < 1e-12 and 0 < r.real < 1)])
            for u0, u1 in pairwise(cuts):
                if np.linalg.norm(d0 + (u0 + u1) / 2 * w) <= delta:
                    total += (u1 - u0) * (e - s)
    return total


def test_padding_gaps_and_batches_against_the_literal_definition() -> None:
    xyt, length = crowd(10, side=100.0, points=9)
    xyt[torch.arange(9) >= length[:, None]] = float("nan")  # padding may hold anything
    i, j = torch.triu_indices(10, 10, 1)
    found = cdds(xyt[i], xyt[j], 150.0, length_a=length[i], length_b=length[j], gap=35.0)
    expected = [literal(xyt[p, : length[p]], xyt[q, : length[q]], 150.0, 35.0) for p, q in zip(i, j, strict=True)]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-8)
    assert sum(e > 0 for e in expected) > 5


def test_epoch_seconds_lose_nothing_that_matters() -> None:
    late = torch.tensor([0, 0, 1.0e6], dtype=torch.float64)
    assert cdds((A + late)[None], (B + late)[None], 3.0).item() == pytest.approx(7.7834518, abs=1e-7)


# Index and join ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_equals_brute_force_for_random_settings(seed: int) -> None:
    draw = np.random.default_rng(seed)
    xyt, length = crowd(seed=seed % 4)
    motions = motions_of(xyt, length, GAP)
    delta, eps = float(10 ** draw.uniform(0.5, 2.4)), float(draw.choice([0, 5, 30, 100]))
    width, cell = float(10 ** draw.uniform(1, 3)), delta * float(draw.uniform(0.5, 5)) + 5
    index = index_of(motions, delta, width=width, cell=cell)
    plan = JoinPlan(delta, eps, chunk=int(draw.integers(1, 5000)), rounds=int(draw.integers(1, 5)))
    truth, seconds = sts_join_bruteforce(xyt, length, xyt, length, delta, eps, GAP)
    found = join(motions, index, plan)
    assert torch.equal(pairs_of(found), truth)
    torch.testing.assert_close(found.upper, seconds, rtol=0, atol=1e-8)
    own = join(index.motions, index, dataclasses.replace(plan, same=True))
    assert torch.equal(pairs_of(own), truth[truth[:, 0] < truth[:, 1]])
    spans = torch.zeros_like(found.upper).index_add_(
        0, torch.repeat_interleave(found.offsets.diff()), found.end - found.start
    )
    torch.testing.assert_close(spans, found.upper, rtol=0, atol=1e-8)


NAMES = ("query", "track", "upper", "lower", "offsets", "start", "end")


def same(a: JoinResult, b: JoinResult) -> bool:
    return all(torch.equal(getattr(a, n), getattr(b, n)) for n in NAMES)


def test_chunks_rounds_and_grid_change_no_bit() -> None:
    xyt, length = crowd()
    motions = motions_of(xyt, length, GAP)
    index = index_of(motions, 60.0)
    whole = join(motions, index, JoinPlan(60.0, 10.0))
    assert len(whole.query) > 40
    for changes in ({"chunk": 1}, {"chunk": 37}, {"rounds": 5}, {"box_gap": False}, {"backward": False}):
        assert same(join(motions, index, JoinPlan(60.0, 10.0, **changes)), whole), changes


def test_pruning_saves_work() -> None:
    xyt, length = crowd(side=400.0)
    motions = motions_of(xyt, length, GAP)
    index = index_of(motions, 60.0)
    solved = {
        name: int(join(motions, index, JoinPlan(60.0, 60.0, **rules)).counts["solved"].sum())
        for name, rules in {
            "all": {},
            "rounds": {"rounds": 6},
            "no box": {"box_gap": False},
            "no bound": {"backward": False},
            "none": {"box_gap": False, "backward": False},
        }.items()
    }
    assert solved["rounds"] <= solved["all"] < min(solved["no box"], solved["no bound"])
    assert max(solved["no box"], solved["no bound"]) < solved["none"]


def test_membership_needs_fewer_durations() -> None:
    xyt, length = crowd(side=300.0)
    motions = motions_of(xyt, length, GAP)
    index = index_of(motions, 100.0)
    exact = join(motions, index, JoinPlan(100.0, 20.0, rounds=8))
    quick = join(motions, index, JoinPlan(100.0, 20.0, rounds=8, membership=True))
    assert torch.equal(pairs_of(exact), pairs_of(quick))
    assert quick.counts["solved"].sum() < exact.counts["solved"].sum()
    assert (quick.upper <= exact.upper).all()


@pytest.mark.parametrize("world", [2, 3, 7])
@pytest.mark.parametrize("min_run", [0.0, 25.0])
def test_time_shards_add_up_to_the_same_bits(world: int, min_run: float) -> None:
    xyt, length = crowd()
    motions = motions_of(xyt, length, GAP)
    index = index_of(motions, 60.0)
    plan = JoinPlan(60.0, 10.0, min_run=min_run)
    parts = [partial_join(motions, index, share_of(plan, index, r, world)) for r in range(world)]
    merged, whole = finish(parts, plan, len(index)), join(motions, index, plan)
    assert torch.equal(pairs_of(merged), pairs_of(whole))
    assert torch.equal(merged.upper, whole.upper)
    torch.testing.assert_close(merged.start, whole.start, rtol=0, atol=1e-9)


def test_order_of_tracks_changes_nothing() -> None:
    xyt, length = crowd()
    order = torch.from_numpy(np.random.default_rng(5).permutation(len(xyt)))
    motions = motions_of(xyt, length, GAP)
    index = index_of(motions, 60.0)
    first = join(motions, index, JoinPlan(60.0, 10.0))
    again = motions_of(xyt[order], length[order], GAP)
    table = index_of(again, 60.0, width=float(index.grid[0]), cell=float(index.grid[1]))
    second = join(again, table, JoinPlan(60.0, 10.0))
    one = {(q, t): s for q, t, s in zip(first.query.tolist(), first.track.tolist(), first.upper.tolist(), strict=True)}
    two = {
        (int(order[q]), int(order[t])): s
        for q, t, s in zip(second.query.tolist(), second.track.tolist(), second.upper.tolist(), strict=True)
    }
    assert one == two


def test_moving_everything_and_splitting_segments_change_nothing() -> None:
    xyt, length = crowd(20)
    base = all_durations(xyt, length, xyt, length, 80.0, GAP)
    moved = xyt + torch.tensor([5000.0, -700.0, 3600.0], dtype=torch.float64)
    torch.testing.assert_close(all_durations(moved, length, moved, length, 80.0, GAP), base, rtol=0, atol=1e-7)
    finer = torch.empty(len(xyt), 2 * xyt.shape[1] - 1, 3, dtype=torch.float64)
    finer[:, ::2], finer[:, 1::2] = xyt, (xyt[:, 1:] + xyt[:, :-1]) / 2
    split = all_durations(finer, 2 * length - 1, xyt, length, 80.0, float("inf"))
    torch.testing.assert_close(split, all_durations(xyt, length, xyt, length, 80.0, float("inf")), rtol=0, atol=1e-7)


def test_larger_delta_and_smaller_eps_only_add_pairs() -> None:
    xyt, length = crowd()
    motions = motions_of(xyt, length, GAP)
    index = index_of(motions, 60.0)

    def found(delta: float, eps: float) -> set[tuple[int, ...]]:
        return set(map(tuple, pairs_of(join(motions, index, JoinPlan(delta, eps))).tolist()))

    assert found(30.0, 40.0) < found(60.0, 40.0) < found(200.0, 40.0)
    assert found(60.0, 80.0) < found(60.0, 40.0) < found(60.0, 1.0)


def test_min_run_counts_long_runs_only() -> None:
    xyt, length = crowd(side=300.0)
    motions = motions_of(xyt, length, GAP)
    found = join(motions, index_of(motions, 60.0), JoinPlan(60.0, 30.0, min_run=20.0))
    for k in range(0, len(found.query), 17):
        q, t = int(found.query[k]), int(found.track[k])
        # gaps cut runs as well, so compare without any
        part = slice(int(found.offsets[k]), int(found.offsets[k + 1]))
        runs = found.end[part] - found.start[part]
        assert runs.min() >= 20.0 - 1e-6
        spans = cdds_intervals(xyt[q, : length[q]], xyt[t, : length[t]], 60.0, GAP).diff(dim=1)
        assert float(found.upper[k]) == pytest.approx(float(spans[spans >= 20.0].sum()), abs=1e-6)


def test_memory_stays_bounded_when_all_are_at_one_place() -> None:
    count, points = 150, 20
    draw = np.random.default_rng(0)
    times = np.tile(np.arange(points) * 10.0, (count, 1))[..., None]
    xyt = torch.from_numpy(np.concatenate([draw.normal(0, 5, (count, points, 2)), times], 2))
    motions = motions_of(xyt, torch.full((count,), points), GAP)
    index = index_of(motions, 50.0)
    found = join(index.motions, index, JoinPlan(50.0, 60.0, same=True, chunk=2000))
    assert len(found.query) == count * (count - 1) // 2
    assert same(found, join(index.motions, index, JoinPlan(50.0, 60.0, same=True)))


def test_contradicting_tables_are_refused() -> None:
    xyt, length = crowd(5)
    table = make_table(motions_of(xyt, length, GAP), torch.arange(5), ["a"] * 5, reach=50.0)
    for name, change in {
        "owner": lambda v: v + 100,
        "under": lambda v: v - 1000,
        "keys": lambda v: v.flip(0),
        "pieces": lambda v: v[:-1],
        "segments": lambda v: -v,
        "names": lambda v: v[:1],
        "grid": lambda v: -v,
    }.items():
        with pytest.raises(UnsafeFile, match="contradicts itself"):
            STSIndex().fill({**table, name: change(table[name])}).check()


# Obfuscation ------------------------------------------------------------------------------------------------------


def distance_from(report: Motions, raw: Motions) -> float:
    """The largest distance at any vertex time of either; both are straight in between."""
    worst = 0.0
    for track in range(raw.count):
        a, b = raw.segments[raw.owner == track], report.segments[report.owner == track]
        for times in (a[:, 0], a[:, 1], b[:, 0], b[:, 1]):
            i = (torch.searchsorted(a[:, 0].contiguous(), times.contiguous()) - 1).clamp_min(0)
            j = (torch.searchsorted(b[:, 0].contiguous(), times.contiguous()) - 1).clamp_min(0)
            inside = (times >= a[i, 0]) & (times <= a[i, 1]) & (times >= b[j, 0]) & (times <= b[j, 1])
            away = (positions(a[i], times) - positions(b[j], times)).norm(dim=1)[inside]
            worst = max(worst, float(away.max()) if len(away) else 0.0)
    return worst


@pytest.mark.parametrize("tolerance", [0.0, 20.0, 200.0])
def test_simplification_keeps_its_promise(tolerance: float) -> None:
    xyt, length = crowd()
    raw = motions_of(xyt, length, GAP)
    told = simplify(raw, tolerance)
    assert distance_from(told, raw) <= tolerance + 1e-6
    assert len(told.segments) < len(raw.segments) or tolerance == 0
    vertices = {tuple(v) for v in raw.segments[:, [2, 3, 0]].tolist() + raw.segments[:, [4, 5, 1]].tolist()}
    assert {tuple(v) for v in told.segments[:, [2, 3, 0]].tolist()} <= vertices
    gaps = [
        (int(raw.owner[k]), float(raw.segments[k, 1]), float(raw.segments[k + 1, 0]))
        for k in range(len(raw.segments) - 1)
        if raw.owner[k] == raw.owner[k + 1] and raw.segments[k + 1, 0] > raw.segments[k, 1]
    ]
    assert gaps
    for owner, begin, end in gaps:
        rows = told.segments[told.owner == owner]
        assert not ((rows[:, 0] <= begin) & (rows[:, 1] >= end)).any(), "a gap was bridged"


def test_reports_stay_within_the_public_bound() -> None:
    xyt, length = crowd()
    raw = motions_of(xyt, length, GAP)
    for number, client in clients_of(raw, 15.0, 40.0).items():
        mine = Motions(raw.segments[raw.owner == number], raw.owner[raw.owner == number] * 0, raw.run[:0], 1)
        report = client.obfuscate()
        assert report.error == 55.0
        assert distance_from(report.motions, mine) <= 55.0
        assert client.obfuscate() is report, "noise is drawn once"


def test_reports_repeat_with_the_same_key_and_differ_with_another() -> None:
    xyt, length = crowd(1)
    raw = motions_of(xyt, length, GAP)

    def report(key: bytes, number: int = 3) -> Tensor:
        return TrajectoryClient(number, raw, 0.0, 50.0, key).obfuscate().motions.segments

    assert torch.equal(report(b"a"), report(b"a"))
    assert not torch.equal(report(b"a"), report(b"b"))
    assert not torch.equal(report(b"a"), report(b"a", 4))


@pytest.mark.parametrize(("tolerance", "radius"), [(10.0, 0.0), (5.0, 20.0), (0.0, 60.0)])
def test_bounds_hold_and_refinement_is_exact(tolerance: float, radius: float) -> None:
    """The last setting has delta <= 2E, so that everything is refined."""
    xyt, length = crowd(side=500.0)
    raw = motions_of(xyt, length, GAP)
    delta, eps = 100.0, 20.0
    truth, seconds = sts_join_bruteforce(xyt, length, xyt, length, delta, eps, GAP)
    durations = all_durations(xyt, length, xyt, length, delta, GAP)
    tracks, queries = clients_of(raw, tolerance, radius), clients_of(raw, tolerance, radius)
    server = JoinServer(delta, eps)
    server.register([c.obfuscate() for c in tracks.values()])
    found = server.candidates([c.obfuscate() for c in queries.values()])
    true = durations[found.query, found.track]
    assert (found.lower <= true + 1e-9).all()
    assert (true <= found.upper + 1e-9).all()
    assert set(map(tuple, truth.tolist())) <= set(map(tuple, pairs_of(found).tolist())), "no false negative"
    if delta <= 2 * (tolerance + radius):
        assert not found.lower.any()
    for two_way in (False, True):
        server = JoinServer(delta, eps, two_way=two_way, exact=True)
        server.register([c.obfuscate() for c in tracks.values()])
        joined = server.run(queries, tracks)
        assert torch.equal(joined.pairs, truth)
        assert joined.exact.all()
        torch.testing.assert_close(joined.seconds, seconds, rtol=0, atol=1e-9)
    server = JoinServer(delta, eps)
    server.register([c.obfuscate() for c in tracks.values()])
    lazy = server.run(queries, tracks)
    assert torch.equal(lazy.pairs, truth), "accepted without asking, or refined"
    assert lazy.stats["refined"] + lazy.stats["accepted"] == lazy.stats["candidates"]


def numbers_in(value: Any, seen: set[int] | None = None) -> set[float]:
    """Every number anywhere inside an object."""
    seen = set() if seen is None else seen
    if id(value) in seen or isinstance(value, (str, bytes, type, type(None))):
        return set()
    seen.add(id(value))
    if isinstance(value, Tensor):
        return set(value.double().flatten().tolist())
    if isinstance(value, np.ndarray):
        return set(value.astype(float).ravel().tolist())
    if isinstance(value, (int, float)):
        return {float(value)}
    if isinstance(value, dict):
        return set().union(*(numbers_in(v, seen) for v in [*value.keys(), *value.values()]), set())
    if isinstance(value, (list, tuple, set)):
        return set().union(*(numbers_in(v, seen) for v in value), set())
    return numbers_in(vars(value), seen) if hasattr(value, "__dict__") else set()


@pytest.mark.parametrize("two_way", [False, True])
def test_server_never_sees_a_raw_point(two_way: bool) -> None:
    xyt, length = crowd(20, side=300.0)
    raw = motions_of(xyt, length, GAP)
    tracks, queries = clients_of(raw, 5.0, 30.0), clients_of(raw, 5.0, 30.0)
    server = JoinServer(60.0, 20.0, two_way=two_way)
    server.register([c.obfuscate() for c in tracks.values()])
    joined = server.run(queries, tracks)
    assert joined.stats["refined"] > 5
    coordinates = {v for row in raw.segments[:, 2:6].tolist() for v in row}
    assert not numbers_in(server) & coordinates
    kinds = {type(message).__name__ for message in server.received}
    assert kinds == {"Report", "Answer"}
    # the walk does find what is there: the clients hold raw points
    assert coordinates <= numbers_in(tracks)


def test_what_leaves_a_client_is_counted() -> None:
    xyt, length = crowd(2)
    client = clients_of(motions_of(xyt, length, GAP), 50.0, 10.0)[0]
    report = client.obfuscate()
    assert client.sent >= 24 * (len(report.motions.segments) + 1)
    assert client.sent < 24 * int(length[0])
