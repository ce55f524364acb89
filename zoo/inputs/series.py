"""From arrays, tensors, lists and DataFrames, one series or many, to batches of series."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.errors import BadInput
from zoo.inputs.frames import frame_numbers, frames_of, is_frame, is_number, numbers_of

__all__ = ["kept_digits", "make_series_batch", "refuse_constant", "series_dtype", "split_series"]

_FLAT = 1e-4  # a span of which float32 holds three digits less than of the level
_TINY = 1e-15  # its square, and that of its inverse, are near the ends of float32's range


def split_series(inputs: Any, channels: int) -> list[Any]:
    """Series of an argument of `predict`.

    A list of numbers is one series, any other list holds series. An array or tensor of three axes is (series, channels,
    points); of two axes it is one series (channels, points), or with one channel several (series, points). A table with
    an index of two levels (series, time), or a long table, holds series.
    """
    if is_frame(inputs) and (frames := frames_of(inputs)) is not None:
        return frames
    if isinstance(inputs, (list, tuple)):
        points = [is_number(v) for v in inputs]
        if any(points) and not all(points):
            place = points.index(False)
            raise BadInput(f"A list of points holds {inputs[place]!r} at point {place}, expected numbers.")
        return [list(inputs)] if any(points) else list(inputs)
    if isinstance(inputs, (np.ndarray, Tensor)):
        if inputs.ndim == 2 and channels == 1 and inputs.shape[1] == 1 < inputs.shape[0]:
            raise BadInput(
                f"Expected a series as (points,), or several as (series, points), got the shape {tuple(inputs.shape)}. "
                "It looks like points x channels: give its transpose."
            )
        if inputs.ndim == 3 or (inputs.ndim == 2 and channels == 1 and inputs.shape[0] != 1):
            return list(inputs)
        if inputs.ndim > 3:
            raise BadInput(
                f"Expected series as (points,), (channels, points) or (series, channels, points), got an array of "
                f"{inputs.ndim} axes {tuple(inputs.shape)}."
            )
    return [inputs]


def kept_digits(rows: np.ndarray) -> np.ndarray:
    """Channels (C, L) as float32, or as they are where float32 would not hold what varies in one of them.

    That is a small change on a large level (a position in metres of a map), or a unit of tiny numbers (tesla of brain
    waves): in float32 its deviation would be rounding, or zero.
    """
    rows = rows if rows.dtype.kind == "f" else rows.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        low, high = np.fmin.reduce(rows, axis=1, initial=np.inf), np.fmax.reduce(rows, axis=1, initial=-np.inf)
        span, level = high - low, np.maximum(np.abs(low), np.abs(high))
        lost = (span > 0) & ((span < _FLAT * level) | (span < _TINY) | (level > 1 / _TINY))
        lost &= level < np.finfo(np.float32).max
        return rows.astype(np.float64) if bool(lost.any()) else rows.astype(np.float32)


def series_dtype(rows: Sequence[np.ndarray]) -> torch.dtype:
    """Type of a batch of what `kept_digits` gives."""
    return torch.float64 if any(row.dtype == np.float64 for row in rows) else torch.float32


def _from_frame(frame: Any, number: int, channels: int) -> np.ndarray:
    """Rows are points, columns are channels."""
    values = frame_numbers(frame, f"series {number}")
    if values.shape[1] != channels:
        raise BadInput(
            f"series {number}: a DataFrame holds one series, a row per point and a column per channel; expected "
            f"{channels} column{'s' * (channels > 1)}, got {values.shape[1]}. For one series per row, give "
            "frame.to_numpy()[:, None]."
        )
    return kept_digits(values.T)


def _from_any(item: Any, number: int, channels: int) -> np.ndarray:
    """One series (C, L)."""
    if is_frame(item):
        return _from_frame(item, number, channels)
    wanted = f"expected {channels} x points numbers" + (" or a plain list of points" if channels == 1 else "")
    try:
        array = numbers_of(item.detach().cpu() if isinstance(item, Tensor) else item)
        array = kept_digits(array) if array.ndim == 2 else kept_digits(array[None])[0] if array.ndim == 1 else array
    except (TypeError, ValueError) as error:
        raise BadInput(f"series {number}: {wanted}, got {type(item).__name__} ({error}).") from None
    if array.ndim == 1 and channels == 1:
        array = array[None]
    if array.ndim != 2 or array.shape[0] != channels:
        hint = ""
        if array.ndim == 2 and array.shape[1] == channels:
            hint = " It looks like points x channels: give its transpose, or a DataFrame."
        elif array.ndim == 1:
            hint = " A plain list of points is possible with one channel only."
        raise BadInput(f"series {number}: {wanted}, got the shape {tuple(array.shape)}.{hint}")
    return array


def make_series_batch(items: Sequence[Any], channels: int, *, refuse_constant: bool) -> dict[str, Any]:
    """Series of equal or unequal length as one batch; unequal ones are filled up with zeros, with their `length`.

    Raises:
        BadInput: naming the series and what is wrong with it.
    """
    arrays = [_from_any(item, number, channels) for number, item in enumerate(items)]
    for number, array in enumerate(arrays):
        if array.shape[1] == 0:
            raise BadInput(f"series {number}: it is empty.")
        if not np.isfinite(array).all():
            channel, point = (int(i) for i in np.argwhere(~np.isfinite(array))[0])
            raise BadInput(
                f"series {number}: channel {channel} holds {array[channel, point]} at point {point}, expected numbers. "
                "Fill missing values first."
            )
        if refuse_constant and bool((array == array[:, :1]).all()):
            raise BadInput(f"series {number}: it is constant, so normalising leaves nothing to tell it by.")
    lengths = [a.shape[1] for a in arrays]
    longest = max(lengths)
    series = torch.zeros(len(arrays), channels, longest, dtype=series_dtype(arrays))
    for number, array in enumerate(arrays):
        series[number, :, : array.shape[1]] = torch.from_numpy(np.ascontiguousarray(array))
    batch: dict[str, Any] = {"index": torch.arange(len(arrays)), "series": series}
    if min(lengths) != longest:
        batch["length"] = torch.tensor(lengths)
    return batch


def refuse_constant(batch: dict[str, Any]) -> None:
    """Check a training batch whose series will be normalised.

    Raises:
        BadInput: naming a series that does not vary in any channel.
    """
    series, index = batch["series"], batch["index"]
    flat = (series == series[..., :1]).all(2).all(1)
    if bool(flat.any()):
        raise BadInput(
            f"Training series {int(index[flat][0])} is constant, so normalising leaves nothing of it. Remove it, or "
            "set model.normalise to false if levels matter."
        )
