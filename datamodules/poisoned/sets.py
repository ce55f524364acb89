"""Data sets with a trigger: poisoned training pictures, and test pictures beside themselves with the trigger."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from datamodules.images.dataset import Augment, ImageSet, Source

__all__ = ["PoisonedSet", "PoisonedSource", "TriggeredSet"]

Stamp = Callable[[np.ndarray], np.ndarray]
"""Pixels uint8 (n, C, S, S) -> the same with the trigger."""


class PoisonedSource:
    """Pictures of which some carry the trigger and the label that the attacker gave them.

    Args:
        source: the pictures as they are, with labels.
        poisoned: bool (N,), which ones.
        wanted: int (N,), the label of poisoned pictures.
        stamp: puts the trigger on.
    """

    def __init__(self, source: Source, poisoned: np.ndarray, wanted: np.ndarray, stamp: Stamp) -> None:
        assert source.labels is not None
        self.source, self.poisoned, self.stamp = source, poisoned, stamp
        self.paths = getattr(source, "paths", None)
        self.labels: np.ndarray | None = np.where(poisoned, wanted, source.labels).astype(np.int64)

    def __len__(self) -> int:
        return len(self.source)

    def take(self, indices: np.ndarray) -> np.ndarray:
        """Pixels of some pictures, uint8 (n, C, S, S)."""
        pixels = self.source.take(indices)
        marked = self.poisoned[indices]
        if marked.any():
            pixels = pixels.copy()
            pixels[marked] = self.stamp(pixels[marked])
        return pixels


class PoisonedSet(ImageSet):
    """Training pictures. Items say `is_poison` (bool), for measurements only: no loss may see it.

    Args:
        source: with the trigger on some of the pictures.
        chosen: which of them, in order.
        is_poison: bool (n,), of the chosen ones; None where that is unknown, and items then do not say it.
        augment: what they go through, behind the trigger.
        seed: of the augmentation.
    """

    def __init__(
        self, source: Source, chosen: np.ndarray, is_poison: np.ndarray | None, augment: Augment | None, seed: int
    ) -> None:
        super().__init__(source, chosen, augment, seed)
        self.is_poison = is_poison

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Any]:
        """A batch as of `ImageSet`, and `is_poison` bool (n,)."""
        batch = super().__getitems__(indices)
        if self.is_poison is not None:
            batch["is_poison"] = torch.from_numpy(self.is_poison[np.asarray(indices, dtype=np.int64)])
        return batch


class TriggeredSet(ImageSet):
    """Validation or test pictures with their true labels, each beside itself with the trigger.

    Args:
        source: of the pictures as they are.
        chosen: which of them, in order.
        wanted: int64 (n,), what the attacker wants each to be called.
        stamp: puts the trigger on.
        given: uint8 (n, C, S, S), pictures with a trigger that was put on elsewhere, in place of `stamp`.
    """

    def __init__(
        self,
        source: Source,
        chosen: np.ndarray,
        wanted: np.ndarray,
        stamp: Stamp | None,
        given: np.ndarray | None = None,
    ) -> None:
        super().__init__(source, chosen)
        self.wanted, self.stamp, self.given = wanted, stamp, given

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Any]:
        """A batch as of `ImageSet`, `triggered` float32 (n, C, S, S) in 0..1, and `wanted` int64 (n,)."""
        batch = super().__getitems__(indices)
        index = np.asarray(indices, dtype=np.int64)
        if self.given is not None:
            pixels = self.given[index]
        else:
            assert self.stamp is not None
            pixels = self.stamp(self.source.take(self.chosen[index]))
        batch["triggered"] = torch.from_numpy(np.ascontiguousarray(pixels)).float().div_(255)
        batch["wanted"] = torch.from_numpy(self.wanted[index])
        return batch
