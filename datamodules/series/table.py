"""All series of a data set in one table: checked, classes numbered, unequal lengths filled up, and shared out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.base import Problems
from datamodules.series.files import Series
from zoo.errors import BadData, BadInput
from zoo.inputs import swollen
from zoo.inputs.frames import frame_numbers, frames_of, is_frame, numbers_of
from zoo.inputs.series import kept_digits, series_dtype

__all__ = ["Table", "check_arrays", "make_table", "share_out"]


@dataclass
class Table:
    """Series of all files.

    Attributes:
        series: float32 (M, C, L), float64 where float32 would lose what varies; zeros behind the end of shorter ones.
        lengths: int64 (M,).
        targets: int64 labels or float32 values (M,).
        class_names: names of the labels; None if the targets are values.
        first_test: number of series of the first file; the others are for testing.
    """

    series: Tensor
    lengths: Tensor
    targets: Tensor
    class_names: list[str] | None
    first_test: int


def check_arrays(x: Any, y: Any, where: str) -> Series:
    """Arrays of a user as if they had come from a file.

    Args:
        x: array (series, channels, points) or (series, points), table with a series per row, with an index of two
            levels (series, time) or long (see `frames_of`), or list of series: arrays (channels, points) or (points,),
            tables with a row per point and a column per channel.
        y: target of each series.
        where: how messages call them.

    Raises:
        BadInput: for other shapes or types.
    """
    if is_frame(x):
        frames = frames_of(x)
        x = frame_numbers(x, where) if frames is None else frames
    rows = [_series(row, f"{where}: series {number}") for number, row in enumerate(x)]
    if not rows or any(row.ndim != 2 or row.shape[1] == 0 for row in rows):
        raise BadInput(f"{where}: expected series (series, channels, points), (series, points) or a list of (C, L).")
    targets = np.asarray(y)
    if targets.shape != (len(rows),):
        raise BadInput(f"{where}: expected {len(rows)} targets, got the shape {targets.shape}.")
    given = targets.tolist()
    classes = any(isinstance(t, str) for t in given)
    if classes and (missing := [i for i, t in enumerate(given) if t is None or t != t]):
        raise BadInput(f"{where}: series {missing[0]} has no target: expected a class, got {given[missing[0]]!r}.")
    fractions = targets.dtype.kind == "f" and not bool((targets == np.round(targets)).all())
    names = [str(int(t)) if targets.dtype.kind == "f" and not fractions else str(t) for t in given]
    return Series(rows, names, [], fractions, [f"series {i}" for i in range(len(rows))])


def _series(row: Any, where: str) -> np.ndarray:
    """One series (C, L) if it has one or two axes."""
    if is_frame(row):
        return kept_digits(frame_numbers(row, where).T)
    try:
        array = numbers_of(row)
    except (TypeError, ValueError) as error:
        raise BadInput(f"{where}: expected numbers (channels, points), got {error}.") from None
    array = array[None] if array.ndim == 1 else array
    return kept_digits(array) if array.ndim == 2 and array.size else array.astype(np.float32)


def make_table(files: Sequence[Series], paths: Sequence[str], options: Mapping[str, Any]) -> Table:
    """Join files.

    Args:
        files: training and test series.
        paths: how messages call them.
        options: `target`, `missing` and `unequal` of the data module.

    Raises:
        BadData: naming everything that cannot be used.
    """
    problems = Problems(" and ".join(paths))
    channels = files[0].series[0].shape[0]
    series: list[np.ndarray] = []
    for file, path in zip(files, paths, strict=True):
        for row, place in zip(file.series, file.places, strict=True):
            if row.shape[0] != channels:
                problems.add(path, place, f"{channels} channels as in the first series", row.shape[0])
            elif not np.isfinite(row).all():
                row = _fill(row, path, place, options["missing"], problems)
            series.append(row)
        if not file.targets:
            problems.add(path, "targets", "a class or a value for each series", "none")
    lengths = torch.tensor([row.shape[1] for row in series])
    if options["unequal"] == "refuse" and len(set(lengths.tolist())) > 1:
        problems.add(
            paths[0], "lengths", "equal ones (unequal=refuse)", f"{int(lengths.min())} to {int(lengths.max())}"
        )
    _check_filling(series, lengths, paths[0], problems)
    problems.raise_if_any("Correct or remove these entries, or set data.missing or data.unequal.")
    joined = torch.zeros(len(series), channels, int(lengths.max()), dtype=series_dtype(series))
    for number, row in enumerate(series):
        joined[number, :, : row.shape[1]] = torch.from_numpy(row)
    targets, names = _targets(files, paths, options["target"])
    return Table(joined, lengths, targets, names, len(files[0].series))


def _check_filling(series: Sequence[np.ndarray], lengths: Tensor, path: str, problems: Problems) -> None:
    """Note that a few long series among many short ones would take far more memory than they hold."""
    held = sum(row.nbytes for row in series)
    longest = max(range(len(series)), key=lambda i: series[i].nbytes)
    filled = len(series) * series[longest].nbytes
    if filled > swollen(held):
        usual = int(lengths.median())
        got = f"{int(lengths[longest]):,} points, which would make {filled / 1e9:.1f} GB of {held / 1e9:.3f}"
        problems.add(path, f"series {longest}", f"a length like that of the others (about {usual:,} points)", got)


def _fill(row: np.ndarray, path: str, place: str, policy: str, problems: Problems) -> np.ndarray:
    bad = ~np.isfinite(row)
    channel, point = (int(i) for i in np.argwhere(bad)[0])
    where = f"{place}, channel {channel}, point {point}"
    if policy != "interpolate" or np.isinf(row).any():
        problems.add(path, where, "a number (missing=interpolate fills gaps)", row[channel, point])
        return row
    filled = row.copy()
    for number, missing in enumerate(bad):
        if missing.all():
            problems.add(path, f"{place}, channel {number}", "at least one number", "none")
        elif missing.any():
            at = np.arange(row.shape[1])
            filled[number, missing] = np.interp(at[missing], at[~missing], row[number, ~missing])
    return filled


def _targets(files: Sequence[Series], paths: Sequence[str], kind: str) -> tuple[Tensor, list[str] | None]:
    given = [t for file in files for t in file.targets]
    regression = kind == "value" or (kind == "auto" and any(file.regression for file in files))
    if regression:
        problems = Problems(" and ".join(paths))
        values = []
        for file, path in zip(files, paths, strict=True):
            for text, place in zip(file.targets, file.places, strict=True):
                values.append(_number(text))
                if not np.isfinite(values[-1]):
                    problems.add(path, place, "a number as target", repr(text[:40]))
        problems.raise_if_any()
        return torch.tensor(values, dtype=torch.float32), None
    names = list(files[0].class_names) or sorted(set(given), key=_place)
    names += sorted(set(given) - set(names))
    if len(set(files[0].targets)) < 2:
        raise BadData(
            f"{paths[0]}: expected training series of at least two classes, got {len(set(files[0].targets))} "
            f"({', '.join(sorted(set(files[0].targets))[:3])}). Values instead of classes: data.target=value."
        )
    return torch.tensor([names.index(t) for t in given], dtype=torch.int64), names


def _place(text: str) -> tuple[bool, float, str]:
    """Numbers come before text, in their own order."""
    value = _number(text)
    return (True, 0.0, text) if np.isnan(value) else (False, value, text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def share_out(table: Table, part: str, val_share: float, resplit: float | None, seed: int) -> np.ndarray:
    """Positions of the series of a split, in ascending order; classes keep their shares.

    Args:
        table: all series.
        part: train, val or test.
        val_share: of the training series.
        resplit: share of all series that trains and validates; None keeps the files' split.
        seed: of the draws.
    """
    everything = np.arange(len(table.series))
    training, testing = everything[: table.first_test], everything[table.first_test :]
    if resplit is not None:
        testing, training = _draw(table, everything, 1 - resplit, (seed, 1))
    if part == "test":
        return testing
    if val_share == 0:
        return training if part == "train" else testing
    validation, rest = _draw(table, training, val_share, (seed, 2))
    return validation if part == "val" else rest


def _draw(table: Table, among: np.ndarray, share: float, seed: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A share of each class, and the rest. A class with two series or more is in both."""
    rng = np.random.default_rng(seed)
    labels = table.targets[torch.as_tensor(among)].numpy()
    groups = [among] if table.class_names is None else [among[labels == c] for c in np.unique(labels)]
    chosen: list[np.ndarray] = []
    for group in groups:
        count = min(max(round(share * len(group)), 1), len(group) - 1)
        chosen.append(rng.permutation(group)[: max(count, 0)])
    taken = np.sort(np.concatenate(chosen))
    return taken, np.setdiff1d(among, taken)
