"""Readers of time series files: `.ts` (UCR, UEA, TSER archives), tab-separated text, `.npz`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from datamodules.base import Problems
from zoo.errors import BadData
from zoo.inputs import UnreadableError
from zoo.inputs.arrays import open_arrays
from zoo.inputs.series import kept_digits

__all__ = ["Series", "read_series"]

_MOST_SERIES = 1_000_000  # of an npz file
_SIZE_LIMIT = 2_000_000_000  # bytes of a text file that is read into memory


@dataclass
class Series:
    """The content of one file.

    Attributes:
        series: float32 (C, L_i) each, float64 where float32 would lose what varies; NaN where a value is missing.
        targets: class names, or numbers as text; empty if the file has none.
        class_names: those the header declares, in its order; empty if it declares none.
        regression: whether the header says that the targets are numbers. None: it says nothing.
        places: where each series stands, such as "line 12".
    """

    series: list[np.ndarray]
    targets: list[str]
    class_names: list[str] = field(default_factory=list)
    regression: bool | None = None
    places: list[str] = field(default_factory=list)


def read_series(path: Path) -> Series:
    """Read a file by its ending.

    Raises:
        BadData: listing every line that cannot be read.
    """
    readers = {".ts": _read_ts, ".tsv": _read_tsv, ".txt": _read_tsv, ".npz": _read_npz}
    series = readers[path.suffix.lower()](path)
    if not series.series:
        raise BadData(f"{path}: expected at least one series, got none.")
    return series


def _lines(path: Path) -> list[str]:
    if (size := path.stat().st_size) > _SIZE_LIMIT:
        raise BadData(f"{path}: expected at most {_SIZE_LIMIT:,} bytes of text, got {size:,}. Convert it to .npz.")
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise BadData(f"{path}: expected text in UTF-8, got other bytes ({error}).") from None


def _numbers(text: str) -> np.ndarray:
    """Comma-separated numbers; `?` and `NaN` are missing."""
    try:
        values = np.array(text.split(","), dtype=np.float64)
    except ValueError:
        values = np.array([np.nan if v.strip() == "?" else float(v) for v in text.split(",")])
    return values


# .ts --------------------------------------------------------------------------------------------------------------


@dataclass
class _Header:
    timestamps: bool = False
    class_names: list[str] | None = None
    regression: bool = False
    dimensions: int | None = None


def _read_header(lines: list[str], path: Path) -> tuple[_Header, int]:
    """The declarations, and the number of lines up to `@data`."""
    header = _Header()
    for number, line in enumerate(lines):
        words = line.strip().split()
        if not words or words[0].startswith("#"):
            continue
        key, rest = words[0].lower(), words[1:]
        if key == "@data":
            return header, number + 1
        if not key.startswith("@"):
            break
        yes = bool(rest) and rest[0].lower() == "true"
        if key == "@timestamps":
            header.timestamps = yes
        elif key == "@classlabel":
            header.class_names = rest[1:] if yes else None
        elif key == "@targetlabel":
            header.regression = yes
        elif key in ("@dimensions", "@dimension") and rest and rest[0].isdigit():
            header.dimensions = int(rest[0])
    raise BadData(f"{path}: expected a header of @ lines that ends with @data, as in the UCR and UEA archives.")


def _read_ts(path: Path) -> Series:
    lines = _lines(path)
    header, start = _read_header(lines, path)
    if header.timestamps:
        raise BadData(f"{path}: @timeStamps true: expected evenly sampled series without time stamps. Resample them.")
    series = Series([], [], header.class_names or [], header.regression if header.class_names is None else False)
    labelled = header.class_names is not None or header.regression
    problems = Problems(path)
    channels = header.dimensions
    for number, line in enumerate(lines[start:], start + 1):
        if not line.strip() or line.startswith("#"):
            continue
        parts = line.strip().split(":")
        target = parts.pop().strip() if labelled else ""
        try:
            values = [_numbers(part) for part in parts]
        except ValueError as error:
            problems.add(path, f"line {number}", "numbers separated by commas", str(error)[:60])
            continue
        if channels is None:
            channels = len(values)
        lengths = {len(v) for v in values}
        if len(values) != channels or len(lengths) != 1:
            got = f"{len(values)} channels of {sorted(lengths)} points"
            problems.add(path, f"line {number}", f"{channels} channels of equal length", got)
            continue
        if header.class_names and target not in header.class_names:
            problems.add(
                path, f"line {number}", f"one of the classes {', '.join(header.class_names)}", repr(target[:40])
            )
            continue
        series.series.append(kept_digits(np.stack(values)))
        series.targets.append(target)
        series.places.append(f"line {number}")
    problems.raise_if_any()
    if not labelled:
        series.targets, series.regression = [], None
    return series


# Tab-separated ----------------------------------------------------------------------------------------------------


def _read_tsv(path: Path) -> Series:
    """One series a line, its target first; missing values at the end mean that it is shorter."""
    series, problems = Series([], []), Problems(path)
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        words = line.strip().replace(",", "\t").split("\t") if "\t" in line or "," in line else line.split()
        try:
            values = _numbers(",".join(words[1:])) if len(words) > 1 else None
            float(words[0])
        except ValueError as error:
            problems.add(path, f"line {number}", "a target and numbers, separated by tabs", str(error)[:60])
            continue
        if values is None:
            problems.add(path, f"line {number}", "a target and at least one number", repr(line[:40]))
            continue
        known = np.flatnonzero(~np.isnan(values))
        series.series.append(kept_digits(values[None, : known[-1] + 1 if len(known) else len(values)]))
        series.targets.append(words[0])
        series.places.append(f"line {number}")
    problems.raise_if_any()
    series.targets = [_plain(t) for t in series.targets]
    return series


def _plain(text: str) -> str:
    """`1.0000000e+00` is the class 1."""
    value = float(text)
    return str(int(value)) if value.is_integer() else text


# .npz -------------------------------------------------------------------------------------------------------------


def _read_npz(path: Path) -> Series:
    """Arrays `x` (series, channels, points) or (series, points), `y`, and `length` where they are unequal."""
    try:
        with open_arrays(path) as file:
            arrays = {name: file[name] for name in ("x", "y", "length") if name in file}
    except UnreadableError as error:
        raise BadData(f"{path}: expected an .npz file of plain arrays x and y ({error}).") from None
    x = arrays.get("x")
    if x is None or x.ndim not in (2, 3) or x.dtype.kind not in "fiu" or 0 in x.shape or len(x) > _MOST_SERIES:
        got = "no array x" if x is None else f"x of type {x.dtype} and shape {x.shape}"
        wanted = f"numbers x (series, channels, points) or (series, points), at most {_MOST_SERIES:,} series"
        raise BadData(f"{path}: expected {wanted}, got {got}.")
    x = x[:, None] if x.ndim == 2 else x
    lengths, y = arrays.get("length", np.full(len(x), x.shape[2])), arrays.get("y")
    whole = lengths.shape == (len(x),) and lengths.dtype.kind in "iu"
    if not whole or lengths.min() < 1 or lengths.max() > x.shape[2]:
        raise BadData(f"{path}: length: expected {len(x)} whole numbers from 1 to {x.shape[2]}.")
    if y is not None and (y.ndim != 1 or len(y) != len(x)):
        raise BadData(f"{path}: y: expected {len(x)} targets, got the shape {y.shape}.")
    series = [kept_digits(row[:, : int(n)]) for row, n in zip(x, lengths, strict=True)]
    targets = [] if y is None else [str(v) for v in y.tolist()]
    regression = None if y is None else y.dtype.kind == "f" and not bool((y == np.round(y)).all())
    if y is not None and y.dtype.kind == "f" and not regression:
        targets = [_plain(t) for t in targets]
    return Series(series, targets, [], regression, [f"series {i}" for i in range(len(series))])
