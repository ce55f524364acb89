"""Pictures of the card, from the runs of the claims: who owns what, and the accuracy per round of all algorithms."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from zoo.pictures.card import CardFiles, card_picture

__all__ = ["partition_and_accuracy"]


@card_picture("partition-and-accuracy")
def partition_and_accuracy(card: CardFiles) -> Any:
    """Dirichlet 0.1 on ten aircraft, each seed of the claims faint.

    Args:
        card: its files.
    """
    from datamodules.clients import ClientsDataModule
    from zoo.federated.pictures import algorithm_name, draw_partition_and_accuracy

    curves: dict[str, dict[int, list[float]]] = defaultdict(dict)
    for run in card.runs("partitions"):
        spec = run["spec"]
        name = algorithm_name(spec["set"].get("algorithm", "fedavg"))
        curves[name][spec["seed"]] = [y for _, y in run["curves"]["dirichlet"]]
    if not curves:
        return None
    data = ClientsDataModule(num_clients=10, partition="dirichlet-0.1", train_size=4000)
    lines = {name: list(seeds.values()) for name, seeds in curves.items()}
    return draw_partition_and_accuracy(data, lines, who="UAV", partition="dirichlet-0.1")
