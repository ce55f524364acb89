"""Pictures of the card: test commuters that were together longest, with the bundled weights."""

from __future__ import annotations

from typing import Any

from zoo.pictures.card import CardFiles, card_picture

__all__ = ["joined"]


@card_picture("joined")
def joined(card: CardFiles) -> Any:
    """Three of the test tracks, those with the longest time together.

    Args:
        card: its files.
    """
    from PIL import Image

    from zoo.store import datamodule, load

    model: Any = load(card.method)
    source: Any = datamodule(card.method)
    data = source.split("test")
    tracks = [data[i]["xyt"] for i in range(len(data))]
    results = model.predict(tracks)
    best = sorted(range(len(tracks)), key=lambda i: -float(results[i]["durations"].sum()))[:3]
    pictures = [model.show(tracks[i], results[i]) for i in best]
    row = Image.new("RGBA", (sum(p.width for p in pictures) + 12, pictures[0].height))
    left = 0
    for picture in pictures:
        row.paste(picture, (left, 0))
        left += picture.width + 6
    return row
