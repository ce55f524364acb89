"""The knob of each algorithm, chosen on validation images before the claims are run.

    python -m zoo.methods.uav_swarm_fl.tuning [--out FILE]     # minutes on one core

The seed, 100, is one that no claim uses, and no test image is seen. The runs are on the three partitions of the claims
whose clients differ, 20 rounds, else as in the claims: first the clients' rate, with fedavg; with that rate, three
values each of mu of fedprox and of moon and of the server's rate of fedadam. The score is the mean validation accuracy
of the last five rounds, averaged over the partitions; a value with which one partition stays at guessing is not chosen
if another has none. The chosen values are in the card's claims.yaml.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from zoo.methods.uav_swarm_fl.studies import swarm_run
from zoo.studies.tuning import best_values, main, tuning_run

SEED = 100
KNOBS: dict[str, tuple[str, tuple[float, ...]]] = {
    "fedavg": ("lr", (0.01, 0.02, 0.05, 0.1)),
    "fedprox": ("mu", (0.01, 0.1, 1.0)),
    "fedadam": ("eta", (0.003, 0.01, 0.03)),
    "moon": ("mu", (0.1, 1.0, 5.0)),
}
"""Algorithm -> knob, values. The best rate of the first one serves all."""
ALIVE = 0.15
"""Accuracy above that of guessing among ten classes; also a premise of the claims."""
PARTITIONS = ("dirichlet-0.1", "labels-2", "labels-1")


def search() -> Iterator[dict[str, Any]]:
    """All runs, one by one."""
    rate: dict[str, float] = {}
    for algorithm, (knob, values) in KNOBS.items():
        runs = []
        for value in values:
            for partition in PARTITIONS:
                given: dict[str, Any] = {**rate, knob: value}
                done = swarm_run(algorithm, partition, SEED, 20, 4000, test=False, **given)
                runs.append(tuning_run(algorithm, knob, value, partition, done.validation))
                yield runs[-1]
        if not rate:
            rate = {"lr": best_values(runs, ALIVE)[algorithm]["best"]}


if __name__ == "__main__":
    main("uav-swarm-fl", SEED, search, __doc__, ALIVE)
