"""Tables of numbers in files: CSV with or without a header, parquet, and the arrays of `.npy` and `.npz`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import BadInput, require
from zoo.inputs import UnreadableError
from zoo.inputs.arrays import open_arrays
from zoo.inputs.text_files import read_rows

__all__ = ["SUFFIXES", "read_array", "read_numbers", "read_parquet"]

SUFFIXES = (".csv", ".npy", ".npz", ".parquet")

_CELLS = 250_000_000  # of a parquet file, whose compression may promise any number
_KINDS = "biuf"
_MISSING = ("", "?", "na", "nan", "null", "none")
_CLOCKS = ("", "index", "time", "t", "timestamp", "date", "datetime")


def read_numbers(path: Path, columns: int | None = None) -> np.ndarray:
    """A CSV or parquet file as float64 (rows, columns); missing cells are NaN.

    A first column that counts or dates the rows (without a name, or called index, time, t, timestamp, date) is left out
    if the others are as many as wanted.

    Args:
        path: of the file.
        columns: wanted; None takes all.

    Raises:
        BadInput: naming the line and the column of what is no number.
        MissingExtra: for a parquet file, if pyarrow is not installed.
    """
    try:
        names, cells = _parquet_cells(path) if path.suffix.lower() == ".parquet" else _csv_cells(path)
    except UnreadableError as error:
        raise BadInput(f"{path}: {str(error).rstrip('.')}.") from error
    if columns is not None and len(names) == columns + 1 and names[0].strip().lower() in _CLOCKS and any(names):
        cells = [row[1:] for row in cells] if isinstance(cells, list) else cells[:, 1:]
        names = names[1:]
    if isinstance(cells, np.ndarray):
        return cells
    numbers = np.empty((len(cells), len(names)))
    for number, row in enumerate(cells):
        if len(row) != len(names):
            raise BadInput(f"{path}: row {number}: expected {len(names)} cells, got {len(row)}.")
        for place, cell in enumerate(row):
            if (value := _number(cell)) is None:
                column = names[place] or f"column {place}"
                raise BadInput(f"{path}: row {number}, {column}: expected a number, got {cell[:40]!r}.")
            numbers[number, place] = value
    return numbers


def _csv_cells(path: Path) -> tuple[list[str], list[list[str]]]:
    rows = [row for _, row in read_rows(path)]
    if not rows:
        raise BadInput(f"{path}: expected a table of numbers, got an empty file.")
    if any(_number(cell) is None for cell in rows[0]) or rows[0][0].strip() == "":
        if len(rows) == 1:
            raise BadInput(f"{path}: expected numbers below the header, got none.")
        return rows[0], rows[1:]
    return [""] * len(rows[0]), rows


def _number(cell: str) -> float | None:
    """The number in a cell, NaN where it is missing, None for a text. A comma may stand for the point."""
    text = cell.strip()
    if text.lower() in _MISSING:
        return float("nan")
    try:
        return float(text.replace(",", ".") if text.count(",") == 1 and "." not in text else text)
    except ValueError:
        return None


def _parquet_cells(path: Path) -> tuple[list[str], np.ndarray]:
    table = read_parquet(path)
    names = list(table)
    own = {name: values for name, values in table.items() if values.dtype.kind in _KINDS}
    if names and names[0].strip().lower() in _CLOCKS and names[0] not in own:
        own = {names[0]: np.zeros(len(table[names[0]])), **own}  # dates; a caller that wants the others leaves it out
    if other := [name for name in names if name not in own]:
        raise BadInput(f"{path}: the column {other[0]!r} does not hold numbers. Keep the numeric columns.")
    return names, np.stack([own[name].astype(np.float64) for name in names], 1) if names else np.zeros((0, 0))


def read_parquet(path: Path) -> dict[str, np.ndarray]:
    """Columns of a parquet file by name.

    Raises:
        BadInput: if it is none, or holds more than memory should.
        MissingExtra: if pyarrow is not installed.
    """
    parquet: Any = require("pyarrow.parquet", "tables")
    try:
        file = parquet.ParquetFile(str(path))
        rows, columns = int(file.metadata.num_rows), int(file.metadata.num_columns)
        if rows * columns > _CELLS:
            raise BadInput(f"{path}: expected at most {_CELLS:,} cells, got {rows:,} rows of {columns:,} columns.")
        table = file.read()
        return {str(name): np.asarray(table.column(name).to_numpy()) for name in table.column_names}
    except BadInput:
        raise
    except Exception as error:  # damaged bytes lead the reader to whatever they say
        raise BadInput(f"{path}: expected a parquet file, got {type(error).__name__}: {error}.") from error


def read_array(path: Path, names: tuple[str, ...] = ()) -> np.ndarray | Mapping[str, np.ndarray]:
    """The array of a `.npy` file, or the arrays of an `.npz` file by name.

    Args:
        path: of the file.
        names: of the arrays wanted from an `.npz` file; empty for all.

    Raises:
        BadInput: for whatever else it is.
    """
    try:
        if path.suffix.lower() == ".npz":
            with open_arrays(path) as held:
                return {name: held[name] for name in held.names if not names or name in names}
        # a map of the file: a header that promises more than there is takes no memory
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray) or array.dtype.kind not in _KINDS:
            raise UnreadableError("numbers", f"{getattr(array, 'dtype', type(array).__name__)}")
        return np.array(array)
    except UnreadableError as error:
        raise BadInput(f"{path}: {str(error).rstrip('.')}.") from error
    except Exception as error:  # damaged bytes lead numpy to whatever they say
        raise BadInput(f"{path}: expected an array of numbers, got {type(error).__name__}: {error}.") from error
