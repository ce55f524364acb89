"""The clients' learning rate for each network, chosen on validation images before the claims are run.

    python -m zoo.methods.ewwa_fl.tuning [--out FILE]     # minutes on one core

The seed, 100, is one that no claim uses, and no test image is seen. The runs are those of the claims' three clients;
the rate is the one with which the plain mean, not EWWA, does best, and EWWA and FedAdam then use it as well. The score
is the mean validation accuracy of the last five rounds. The chosen values are `RATES` of the studies.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from zoo.methods.ewwa_fl.studies import run_of
from zoo.studies.tuning import main, tuning_run

SEED = 100
KNOBS: dict[str, tuple[str, tuple[float, ...]]] = {
    "strided-lenet": ("lr", (0.01, 0.03, 0.1)),
    "lenet5": ("lr", (0.01, 0.02, 0.05)),
}
"""Network -> knob, values."""


def search() -> Iterator[dict[str, Any]]:
    """All runs, one by one."""
    for network, (knob, values) in KNOBS.items():
        for value in values:
            given: dict[str, Any] = {"algorithm": "fedavg", knob: value}
            done = run_of(network, SEED, 25, 6000, test=False, **given)
            yield tuning_run(network, knob, value, "shards-2", done.validation)


if __name__ == "__main__":
    main("ewwa-fl", SEED, search, __doc__)
