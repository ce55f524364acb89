"""Results in the formats of other tools: tables, YOLO's labels, COCO's results, GeoJSON."""

from __future__ import annotations

import csv
import io
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import index
from zoo.cli.predict.files import Growing
from zoo.cli.predict.paths import MARK, beside_inputs
from zoo.cli.predict.reading import Item
from zoo.cli.predict.results import plain
from zoo.errors import BadInput, nearest
from zoo.files import write_whole, writing
from zoo.index.tasks import COLUMNS

if TYPE_CHECKING:
    from zoo.base import ZooModule

__all__ = ["FORMATS", "Answer", "Save", "make_saves"]

FORMATS = ("csv", "json", "yolo", "coco", "geojson")


@dataclass(frozen=True)
class Answer:
    """What is known about one input.

    Attributes:
        item: the input.
        name: distinct among all inputs.
        result: what `predict` gave.
        row: the same as plain values, with the input.
    """

    item: Item
    name: str
    result: dict[str, Any]
    row: dict[str, Any]

    def values(self, key: str) -> Any:
        """All values of a key as lists, however long."""
        return plain(self.result[key], None, "", math.inf)


class Save(ABC):
    """A file, or a folder of files, in one format."""

    @abstractmethod
    def add(self, answers: Sequence[Answer]) -> None:
        """Write some results; afterwards what is on disk is complete."""

    def close(self) -> None:
        """End the file; without any result it is empty but for its head."""
        file = getattr(self, "file", None)
        if isinstance(file, Growing):
            file.close()


def check_saves(wanted: Sequence[str], task: str) -> None:
    """Check the formats that a user asked for.

    Raises:
        BadInput: naming one that does not exist, or that cannot hold the results of the task.
    """
    for name in wanted:
        if name not in FORMATS:
            raise BadInput(f"--save: {name!r} is none of {', '.join(FORMATS)}.{nearest(name, FORMATS)}")
        known = index.TASKS[task].saves
        if name not in known:
            raise BadInput(f"--save {name}: results of {task} can be saved as {', '.join(known)}.")


def make_saves(wanted: Sequence[str], module: ZooModule, folder: Path, inputs: Sequence[str]) -> list[Save]:
    """One writer per format; `json` is none of them, since results.json is always written.

    Raises:
        BadInput: as `check_saves`.
    """
    check_saves(wanted, module.task)
    saves: list[Save] = []
    if "csv" in wanted:
        saves.append(Table(beside_inputs(folder / "results.csv", inputs), module))
    if "yolo" in wanted:
        saves.append(YoloLabels(folder / f"labels{MARK}", module))
    if "coco" in wanted:
        saves.append(CocoResults(beside_inputs(folder / "coco-results.json", inputs)))
    if "geojson" in wanted:
        saves.append(GeoJson(beside_inputs(folder / "results.geojson", inputs), module))
    return saves


# CSV --------------------------------------------------------------------------------------------------------------


class Table(Save):
    """One row per object where a result holds objects, else one per input."""

    def __init__(self, path: Path, module: ZooModule) -> None:
        self.file = Growing(path)
        self.names = module.class_names
        results = index.TASKS[module.task].results
        self.objects = bool({"boxes", "pairs", "points", "centers"} & set(results))
        order = dict.fromkeys(("pairs", "labels", "names", "scores", *results))
        self.keys = [key for key in order if key in COLUMNS and (key in results or key == "names")]
        self.columns: list[str] = []

    def add(self, answers: Sequence[Answer]) -> None:
        """Append rows; the first result says which columns there are."""
        rows = [row for answer in answers for row in (self._objects if self.objects else self._inputs)(answer)]
        lines = []
        if not self.columns:
            if self.objects:
                self.columns = ["input", "part", *(c for key in self.keys for c in self._columns_of(key))]
            elif rows:
                self.columns = list(rows[0])
            else:
                return
            lines.append(_line(self.columns))
        lines += [_line([row.get(name, "") for name in self.columns]) for row in rows]
        self.file.add(lines)

    def _columns_of(self, key: str) -> tuple[str, ...]:
        if key == "names" and "pairs" in self.keys:
            return "query_name", "track_name"
        return COLUMNS[key]

    def _objects(self, answer: Answer) -> list[dict[str, Any]]:
        held = {key: answer.values(key) for key in self.keys if key in answer.result}
        objects = []
        for number in range(max(map(len, held.values()), default=0)):
            cells = _head(answer)
            spans: list[Any] = [None]
            for key, values in held.items():
                value = values[number]
                if key == "intervals":
                    spans = value
                else:
                    parts = value if isinstance(value, list) else [value]
                    cells |= dict(zip(self._columns_of(key), parts, strict=False))
            # a pair is together several times: one row each
            objects += [cells | (dict(zip(("start", "end"), span, strict=True)) if span else {}) for span in spans]
        return objects

    def _inputs(self, answer: Answer) -> list[dict[str, Any]]:
        row, cells = answer.row, _head(answer)
        skipped = {"input", "picture", "logits", answer.item.kind}
        for key, value in row.items():
            if key == "probs" and isinstance(value, list):
                label = row.get("label")
                cells |= {"score": value[label]} if isinstance(label, int) else {}
                cells |= {f"probability {name}": p for name, p in zip(self.names, value, strict=False)}
            elif key == "interval" and isinstance(value, list) and len(value) == 2 and not isinstance(value[0], list):
                cells |= {"low": value[0], "high": value[1]}
            elif key not in skipped:
                cells |= dict(_flat(key, value))
        return [cells]


def _head(answer: Answer) -> dict[str, Any]:
    item = answer.item
    return {"input": item.path, "part": "" if item.number is None else f"{item.kind} {item.number}"}


def _flat(key: str, value: Any) -> list[tuple[str, Any]]:
    """Lists and dicts as columns of their own."""
    if isinstance(value, dict):
        return [cell for k, v in value.items() for cell in _flat(f"{key} {k}", v)]
    if isinstance(value, list):
        return [cell for i, v in enumerate(value) for cell in _flat(f"{key} {i}", v)]
    return [(key, value)]


def _line(cells: Sequence[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(["" if c is None else c for c in cells])
    return text.getvalue()


# Boxes ------------------------------------------------------------------------------------------------------------


class YoloLabels(Save):
    """A text file per picture: class, centre, width and height as shares of the picture, score; and `classes.txt`."""

    def __init__(self, folder: Path, module: ZooModule) -> None:
        self.folder, self.names = folder, module.class_names
        self.begun = False

    def add(self, answers: Sequence[Answer]) -> None:
        """Write one file per picture, an empty one where there is no object."""
        if not self.begun:
            with writing(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(self.folder / "classes.txt", "".join(f"{name}\n" for name in self.names))
            self.begun = True
        for answer in answers:
            width, height = _size_of(answer.item.value)
            lines = []
            boxes, scores, labels = (answer.values(key) for key in ("boxes", "scores", "labels"))
            for (x1, y1, x2, y2), score, label in zip(boxes, scores, labels, strict=True):
                shares = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height
                lines.append(f"{label} {' '.join(f'{share:.6f}' for share in shares)} {score:.6g}\n")
            path = self.folder / f"{answer.name}.txt"
            with writing(path):
                path.write_text("".join(lines), encoding="utf-8")


def _size_of(value: Any) -> tuple[int, int]:
    """Width and height of a picture, upright."""
    if isinstance(value, (str, Path)):
        from zoo.inputs.images import size_of

        return size_of(value)
    height, width = value.shape[:2]
    return int(width), int(height)


class CocoResults(Save):
    """A list in COCO's format of results; the number of a picture is its name if that is a number, else its name."""

    def __init__(self, path: Path) -> None:
        self.file = Growing(path, "[\n", "\n]\n", ",\n")

    def add(self, answers: Sequence[Answer]) -> None:
        """Append all detections."""
        from zoo.base.detector import coco_results

        lines: list[str] = []
        for answer in answers:
            number: int | str = int(answer.name) if answer.name.isdecimal() else answer.name
            for entry in coco_results([answer.result], [number]):
                entry["bbox"] = [round(v, 3) for v in entry["bbox"]]
                lines.append(json.dumps({**entry, "file_name": answer.item.path}, ensure_ascii=False))
        self.file.add(lines)


# Tracks -----------------------------------------------------------------------------------------------------------


class GeoJson(Save):
    """What the method draws on a map: its `geo_features` in degrees."""

    def __init__(self, path: Path, module: ZooModule) -> None:
        self.file = Growing(path, '{"type": "FeatureCollection", "features": [\n', "\n]}\n", ",\n")
        self.module = module

    def add(self, answers: Sequence[Answer]) -> None:
        """Append the features of each input."""
        lines = []
        for answer in answers:
            for feature in self.module.geo_features(answer.item.value, answer.result):
                feature["properties"] = {**_head(answer), **feature["properties"]}
                lines.append(json.dumps(feature, ensure_ascii=False))
        self.file.add(lines)
