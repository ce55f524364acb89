"""Makes `fedlab_partitions.npz`: what FedLab 1.3.0 gives to whom, from numpy's legacy global generator.

Run with FedLab installed: python tests/data/oracles/fedlab_partitions.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from fedlab.utils.dataset import functional

IMAGES, CLASSES, CLIENTS = 1200, 10, 8


def labels() -> np.ndarray:
    """Unequal classes in mixed order."""
    rng = np.random.default_rng(7)
    return rng.choice(CLASSES, IMAGES, p=np.arange(3, 3 + CLASSES) / sum(range(3, 3 + CLASSES)))


def owners(parts: dict[int, np.ndarray]) -> np.ndarray:
    """The client of each image; -1 for images of nobody."""
    owner = np.full(IMAGES, -1, np.int8)
    for client, part in parts.items():
        owner[np.asarray(part, np.int64)] = client
    return owner


def main() -> None:
    given = labels()
    found: dict[str, np.ndarray] = {"labels": given}
    for seed in range(4):
        for alpha in (0.1, 0.5, 10.0):
            np.random.seed(seed)
            parts = functional.hetero_dir_partition(given, CLIENTS, CLASSES, alpha, min_require_size=20)
            found[f"dirichlet-{alpha:g}/{seed}"] = owners(parts)
        for alpha in (0.5, 1.0, 10.0):
            np.random.seed(seed)
            found[f"quantity-{alpha:g}/{seed}"] = functional.dirichlet_unbalance_split(CLIENTS, IMAGES, alpha)
        for each in (1, 2, 3):
            np.random.seed(seed)
            parts = functional.label_skew_quantity_based_partition(given, 10, CLASSES, each)
            found[f"labels-{each}/{seed}"] = owners(parts)
            np.random.seed(seed)
            parts = functional.shards_partition(given, CLIENTS, CLIENTS * each)
            found[f"shards-{each}/{seed}"] = owners(parts)
        np.random.seed(seed)
        parts = functional.homo_partition(functional.balance_split(CLIENTS, IMAGES), IMAGES)
        found[f"iid/{seed}"] = owners(parts)
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **found)


if __name__ == "__main__":
    main()
