"""What needs several runs at once: one algorithm on clients that differ more and more, and its spread over seeds.

All runs: LeNet-5, 44,426 parameters, pictures of Fashion-MNIST, ten clients, one local epoch with batches of 32.
Another seed gives other weights to start from, another order of the images, and other images to the clients. An update
that is not finite, as of a client with one class whose training diverged, is left out of its round, not of the run.
"""

from __future__ import annotations

import statistics
from itertools import pairwise
from typing import Any

from zoo.studies import Outcome, study
from zoo.studies.rounds import Run, run_rounds

PARTITIONS = {"iid": "iid", "dirichlet": "dirichlet-0.1", "labels_2": "labels-2", "labels_1": "labels-1"}
"""From equal clients to clients that know one class each."""


def swarm_run(
    algorithm: str, partition: str, seed: int, rounds: int, images: int, *, test: bool = True, **model: Any
) -> Run:
    """One run of a swarm.

    Args:
        algorithm: of `uav-swarm-fl`.
        partition: who owns what.
        seed: of everything.
        rounds: how many.
        images: for training, over all clients.
        test: whether to look at the test images.
        model: further arguments of the method.
    """
    from lightning import seed_everything

    from datamodules.clients import ClientsDataModule
    from zoo.methods.uav_swarm_fl.module import UAVSwarm

    seed_everything(seed, verbose=False)
    given = {k: v for k, v in model.items() if v is not None}
    given["rule_options"] = {"non_finite": "drop"}
    learner = UAVSwarm(algorithm=algorithm, mean=[0.286], std=[0.353], local_epochs=1, **given)
    data = ClientsDataModule(
        num_clients=10,
        partition=partition,
        seed=seed,
        partition_seed=seed,
        batch_size=32,
        train_size=images,
        val_size=1000,
        test_size=2000,
    )
    return run_rounds(learner, data, rounds, test=test)


def change(run: Run, last: int = 10) -> float:
    """Mean absolute change of the validation accuracy from round to round, over the last so many rounds."""
    values = run.validation[-last - 1 :]
    return statistics.fmean(abs(b - a) for a, b in pairwise(values))


@study("iid", "dirichlet", "labels_2", "labels_1", "loss_labels_2", "loss_labels_1", "change", "worst")
def partitions(
    algorithm: str = "fedavg",
    mu: float | None = None,
    eta: float | None = None,
    lr: float | None = None,
    rounds: int = 30,
    images: int = 4000,
    seed: int = 0,
) -> Outcome:
    """Test accuracy after the last round on each partition.

    `loss_...` is what is lost against equal clients; `change` the mean change from round to round over the last ten
    rounds, averaged over the partitions; `worst` the accuracy on the worst partition.
    """
    runs = {n: swarm_run(algorithm, p, seed, rounds, images, mu=mu, eta=eta, lr=lr) for n, p in PARTITIONS.items()}
    accuracies = {name: run.accuracy for name, run in runs.items()}
    metrics = {
        **accuracies,
        "loss_labels_2": accuracies["iid"] - accuracies["labels_2"],
        "loss_labels_1": accuracies["iid"] - accuracies["labels_1"],
        "change": statistics.fmean(change(run) for run in runs.values()),
        "worst": min(accuracies.values()),
    }
    return Outcome(metrics, {name: run.curve for name, run in runs.items()})


@study("spread")
def spread(
    algorithm: str = "fedavg",
    mu: float | None = None,
    lr: float | None = None,
    partition: str = "labels-2",
    runs: int = 3,
    rounds: int = 30,
    images: int = 4000,
    seed: int = 0,
) -> Outcome:
    """Standard deviation of the test accuracy over `runs` runs, none of which any other seed shares."""
    repeats = [
        swarm_run(algorithm, partition, 1000 + runs * seed + i, rounds, images, mu=mu, lr=lr) for i in range(runs)
    ]
    values = [run.accuracy for run in repeats]
    return Outcome({"spread": statistics.stdev(values)})
