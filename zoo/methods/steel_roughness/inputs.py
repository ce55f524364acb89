"""Sections from what users hand over, and sections of the training set for its statistics."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.steel.check import signal_problem
from zoo.errors import BadInput
from zoo.inputs import UnreadableError
from zoo.inputs.arrays import open_arrays
from zoo.inputs.frames import frame_numbers, is_frame, is_number

__all__ = ["read_section", "training_items"]

_META = ("speed", "tilt", "power")
_SAMPLE = 4096  # sections that are enough for means and standard deviations


def training_items(loader: Any, targets: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
    """Signals (n, C, L), meta (n, 3) and labels (n, T) of up to 4,096 evenly spaced training sections."""
    dataset = getattr(loader, "dataset", None)
    if dataset is None:  # a plain iterable of batches
        batch = next(iter(loader))
    else:
        step = max(1, -(-len(dataset) // _SAMPLE))
        items = [dataset[i] for i in range(0, len(dataset), step)]
        batch = {key: torch.stack([item[key] for item in items]) for key in ("signal", "meta", *targets)}
    labels = torch.stack([batch[name] for name in targets], 1)
    return batch["signal"].cpu().float(), batch["meta"].cpu().float(), labels.cpu().float()


def read_section(
    item: Any, number: int, channels: int, length: int | None, needs_meta: bool
) -> tuple[np.ndarray, list[float]]:
    """One section as float32 (C, L) and its meta.

    Args:
        item: array, tensor, table with one column per detector, path of an `.npz` file, or a dict with `signal`.
        number: position among the inputs, for messages.
        channels: C.
        length: L, if only this is accepted.
        needs_meta: whether speed, tilt and power must be there.

    Raises:
        BadInput: naming the input and what is wrong.
    """
    where = f"input {number}"
    held: dict[str, Any] = {}
    if isinstance(item, (str, Path)):
        where, held = f"input {number} ({item})", _read_file(Path(item))
        item = held
    if isinstance(item, dict):
        if "signal" not in item:
            keys = ", ".join(map(str, list(item)[:8])) or "none"
            raise BadInput(f"{where}: expected a dict or file with signal (C, L), got the keys {keys}.")
        held, item = item, item["signal"]
    if is_frame(item):
        item = frame_numbers(item, where).T
    try:
        signal = np.asarray(item.detach().cpu() if isinstance(item, Tensor) else item)
    except (TypeError, ValueError) as error:
        raise BadInput(f"{where}: expected intensities (C, L), got {type(item).__name__} ({error}).") from None
    if signal.dtype.kind == "O" and signal.ndim == 2:
        row, column = next(((i, j) for (i, j), v in np.ndenumerate(signal) if not is_number(v)), (0, 0))
        raise BadInput(f"{where}: expected numbers, got {signal[row, column]!r} at detector {row}, sample {column}.")
    problem = signal_problem(signal, channels, length)
    if problem is not None:
        raise BadInput(f"{where}: signal: expected {problem[0]}, got {problem[1]}.")
    if needs_meta and (missing := [key for key in _META if key not in held]):
        raise BadInput(f"{where}: expected a dict or file with signal, speed, tilt and power; {missing[0]} is missing.")
    meta = [_meta_number(held[key], key, where) for key in _META] if needs_meta else [0.0, 0.0, 0.0]
    return np.ascontiguousarray(signal, dtype=np.float32), meta


def _meta_number(value: Any, key: str, where: str) -> float:
    try:
        number = float(np.asarray(value, dtype=np.float64).item())
    except (TypeError, ValueError):
        number = float("nan")
    if not np.isfinite(number):
        raise BadInput(f"{where}: {key}: expected a number, got {str(value)[:40]!r}.")
    return number


def _read_file(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise BadInput(f"{path}: expected an .npz file with signal (C, L), but there is no such file.")
    try:
        with open_arrays(path) as data:
            return {name: data[name] for name in data.names}
    except UnreadableError as error:
        raise BadInput(f"{path}: expected an .npz file with signal (C, L), could not read it ({error}).") from error
