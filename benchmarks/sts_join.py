"""The join against all pairs and against k-d trees over time slices, its growth, and the throughput of durations.

    python benchmarks/sts_join.py peers [--sizes 500 2000] [--repeats 5] [--out FILE]
    python benchmarks/sts_join.py growth [--sizes 500 1000 2000 4000 8000 16000] [--out FILE]
    python benchmarks/sts_join.py throughput [--out FILE]

Walkers of 119 segments, delta 100 m, eps 30 s (`zoo.methods.sts_join.studies.walkers`), in a square of 5 km; one
thread. A join includes building its index. Peers, in alternation with ours:

- all pairs: every pair of segments with a common time (binary search, NumPy), each solved exactly. Exact. From 1,000
  walkers on, every tenth walker is joined with all later ones and the time is scaled up.
- k-d tree, 1 s and 5 s: positions on a grid of times, scipy's cKDTree of each slice, seconds counted. Approximate; its
  recall and precision are printed.

`growth` has two tables: the square grows with the number of walkers (equal density), and it stays as it is, so that
pairs grow with the square of it. Seconds are processor seconds, which on an idle machine are those of the clock, as
everything has one thread; of `throughput` with two threads they are seconds of the clock. Medians; ratios are what
counts, machines differ.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree

from zoo.methods.sts_join.candidates import JoinPlan
from zoo.methods.sts_join.distance import cdds
from zoo.methods.sts_join.join import join
from zoo.methods.sts_join.motions import motions_of
from zoo.methods.sts_join.studies import index_of, slope_of, walkers

DELTA, EPS = 100.0, 30.0
Pairs = set[tuple[int, int]]


def ours(xyt: torch.Tensor) -> Pairs:
    motions = motions_of(xyt, torch.full((len(xyt),), xyt.shape[1]), 120.0)
    found = join(motions, index_of(motions, DELTA), JoinPlan(DELTA, EPS, same=True))
    return set(zip(found.query.tolist(), found.track.tolist(), strict=True))


def all_pairs(xyt: np.ndarray, every: int = 1) -> tuple[Pairs, int]:
    """Exact, without an index; returns the pairs and how many segment pairs were solved."""
    count, length = xyt.shape[:2]
    t0, t1 = xyt[:, :-1, 2], xyt[:, 1:, 2]
    p0, v = xyt[:, :-1, :2], (xyt[:, 1:, :2] - xyt[:, :-1, :2]) / (t1 - t0)[..., None]
    span = float(xyt[..., 2].max()) + 1.0
    shift = np.arange(count)[:, None] * span
    starts, ends = (t0 + shift).ravel(), (t1 + shift).ravel()
    segments = length - 1
    found: Pairs = set()
    solved = 0
    for i in range(0, count - 1, every):
        others = np.arange(i + 1, count)
        low = np.searchsorted(ends, (t0[i] + shift[others]).ravel(), side="right")
        high = np.searchsorted(starts, (t1[i] + shift[others]).ravel(), side="left")
        sizes = np.maximum(high - low, 0)
        group = np.repeat(np.arange(len(sizes)), sizes)
        b = low[group] + np.arange(len(group)) - (np.cumsum(sizes) - sizes)[group]
        a = group % segments
        s, e = np.maximum(t0[i][a], t0.ravel()[b]), np.minimum(t1[i][a], t1.ravel()[b])
        d = p0[i][a] + v[i][a] * (s - t0[i][a])[:, None]
        d -= p0.reshape(-1, 2)[b] + v.reshape(-1, 2)[b] * (s - t0.ravel()[b])[:, None]
        w = v[i][a] - v.reshape(-1, 2)[b]
        qa, qb, qc = (w * w).sum(1), (d * w).sum(1), (d * d).sum(1) - DELTA * DELTA
        root = np.sqrt(np.maximum(qb * qb - qa * qc, 0))
        safe = np.maximum(qa, 1e-30)
        begin, end = np.clip((-qb - root) / safe, 0, e - s), np.clip((-qb + root) / safe, 0, e - s)
        seconds = np.bincount(b // segments, weights=end - begin, minlength=count)
        found |= {(i, int(j)) for j in np.flatnonzero(seconds >= EPS)}
        solved += len(group)
    return found, solved


def slices(xyt: np.ndarray, step: float) -> Pairs:
    """Approximate: seconds counted on slices, by a k-d tree of each."""
    count = len(xyt)
    times = np.arange(step / 2, float(xyt[0, -1, 2]), step)
    places = np.stack([np.stack([np.interp(times, t[:, 2], t[:, i]) for i in (0, 1)], 1) for t in xyt], 1)
    keys = []
    for place in places:
        near = cKDTree(place).query_pairs(DELTA, output_type="ndarray")
        keys.append(near[:, 0].astype(np.int64) * count + near[:, 1])
    key, times_seen = np.unique(np.concatenate(keys), return_counts=True)
    kept = key[times_seen * step >= EPS]
    return {(int(k // count), int(k % count)) for k in kept}


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.process_time()
    found = run()
    return time.process_time() - begin, found


def peers(sizes: list[int], repeats: int) -> list[dict[str, Any]]:
    rows = []
    for count in sizes:
        xyt = walkers(count)
        array = xyt.numpy()
        every = 1 if count < 1000 else 10
        share = sum(count - 1 - i for i in range(0, count - 1, every)) / (count * (count - 1) / 2)
        ways: dict[str, Callable[[], Any]] = {
            "ours": lambda x=xyt: ours(x),
            "k-d tree 5 s": lambda a=array: slices(a, 5.0),
            "k-d tree 1 s": lambda a=array: slices(a, 1.0),
        }
        ours(xyt)
        times: dict[str, list[float]] = {name: [] for name in ways}
        found: dict[str, Pairs] = {}
        for number in range(repeats):
            for name in list(ways) if number % 2 == 0 else list(ways)[::-1]:
                seconds, found[name] = timed(ways[name])
                times[name].append(seconds)
        whole, (exact, solved) = timed(lambda a=array, e=every: all_pairs(a, e))
        times["all pairs"] = [whole / share]
        again, found["ours"] = timed(ways["ours"])  # once more after the long run, so that both saw the same machine
        times["ours"].append(again)
        sample = {p for p in found["ours"] if p[0] % every == 0}
        row: dict[str, Any] = {"walkers": count, "pairs": len(found["ours"]), "segment pairs": round(solved / share)}
        row["agrees with all pairs"] = sample == exact
        row |= {f"{name}, s": statistics.median(values) for name, values in times.items()}
        row |= {f"{name}, least s": min(values) for name, values in times.items()}
        for name in ("k-d tree 5 s", "k-d tree 1 s"):
            common = len(found[name] & found["ours"])
            row[f"{name}, recall"] = common / len(found["ours"])
            row[f"{name}, precision"] = common / max(len(found[name]), 1)
        for name in ("all pairs", "k-d tree 1 s", "k-d tree 5 s"):
            row[f"ours / {name}"] = row["ours, s"] / row[f"{name}, s"]
        rows.append(row)
    return rows


def one(count: int, side: float) -> dict[str, float]:
    """Time and memory of one join, in a process of its own."""
    xyt = walkers(count, 0, side)
    length = torch.full((count,), xyt.shape[1])
    best = float("inf")
    for _ in range(5 if count <= 2000 else 1):
        begin = time.process_time()
        motions = motions_of(xyt, length, 120.0)
        found = join(motions, index_of(motions, DELTA), JoinPlan(DELTA, EPS, same=True))
        best = min(best, time.process_time() - begin)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        "walkers": count,
        "segments": len(motions.segments),
        "pairs": len(found.query),
        "intervals": len(found.start),
        "solved": int(found.counts["solved"].sum()),
        "seconds": best,
        "peak GiB": peak,
    }


def growth(sizes: list[int]) -> dict[str, Any]:
    tables: dict[str, Any] = {}
    for name, power in (("equal density", 0.5), ("5 km square", 0.0)):
        rows = []
        for count in sizes:
            words = [sys.executable, __file__, "one", str(count), str(5000.0 * (count / 500) ** power)]
            rows.append(json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout))
        seconds = [r["seconds"] for r in rows]
        tables[name] = {
            "rows": rows,
            "slope against segments + pairs": slope_of([r["segments"] + r["pairs"] for r in rows], seconds),
            "slope against segments + solved": slope_of([r["segments"] + r["solved"] for r in rows], seconds),
        }
    return tables


def throughput(pairs: int = 100_000, points: int = 200) -> dict[str, float]:
    a, b = walkers(4000, 5, 1000.0, points - 1), walkers(4000, 6, 1000.0, points - 1)
    found = {}
    for threads in (1, 2):
        torch.set_num_threads(threads)
        cdds(a[:400], b[:400], DELTA)
        clock, processor = time.perf_counter(), time.process_time()
        for _ in range(pairs // 4000):
            cdds(a, b, DELTA)
        found[f"{threads} thread{'s' if threads > 1 else ''}, s"] = time.perf_counter() - clock
        found[f"{threads} thread{'s' if threads > 1 else ''}, processor s"] = time.process_time() - processor
    return {"pairs": pairs, "points": points, **found}


def show(rows: list[dict[str, Any]]) -> None:
    for key in rows[0]:
        cells = [f"{r[key]:,.4g}" if isinstance(r[key], float) else f"{r[key]:,}" for r in rows]
        print(f"| {key} | " + " | ".join(cells) + " |")


def main() -> None:
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["one"]:
        print(json.dumps(one(int(sys.argv[2]), float(sys.argv[3]))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("peers", "growth", "throughput"))
    parser.add_argument("--sizes", type=int, nargs="+")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", help="also write the numbers as JSON; other parts of the file are kept")
    options = parser.parse_args()
    if options.what == "peers":
        found: Any = peers(options.sizes or [500, 2000], options.repeats)
        show(found)
    elif options.what == "growth":
        found = growth(options.sizes or [500, 1000, 2000, 4000, 8000, 16_000])
        for name, table in found.items():
            print(f"\n{name}")
            show(table["rows"])
            print({k: round(v, 3) for k, v in table.items() if k != "rows"})
    else:
        found = throughput()
        show([found])
    if options.out:
        path = Path(options.out)
        path.parent.mkdir(parents=True, exist_ok=True)
        old = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        machine = {"python": platform.python_version(), "torch": str(torch.__version__), "machine": platform.machine()}
        path.write_text(json.dumps({**old, options.what: found, **machine}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
