"""Draws model_cards/sts-join/images/joined.png: test commuters that have partners, with the bundled weights.

python benchmarks/sts_join_picture.py OUT.png
"""

from __future__ import annotations

import sys

from PIL import Image

import zoo


def main(path: str) -> None:
    model = zoo.load("sts-join")
    data = zoo.datamodule("sts-join").split("test")
    tracks = [data[i]["xyt"] for i in range(len(data))]
    found = model.predict(tracks)
    # those with the longest time together, one per row of the picture
    best = sorted(range(len(tracks)), key=lambda i: -float(found[i]["durations"].sum()))[:3]
    pictures = [model.show(tracks[i], found[i]) for i in best]
    row = Image.new("RGBA", (sum(p.width for p in pictures) + 12, pictures[0].height))
    left = 0
    for picture in pictures:
        row.paste(picture, (left, 0))
        left += picture.width + 6
    row.save(path, optimize=True)


if __name__ == "__main__":
    main(sys.argv[1])
