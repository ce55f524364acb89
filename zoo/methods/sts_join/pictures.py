"""Pictures of the card: test commuters that were together longest, with the bundled weights."""

from __future__ import annotations

from typing import Any

from zoo.pictures.card import CardFiles, card_picture

__all__ = ["output"]


@card_picture("output-commuters")
def output(card: CardFiles) -> Any:
    """Four of the test tracks, those with the longest time together; most of the others have no partner at all.

    Args:
        card: its files.
    """
    from zoo.pictures.tiles import tiled
    from zoo.store import datamodule, load

    model: Any = load(card.method)
    source: Any = datamodule(card.method)
    data = source.split("test")
    tracks = [data[i]["xyt"] for i in range(len(data))]
    results = model.predict(tracks)
    best = sorted(range(len(tracks)), key=lambda i: -float(results[i]["durations"].sum()))[:4]
    return tiled([model.show(tracks[i], results[i]) for i in best], tile=440)
