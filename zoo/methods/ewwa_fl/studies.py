"""Runs of element-wise aggregation and its rivals on three clients, each with two of six shards of Fashion-MNIST.

Another seed gives other weights to start from, another order of the images, and other images to the clients.
"""

from __future__ import annotations

import statistics
from typing import Any

from zoo.studies import Outcome, study
from zoo.studies.rounds import Run, run_rounds

SHAPES: dict[str, dict[str, Any]] = {
    "strided-lenet": {"mean": [0.286] * 3, "std": [0.353] * 3},
    "lenet5": {"channels": 1, "img_size": 28, "mean": [0.286], "std": [0.353]},
}
RATES = {"strided-lenet": 0.03, "lenet5": 0.02}
"""Learning rate of the clients: that with which the plain mean did best on validation images, of three for each
network (`zoo.methods.ewwa_fl.tuning`)."""


def run_of(network: str, seed: int, rounds: int, images: int, *, test: bool = True, **model: Any) -> Run:
    """One run.

    Args:
        network: strided-lenet (the paper's, 3x32x32) or lenet5 (1x28x28).
        seed: of everything.
        rounds: how many.
        images: for training, over all clients.
        test: whether to look at the test images.
        model: further arguments of the method.
    """
    from lightning import seed_everything

    from datamodules.clients import ClientsDataModule
    from zoo.methods.ewwa_fl.module import EWWAFL

    seed_everything(seed, verbose=False)
    given = {"lr": RATES[network], **SHAPES[network], **model}
    learner = EWWAFL(network=network, **given)
    data = ClientsDataModule(
        num_clients=3,
        partition="shards-2",
        seed=seed,
        partition_seed=seed,
        batch_size=64,
        train_size=images,
        val_size=1000,
        test_size=2000,
        img_size=28 if network == "lenet5" else 32,
        channels=1 if network == "lenet5" else 3,
    )
    return run_rounds(learner, data, rounds, test=test)


@study("accuracy", "area", "early", "failed")
def three_clients(
    network: str = "lenet5",
    algorithm: str = "ewwa",
    server: str = "adam",
    variant: str = "paper",
    normaliser: str | None = None,
    moments: str | None = None,
    sign: str = "signed",
    shares: str = "computed",
    eta: float | None = None,
    rounds: int = 25,
    images: int = 6000,
    seed: int = 0,
) -> Outcome:
    """Accuracy on the test images after the last round; of the validation images, what follows.

    `area`: mean accuracy over all rounds, `early`: over the first quarter of them; `failed`: 1 if the last accuracy is
    below twice that of guessing, else 0.
    """
    options: dict[str, Any] = {
        k: v for k, v in (("normaliser", normaliser), ("moments", moments), ("eta", eta)) if v is not None
    }
    run = run_of(
        network,
        seed,
        rounds,
        images,
        algorithm=algorithm,
        server=server,
        variant=variant,
        sign=sign,
        shares=shares,
        **options,
    )
    metrics = {
        "accuracy": run.accuracy,
        "area": statistics.fmean(run.validation),
        "early": statistics.fmean(run.validation[: max(1, rounds // 4)]),
        "failed": float(run.accuracy < 2 / len(run.model.class_names)),
    }
    return Outcome(metrics, {"accuracy": run.curve})
