"""The knob of each federated algorithm, chosen on validation images before the claims are run.

    python benchmarks/federated_tuning.py [--part swarm three] [--out FILE]     # half an hour on one core

Every algorithm gets three values of one knob and a seed (100) that no claim uses; no test image is looked at. The score
is the mean validation accuracy of the last five rounds, averaged over the partitions.

swarm   uav-swarm-fl on two partitions (Dirichlet 0.1, two labels for each client), 20 rounds, else as in its claims:
        mu of fedprox and moon, the server's rate of fedadam, the clients' rate of fedavg (the others then use theirs
        at 0.02, that of the recipes)
three   ewwa-fl on its three clients, as in its claims: the clients' rate with which the plain mean does best, for each
        network, which EWWA and FedAdam then use as well

The values found stand in model_cards/uav-swarm-fl/claims.yaml and zoo/studies/ewwa_fl.py.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from zoo.studies.ewwa_fl import run_of
from zoo.studies.uav_swarm_fl import swarm_run

SEED = 100
SWARM: dict[str, tuple[str, tuple[float, ...]]] = {
    "fedavg": ("lr", (0.01, 0.02, 0.05)),
    "fedprox": ("mu", (0.01, 0.1, 1.0)),
    "fedadam": ("eta", (0.003, 0.01, 0.03)),
    "moon": ("mu", (0.1, 1.0, 5.0)),
}
"""Algorithm -> knob, values."""
PARTITIONS = ("dirichlet-0.1", "labels-2")
THREE: dict[str, tuple[str, tuple[float, ...]]] = {
    "strided-lenet": ("lr", (0.01, 0.03, 0.1)),
    "lenet5": ("lr", (0.01, 0.02, 0.05)),
}
"""Network -> knob, values."""


def curves(part: str) -> Iterator[tuple[str, str, float, str, list[float]]]:
    """(who, knob, value, partition, validation accuracy per round) of each run."""
    if part == "swarm":
        for algorithm, (knob, values) in SWARM.items():
            for value in values:
                for partition in PARTITIONS:
                    run = swarm_run(algorithm, partition, SEED, 20, 4000, test=False, **{knob: value})
                    yield algorithm, knob, value, partition, run.validation
        return
    for network, (knob, values) in THREE.items():
        for value in values:
            given: dict[str, Any] = {"algorithm": "fedavg", knob: value}
            yield network, knob, value, "shards-2", run_of(network, SEED, 25, 6000, test=False, **given).validation


def chosen(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The best value of each, with the scores of all."""
    scores: dict[str, dict[float, list[float]]] = {}
    for run in runs:
        scores.setdefault(run["who"], {}).setdefault(run["value"], []).append(run["last_five"])
    found = {}
    for who, values in scores.items():
        means = {value: statistics.fmean(seen) for value, seen in values.items()}
        found[who] = {"best": max(means, key=lambda v: means[v]), "scores": {str(v): m for v, m in means.items()}}
    return found


def measure(part: str, say: Callable[[str], None] = print) -> dict[str, Any]:
    """All runs of a part and what they say."""
    runs = []
    start = time.perf_counter()
    for who, knob, value, partition, validation in curves(part):
        last = statistics.fmean(validation[-5:])
        runs.append(
            {
                "who": who,
                "knob": knob,
                "value": value,
                "partition": partition,
                "last_five": round(last, 4),
                "validation": [round(v, 4) for v in validation],
            }
        )
        seconds = time.perf_counter() - start
        say(f"{who:14s} {knob} {value:<6g} {partition:14s} {last:6.1%}   {seconds:5.0f} s")
    return {"seed": SEED, "chosen": chosen(runs), "runs": runs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=["swarm", "three"], default=["swarm", "three"])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "federated_tuning.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for part in options.part:
        found = measure(part, lambda line: print(line, flush=True))
        # read after the computation: the other part may have been written meanwhile
        known = json.loads(options.out.read_text(encoding="utf-8")) if options.out.is_file() else {}
        options.out.write_text(json.dumps({**known, part: found}, indent=1) + "\n", encoding="utf-8")
        print(json.dumps(found["chosen"], indent=1))


if __name__ == "__main__":
    main()
