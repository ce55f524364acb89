"""Latency of every regressor of steel strip on one core.

    python -m zoo.methods.steel_roughness.latency [--sizes narrow full shipped]

Latency is the median of one section at a time; throughput that of batches of 64. The rows are written to `latency.json`
of the card, which draws them against the errors of the claims.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import torch

from zoo.files import write_whole
from zoo.index import entries, index_path
from zoo.methods.steel_roughness.module import SteelRoughness
from zoo.methods.steel_roughness.studies import FULL, NARROW, milliseconds

RESULTS = index_path().parent / "model_cards" / "steel-roughness" / "latency.json"


def shipped() -> dict[str, tuple[dict[str, Any], float]]:
    """Network -> constructor arguments and test RMSE of the published weights."""
    known = {}
    for about in entries()["steel-roughness"].weights.values():
        if about.file and "test/rmse" in about.metrics:
            known[about.init["network"]] = (about.init, float(about.metrics["test/rmse"]))
    return known


def measure(sizes: list[str]) -> list[dict[str, Any]]:
    """One row per size and network.

    Args:
        sizes: narrow, full, shipped.
    """
    torch.set_num_threads(1)
    rows = []
    known = {"narrow": NARROW, "full": FULL, "shipped": {name: init for name, (init, _) in shipped().items()}}
    for size in sizes:
        for name, given in known[size].items():
            torch.manual_seed(0)
            model = SteelRoughness(**{"network": name, **given})
            one, many = milliseconds(model), milliseconds(model, batch=64, repeats=5)
            numbers = sum(v.numel() for v in model.published_state().values())
            rows.append({"network": name, "size": size, "ms": one, "per_second": 1000 / many, "numbers": numbers})
            print(f"{name:16} {size:7} {one:8.2f} ms  {1000 / many:9.0f} sections/s  {numbers:10,} numbers", flush=True)
    return rows


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS, help="file to write")
    parser.add_argument("--sizes", nargs="+", default=["narrow", "full", "shipped"], help="measured; others are kept")
    options = parser.parse_args()
    facts = {"threads": 1, "torch": torch.__version__, "cpu": platform.processor() or platform.machine()}
    before = json.loads(options.out.read_text(encoding="utf-8"))["rows"] if options.out.is_file() else []
    rows = [row for row in before if row["size"] not in options.sizes] + measure(options.sizes)
    write_whole(options.out, json.dumps({"rows": rows, **facts}, indent=1) + "\n")


if __name__ == "__main__":
    main()
