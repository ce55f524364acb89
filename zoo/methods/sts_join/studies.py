"""What the join promises, measured: exactness, what obfuscation costs and hides, pruning, scaling, and why at all."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.methods.sts_join.candidates import GUARD, JoinPlan
from zoo.methods.sts_join.clients import JoinServer, TrajectoryClient, clients_of
from zoo.methods.sts_join.distance import cdds, cdds_intervals
from zoo.methods.sts_join.index import STSIndex, make_table
from zoo.methods.sts_join.join import join
from zoo.methods.sts_join.motions import Motions, motions_of, positions
from zoo.methods.sts_join.oracle import all_durations
from zoo.studies import Outcome, study

_NAUTICAL = 1852.0


def walkers(count: int, seed: int = 0, side: float = 5000.0, segments: int = 119) -> Tensor:
    """People who walk about a square, (count, segments + 1, 3), seen at irregular times, about 10 s apart."""
    draw = np.random.default_rng(seed)
    times = np.concatenate([np.zeros((count, 1)), np.cumsum(draw.uniform(1, 19, (count, segments)), 1)], 1)
    times *= 10.0 * segments / times[:, -1:]
    heading = np.cumsum(draw.normal(0, 0.5, (count, segments)), 1) + draw.uniform(0, 2 * np.pi, (count, 1))
    length = np.diff(times, axis=1) * draw.uniform(0.8, 1.8, (count, 1))
    steps = np.stack([length * np.cos(heading), length * np.sin(heading)], -1)
    way = draw.uniform(0, side, (count, 1, 2)) + np.concatenate([np.zeros((count, 1, 2)), np.cumsum(steps, 1)], 1)
    way = side - np.abs(side - np.abs(way) % (2 * side))  # reflected at the borders
    return torch.from_numpy(np.concatenate([way, times[..., None]], -1))


def index_of(motions: Motions, delta: float, **options: Any) -> STSIndex:
    """An index of exact motions."""
    numbers = torch.arange(motions.count)
    return STSIndex().fill(make_table(motions, numbers, [str(n) for n in numbers.tolist()], reach=delta, **options))


def _source(name: str, root: str | None, seed: int) -> tuple[Tensor, Tensor, float]:
    """Tracks, lengths and a typical delta of a data source."""
    from datamodules.tracks import TracksDataModule

    if name == "walkers":
        xyt = walkers(60, seed, side=1500.0)
        return xyt, torch.full((len(xyt),), xyt.shape[1]), 100.0
    if name == "flights":
        data = TracksDataModule(root=root, files="quickstart*", every=10.0, val_share=0, test_share=0)
        typical = 5 * _NAUTICAL
    else:
        data, typical = TracksDataModule(train_size=90, together=0.8, noise=3.0), 50.0
    tracks = data.split("train")
    rows = type(data).collate([tracks[i] for i in range(len(tracks))])  # type: ignore[arg-type]
    return rows["xyt"], rows["length"], typical


@study("largest_error")
def golden() -> Outcome:
    """Difference from the worked example and from what PyMEOS gave for it (7.783452 s)."""
    a = torch.tensor([[0, 0, 0], [10, 0, 10], [20, 0, 20], [30, 0, 30]], dtype=torch.float64)
    b = torch.tensor([[2, 2, 1], [5, 5, 5], [15, 5, 15], [25, -5, 28], [35, 5, 35]], dtype=torch.float64)
    total = float(cdds(a[None], b[None], 3.0))
    pieces = float(cdds_intervals(a, b, 3.0).diff(dim=1).sum())
    return Outcome({"largest_error": max(abs(total - 7.7834518), abs(pieces - total))})


@study("wrong_pairs", "largest_error", "pairs")
def exactness(source: str = "walkers", root: str | None = None, settings: int = 20) -> Outcome:
    """Pairs missed or invented, and the largest error of a duration, over random settings, against brute force.

    Args:
        source: walkers, commuters or flights.
        root: folder of the flights.
        settings: of delta, eps, bin width, cell side and chunk.
    """
    xyt, length, typical = _source(source, root, 0)
    motions = motions_of(xyt, length, 120.0)
    draw = np.random.default_rng(1)
    wrong, pairs, worst = 0, 0, 0.0
    for _ in range(settings):
        delta, eps = typical * float(10 ** draw.uniform(-0.7, 0.5)), float(10 ** draw.uniform(0, 2.8))
        truth = _upper_durations(xyt, length, delta)
        options = {"width": float(10 ** draw.uniform(1.2, 2.3)), "cell": typical * float(draw.uniform(1, 8))}
        plan = JoinPlan(delta, eps, same=True, chunk=int(draw.integers(500, 200_000)), rounds=int(draw.integers(1, 5)))
        result = join(motions, index_of(motions, delta, **options), plan)
        ours = torch.zeros_like(truth)
        ours[result.query, result.track] = result.upper
        true = (truth >= eps - GUARD) & (truth > 0)
        wrong += int((true != (ours > 0)).sum())
        pairs += int(true.sum())
        if true.any():
            worst = max(worst, float((ours - truth)[true].abs().max()))
    return Outcome({"wrong_pairs": float(wrong), "largest_error": worst, "pairs": float(pairs)})


def _upper_durations(xyt: Tensor, length: Tensor, delta: float) -> Tensor:
    """CDDS of every pair of tracks, by brute force, above the diagonal of (N, N)."""
    truth = torch.zeros(len(xyt), len(xyt), dtype=torch.float64)
    first, second = torch.triu_indices(len(xyt), len(xyt), 1)
    order = torch.maximum(length[first], length[second]).argsort()  # pairs of like length need little padding
    for part in torch.split(order, 1024):
        i, j = first[part], second[part]
        a, b = xyt[i, : int(length[i].max())], xyt[j, : int(length[j].max())]
        truth[i, j] = cdds(a, b, delta, length_a=length[i], length_b=length[j], gap=120.0)
    return truth


_OBFUSCATION = ("segments", "candidates", "accepted", "refined", "false_negatives", "false_acceptances", "wrong_pairs")


@study(*_OBFUSCATION, "true_pairs", "distance_mean", "distance_95", "bytes_share", "largest_error")
def obfuscation(
    root: str = "flights", radius: float = 1000.0, tolerance: float = 250.0, delta: float = 9260.0, eps: float = 60.0
) -> Outcome:
    """A self-join of flights between clients: what the server can tell, what it must ask, and what it gets wrong.

    Args:
        root: folder of the flights.
        radius: of the discs, metres.
        tolerance: of the simplification, metres.
        delta: of the join, metres; 5 nautical miles.
        eps: seconds.
    """
    xyt, length, _ = _source("flights", root, 0)
    motions = motions_of(xyt, length, 120.0)
    clients = clients_of(motions, tolerance, radius, b"a fixed key, so that the study can be run again")
    reports = [client.obfuscate() for client in clients.values()]
    server = JoinServer(delta, eps)
    server.register(reports)
    assert server.index is not None
    true = join(motions, index_of(motions, delta), JoinPlan(delta, eps, same=True))
    known = {(int(q), int(t)): float(s) for q, t, s in zip(true.query, true.track, true.upper, strict=True)}
    result = join(server.index.motions, server.index, JoinPlan(delta, eps, 2 * (tolerance + radius), same=True))
    pairs = list(zip(result.query.tolist(), result.track.tolist(), strict=True))
    exact = {p: server.ask(result, k, clients[p[0]], clients) for k, p in enumerate(pairs)}
    kept = {p: s for p, s in exact.items() if s >= eps - GUARD}
    accepted = {p for p, certain in zip(pairs, result.certain.tolist(), strict=True) if certain}
    away = _displaced(motions, reports)
    shared = set(kept) & set(known)
    metrics = {
        "true_pairs": len(known),
        "segments": sum(len(r.motions.segments) for r in reports),
        "candidates": len(pairs),
        "accepted": len(accepted),
        "refined": len(pairs) - len(accepted),
        "false_negatives": len(set(known) - set(pairs)),
        "false_acceptances": len(accepted - set(known)),
        "wrong_pairs": len(set(kept) ^ set(known)),
        "largest_error": max(abs(kept[p] - known[p]) for p in shared),
        "distance_mean": float(away.mean()),
        "distance_95": float(away.quantile(0.95)),
        "bytes_share": sum(len(r.motions.segments) + 1 for r in reports) / float(length.sum()),
    }
    return Outcome({k: float(v) for k, v in metrics.items()})


def _displaced(motions: Motions, reports: list[Any]) -> Tensor:
    """Distance of every raw point from the report at its time, metres."""
    away = []
    for number, report in enumerate(reports):
        raw, reported = motions.segments[motions.owner == number], report.motions.segments
        at = (torch.searchsorted(reported[:, 0].contiguous(), raw[:, 0].contiguous(), right=True) - 1).clamp_min(0)
        away.append((positions(reported[at], raw[:, 0]) - raw[:, 2:4]).norm(dim=1))
    return torch.cat(away)


@study("candidates_per_true_pair")
def radius_sweep(root: str = "flights", tolerance: float = 250.0) -> Outcome:
    """Candidates per true pair at a radius of 2,000 m; the curve has all radii."""
    curve = []
    for radius in (0.0, 250.0, 500.0, 1000.0, 1500.0, 2000.0):
        metrics = obfuscation(root, radius, tolerance).metrics
        curve.append((radius, metrics["candidates"] / metrics["true_pairs"]))
    return Outcome({"candidates_per_true_pair": curve[-1][1]}, {"candidates per true pair against radius, m": curve})


@study("recovered", "recovered_from_fresh_noise")
def attack(radius: float = 200.0, tolerance: float = 20.0, releases: int = 50) -> Outcome:
    """Share of starting places that an attacker guesses from reports, who knows all 625 crossings of the city.

    The attacker takes the crossing next to the reported start. `recovered_from_fresh_noise` is the share if clients
    drew new noise for each of `releases` reports, and the attacker averages them: why noise is drawn once.
    """
    from datamodules.worlds.commuters import CityConfig, traveller

    city = CityConfig()
    tracks = [t for t in (traveller(city, "train", i) for i in range(400)) if t.leader < 0]
    once = fresh = 0
    for number, track in enumerate(tracks):
        xyt = torch.from_numpy(track.xyt[:2])  # the first point is always reported; the others do not matter here
        motions = motions_of(xyt[None], torch.tensor([len(xyt)]), 120.0)
        true = np.rint(track.xyt[0, :2] / city.block)
        starts = []
        for release in range(releases):
            key = f"release {release}".encode()
            report = TrajectoryClient(number, motions, tolerance, radius, key).obfuscate()
            starts.append(report.motions.segments[0, 2:4].numpy())
        once += bool((np.rint(starts[0] / city.block) == true).all())
        fresh += bool((np.rint(np.mean(starts, 0) / city.block) == true).all())
    return Outcome({"recovered": once / len(tracks), "recovered_from_fresh_noise": fresh / len(tracks)})


@study("solved", "seconds")
def pruning(count: int = 1000, box_gap: bool = True, backward: bool = True, rounds: int = 1) -> Outcome:
    """Segment pairs whose quadratic is solved in a self-join of walkers, and processor seconds."""
    xyt = walkers(count, 3)
    motions = motions_of(xyt, torch.full((count,), xyt.shape[1]), 120.0)
    index = index_of(motions, 100.0)
    begin = time.process_time()
    result = join(motions, index, JoinPlan(100.0, 60.0, same=True, box_gap=box_gap, backward=backward, rounds=rounds))
    seconds = time.process_time() - begin
    return Outcome({"solved": float(result.counts["solved"].sum()), "seconds": seconds})


def timed_join(count: int, side: float, seed: int = 0) -> dict[str, float]:
    """Processor seconds of building the index and joining, and the sizes of input and output."""
    xyt = walkers(count, seed, side)
    length = torch.full((count,), xyt.shape[1])
    best = float("inf")
    for _ in range(3 if count <= 2000 else 1):
        begin = time.process_time()
        motions = motions_of(xyt, length, 120.0)
        result = join(motions, index_of(motions, 100.0), JoinPlan(100.0, 30.0, same=True))
        best = min(best, time.process_time() - begin)
    sizes = {"segments": float(len(motions.segments)), "pairs": float(len(result.query))}
    return {
        **sizes,
        "intervals": float(len(result.start)),
        "solved": float(result.counts["solved"].sum()),
        "seconds": best,
    }


def slope_of(x: list[float], y: list[float]) -> float:
    """Slope of a straight line through the logarithms."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


@study("slope")
def scaling(largest: int = 16_000) -> Outcome:
    """Exponent of processor time against segments plus pairs, from 500 walkers on, at equal density of people."""
    sizes = [n for n in (500, 1000, 2000, 4000, 8000, 16_000) if n <= largest]
    rows = [timed_join(n, 5000.0 * (n / 500) ** 0.5) for n in sizes]
    work = [r["segments"] + r["pairs"] for r in rows]
    seconds = [r["seconds"] for r in rows]
    curve = [(float(np.log10(w)), float(np.log10(s))) for w, s in zip(work, seconds, strict=True)]
    return Outcome({"slope": slope_of(work, seconds)}, {"log10 seconds against log10 (segments + pairs)": curve})


@study("seconds")
def throughput(pairs: int = 100_000, points: int = 200) -> Outcome:
    """Processor seconds for CDDS of many pairs of motions."""
    a, b = walkers(2000, 5, 1000.0, points - 1), walkers(2000, 6, 1000.0, points - 1)
    begin = time.process_time()
    for _ in range(pairs // 2000):
        cdds(a, b, 100.0)
    return Outcome({"seconds": time.process_time() - begin})


@study("recall")
def shared_way(measure: str = "join", count: int = 200, points: int = 60, seed: int = 0) -> Outcome:
    """Recall at precision 1 for pairs of walkers who share a tenth of their way.

    Args:
        measure: `join` thresholds the time within 25 m; `dtw` and `frechet` the distance of the whole trajectories.
        count: walkers; half of them share a tenth of their way with one of the other half.
        points: of each.
        seed: of the walkers.
    """
    xyt = walkers(count, 20 + seed, 5000.0, points - 1)
    xyt[..., 2] = xyt[0, :, 2]  # seen at the same times, so that no measure suffers from the sampling
    half, tenth = count // 2, points // 10
    draw = np.random.default_rng(seed)
    for i in range(half):  # the second walker joins the first on a stretch; its way before and after is moved there
        begin = int(draw.integers(0, points - tenth))
        own, other = xyt[half + i], xyt[i]
        before, after = own[begin, :2].clone(), own[begin + tenth, :2].clone()
        own[:begin, :2] += other[begin, :2] - before
        own[begin + tenth :, :2] += other[begin + tenth, :2] - after
        own[begin : begin + tenth, :2] = other[begin : begin + tenth, :2]
        own[:, 0] += 5.0
    true = torch.zeros(count, count, dtype=torch.bool)
    true[torch.arange(half), torch.arange(half) + half] = True
    upper = torch.ones_like(true).triu(1)
    if measure == "join":
        length = torch.full((count,), points)
        score = all_durations(xyt, length, xyt, length, 25.0, 120.0)
    else:
        score = -_whole(xyt[..., :2], measure)
    order = score[upper].argsort(descending=True)
    hits = true[upper][order]
    first_wrong = int((~hits).nonzero()[0]) if (~hits).any() else len(hits)
    return Outcome({"recall": first_wrong / half})


def _whole(points: Tensor, measure: str) -> Tensor:
    """Dynamic time warping or discrete Frechet distance of all pairs of trajectories (N, L, 2)."""
    count, length = points.shape[:2]
    apart = torch.cdist(points[:, None], points[None])  # (N, N, L, L)
    table = torch.full((count, count, length), float("inf"), dtype=torch.float64)
    for i in range(length):
        row = torch.empty_like(table)
        for j in range(length):
            near = apart[:, :, i, j]
            options = [table[..., j], *([table[..., j - 1], row[..., j - 1]] if j else [])]
            best = torch.stack(options).amin(0) if i or j else torch.zeros_like(near)
            row[..., j] = near + best if measure == "dtw" else torch.maximum(near, best)
        table = row
    return table[..., -1]
