"""Reading GTSRB, the German traffic signs, as they are published: PPM pictures beside tables of theirs.

GTSRB/Training/00000/00000_00000.ppm ...     (or GTSRB/Final_Training/Images/00000/...)
GTSRB/Training/00000/GT-00000.csv            Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId
GTSRB/Final_Test/Images/00000.ppm ...
GT-final_test.csv                            the same columns; beside GTSRB, in it, or beside the test pictures

Training pictures come in tracks of thirty of one sign, so validation pictures held out at random are near ones of
training: trust the test split.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from datamodules.base import Problems
from zoo.errors import BadData

__all__ = ["GTSRB_NAMES", "find_gtsrb", "read_gtsrb"]

GTSRB_NAMES = (
    "speed limit 20", "speed limit 30", "speed limit 50", "speed limit 60", "speed limit 70", "speed limit 80",
    "end of speed limit 80", "speed limit 100", "speed limit 120", "no passing", "no passing for trucks",
    "right of way at the next crossing", "priority road", "yield", "stop", "no vehicles", "no trucks", "no entry",
    "danger", "curve left", "curve right", "double curve", "bumpy road", "slippery road", "narrows on the right",
    "road work", "traffic signals", "pedestrians", "children", "bicycles", "ice or snow", "wild animals",
    "end of all limits", "turn right ahead", "turn left ahead", "ahead only", "straight or right", "straight or left",
    "keep right", "keep left", "roundabout", "end of no passing", "end of no passing for trucks",
)  # fmt: skip
"""In the order of ClassId."""

Box = tuple[int, int, int, int]

_COLUMNS = ("Filename", "Roi.X1", "Roi.Y1", "Roi.X2", "Roi.Y2", "ClassId")
_TRAINING = ("Training", "Final_Training/Images")
_TEST = "GT-final_test.csv"


def find_gtsrb(root: Path) -> Path | None:
    """The folder with the training pictures' folder: `GTSRB`, `gtsrb/GTSRB` (torchvision), or the root itself."""
    for place in (root / "GTSRB", root / "gtsrb" / "GTSRB", root):
        if any((place / name / "00000").is_dir() for name in _TRAINING):
            return place
    return None


def read_gtsrb(place: Path, split: str) -> tuple[list[Path], np.ndarray, list[Box]]:
    """Files of a split, their classes and the box of the sign in each.

    Args:
        place: as `find_gtsrb` says.
        split: train or test.

    Returns:
        The files; int64 (N,); boxes (left, top, right, bottom), right and bottom outside of it.

    Raises:
        BadData: naming every broken line and missing picture.
    """
    problems = Problems(place)
    rows: list[tuple[Path, int, Box]] = []
    for table, folder, label in _tables(place, split):
        rows += _rows(table, folder, label, problems)
    if not rows and not len(problems):
        problems.add(split, "split", "at least one picture", "none")
    problems.raise_if_any()
    paths, labels, boxes = zip(*rows, strict=True)
    return list(paths), np.array(labels, np.int64), list(boxes)


def _tables(place: Path, split: str) -> Iterator[tuple[Path, Path, int | None]]:
    """Tables of a split, the folder of their pictures, and the class that the folder says."""
    if split != "train":
        pictures = place / "Final_Test" / "Images"
        tables = (folder / _TEST for folder in (place.parent, place, pictures))
        table = next((path for path in tables if path.is_file()), None)
        if table is None or not pictures.is_dir():
            raise BadData(
                f"{place}: expected Final_Test/Images and {_TEST} beside it, in it or beside {place.name}; got "
                f"{'no pictures' if table is not None else 'no ' + _TEST}.",
                [f"{place}: {_TEST} or Final_Test/Images is missing"],
            )
        yield table, pictures, None
        return
    training = next(place / name for name in _TRAINING if (place / name / "00000").is_dir())
    for folder in sorted(path for path in training.iterdir() if path.is_dir() and path.name.isdecimal()):
        yield folder / f"GT-{folder.name}.csv", folder, int(folder.name)


def _rows(table: Path, folder: Path, label: int | None, problems: Problems) -> Iterator[tuple[Path, int, Box]]:
    """Pictures of a table; what is wrong with it goes to `problems`, pictures that it leaves out among that."""
    named: set[str] = set()
    if not table.is_file():
        problems.add(table, "file", "the table of these pictures", "none")
        return
    with table.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.reader(file, delimiter=";")
        try:
            head = next(reader, [])
            if missing := [name for name in _COLUMNS if name not in head]:
                problems.add(table, "columns", "; ".join(_COLUMNS), f"no {', '.join(missing)}")
                return
            at = [head.index(name) for name in _COLUMNS]
            for line in reader:
                named.update(line[at[0] : at[0] + 1])
                if line and (row := _row(line, at, f"{table.name}:{reader.line_num}", folder, label, problems)):
                    yield row
        except csv.Error as error:
            problems.add(f"{table.name}:{reader.line_num}", "line", "values with semicolons", str(error))
    for path in sorted(folder.glob("*.ppm")):
        if path.name not in named:
            problems.add(table.name, path.name, "a line for each picture", "none")


def _row(
    line: list[str], at: list[int], where: str, folder: Path, label: int | None, problems: Problems
) -> tuple[Path, int, Box] | None:
    try:
        name, *numbers = (line[i] for i in at)
        left, top, right, bottom, number = map(int, numbers)
    except (IndexError, ValueError):
        problems.add(where, "line", "a file name and whole numbers", repr(";".join(line))[:60])
        return None
    path = folder / name
    if Path(name).name != name or not path.is_file():
        problems.add(where, "Filename", f"a picture in {folder.name}", repr(name)[:60])
    elif not 0 <= number < len(GTSRB_NAMES) or (label is not None and number != label):
        problems.add(where, "ClassId", f"0 to {len(GTSRB_NAMES) - 1}, the class of its folder", number)
    elif not (0 <= left < right and 0 <= top < bottom):
        problems.add(where, "Roi", "0 <= X1 < X2 and 0 <= Y1 < Y2", f"{left}, {top}, {right}, {bottom}")
    else:
        return path, number, (left, top, right + 1, bottom + 1)
    return None
