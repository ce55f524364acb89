"""Miniatures of the layouts that are read, with simulated recordings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from datamodules.worlds.ecg_beats import CLASS_NAMES, draw_patient, ecg_beats, ecg_recording
from zoo.errors import require

__all__ = ["write_records", "write_tables"]

_MITDB = ("100", "101", "103", "106", "108")
_BEATS = 24
_SHARES = (0.4, 0.2, 0.2, 0.2)  # few beats, and each class among them


def write_tables(folder: Path, kind: str, length: int, rate: float) -> Path:
    """Write Beats_TRAIN and Beats_TEST: npz with x (beats, points) in mV and y (beats,), or tsv, a number first."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (part, count) in enumerate((("TRAIN", 48), ("TEST", 24))):
        made = ecg_beats(count, (11, number), beats_per_patient=_BEATS, length=length, rate=rate, shares=_SHARES)
        names = np.array(CLASS_NAMES)[made["label"]]
        if kind == "npz":
            np.savez(folder / f"Beats_{part}.npz", x=made["beat"], y=names)
            continue
        rows = [
            [str(label + 1), *(f"{v:.5f}" for v in beat)]
            for label, beat in zip(made["label"], made["beat"], strict=True)
        ]
        lines = ["\t".join(row) for row in rows]
        (folder / f"Beats_{part}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def write_records(folder: Path, target: str) -> Path:
    """Write five records as MIT-BIH has them (`beats`), or six as PTB has them (`diagnosis`). Needs `wfdb`."""
    wfdb: Any = require("wfdb", "medical")
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(6 if target == "diagnosis" else len(_MITDB)):
        rng = np.random.default_rng((12, number))
        rate = 1000.0 if target == "diagnosis" else 360.0
        shares = _SHARES if target == "beats" else (1.0, 0.0, 0.0, 0.0) if number % 2 else (0.5, 0.0, 0.5, 0.0)
        made = ecg_recording(draw_patient(rng), _BEATS, rng, shares, rate)
        signals = np.stack([made.signal, 0.6 * made.signal + 0.01 * rng.standard_normal(len(made.signal))], 1)
        common = {"fs": rate, "units": ["mV", "mV"], "p_signal": signals.astype(np.float64)}
        if target == "diagnosis":
            place = folder / f"patient{number + 1:03d}"
            place.mkdir(exist_ok=True)
            reason = "Healthy control" if number % 2 else "Myocardial infarction"
            wfdb.wrsamp(
                f"s{number + 10:04d}_re", **common, sig_name=["ii", "v1"], fmt=["16", "16"], write_dir=str(place),
                comments=[f"Reason for admission: {reason}"],
            )  # fmt: skip
            continue
        name = _MITDB[number]
        wfdb.wrsamp(name, **common, sig_name=["MLII", "V1"], fmt=["212", "212"], write_dir=str(folder))
        symbols = ["NAVF"[label] for label in made.labels]
        wfdb.wrann(name, "atr", made.peaks, symbol=symbols, write_dir=str(folder))
    return folder
