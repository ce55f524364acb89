"""ROCKET features against aeon's numba Rocket and against the layout with one Conv1d module per kernel.

    pip install aeon==1.6.0        # into another environment: numba wants an older numpy than this one
    python benchmarks/rocket.py --peer /path/to/that/python

Same series, same kernels (aeon's), two threads each, no normalisation, times in turns (A B, B A, ...) after a warm-up
of each; medians. aeon runs in a process of its own that sleeps while we compute. Its compile time is reported apart.

"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SHAPES = ((64, 1, 100), (1024, 1, 150), (256, 6, 100), (64, 20, 100), (1, 1, 150))
KERNELS = 10_000
THREADS = 2

PEER = """
import sys, time, json
import numpy as np
from aeon.transformations.collection.convolution_based import Rocket
folder = sys.argv[1]
made = {}
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    name, what = line.split()
    x = np.load(f"{folder}/{name}.npy")
    start = time.perf_counter()
    if what == "fit":
        made[name] = Rocket(n_kernels=int(sys.argv[2]), normalise=False, random_state=0, n_jobs=int(sys.argv[3])).fit(x)
        np.savez(f"{folder}/{name}-kernels.npz", *made[name].kernels)
    else:
        start = time.perf_counter()
        out = made[name].transform(x)
        seconds = time.perf_counter() - start
        if what == "keep":
            np.save(f"{folder}/{name}-out.npy", out)
        print(json.dumps({"ms": 1000 * seconds}), flush=True)
        continue
    print(json.dumps({"ms": 1000 * (time.perf_counter() - start)}), flush=True)
"""


class Peer:
    """aeon in another process."""

    def __init__(self, python: str, folder: Path) -> None:
        words = [python, "-c", PEER, str(folder), str(KERNELS), str(THREADS)]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("the peer's process died; is aeon installed there?")
        return json.loads(line)

    def ask(self, name: str, what: str) -> float:
        """Milliseconds of `fit`, `keep` (transform, result stored) or `transform`."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{name} {what}\n")
        self.process.stdin.flush()
        return float(self._answer()["ms"])


def timed(action: Callable[[], Any]) -> float:
    """Milliseconds of one call."""
    start = time.perf_counter()
    action()
    return 1000 * (time.perf_counter() - start)


def in_turns(first: Callable[[], float], second: Callable[[], float], repeats: int) -> tuple[list[float], list[float]]:
    """Times of two actions, A B, B A, ..."""
    a: list[float] = []
    b: list[float] = []
    for i in range(repeats):
        for mine in (True, False) if i % 2 == 0 else (False, True):
            (a if mine else b).append(first() if mine else second())
    return a, b


def per_module(kernels: Any, channels: int) -> Callable[[Any], Any]:
    """The layout of the paper's release, written anew: one Conv1d per kernel, one after the other."""
    import torch

    modules, at, place = [], 0, 0
    for i in range(len(kernels)):
        n, taps = int(kernels.channel_counts[i]), int(kernels.lengths[i])
        module = torch.nn.Conv1d(n, 1, taps, dilation=int(kernels.dilations[i]), padding=int(kernels.paddings[i]))
        with torch.no_grad():
            module.weight.copy_(torch.from_numpy(kernels.weights[at : at + n * taps].reshape(1, n, taps).copy()))
            module.bias.fill_(float(kernels.biases[i]))
        chosen = torch.from_numpy(kernels.channels[place : place + n].astype(np.int64))
        modules.append((module, None if n == channels == 1 else chosen))
        at, place = at + n * taps, place + n

    def run(x: Any) -> Any:
        found = []
        for module, chosen in modules:
            z = module(x if chosen is None else x[:, chosen])[:, 0]
            found += [(z > 0).float().mean(1), z.amax(1)]
        return torch.stack(found, 1)

    return run


def one_shape(shape: tuple[int, int, int], peer: Peer, folder: Path, repeats: int) -> dict[str, Any]:
    import torch

    from zoo.nn.rocket import Kernels, Rocket

    count, channels, length = shape
    name = "x".join(map(str, shape))
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    np.save(folder / f"{name}.npy", x)
    fit = peer.ask(name, "fit")
    first = peer.ask(name, "keep")
    with np.load(folder / f"{name}-kernels.npz") as file:
        kernels = Kernels(*(file[k] for k in file.files))
    ours, series = Rocket.from_kernels(kernels, channels), torch.from_numpy(x)
    ours(series)  # warm-up
    theirs = np.load(folder / f"{name}-out.npy")
    apart = np.abs(ours(series).numpy() - theirs)
    step = 1 / (length - (ours.lengths.numpy() - 1) * ours.dilations.numpy() + 2 * ours.paddings.numpy())
    flips = np.round(apart[:, ::2] / step).sum()
    a, b = in_turns(lambda: timed(lambda: ours(series)), lambda: peer.ask(name, "transform"), repeats)
    naive = per_module(kernels, channels)
    if count <= 256:
        naive(series)
    c = [timed(lambda: naive(series)) for _ in range(1 if count > 64 else 3)]
    mine, their, slow = (statistics.median(v) for v in (a, b, c))
    row = {
        "shape": name, "ours_ms": round(mine, 1), "aeon_ms": round(their, 1), "modules_ms": round(slow, 1),
        "ours/aeon": round(statistics.median(p / q for p, q in zip(a, b, strict=True)), 3),
        "ours/modules": round(mine / slow, 4), "aeon_first_call_ms": round(fit + first),
        "largest_difference_of_max": float(apart[:, 1::2].max()), "responses_on_the_other_side_of_0": int(flips),
        "responses": int(count * (1 / step).sum()),
    }  # fmt: skip
    print(" ".join(f"{k}={v}" for k, v in row.items()), flush=True)
    return row


MEMORY = """
import resource, sys
import torch
from zoo.nn.rocket import Rocket
torch.set_num_threads(int(sys.argv[1]))
x, rocket = torch.randn(1024, 6, 100), Rocket(10_000, 100, 6)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rocket(x)
print(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_memory() -> dict[str, Any]:
    """Peak resident memory of a process that transforms 1,024 x 6 x 100, and what the transform added to it."""
    done = subprocess.run([sys.executable, "-c", MEMORY, str(THREADS)], capture_output=True, text=True, check=True)
    before, after = (int(v) / 1024 for v in done.stdout.split())
    row = {"shape": "1024x6x100", "peak_mib": round(after), "added_mib": round(after - before)}
    print(row, flush=True)
    return row


def relatives(repeats: int) -> list[dict[str, Any]]:
    """MiniRocket and Hydra on the same engine, for orientation."""
    import torch

    from zoo.nn.rocket import Hydra, MiniRocket

    rows = []
    for shape in ((64, 1, 100), (256, 6, 100)):
        x = torch.from_numpy(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
        mini, hydra = MiniRocket(10_000, shape[2], shape[1]).fit(x), Hydra(shape[2], shape[1])
        row: dict[str, Any] = {"shape": "x".join(map(str, shape))}
        for name, module in (("minirocket", mini), ("hydra", hydra)):
            module(x)
            row[f"{name}_ms"] = round(statistics.median(timed(lambda: module(x)) for _ in range(repeats)), 1)  # noqa: B023
        print(row, flush=True)
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", required=True, help="Python of an environment with aeon")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "rocket.json")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(THREADS)
    torch.set_grad_enabled(False)
    with tempfile.TemporaryDirectory() as temporary:
        peer = Peer(options.peer, Path(temporary))
        rows = []
        for shape in SHAPES:
            repeats = max(3, options.repeats - 2) if shape[0] > 64 else 2 * options.repeats
            rows.append(one_shape(shape, peer, Path(temporary), repeats))
        peer.process.stdin.close()  # type: ignore[union-attr]
    result = {
        "facts": {"torch": torch.__version__, "aeon": "1.6.0", "machine": platform.machine(), "threads": THREADS},
        "kernels": KERNELS,
        "rows": rows,
        "memory": peak_memory(),
        "relatives": relatives(options.repeats),
    }
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
