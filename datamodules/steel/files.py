"""Folders of steel strip sections: finding, reading and checking them, and a miniature to look at."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datamodules.base import Problems
from datamodules.steel.check import signal_problem
from datamodules.worlds.steel_strip import StripConfig, render
from zoo.errors import BadData
from zoo.inputs import UnreadableError
from zoo.inputs.arrays import open_arrays
from zoo.inputs.text_files import read_rows

__all__ = ["find_sections", "read_facts", "read_sections", "write_fake"]

SPLITS = ("train", "val", "test", "predict")
_LABELS = {"ra": "ra_um", "rq": "rq_um", "rz": "rz_um", "rpc": "rpc"}
_META = ("speed", "tilt", "power")
_NUMBERS = ("pitch_um", "cutoff_mm", *_META, *_LABELS.values())


def read_splits(root: Path, problems: Problems) -> dict[str, str]:
    """Coil -> split, as `splits.csv` says."""
    path = root / "splits.csv"
    try:
        rows = read_rows(path)
    except UnreadableError as error:
        problems.add(path.name, "file", "a table with the columns coil and split", f"{error.got}")
        return {}
    header = [name.strip().lower() for name in rows[0][1]] if rows else []
    if "coil" not in header or "split" not in header:
        problems.add(path.name, "first line", "the columns coil and split", ", ".join(header[:6])[:80] or "nothing")
        return {}
    splits: dict[str, str] = {}
    for number, row in rows[1:]:
        cells = dict(zip(header, (cell.strip() for cell in row), strict=False))
        coil, split = cells.get("coil", ""), cells.get("split", "")
        if not 0 < len(coil) <= 200 or "/" in coil:
            problems.add(path.name, f"line {number}", "the name of a coil", repr(coil[:40]))
        elif split not in SPLITS:
            problems.add(path.name, f"line {number}", f"one of {', '.join(SPLITS)}", repr(split))
        elif splits.setdefault(coil, split) != split:
            problems.add(path.name, f"line {number}", f"coil {coil!r} in one split", f"{splits[coil]} and {split}")
    return splits


def find_sections(root: Path, split: str, problems: Problems) -> list[tuple[int, Path]]:
    """Sections of a split as (number of the coil, path), in order."""
    splits = read_splits(root, problems)
    sections: list[tuple[int, Path]] = []
    coils = sorted(coil for coil, where in splits.items() if where == split)
    for number, coil in enumerate(coils):
        place = root / f"coil_{coil}"
        files = sorted(place.glob("section_*.npz")) if place.is_dir() else []
        if not files:
            problems.add(place.name, "coil", "a folder with section_<k>.npz", "none")
        sections += [(number, path) for path in files]
    if splits and not coils and split != "predict":
        problems.add("splits.csv", split, "at least one coil", "none")
    return sections


def read_facts(root: Path, cutoff_mm: float) -> dict[str, object]:
    """Shape, pitch and cut-off of the first section.

    Raises:
        BadData: if there is none that can be read.
    """
    problems = Problems(root)
    for split in SPLITS:
        for _, path in find_sections(root, split, problems):
            held = _load(path)
            if isinstance(held, tuple) or held["signal"].ndim != 2:
                continue
            pitch, cutoff = _number(held, "pitch_um"), _number(held, "cutoff_mm")
            return {
                "channels": int(held["signal"].shape[0]),
                "length": int(held["signal"].shape[1]),
                "pitch_um": 32.0 if np.isnan(pitch) else pitch,
                "cutoff_mm": cutoff_mm if np.isnan(cutoff) else cutoff,
            }
    problems.raise_if_any()
    raise BadData(f"{root}: expected coil_<id>/section_<k>.npz with signal (C, L), got none that can be read.")


def _load(path: Path) -> dict[str, np.ndarray] | tuple[str, str, str]:
    """Arrays of a section by name, or what is wrong with the file: field, expected, got."""
    try:
        with open_arrays(path) as file:
            if "signal" not in file:
                return "signal", "an array (C, L)", f"only {', '.join(file.names)[:80] or 'nothing'}"
            return {name: file[name] for name in ("signal", *_NUMBERS) if name in file}
    except UnreadableError as error:
        return "file", "an npz file with signal, pitch_um, speed, ra_um and rpc", f"{error.got}, not {error.expected}"


def _number(held: dict[str, np.ndarray], name: str) -> float:
    value = held.get(name)
    known = value is not None and value.size == 1 and value.dtype.kind in "fiu"
    return float(value.reshape(-1)[0]) if known and value is not None else float("nan")


def _shown(value: np.ndarray | None) -> str:
    """An array that should be a number, for a message."""
    if value is None:
        return "none"
    return str(value.reshape(-1)[0])[:40] if value.size == 1 else f"{value.dtype} of the shape {value.shape}"


def read_sections(
    where: Sequence[tuple[int, Path]], channels: int, length: int, labels: bool, problems: Problems
) -> dict[str, np.ndarray]:
    """Read and check sections; what is wrong goes to `problems`."""
    columns: dict[str, list[object]] = {name: [] for name in ("signal", "meta", "coil", *_LABELS)}
    for coil, path in where:
        name, held = f"{path.parent.name}/{path.name}", _load(path)
        if isinstance(held, tuple):
            problems.add(name, *held)
            continue
        wrong = signal_problem(held["signal"], channels, length)
        if wrong is not None:
            problems.add(name, "signal", *wrong)
            continue
        values = {key: _number(held, field) for key, field in _LABELS.items()}
        if labels and not values["ra"] > 0:
            problems.add(name, "ra_um", "a number above 0", _shown(held.get("ra_um")))
        columns["signal"].append(held["signal"].astype(np.float32))
        columns["meta"].append([_or_zero(_number(held, key), key) for key in _META])
        columns["coil"].append(coil)
        for key, value in values.items():
            columns[key].append(value)
    kinds = {"coil": np.int64}
    return {name: np.array(values, kinds.get(name, np.float32)) for name, values in columns.items()}


def _or_zero(value: float, key: str) -> float:
    """What is not recorded gets its nominal value."""
    return ({"speed": 6.0, "tilt": 0.0, "power": 1.0}[key]) if np.isnan(value) else value


def write_fake(folder: Path, config: StripConfig) -> Path:
    """Write a miniature of the layout: training has four coils, the others one each."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["coil,split"]
    number = 0
    for split, coils, per_coil in (("train", 4, 4), ("val", 1, 5), ("test", 1, 5)):
        arrays = render(config, split, range(coils), per_coil)
        for coil in range(coils):
            place = folder / f"coil_{number:03d}"
            place.mkdir(exist_ok=True)
            lines.append(f"{number:03d},{split}")
            for k, i in enumerate(np.flatnonzero(arrays.coil == coil)):
                content = {
                    "signal": arrays.signal[i],
                    "pitch_um": np.float32(config.pitch_um),
                    "cutoff_mm": np.float32(config.cutoff_mm),
                    "tip_um": arrays.tip_um[i],
                    **dict(zip(_META, arrays.meta[i], strict=True)),
                    **{field: getattr(arrays, key)[i] for key, field in _LABELS.items()},
                }
                _write_npz(place / f"section_{k}.npz", content)
            number += 1
    (folder / "splits.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def _write_npz(path: Path, content: dict[str, object]) -> None:
    """An npz whose bytes depend on the content alone (np.savez notes the time)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in content.items():
            raw = io.BytesIO()
            np.save(raw, np.asarray(value), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), raw.getvalue())
