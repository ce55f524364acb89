"""ROCKET features against aeon, sktime, tsai, and the layout with one Conv1d module per kernel.

    pip install aeon==1.6.0        # each into an environment of its own: they want other versions of numba and numpy
    python benchmarks/rocket.py --aeon /path/to/that/python [--sktime PYTHON] [--tsai PYTHON] [--minutes 5]

Two threads each, no normalisation, times in turns (A B, B A, ...) after a warm-up of each; medians, and the median of
the ratios of turns. Peers run in processes of their own that sleep while we compute; their compile time is reported
apart. Against aeon the kernels are aeon's own, so that features can be compared; sktime and tsai draw theirs. tsai's
ROCKET is another function (it pads twice and uses all channels), so there only the times are comparable.

Each row is written as soon as it is measured, and rows that are there are left alone: with --minutes a run is cut into
pieces. `--fresh` starts over, `--table` prints what is there.
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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

Shape = tuple[int, int, int]
BARS: tuple[Shape, ...] = ((1, 1, 150), (64, 1, 100), (64, 20, 100), (256, 6, 100), (1024, 1, 150))
LONG: tuple[Shape, ...] = ((1, 1, 512), (64, 1, 512), (64, 6, 512), (64, 20, 512))
FEW: tuple[Shape, ...] = ((1024, 1, 512), (1024, 6, 512), (1024, 20, 512))  # with a tenth of the kernels
KERNELS, TENTH = 10_000, 1_000
THREADS = 2
VERSIONS = {"aeon": "1.6.0", "sktime": "1.2.0", "tsai": "1.0.1"}

PEER = """
import json, sys, time
import numpy as np
folder, kind, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
if kind == "aeon":
    from aeon.transformations.collection.convolution_based import Rocket
elif kind == "sktime":
    from sktime.transformations.rocket import Rocket
else:
    import torch
    from tsai.models.ROCKET_Pytorch import ROCKET
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
print(json.dumps({"ready": True}), flush=True)
made = {}
def fit(x, kernels):
    if kind == "aeon":
        return Rocket(n_kernels=kernels, normalise=False, random_state=0, n_jobs=threads).fit(x)
    if kind == "sktime":
        return Rocket(num_kernels=kernels, normalise=False, random_state=0, n_jobs=threads).fit(x)
    return ROCKET(x.shape[1], x.shape[2], n_kernels=kernels, device=torch.device("cpu")).eval()
for line in sys.stdin:
    name, kernels, what = line.split()
    x = np.load(f"{folder}/{name}.npy")
    start = time.perf_counter()
    if what == "fit":
        made = {name: fit(x, int(kernels))}
        if kind == "aeon":
            np.savez(f"{folder}/{name}-kernels.npz", *made[name].kernels)
    else:
        if kind == "tsai":
            x = torch.from_numpy(x)
            start = time.perf_counter()
            made[name](x)
        else:
            start = time.perf_counter()
            out = made[name].transform(x)
    seconds = time.perf_counter() - start
    if what == "keep":
        np.save(f"{folder}/{name}-out.npy", out)
    print(json.dumps({"ms": 1000 * seconds}), flush=True)
"""


class Peer:
    """A peer library in another process, which is started when it is first asked."""

    def __init__(self, kind: str, python: str, folder: Path) -> None:
        self.kind, self.folder = kind, folder
        self.words = [python, "-c", PEER, str(folder), kind, str(THREADS)]
        self.process: subprocess.Popen[str] | None = None

    def _answer(self) -> Any:
        assert self.process is not None
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            if line.startswith("{"):  # libraries print what they like
                return json.loads(line)
        raise SystemExit(f"the process of {self.kind} died; is it installed there?")

    def ask(self, name: str, kernels: int, what: str) -> float:
        """Milliseconds of `fit`, `keep` (transform, result stored) or `transform`."""
        if self.process is None:
            self.process = subprocess.Popen(self.words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            self._answer()
        assert self.process.stdin is not None
        self.process.stdin.write(f"{name} {kernels} {what}\n")
        self.process.stdin.flush()
        return float(self._answer()["ms"])

    def close(self) -> None:
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()
            self.process.wait()


def timed(action: Callable[[], Any]) -> float:
    """Milliseconds of one call."""
    start = time.perf_counter()
    action()
    return 1000 * (time.perf_counter() - start)


def in_turns(first: Callable[[], float], second: Callable[[], float], seconds: float) -> dict[str, Any]:
    """Medians of two actions' times and of their ratio, A B, B A, ..., for at least two turns and about so long."""
    a: list[float] = []
    b: list[float] = []
    start = time.monotonic()
    while len(a) < 2 or (time.monotonic() - start < seconds and len(a) < 15):
        for mine in (True, False) if len(a) % 2 == 0 else (False, True):
            (a if mine else b).append(first() if mine else second())
    ratio = statistics.median(p / q for p, q in zip(a, b, strict=True))
    return {"ours": round(statistics.median(a), 2), "theirs": round(statistics.median(b), 2), "ratio": round(ratio, 4)}


def series_of(shape: Shape, folder: Path) -> tuple[str, Any]:
    """Name and series of a shape; peers read them from the folder."""
    import torch

    name = "x".join(map(str, shape))
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    np.save(folder / f"{name}.npy", x)
    return name, torch.from_numpy(x)


def against_aeon(shape: Shape, kernels: int, peer: Peer) -> dict[str, Any]:
    from zoo.nn.rocket import Kernels, Rocket

    name, x = series_of(shape, peer.folder)
    first = peer.ask(name, kernels, "fit") + peer.ask(name, kernels, "keep")
    with np.load(peer.folder / f"{name}-kernels.npz") as file:
        ours = Rocket.from_kernels(Kernels(*(file[k] for k in file.files)), shape[1])
    ours(x)  # warm-up
    apart = np.abs(ours(x).numpy() - np.load(peer.folder / f"{name}-out.npy"))
    responses = shape[2] - (ours.lengths.numpy() - 1) * ours.dilations.numpy() + 2 * ours.paddings.numpy()
    row = in_turns(lambda: timed(lambda: ours(x)), lambda: peer.ask(name, kernels, "transform"), 25)
    return row | {
        "their_first_call": round(first),
        "largest_difference_of_max": float(apart[:, 1::2].max()),
        "responses_on_the_other_side_of_0": int(np.round(apart[:, ::2] * responses).sum()),
        "responses": int(shape[0] * responses.sum()),
    }


def against_peer(shape: Shape, kernels: int, peer: Peer) -> dict[str, Any]:
    from zoo.nn.rocket import Rocket

    name, x = series_of(shape, peer.folder)
    first = peer.ask(name, kernels, "fit") + peer.ask(name, kernels, "transform")
    ours = Rocket(kernels, shape[2], shape[1])
    ours(x)
    row = in_turns(lambda: timed(lambda: ours(x)), lambda: peer.ask(name, kernels, "transform"), 12)
    return row | {"their_first_call": round(first)}


def against_modules(shape: Shape, kernels: int, folder: Path) -> dict[str, Any]:
    from zoo.methods.soft_rocket.studies import per_module
    from zoo.nn.rocket import Rocket

    _, x = series_of(shape, folder)
    ours = Rocket(kernels, shape[2], shape[1])
    naive = per_module(ours)
    ours(x), naive(x[:1])
    return in_turns(lambda: timed(lambda: ours(x)), lambda: timed(lambda: naive(x)), 8)


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
    return {"peak_mib": round(after), "added_mib": round(after - before)}


def relatives(shape: Shape, folder: Path) -> dict[str, Any]:
    """MiniRocket and Hydra on the same engine, for orientation."""
    from rocket_relatives import Hydra, MiniRocket

    _, x = series_of(shape, folder)
    mini, hydra = MiniRocket(KERNELS, shape[2], shape[1]).fit(x), Hydra(shape[2], shape[1])
    found = {}
    for name, module in (("minirocket", mini), ("hydra", hydra)):
        module(x)
        found[name] = round(statistics.median(timed(lambda: module(x)) for _ in range(5)), 1)  # noqa: B023
    return found


def units(peers: dict[str, Peer], folder: Path) -> Iterator[tuple[str, Shape, int, Callable[[], dict[str, Any]]]]:
    """What is measured, the bars first: peer, shape, kernels, and how."""
    if "aeon" in peers:
        for shape in BARS:
            yield "aeon", shape, KERNELS, lambda s=shape: against_aeon(s, KERNELS, peers["aeon"])
    yield "memory", (1024, 6, 100), KERNELS, peak_memory
    for shape in BARS:
        yield "modules", shape, KERNELS, lambda s=shape: against_modules(s, KERNELS, folder)
    if "aeon" in peers:
        for shape, count in [(s, KERNELS) for s in LONG] + [(s, TENTH) for s in FEW]:
            yield "aeon", shape, count, lambda s=shape, n=count: against_aeon(s, n, peers["aeon"])
    for kind in ("sktime", "tsai"):
        for shape in BARS if kind in peers else ():
            yield kind, shape, KERNELS, lambda s=shape, k=kind: against_peer(s, KERNELS, peers[k])
    for shape in ((64, 1, 100), (256, 6, 100)):
        yield "relatives", shape, KERNELS, lambda s=shape: relatives(s, folder)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: a line per shape and number of kernels, ours and each peer in ms, and the ratios."""
    kinds = [k for k in ("aeon", "sktime", "tsai", "modules") if any(r["against"] == k for r in rows)]
    heads = ["series x channels x points", "kernels", "ours", *(f"{k} (ratio)" for k in kinds)]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for shape, kernels in dict.fromkeys((r["shape"], r["kernels"]) for r in rows if r["against"] in kinds):
        mine = {r["against"]: r for r in rows if (r["shape"], r["kernels"]) == (shape, kernels)}
        cells = [f"{_number(mine[k]['theirs'])} ({mine[k]['ratio']:.2g})" if k in mine else "-" for k in kinds]
        ours = next(mine[k]["ours"] for k in kinds if k in mine)
        lines.append(f"| {shape.replace('x', ' x ')} | {kernels:,} | {_number(ours)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for kind in VERSIONS:
        parser.add_argument(f"--{kind}", help=f"Python of an environment with {kind} {VERSIONS[kind]}")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin nothing after so long")
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "rocket.json")
    options = parser.parse_args()
    import torch

    facts = {"torch": torch.__version__, **VERSIONS, "machine": platform.machine(), "threads": THREADS}
    result: dict[str, Any] = {"facts": facts, "rows": []}
    if options.out.is_file() and not options.fresh:
        result = json.loads(options.out.read_text())
    if options.table:
        print(table(result["rows"]))
        return
    torch.set_num_threads(THREADS)
    torch.set_grad_enabled(False)
    start, rows = time.monotonic(), result["rows"]
    with tempfile.TemporaryDirectory() as temporary:
        given = {kind: python for kind in VERSIONS if (python := getattr(options, kind))}
        peers = {kind: Peer(kind, python, Path(temporary)) for kind, python in given.items()}
        for kind, shape, kernels, measure in units(peers, Path(temporary)):
            about = {"against": kind, "shape": "x".join(map(str, shape)), "kernels": kernels}
            if any(about.items() <= row.items() for row in rows):
                continue
            if time.monotonic() - start > 60 * options.minutes:
                print("there is more to measure: run it again", flush=True)
                break
            rows.append(about | measure())
            print(" ".join(f"{k}={v}" for k, v in rows[-1].items()), flush=True)
            options.out.parent.mkdir(exist_ok=True)
            options.out.write_text(json.dumps(result, indent=1) + "\n")
        for peer in peers.values():
            peer.close()


if __name__ == "__main__":
    main()
