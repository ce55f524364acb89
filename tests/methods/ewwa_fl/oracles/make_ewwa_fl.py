"""Three rounds of element-wise weights aggregation, one number at a time, straight from the equations.

Written from the equations of the paper (softmax shares, moments per client) and of the authors' code (logarithmic
shares, one pair of moments that every client moves in turn). Uses nothing but the standard library, no code of the zoo.

    python tests/methods/ewwa_fl/oracles/make_ewwa_fl.py      writes ewwa_fl.json beside this file
"""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

SIZES = {"a.weight": 6, "b.bias": 3}
CLIENTS = 3
ROUNDS = 3
B1, B2, EPS = 0.9, 0.999, 1e-8


def sign(x: float) -> float:
    return (x > 0) - (x < 0)


def next_v(optimiser: str, v: float, g: float) -> float:
    if optimiser == "adam":
        return B2 * v + (1 - B2) * g * g
    if optimiser == "adagrad":
        return v + g * g
    return v - (1 - B2) * g * g * sign(v - g * g)


def aggregate(
    w: dict[str, list[float]],
    sent: list[dict[str, list[float]]],
    m: dict[tuple, float],
    v: dict[tuple, float],
    t: int,
    optimiser: str,
    shared: bool,
    logarithm: bool,
) -> dict[str, list[float]]:
    s = math.sqrt(1 - B2 ** (t + 1)) / (1 - B1 ** (t + 1))
    u: dict[tuple, float] = {}
    for client in range(CLIENTS):
        for key, size in SIZES.items():
            for e in range(size):
                owner = (None if shared else client, key, e)
                g = w[key][e] - sent[client][key][e]
                m[owner] = B1 * m.get(owner, 0.0) + (1 - B1) * g
                v[owner] = next_v(optimiser, v.get(owner, 0.0), g)
                u[client, key, e] = s * m[owner] / (math.sqrt(v[owner]) + EPS)
    low = min(u.values())
    new: dict[str, list[float]] = {}
    for key, size in SIZES.items():
        new[key] = []
        for e in range(size):
            if logarithm:
                c = [math.log(u[client, key, e] - low + 1) + 1e-8 for client in range(CLIENTS)]
            else:
                c = [math.exp(u[client, key, e]) for client in range(CLIENTS)]
            new[key].append(sum(c[client] / sum(c) * sent[client][key][e] for client in range(CLIENTS)))
    return new


def main() -> None:
    draw = random.Random(20231204)
    start = {key: [draw.gauss(0, 1) for _ in range(size)] for key, size in SIZES.items()}
    changes = [
        [{key: [draw.gauss(0, 0.1) for _ in range(size)] for key, size in SIZES.items()} for _ in range(CLIENTS)]
        for _ in range(ROUNDS)
    ]
    found = {"start": start, "changes": changes, "models": {}}
    for name, (shared, logarithm) in {"paper": (False, False), "official": (True, True)}.items():
        for optimiser in ("adam", "adagrad", "yogi"):
            w, m, v, models = start, {}, {}, []
            for t in range(ROUNDS):
                sent = [
                    {key: [x + d for x, d in zip(w[key], change[key], strict=True)] for key in SIZES}
                    for change in changes[t]
                ]
                w = aggregate(w, sent, m, v, t, optimiser, shared, logarithm)
                models.append(w)
            found["models"][f"{name}-{optimiser}"] = models
    Path(__file__).with_name("ewwa_fl.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
