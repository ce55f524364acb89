"""Redistributable real data inside the package: handwritten digits, pictures of clothes, public-domain photographs.

Sources, authors and licences of every file: `README.md` and `photographs.json` in this folder.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["digits", "extra_photographs", "fashion", "file_hashes", "photograph_info", "photographs"]

FOLDER = Path(__file__).resolve().parent


@lru_cache(maxsize=1)
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Return 5,000 MNIST digits: images uint8 (5000, 28, 28), bright on black, and labels uint8 (5000,).

    Sorted by class, 500 each, in the source's order within a class. The arrays are shared: read-only.
    """
    with np.load(FOLDER / "mnist_5k.npz", allow_pickle=False) as data:
        images, labels = data["images"], data["labels"]
    images.setflags(write=False)
    labels.setflags(write=False)
    return images, labels


@lru_cache(maxsize=2)
def fashion(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return part of Fashion-MNIST: images uint8 (N, 28, 28), bright on black, and labels uint8 (N,).

    Sorted by class, in the source's order within a class. The arrays are shared: read-only.

    Args:
        split: "train" (2,000 pictures of each of ten classes) or "test" (500).
    """
    from PIL import Image

    with Image.open(FOLDER / f"fashion_mnist_{split}.png", formats=("PNG",)) as strip:
        images = np.array(strip).reshape(-1, 28, 28)
    labels = np.repeat(np.arange(10, dtype=np.uint8), len(images) // 10)
    images.setflags(write=False)
    labels.setflags(write=False)
    return images, labels


@lru_cache(maxsize=1)
def photograph_info() -> dict[str, dict[str, Any]]:
    """Return name -> {split, author, licence, origin, package, sha256} of every photograph."""
    return json.loads((FOLDER / "photographs.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def photographs(split: str | None = None) -> dict[str, Path]:
    """Return name -> path of the photographs (JPEG, RGB, long side <= 720 px).

    Args:
        split: "train", "val" or "test" for the photographs reserved for that split; None for all.
    """
    names = [name for name, info in photograph_info().items() if split is None or info["split"] == split]
    return {name: FOLDER / "photographs" / f"{name}.jpg" for name in names}


def file_hashes() -> str:
    """Return one sha256 over the contents of the assets, for the keys of caches made from them."""
    total = hashlib.sha256(hashlib.sha256((FOLDER / "mnist_5k.npz").read_bytes()).digest())
    for name, info in sorted(photograph_info().items()):
        total.update(f"{name}:{info['split']}:{info['sha256']}".encode())
    return total.hexdigest()


def extra_photographs() -> dict[str, Path]:
    """Return photographs of other installed packages that happen to be on this machine (often none).

    Looked for: scikit-learn's two sample images and the JPEG wallpapers below /usr/share. They differ from machine to
    machine and carry their own licences, so nothing uses them unless it is asked to, and never outside training.
    """
    from importlib.util import find_spec

    paths: dict[str, Path] = {}
    spec = find_spec("sklearn")
    if spec is not None and spec.submodule_search_locations:
        folder = Path(next(iter(spec.submodule_search_locations))) / "datasets" / "images"
        paths |= {f"sklearn-{name}": folder / f"{name}.jpg" for name in ("china", "flower")}
    for top in ("backgrounds", "wallpapers"):
        for path in sorted(Path("/usr/share", top).glob("**/*.jpg")):
            paths[f"{top}-{path.stem}"] = path
    return {name: path for name, path in paths.items() if path.is_file()}
