"""Which training pictures a network knows best: their losses on all ranks, sorted once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from zoo import checks
from zoo.base import gather
from zoo.base.ranks import own_batches
from zoo.errors import BadInput, NotFinite
from zoo.inputs import UnreadableError
from zoo.inputs.json_files import read_json

__all__ = ["Isolation", "isolated_count", "lowest", "read_suspects", "training_losses"]

CHUNK = 500
"""Pictures scored at a time. Chunks are the same for any number of ranks, so that no digit of a loss depends on it."""


@dataclass(frozen=True)
class Isolation:
    """The pictures that are taken for poisoned.

    Attributes:
        indices: int64 (m,), into the training set, by rising loss.
        losses: float (n,) of all training pictures in the order of the set; None where they were not measured.
    """

    indices: np.ndarray
    losses: np.ndarray | None = None

    def report(self, data: Any = None) -> dict[str, Any]:
        """What was isolated, as plain values.

        Args:
            data: the training set; of what it knows are used `labels` (n,), the truth `is_poison` bool (n,), and
                `origins`, which tells where samples come from.

        Returns:
            `isolated_indices`, within the training set, which may be a part of the data; `origins`, their files, or
            their numbers in the file of all; `classes`, how many of each class; and, with the truth, `precision` (share
            of the isolated that are poisoned) and `recall` (share of the poisoned that are isolated).
        """
        labels, is_poison, origins = (getattr(data, name, None) for name in ("labels", "is_poison", "origins"))
        report: dict[str, Any] = {"isolated_indices": self.indices.tolist()}
        if origins is not None:
            report["origins"] = origins(self.indices)
        if labels is not None:
            kinds, counts = np.unique(labels[self.indices], return_counts=True)
            report["classes"] = {str(k): int(n) for k, n in zip(kinds.tolist(), counts.tolist(), strict=True)}
        if is_poison is not None and is_poison.any():
            right = int(is_poison[self.indices].sum())
            report |= {"precision": right / len(self.indices), "recall": right / int(is_poison.sum())}
        return report


def lowest(index: np.ndarray, losses: np.ndarray, share: float) -> Isolation:
    """The floor(share n) samples of lowest loss.

    Args:
        index: int (N,), numbers of the samples from 0; a sample may occur more than once.
        losses: float (N,).
        share: p, of all samples.

    Raises:
        NotFinite: if a loss is not.
        BadInput: if the share isolates no sample.
    """
    if not np.isfinite(losses).all():
        raise NotFinite(
            "isolation: the loss of some training samples is not finite, so training diverged and nothing follows "
            "from it: lower the learning rate."
        )
    samples, first = np.unique(index, return_index=True)
    values = losses[first]
    count = isolated_count(share, len(samples))
    order = np.lexsort((samples, values))
    return Isolation(samples[order[:count]].astype(np.int64), values)


def isolated_count(share: float, samples: int) -> int:
    """floor(share n).

    Raises:
        BadInput: if that is no sample.
    """
    count = int(np.floor(share * samples + 1e-9))
    if count < 1:
        digit = 10.0 ** (math.floor(math.log10(1 / samples)) - 1)
        one = math.ceil(1 / samples / digit - 1e-9) * digit  # rounded up, so that it does isolate one
        raise BadInput(
            f"share: {share} of {samples} training samples isolates none: raise it, {one:.2g} is one sample."
        )
    return count


@torch.no_grad()
def training_losses(
    data: Any, logits: Callable[[Tensor], Tensor], move: Callable[[Any], Any], collate: Callable[[Any], Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Cross-entropy of every training sample as it is, computed by all ranks together and known to all.

    Args:
        data: the training set; its augmentation is left out.
        logits: of images (N, C, H, W); in evaluation mode.
        move: a batch to the right device.
        collate: makes a batch of what the set returns.

    Returns:
        index int64 (n,) and losses float64 (n,).

    Raises:
        BadInput: if items have no index or no label.
    """
    numbers: list[np.ndarray] = []
    losses: list[np.ndarray] = []
    for batch in own_batches(data, collate, CHUNK):
        if not {"index", "label", "image"} <= set(batch):
            raise BadInput(
                f"isolation: training samples need index, image and label, these have {', '.join(sorted(batch))}. "
                "Without the index nothing can be isolated."
            )
        batch = move(batch)
        losses.append(F.cross_entropy(logits(batch["image"]).float(), batch["label"], reduction="none").cpu().numpy())
        numbers.append(batch["index"].cpu().numpy())
    empty = np.empty(0)
    pair = np.concatenate([*numbers, empty.astype(np.int64)]), np.concatenate([*losses, empty])
    every = gather(pair)
    return np.concatenate([i for i, _ in every]), np.concatenate([v for _, v in every]).astype(np.float64)


def read_suspects(suspects: str | Sequence[int], samples: int) -> Isolation:
    """Numbers of suspicious training samples, given or in a file.

    Args:
        suspects: numbers; or a `.json` file with a list of them, or with `isolated_indices`; or a text file with one a
            line.
        samples: of the training set.

    Raises:
        BadInput: naming the file and what is wrong.
    """
    where = "suspects"
    numbers: Any = suspects
    if isinstance(suspects, str):
        path = Path(suspects).expanduser()
        where = f"suspects: {path}"
        try:
            content = read_json(path)  # numbers one a line are no JSON, unless there is one
        except UnreadableError:
            numbers = _lines(path, where)
        else:
            numbers = content.get("isolated_indices") if isinstance(content, dict) else content
            numbers = [numbers] if type(numbers) is int else numbers
    whole = isinstance(numbers, Sequence) and all(type(v) is int for v in numbers)
    if not whole or not numbers:
        raise BadInput(f"{where}: expected numbers of training samples, got {str(numbers)[:60]}.")
    chosen = np.array(numbers, np.int64)
    if chosen.min() < 0 or chosen.max() >= samples:
        raise BadInput(f"{where}: expected numbers from 0 to {samples - 1}, got {chosen.min()} to {chosen.max()}.")
    if twice := checks.repeated(chosen.tolist()):
        raise BadInput(f"{where}: expected each sample once, {twice[0]} is there more than once.")
    return Isolation(chosen)


def _lines(path: Path, where: str) -> list[int]:
    try:
        return [int(line) for line in path.read_text(encoding="utf-8").split()]
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{where}: expected a file of numbers, it cannot be read ({error}).") from error
    except ValueError as error:
        raise BadInput(f"{where}: expected one whole number a line, {error}.") from error
