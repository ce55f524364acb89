"""Makes the embedded part of Fashion-MNIST: `python -m datamodules.assets.make_fashion_mnist DIR`.

DIR, the complete set, is what `zoo data fetch fashion-mnist` filled. Chosen are the first 2,000 training and 500 test
pictures of each class, in the source's order, one below the other in a grey PNG 28 pixels wide, sorted by class.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from datamodules.images.read import find_idx, read_idx

PER_CLASS = {"train": 2000, "test": 500}


def main(root: str) -> None:
    """Write `fashion_mnist_train.png` and `fashion_mnist_test.png` beside this file."""
    place = find_idx(Path(root), "FashionMNIST")
    if place is None:
        raise SystemExit(f"{root}: expected FashionMNIST/raw, as `zoo data fetch fashion-mnist` writes it")
    for split, count in PER_CLASS.items():
        pictures = read_idx(place, split, 10)
        chosen = np.concatenate([np.flatnonzero(pictures.labels == label)[:count] for label in range(10)])
        strip = pictures.pixels[chosen].reshape(-1, 28)
        path = Path(__file__).parent / f"fashion_mnist_{split}.png"
        Image.fromarray(strip).save(path, optimize=True, compress_level=9)
        print(f"{path.name}: {len(chosen)} pictures, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1])
