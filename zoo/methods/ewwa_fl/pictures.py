"""Pictures of the card, from the runs of the claims: who owns what, and the accuracy per round of all algorithms."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from zoo.pictures.card import CardFiles, card_picture

__all__ = ["partition_and_accuracy"]


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
        settings = spec["set"]
        if settings.get("network") == "lenet5" and settings.get("eta", 0.01) == 0.01:
            curves[_name(settings)][spec["seed"]] = [y for _, y in run["curves"]["accuracy"]]
    if not curves:
        return None
    data = ClientsDataModule(num_clients=3, partition="shards-2", train_size=6000)
    lines = {name: list(seeds.values()) for name, seeds in curves.items()}
    return draw_partition_and_accuracy(data, lines, who="client", partition="shards-2")


def _name(settings: dict[str, Any]) -> str:
    """How the legend calls the arguments of a run."""
    from zoo.federated.pictures import algorithm_name

    texts = {"server": "{}", "variant": "{} code", "normaliser": "{}", "moments": "{} moments", "sign": "{}"}
    texts |= {"shares": "{} shares"}
    extra = [text.format(settings[key]) for key, text in texts.items() if key in settings]
    return ", ".join([algorithm_name(settings.get("algorithm", "ewwa")), *extra])
