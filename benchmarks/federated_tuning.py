"""The knob of each federated algorithm, chosen on validation images before the claims are run.

    python benchmarks/federated_tuning.py [--part swarm three] [--out FILE]     # ten minutes on one core

A seed (100) that no claim uses, and no look at test images. The score is the mean validation accuracy of the last five
rounds, averaged over the partitions.

swarm   uav-swarm-fl on the three partitions of its claims whose clients differ, 20 rounds, else as in the claims:
        first the clients' rate, with fedavg; with that rate, three values each of mu of fedprox and of moon and of the
        server's rate of fedadam
three   ewwa-fl on its three clients, as in its claims: the clients' rate with which the plain mean does best, for each
        network, which EWWA and FedAdam then use as well

The values found stand in model_cards/uav-swarm-fl/claims.yaml and zoo/methods/ewwa_fl/studies.py.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from zoo.methods.ewwa_fl.studies import run_of
from zoo.methods.uav_swarm_fl.studies import swarm_run

SEED = 100
SWARM: dict[str, tuple[str, tuple[float, ...]]] = {
    "fedavg": ("lr", (0.01, 0.02, 0.05, 0.1)),
    "fedprox": ("mu", (0.01, 0.1, 1.0)),
    "fedadam": ("eta", (0.003, 0.01, 0.03)),
    "moon": ("mu", (0.1, 1.0, 5.0)),
}
"""Algorithm -> knob, values. The best rate of the first one serves all."""
PARTITIONS = ("dirichlet-0.1", "labels-2", "labels-1")
THREE: dict[str, tuple[str, tuple[float, ...]]] = {
    "strided-lenet": ("lr", (0.01, 0.03, 0.1)),
    "lenet5": ("lr", (0.01, 0.02, 0.05)),
}
"""Network -> knob, values."""


Run = dict[str, Any]


def swarm() -> Iterator[Run]:
    """All runs of a part, each with who, knob, value, partition, and validation accuracy per round."""
    rate: dict[str, float] = {}
    for algorithm, (knob, values) in SWARM.items():
        runs = []
        for value in values:
            for partition in PARTITIONS:
                given: dict[str, Any] = {**rate, knob: value}
                found = swarm_run(algorithm, partition, SEED, 20, 4000, test=False, **given)
                runs.append(run_of_knob(algorithm, knob, value, partition, found.validation))
                yield runs[-1]
        if not rate:
            rate = {"lr": chosen(runs)[algorithm]["best"]}


def three() -> Iterator[Run]:
    """Likewise."""
    for network, (knob, values) in THREE.items():
        for value in values:
            given: dict[str, Any] = {"algorithm": "fedavg", knob: value}
            found = run_of(network, SEED, 25, 6000, test=False, **given)
            yield run_of_knob(network, knob, value, "shards-2", found.validation)


def run_of_knob(who: str, knob: str, value: float, partition: str, validation: list[float]) -> Run:
    """What is kept of a run."""
    told = {"who": who, "knob": knob, "value": value, "partition": partition}
    last = round(statistics.fmean(validation[-5:]), 4)
    return {**told, "last_five": last, "validation": [round(v, 4) for v in validation]}


PARTS = {"swarm": swarm, "three": three}


def chosen(runs: list[Run]) -> dict[str, Any]:
    """The best value of each, with the scores of all."""
    scores: dict[str, dict[float, list[float]]] = {}
    for run in runs:
        scores.setdefault(run["who"], {}).setdefault(run["value"], []).append(run["last_five"])
    found = {}
    for who, values in scores.items():
        means = {value: statistics.fmean(seen) for value, seen in values.items()}
        found[who] = {"best": max(means, key=lambda v: means[v]), "scores": {str(v): m for v, m in means.items()}}
    return found


def measure(part: str) -> dict[str, Any]:
    """All runs of a part and what they say."""
    runs = []
    start = time.perf_counter()
    for run in PARTS[part]():
        runs.append(run)
        seconds = time.perf_counter() - start
        told = f"{run['who']:14s} {run['knob']} {run['value']:<6g} {run['partition']:14s}"
        print(f"{told} {run['last_five']:6.1%}   {seconds:5.0f} s", flush=True)
    return {"seed": SEED, "chosen": chosen(runs), "runs": runs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "federated_tuning.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for part in options.part:
        found = measure(part)
        # read after the computation: the other part may have been written meanwhile
        known = json.loads(options.out.read_text(encoding="utf-8")) if options.out.is_file() else {}
        options.out.write_text(json.dumps({**known, part: found}, indent=1) + "\n", encoding="utf-8")
        print(json.dumps(found["chosen"], indent=1))


if __name__ == "__main__":
    main()
