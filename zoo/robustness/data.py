"""Samples for an evaluation, from whatever holds images and labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from zoo.errors import BadInput, TooFewSamples

__all__ = ["Samples", "samples"]

_INPUTS = ("image", "images", "x", "input", "inputs", "pixel_values")
_LABELS = ("label", "labels", "y", "target", "targets")


@dataclass
class Samples:
    """What is evaluated.

    Attributes:
        x: float (N, ...) clean inputs.
        y: int64 (N,) labels.
        index: int64 (N,) positions in the whole set, which the attacks' randomness belongs to.
        total: size of the whole set.
    """

    x: Tensor
    y: Tensor
    index: Tensor
    total: int


def samples(data: Any, n: int | None, seed: int = 0, batch_size: int = 256) -> Samples:
    """Draw `n` samples of a set; a smaller n with the same seed gives the first ones of a larger n.

    Args:
        data: a data module (its test split), a loader, a map-style data set, a pair (x, y) of arrays or tensors, or any
            iterable of batches. A batch is a dict with an image and a label, or a pair.
        n: how many; None or more than there are: all.
        seed: of the choice. Data sorted by class are the reason not to take the first ones.
        batch_size: read at once.

    Raises:
        BadInput: if there are no images and labels in it.
        TooFewSamples: if it is empty.
    """
    if n is not None and n < 1:
        raise BadInput(f"n must be at least 1, got {n}.")
    if hasattr(data, "test_dataloader"):
        data.prepare_data()
        data.setup("test")
        data = data.test_dataloader()
    if isinstance(data, Dataset) and hasattr(data, "__len__"):
        data = DataLoader(data, batch_size=batch_size)
    if (
        isinstance(data, (tuple, list))
        and len(data) == 2
        and all(isinstance(part, (Tensor, np.ndarray)) for part in data)
    ):
        x, y = _pair(data)
        chosen = _choose(len(x), n, seed)
        return Samples(x[chosen], y[chosen], chosen, len(x))
    if isinstance(data, DataLoader) and hasattr(data.dataset, "__getitem__") and hasattr(data.dataset, "__len__"):
        return _from_dataset(data, n, seed, batch_size)
    if isinstance(data, Iterable) and not isinstance(data, (str, Mapping)):
        parts = [_pair(batch) for batch in data]
        if not parts:
            raise TooFewSamples("The data hold no batch: there is nothing to evaluate.")
        x, y = (torch.cat(column) for column in zip(*parts, strict=True))
        chosen = _choose(len(x), n, seed)
        return Samples(x[chosen], y[chosen], chosen, len(x))
    raise BadInput(
        f"data must be a data module, a loader, a data set, a pair (x, y) or an iterable of batches, got "
        f"{type(data).__name__}."
    )


def _from_dataset(loader: DataLoader[Any], n: int | None, seed: int, batch_size: int) -> Samples:
    """Read only what is wanted, through the loader's own collate function."""
    total = len(loader.dataset)  # type: ignore[arg-type]
    chosen = _choose(total, n, seed)
    reader: DataLoader[Any] = DataLoader(
        loader.dataset, batch_size=batch_size, sampler=chosen.tolist(), collate_fn=loader.collate_fn
    )
    x, y = (torch.cat(column) for column in zip(*(_pair(batch) for batch in reader), strict=True))
    return Samples(x, y, chosen, total)


def _choose(total: int, n: int | None, seed: int) -> Tensor:
    if not total:
        raise TooFewSamples("The data are empty: there is nothing to evaluate.")
    return torch.randperm(total, generator=torch.Generator().manual_seed(seed))[: n or total]


def _pair(batch: Any) -> tuple[Tensor, Tensor]:
    """Inputs and labels of a batch.

    Raises:
        BadInput: saying what the batch holds instead.
    """
    if isinstance(batch, Mapping):
        x, y = _find(batch, _INPUTS, "images"), _find(batch, _LABELS, "labels")
    elif isinstance(batch, Sequence) and len(batch) >= 2:
        x, y = batch[0], batch[1]
    else:
        raise BadInput(f"A batch must be a dict or a pair (images, labels), got {type(batch).__name__}.")
    x, y = torch.as_tensor(x), torch.as_tensor(y)
    if not x.is_floating_point():
        raise BadInput(f"Images must be floats in [0, 1], got {x.dtype}. Convert them: images.float() / 255.")
    if y.ndim != 1 or len(y) != len(x) or y.is_floating_point():
        raise BadInput(
            f"Labels must be whole numbers, one for each of {len(x)} images, got {y.dtype} of shape {tuple(y.shape)}."
        )
    return x.detach().cpu(), y.detach().cpu().long()


def _find(batch: Mapping[str, Any], names: Sequence[str], what: str) -> Any:
    for name in names:
        if name in batch:
            return batch[name]
    raise BadInput(f"The batches hold {', '.join(map(str, batch))}: no {what} under {', '.join(names)}.")
