"""Pictures of the card, from the runs of the claims: who owns what, and the accuracy per round of all algorithms."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from zoo.pictures.card import CardFiles, card_picture

__all__ = ["partition_and_accuracy"]

_NAMES = {
    ("ewwa",): "EWWA",
    ("ewwa", "random"): "random shares",
    ("fedavg",): "FedAvg",
    ("fedadam", "0.01"): "FedAdam, rate 0.01",
}
"""Algorithm and its one setting -> name; the variants of EWWA have pictures of their own among the claims."""


@card_picture("partition-and-accuracy")
def partition_and_accuracy(card: CardFiles) -> Any:
    """Three clients with the small CNN, means over the seeds of the claims.

    Args:
        card: its files.
    """
    from datamodules.clients import ClientsDataModule
    from zoo.federated.pictures import draw_partition_and_accuracy

    curves: dict[str, dict[int, list[float]]] = defaultdict(dict)
    for run in card.runs("three_clients"):
        spec = run["spec"]
        settings = {key: value for key, value in spec["set"].items() if key not in ("network", "algorithm")}
        name = _NAMES.get((spec["set"].get("algorithm", "ewwa"), *map(str, settings.values())))
        if spec["set"].get("network") == "lenet5" and name:
            curves[name][spec["seed"]] = [y for _, y in run["curves"]["accuracy"]]
    if not curves:
        return None
    data = ClientsDataModule(num_clients=3, partition="shards-2", train_size=6000)
    lines = {name: list(seeds.values()) for name, seeds in curves.items()}
    return draw_partition_and_accuracy(data, lines, who="client", partition="shards-2")
