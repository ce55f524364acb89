"""Miniatures of the real on-disk layouts, for tests and for people who want to see what a file must look like."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datamodules.worlds.cylinder_bell_funnel import CLASS_NAMES, cylinder_bell_funnel

__all__ = ["write_fake"]

_SIZES = {"TRAIN": 30, "TEST": 15}


def write_fake(folder: Path, kind: str, name: str, length: int) -> Path:
    """Write NAME_TRAIN and NAME_TEST with cylinders, bells and funnels."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (part, size) in enumerate(_SIZES.items()):
        series, labels = cylinder_bell_funnel(size, length, (7, number))
        path = folder / f"{name}_{part}.{kind}"
        if kind == "npz":
            np.savez(path, x=series, y=labels)
            continue
        rows = [[f"{v:.5f}" for v in row[0]] for row in series]
        if kind == "tsv":
            lines = ["\t".join([str(label + 1), *row]) for row, label in zip(rows, labels, strict=True)]
        else:
            lines = [f"@problemName {name}", "@timeStamps false", "@missing false", "@univariate true"]
            lines += [
                "@equalLength true",
                f"@seriesLength {length}",
                f"@classLabel true {' '.join(CLASS_NAMES)}",
                "@data",
            ]
            lines += [f"{','.join(row)}:{CLASS_NAMES[label]}" for row, label in zip(rows, labels, strict=True)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
