"""Choosing a hyper-parameter before the claims are run: scores per value, and the best one, in `tuning.json`.

A method that tunes has a module `tuning` beside its model, which hands its runs to `main`; its choices are then part of
its recipes and claims. It uses a seed that no claim uses, and never the test data.
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

from zoo.files import write_whole
from zoo.index import index_path

__all__ = ["best_values", "main", "tuning_run"]

TuningRun = dict[str, Any]


def tuning_run(who: str, knob: str, value: float, partition: str, validation: list[float]) -> TuningRun:
    """One run of a search, with the mean validation accuracy of its last five rounds.

    Args:
        who: is tuned.
        knob: name of the hyper-parameter.
        value: of the hyper-parameter.
        partition: of the data.
        validation: accuracy after each round.
    """
    run: TuningRun = {"who": who, "knob": knob, "value": value, "partition": partition}
    last = round(statistics.fmean(validation[-5:]), 4)
    return {**run, "last_five": last, "validation": [round(v, 4) for v in validation]}


def best_values(runs: list[TuningRun], least: float = 0.0) -> dict[str, Any]:
    """The best value of each, with the scores of all values, averaged over the partitions.

    Args:
        runs: of a search.
        least: a value of which a run stays below it is chosen only where all have such a run: networks that have
            diverged on one partition say nothing about an algorithm, however good the mean.
    """
    scores: dict[str, dict[float, list[float]]] = {}
    for run in runs:
        scores.setdefault(run["who"], {}).setdefault(run["value"], []).append(run["last_five"])
    best = {}
    for who, values in scores.items():
        means = {value: statistics.fmean(single) for value, single in values.items()}
        alive = [value for value, single in values.items() if min(single) >= least] or list(means)
        best[who] = {"best": max(alive, key=lambda v: means[v]), "scores": {str(v): m for v, m in means.items()}}
    return best


def main(
    method: str, seed: int, runs: Callable[[], Iterator[TuningRun]], about: str | None, least: float = 0.0
) -> None:
    """The command line of a method's search: run it on one thread and write `tuning.json` of its card.

    Args:
        method: id in the index.
        seed: of the runs, for the file.
        runs: gives the runs one by one.
        about: help text.
        least: see `best_values`.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    path = index_path().parent / "model_cards" / method / "tuning.json"
    parser.add_argument("--out", type=Path, default=path, help="file to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    done: list[TuningRun] = []
    start = time.perf_counter()
    for run in runs():
        done.append(run)
        name = f"{run['who']:14s} {run['knob']} {run['value']:<6g} {run['partition']:14s}"
        print(f"{name} {run['last_five']:6.1%}   {time.perf_counter() - start:5.0f} s", flush=True)
    content = {"seed": seed, "least": least, "chosen": best_values(done, least), "runs": done}
    write_whole(options.out, json.dumps(content, indent=1) + "\n")
    print(json.dumps(content["chosen"], indent=1))
