"""Writes sts_join_meos.npz: pairs of motions, and for how long PyMEOS says they are within a distance.

    python -m venv meos && meos/bin/pip install numpy pymeos==1.3.0 && meos/bin/python make_sts_join.py

PyMEOS is not part of the test extra: the wheel of pymeos_cffi contains portions of PostGIS under the GPL. The tests
read the numbers alone. It keeps microseconds, so each of the stretches that it adds up is right to 1e-6 s.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np

DEGENERATE: dict[str, tuple[list[list[float]], list[list[float]], float]] = {
    "golden": (
        [[0, 0, 0], [10, 0, 10], [20, 0, 20], [30, 0, 30]],
        [[2, 2, 1], [5, 5, 5], [15, 5, 15], [25, -5, 28], [35, 5, 35]],
        3.0,
    ),
    "parallel, near": ([[0, 0, 0], [10, 0, 10]], [[0, 3, 0], [10, 3, 10]], 5.0),
    "parallel, exactly delta": ([[0, 0, 0], [10, 0, 10]], [[0, 5, 0], [10, 5, 10]], 5.0),
    "parallel, far": ([[0, 0, 0], [10, 0, 10]], [[0, 6, 0], [10, 6, 10]], 5.0),
    "touching once": ([[-10, 5, 0], [10, 5, 20]], [[0, 0, 0], [0, 0, 20]], 5.0),
    "both still, near": ([[0, 0, 0], [0, 0, 10]], [[3, 4, 2], [3, 4, 30]], 5.0),
    "both still, far": ([[0, 0, 0], [0, 0, 10]], [[3, 4.1, 2], [3, 4.1, 30]], 5.0),
    "the same": ([[0, 0, 0], [10, 0, 10]], [[0, 0, 0], [10, 0, 10]], 5.0),
    "one common instant": ([[0, 0, 0], [0, 0, 10]], [[0, 0, 10], [0, 0, 20]], 5.0),
    "no common time": ([[0, 0, 0], [0, 0, 10]], [[0, 0, 11], [0, 0, 20]], 5.0),
    "head on": ([[0, 0, 0], [100, 0, 100]], [[100, 0, 0], [0, 0, 100]], 10.0),
    "one point inside": ([[0, 0, 0], [20, 0, 20]], [[5, 0, 5], [5, 0, 15]], 2.0),
}


def cases() -> list[tuple[str, np.ndarray, np.ndarray, float]]:
    """Names, two motions (L, 3) and delta."""
    found = [(name, np.array(a, float), np.array(b, float), d) for name, (a, b, d) in DEGENERATE.items()]
    draw = np.random.default_rng(3)
    for number in range(120):
        pair = []
        for _ in range(2):
            times = np.cumsum(draw.integers(1, 20, 12)).astype(float) + draw.integers(0, 30)
            pair.append(np.column_stack([draw.normal(0, 20, (12, 2)).cumsum(0).round(3), times]))
        found.append((f"random {number}", pair[0], pair[1], 30.0))
    return found


def seconds(pymeos: Any, a: np.ndarray, b: np.ndarray, delta: float) -> float:
    start = datetime(2020, 1, 1, tzinfo=timezone.utc)

    def sequence(track: np.ndarray) -> Any:
        rows = [(x, y, (start + timedelta(seconds=t)).isoformat()) for x, y, t in track.tolist()]
        return pymeos.TGeomPointSeq("[" + ", ".join(f"POINT({x!r} {y!r})@{t}" for x, y, t in rows) + "]")

    within = sequence(a).within_distance(sequence(b), delta)
    when = within.when_true() if within is not None else None
    return when.duration().total_seconds() if when is not None else 0.0


def main() -> None:
    import pymeos

    pymeos.pymeos_initialize()
    arrays: dict[str, np.ndarray] = {}
    names, deltas, totals = [], [], []
    for number, (name, a, b, delta) in enumerate(cases()):
        arrays[f"a{number}"], arrays[f"b{number}"] = a, b
        names.append(name)
        deltas.append(delta)
        totals.append(seconds(pymeos, a, b, delta))
    arrays |= {"names": np.array(names), "delta": np.array(deltas), "seconds": np.array(totals)}
    np.savez_compressed(Path(__file__).with_name("sts_join_meos.npz"), **arrays)  # type: ignore[arg-type]
    pymeos.pymeos_finalize()


if __name__ == "__main__":
    main()
