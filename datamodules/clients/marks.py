"""Who or what each image of class folders is from, and where it was taken."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from datamodules.base import Problems
from zoo.inputs import UnreadableError
from zoo.inputs.text_files import read_rows

__all__ = ["folder_groups", "folder_positions"]

TABLE = "metadata.csv"


def folder_groups(root: Path, classes: Mapping[str, Path], files: Sequence[Path]) -> np.ndarray | None:
    """The group of each file: the column `group` of a `metadata.csv`, else the folder between class and file.

    Args:
        root: where the table may lie; beside the class folders is looked, too.
        classes: class -> folder.
        files: of the classes.

    Returns:
        Names (N,); None if neither is there.

    Raises:
        BadData: naming each file without a group.
    """
    if (table := _table(root, classes)) is not None:
        rows = _rows(table, files, ("group",))
        return None if rows is None else np.array([row[0] for row in rows])
    groups: list[str | None] = []
    for file in files:
        folder = next(folder for folder in classes.values() if file.is_relative_to(folder))
        inside = file.relative_to(folder).parts
        groups.append(inside[0] if len(inside) > 1 else None)
    if not any(groups):
        return None
    problems = Problems(root)
    for file, group in zip(files, groups, strict=True):
        if group is None:
            problems.add(file, "group", "a folder per entity between the class and the file, as others have", "none")
    problems.raise_if_any()
    return np.array([str(group) for group in groups])


def folder_positions(root: Path, classes: Mapping[str, Path], files: Sequence[Path]) -> np.ndarray | None:
    """Where each file was taken: the columns `x` and `y` of a `metadata.csv`.

    Returns:
        float64 (N, 2); None if there is no such table.

    Raises:
        BadData: naming each file without a place, and each place that is no number.
    """
    table = _table(root, classes)
    rows = None if table is None else _rows(table, files, ("x", "y"))
    if table is None or rows is None:
        return None
    problems = Problems(table)
    places = np.zeros((len(files), 2))
    for number, (file, row) in enumerate(zip(files, rows, strict=True)):
        for axis, text in enumerate(row):
            try:
                places[number, axis] = float(text)
            except ValueError:
                places[number, axis] = math.nan
            if not math.isfinite(places[number, axis]):
                problems.add(file.name, "xy"[axis], "a finite number", repr(text))
    problems.raise_if_any()
    return places


def _table(root: Path, classes: Mapping[str, Path]) -> Path | None:
    beside = next(iter(classes.values())).parent
    return next((path for place in (root, beside) if (path := place / TABLE).is_file()), None)


def _rows(table: Path, files: Sequence[Path], columns: tuple[str, ...]) -> list[tuple[str, ...]] | None:
    """The cells of some columns for each file, whose `file_name` is given relative to the table's folder.

    Returns:
        None if the table lacks the columns.
    """
    problems = Problems(table)
    try:
        rows = read_rows(table)
    except UnreadableError as error:
        problems.add(table, "file", error.expected, error.got)
        problems.raise_if_any()
        raise
    header = [name.strip() for name in rows[0][1]] if rows else []
    if not set(columns) <= set(header):
        return None
    if "file_name" not in header:
        problems.add(table.name, "columns", "file_name", ", ".join(header)[:80])
        problems.raise_if_any()
    held = _cells(table, rows[1:], header, columns, set(files), problems)
    if not problems:
        for file in files:
            if file not in held:
                problems.add(table.name, file.relative_to(table.parent).as_posix(), "a row for each image", "none")
    problems.raise_if_any()
    return [held[file] for file in files]


def _cells(
    table: Path,
    rows: Sequence[tuple[int, list[str]]],
    header: Sequence[str],
    columns: tuple[str, ...],
    wanted: set[Path],
    problems: Problems,
) -> dict[Path, tuple[str, ...]]:
    """File -> its cells in some columns."""
    held: dict[Path, tuple[str, ...]] = {}
    for line, row in rows:
        cells = dict(zip(header, (cell.strip() for cell in row), strict=False))
        chosen = tuple(cells.get(column, "") for column in columns)
        name = cells.get("file_name", "")
        path = table.parent / name
        if path not in wanted and "\\" in name:  # as written on Windows
            path = table.parent / name.replace("\\", "/")
        if not all(chosen):
            problems.add(f"{table.name}:{line}", " and ".join(columns), "a value", "none")
        elif path in held:
            problems.add(f"{table.name}:{line}", "file_name", "one row for each image", f"{name} again")
        else:
            held[path] = chosen
    return held
