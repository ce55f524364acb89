"""What trust costs: hashing against reading, and loading bundled weights against building the network alone.

    python benchmarks/store.py [--megabytes 64 256] [--repeats 7] [--folder DIR] [--out FILE]

Two tables. The first takes a safetensors file of each size and compares, in alternation: reading it (warm: from the
page cache; cold: after asking the kernel to drop it, where that is possible), hashing bytes that are in memory, reading
and hashing as `zoo verify` does, safetensors' own reader, and the zoo's verified reader (read, hash, header checks,
tensors, finite numbers). The second takes every bundled checkpoint: building the network, `zoo.load`, and the
difference, which is what weights and their verification cost. Medians; nothing is asserted, machines differ.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

import zoo
from zoo import index
from zoo.store.tensors import file_sha256, read_state

MEGABYTE = 1 << 20
BLOCK = 8 << 20


def write(path: Path, megabytes: int) -> None:
    """A file of many tensors, as networks have them."""
    count = max(1, megabytes // 4)
    save_file({f"layer.{i}.weight": torch.rand(MEGABYTE) for i in range(count)}, path)
    with path.open("rb") as file:
        os.fsync(file.fileno())  # dirty pages cannot be dropped


def read(path: Path) -> int:
    """Read all bytes into one buffer that is used again, as fast as Python can."""
    total, buffer = 0, bytearray(BLOCK)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            total += count
    return total


def drop(path: Path) -> bool:
    """Ask the kernel to forget the file's pages; False where that cannot be done."""
    if not hasattr(os, "posix_fadvise"):
        return False
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True


def seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure_file(path: Path, repeats: int) -> dict[str, float]:
    """Median seconds of each way, in alternation so that a busy machine disturbs all alike."""
    data = path.read_bytes()
    ways: dict[str, Callable[[], Any]] = {
        "read": lambda: read(path),
        "hash": lambda: hashlib.sha256(data).digest(),
        "read + hash": lambda: file_sha256(path),
        "safetensors": lambda: load_file(path),
        "verified": lambda: read_state(path),
    }
    times: dict[str, list[float]] = {name: [] for name in (*ways, "cold read", "cold read + hash")}
    for _ in range(repeats):
        for name, run in ways.items():
            times[name].append(seconds(run))
        for name in ("read", "read + hash"):
            if drop(path):
                times[f"cold {name}"].append(seconds(ways[name]))
    return {name: statistics.median(found) for name, found in times.items() if found}


def measure_checkpoint(name: str, repeats: int) -> dict[str, float]:
    """Median seconds of building and of loading."""
    entry, tag = index.resolve(name)
    weights, cls = entry.weights[str(tag)], entry.model_class()
    ways: dict[str, Callable[[], Any]] = {"build": lambda: cls(**weights.init), "load": lambda: zoo.load(name)}
    times: dict[str, list[float]] = {key: [] for key in ways}
    for run in ways.values():
        run()
    for _ in range(repeats):
        for key, run in ways.items():
            times[key].append(seconds(run))
    found = {key: statistics.median(values) for key, values in times.items()}
    return found | {"weights": found["load"] - found["build"], "megabytes": (weights.bytes or 0) / 1e6}


def print_files(results: dict[str, dict[str, float]]) -> None:
    columns = ["read", "cold read", "hash", "read + hash", "cold read + hash", "safetensors", "verified"]
    print("| file | " + " | ".join(f"{c}, ms" for c in columns) + " | hash / read | hash / cold read |")
    print("|---|" + "---|" * (len(columns) + 2))
    for name, times in results.items():
        cells = [f"{times[c] * 1e3:.1f}" if c in times else "-" for c in columns]
        cold = f"{times['hash'] / times['cold read']:.2f}" if "cold read" in times else "-"
        print(f"| {name} | " + " | ".join(cells) + f" | {times['hash'] / times['read']:.2f} | {cold} |")


def print_checkpoints(results: dict[str, dict[str, float]]) -> None:
    print("| checkpoint | MB | build, ms | zoo.load, ms | weights and verification, ms |")
    print("|---|---|---|---|---|")
    for name, found in results.items():
        cells = [f"{found['megabytes']:.2f}", *(f"{found[k] * 1e3:.1f}" for k in ("build", "load", "weights"))]
        print(f"| {name} | " + " | ".join(cells) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[16, 256])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--folder", help="where the files are written; another disk than the temporary folder's")
    parser.add_argument("--out", help="also write the numbers as JSON")
    options = parser.parse_args()
    files: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        for megabytes in options.megabytes:
            path = Path(place) / f"{megabytes}.safetensors"
            write(path, megabytes)
            files[f"{megabytes} MB"] = measure_file(path, options.repeats)
            path.unlink()
    print_files(files)
    names = [
        f"{entry.id}:{tag}"
        for entry in index.entries().values()
        for tag, weights in entry.weights.items()
        if weights.sha256 and index.bundled_path(weights, entry).is_file()
    ]
    checkpoints = {name: measure_checkpoint(name, options.repeats) for name in names}
    print()
    print_checkpoints(checkpoints)
    if options.out:
        machine = {"python": platform.python_version(), "torch": str(torch.__version__), "machine": platform.machine()}
        content = {"files": files, "checkpoints": checkpoints, "threads": torch.get_num_threads(), **machine}
        Path(options.out).parent.mkdir(parents=True, exist_ok=True)
        Path(options.out).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
