"""Tables as people have them (pandas, polars and the like) as numbers, with what is no number named."""

from __future__ import annotations

from typing import Any

import numpy as np

from zoo.errors import BadInput

__all__ = ["frame_numbers", "frames_of", "is_frame", "is_number", "numbers_of"]


_LONG = (("case_id", "dim_id", "reading_id", "value"), ("index", "column", "time_index", "value"))


def is_frame(item: Any) -> bool:
    """Whether something is a table with named columns."""
    return hasattr(item, "to_numpy") and hasattr(item, "columns")


def frame_numbers(frame: Any, where: str) -> np.ndarray:
    """A table as float64 (rows, columns); missing values become NaN.

    Args:
        frame: a DataFrame.
        where: how messages call it.

    Raises:
        BadInput: naming the column that holds something else.
    """
    columns = [_column(frame, number, str(name), where) for number, name in enumerate(frame.columns)]
    return np.stack(columns, 1) if columns else np.zeros((len(frame), 0))


def frames_of(frame: Any) -> list[Any] | None:
    """The series of a table that holds several one below the other; None for a table of one series.

    That is an index of two levels, series and time, or a long table: a row for each value, with the columns that sktime
    and aeon give it.

    Args:
        frame: a DataFrame.

    Raises:
        BadInput: for an index of more levels, or a long table in which a value occurs twice.
    """
    names = next((names for names in _LONG if set(names) <= set(frame.columns)), None)
    if names is not None and hasattr(frame, "pivot"):
        case, channel, time, value = names
        try:
            frame = frame.pivot(index=[case, time], columns=channel, values=value)
        except ValueError as error:
            raise BadInput(f"Expected one {value} for each {case}, {channel} and {time}, got {error}.") from None
    levels = getattr(getattr(frame, "index", None), "nlevels", 1)
    if levels == 1:
        return None
    if levels > 2:
        names_of = ", ".join(map(str, frame.index.names))
        raise BadInput(f"Expected an index of two levels, series and time, got {levels} ({names_of}).")
    return [_in_time(part.droplevel(0)) for _, part in frame.groupby(level=0, sort=False)]


def _in_time(frame: Any) -> Any:
    """A series in the order of its times, whichever order its rows stand in; texts have none."""
    index = frame.index
    kind = getattr(index.dtype, "kind", "O")
    return frame if index.is_monotonic_increasing or kind not in "iufmM" else frame.sort_index(kind="stable")


def _column(frame: Any, number: int, name: str, where: str) -> np.ndarray:
    held = frame.iloc[:, number] if hasattr(frame, "iloc") else frame[name]  # names may occur twice
    if getattr(getattr(held, "dtype", None), "kind", "") in tuple("fiu") and hasattr(frame, "iloc"):
        numbers: np.ndarray = held.to_numpy(dtype=np.float64, na_value=np.nan)
        return numbers
    values = np.asarray(held)
    if values.dtype.kind in "fiu":
        return values.astype(np.float64)
    row, other = next(((i, v) for i, v in enumerate(values) if not is_number(v)), (0, None))
    shown = f", such as {_shown(other)} in row {row}" if other is not None else ""
    raise BadInput(f"{where}: the column {name!r} does not hold numbers{shown}. Select the numeric columns.")


def is_number(value: Any) -> bool:
    """Whether a value is a real number; bool is none."""
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def numbers_of(values: Any) -> np.ndarray:
    """Anything like an array as float64; masked entries become NaN.

    Raises:
        ValueError: naming the first entry that is no number.
    """
    array = np.ma.filled(values.astype(np.float64), np.nan) if np.ma.isMaskedArray(values) else np.asarray(values)
    if array.dtype.kind in "fiub":
        return array.astype(np.float64)
    entries = [(place, v) for place, v in np.ndenumerate(array) if not is_number(v)]
    if array.dtype.kind != "O" or not array.ndim or not array.size or entries:
        place = f" at {', '.join(map(str, entries[0][0]))}" if entries and array.ndim else ""
        raise ValueError(f"{_shown(entries[0][1])}{place}" if entries else f"values of type {array.dtype}")
    return array.astype(np.float64)


def _shown(value: Any) -> str:
    """A value for a message, as Python writes it."""
    text = repr(value.item() if isinstance(value, np.generic) and value.dtype.kind != "M" else value)
    return text if len(text) <= 40 else f"{text[:37]}..."
