"""Recordings in PhysioNet's WFDB format, read by the package `wfdb`: beats and their class, and who is in a split.

mitdb/1.0.0/100.hea 100.dat 100.atr                          MIT-BIH arrhythmia: a class for each beat
ptbdb/1.0.0/patient001/s0010_re.hea s0010_re.dat             PTB diagnostic: a diagnosis for each recording
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.base import Problems
from datamodules.worlds.ecg_beats import cut_beats
from zoo.errors import BadData, BadInput, RepositoryNotFound, require

__all__ = [
    "AAMI",
    "DIAGNOSES",
    "DS1",
    "DS2",
    "Beats",
    "beats_of_file",
    "detect_peaks",
    "find_records",
    "join",
    "patient_of",
    "read_beats",
    "read_record",
    "share_records",
]

AAMI = {
    **dict.fromkeys("NLRej", "N"),
    **dict.fromkeys("AaJS", "S"),
    **dict.fromkeys("VE", "V"),
    "F": "F",
}
"""Annotation -> class of ANSI/AAMI EC57; paced and unknown beats (Q) are left out."""

DIAGNOSES = ("normal", "abnormal")

DS1 = (
    *("101", "106", "108", "109", "112", "114", "115", "116", "118", "119", "122"),
    *("124", "201", "203", "205", "207", "208", "209", "215", "220", "223", "230"),
)
DS2 = (
    *("100", "103", "105", "111", "113", "117", "121", "123", "200", "202", "210"),
    *("212", "213", "214", "219", "221", "222", "228", "231", "232", "233", "234"),
)
"""Training and test records of MIT-BIH (de Chazal, O'Dwyer, Reilly 2004); 201 and 202 are of the same patient.
Records 102, 104, 107 and 217 have pacemakers and are left out."""

_MOST_SAMPLES = 1 << 28
_REASON = "reason for admission"


@dataclass
class Beats:
    """Beats of some recordings.

    Attributes:
        beat: (n, L) float32 mV.
        label: (n,) int64.
        patient: (n,) int64, a number for each recording's patient.
        rr: (n,) float32 seconds since the beat before, 0 for the first one.
        low: (n,) float32 mV, minimum of the recording.
        span: (n,) float32 mV, its range.
    """

    beat: np.ndarray
    label: np.ndarray
    patient: np.ndarray
    rr: np.ndarray
    low: np.ndarray
    span: np.ndarray


def join(parts: Sequence[Beats], length: int) -> Beats:
    """One table of several."""
    if not parts:
        none = np.zeros(0, np.float32)
        return Beats(np.zeros((0, length), np.float32), np.zeros(0, int), np.zeros(0, int), none, none, none)
    return Beats(*(np.concatenate([getattr(p, name) for p in parts]) for name in Beats.__dataclass_fields__))


# Who --------------------------------------------------------------------------------------------------------------


def find_records(root: Path) -> list[Path]:
    """Header files below a folder, without their ending.

    Raises:
        RepositoryNotFound: if there are none.
    """
    if not root.is_dir():
        raise RepositoryNotFound(f"{root}: expected a folder with WFDB records (100.hea, 100.dat, 100.atr), got none.")
    records = sorted(p.with_suffix("") for p in root.rglob("*.hea") if not any(s.startswith(".") for s in p.parts))
    if not records:
        raise RepositoryNotFound(f"{root}: expected WFDB records (100.hea, 100.dat, 100.atr), there is no .hea file.")
    return records


def share_records(records: Sequence[Path], root: Path, split: str, val_share: float, seed: int) -> list[Path]:
    """Records of a split, all of a patient in the same one; MIT-BIH's are shared out as DS1 and DS2.

    Args:
        records: all of them.
        root: their folder; records in the same folder below it are of one patient.
        split: train, val or test.
        val_share: of the training patients.
        seed: of the draws.
    """
    known = [r for r in records if r.name in (*DS1, *DS2)]
    if known:
        if split == "test":
            return [r for r in known if r.name in DS2]
        training = [r for r in known if r.name in DS1]
        patients = sorted({patient_of(r, root) for r in training})
    else:
        patients = sorted({patient_of(r, root) for r in records})
        order = np.random.default_rng((seed, 1)).permutation(len(patients))
        testing = {patients[i] for i in order[: max(1, round(0.25 * len(patients)))]}
        if split == "test":
            return [r for r in records if patient_of(r, root) in testing]
        training = [r for r in records if patient_of(r, root) not in testing]
        patients = [p for p in patients if p not in testing]
    order = np.random.default_rng((seed, 2)).permutation(len(patients))
    held = {patients[i] for i in order[: max(1, round(val_share * len(patients))) if val_share > 0 else 0]}
    return [r for r in training if (patient_of(r, root) in held) == (split == "val")]


def patient_of(record: Path, root: Path) -> str:
    """The folder of a record below the root, where there is one, else its own name."""
    return record.parent.name if record.parent.resolve() != root.resolve() else record.name


# What -------------------------------------------------------------------------------------------------------------


def read_record(record: Path, lead: str, rate: float, problems: Problems) -> tuple[np.ndarray, Any] | None:
    """Signal (M,) in mV at `rate`, and the header; None with a problem noted.

    Args:
        record: path without an ending.
        lead: its name, such as MLII or II; empty for the first of MLII, II, ECG, or the first channel of all.
        rate: samples a second that are wanted.
        problems: collects what is wrong.
    """
    header, read = record.with_suffix(".hea"), require("wfdb", "medical")
    fields = _quietly(lambda: read.rdheader(str(record)), header, problems, "a WFDB header")  # type: ignore[attr-defined]
    if fields is None:
        return None
    if (reason := _bad_header(fields)) is not None:
        problems.add(header, *reason)
        return None
    names = [str(name) for name in fields.sig_name]
    channel = _channel(names, lead)
    if channel is None:
        problems.add(header, "leads", f"one called {lead}", ", ".join(names))
        return None
    data = header.with_name(fields.file_name[channel])
    given = _quietly(
        lambda: read.rdrecord(str(record), channels=[channel], physical=True),  # type: ignore[attr-defined]
        data,
        problems,
        f"{fields.sig_len:,} samples of {fields.n_sig} channels",
    )
    if given is None:
        return None
    unit, signal = str(fields.units[channel]).lower(), np.asarray(given.p_signal[:, 0], np.float64)
    scale = {"mv": 1.0, "uv": 1e-3, "v": 1e3}.get(unit)
    if scale is None:
        problems.add(header, "unit", "mV, uV or V", repr(unit))
        return None
    finite = np.isfinite(signal)
    if not finite.any():
        problems.add(data, names[channel], "an ECG", "nothing but missing samples")
        return None
    if np.ptp(signal[finite]) == 0:
        problems.add(data, names[channel], "an ECG", f"a flat line at {signal[finite][0]:g} {unit}")
        return None
    return _at_rate(signal * scale, float(fields.fs), rate), fields


def _bad_header(fields: Any) -> tuple[str, str, object] | None:
    if not fields.n_sig or not fields.file_name or not fields.sig_name:
        return "signals", "at least one", fields.n_sig
    if not fields.sig_len or not 0 < fields.sig_len * fields.n_sig <= _MOST_SAMPLES:
        return "length", f"1 to {_MOST_SAMPLES:,} samples", fields.sig_len
    if any(Path(str(name)).name != str(name) for name in fields.file_name):
        return "file of a signal", "a name in the same folder", ", ".join(map(str, fields.file_name))
    if not fields.fs or not 50 <= float(fields.fs) <= 20_000:
        return "rate", "50 to 20,000 samples a second", fields.fs
    return None


def _channel(names: Sequence[str], lead: str) -> int | None:
    lower = [name.lower() for name in names]
    for wanted in (lead.lower(),) if lead else ("mlii", "ii", "ecg"):
        if wanted in lower:
            return lower.index(wanted)
    return None if lead else 0


def _quietly(read: Callable[[], Any], file: Path, problems: Problems, wanted: str) -> Any:
    """What a reader of foreign bytes returns; whatever it raises is a fault of the file."""
    try:
        return read()
    except MemoryError:
        raise
    except Exception as error:  # wfdb raises IndexError, KeyError, UnicodeDecodeError and others for broken files
        problems.add(file, "content", wanted, str(error)[:120] or type(error).__name__)
        return None


def _at_rate(signal: np.ndarray, given: float, wanted: float) -> np.ndarray:
    if given == wanted:
        return signal.astype(np.float32)
    from scipy.signal import resample_poly  # comes with wfdb

    up, down = round(wanted * 1000), round(given * 1000)
    common = math.gcd(up, down)
    missing = ~np.isfinite(signal)
    filled = np.where(missing, np.nanmean(signal), signal)
    done: np.ndarray = resample_poly(filled, up // common, down // common)
    if missing.any():
        place = np.minimum((np.arange(len(done)) * given / wanted).astype(int), len(signal) - 1)
        done[missing[place]] = np.nan
    return done.astype(np.float32)


def read_beats(
    record: Path, number: int, options: dict[str, Any], problems: Problems, labelled: bool = True
) -> Beats | None:
    """Beats of one record; None with a problem noted.

    Args:
        record: path without an ending.
        number: of its patient.
        options: `lead`, `rate`, `length` and `target` of the data module.
        problems: collects what is wrong.
        labelled: whether it must have labels; without them peaks are detected, and all labels are -1.
    """
    got = read_record(record, options["lead"], options["rate"], problems)
    if got is None:
        return None
    signal, fields = got
    if not labelled:
        peaks = detect_peaks(signal, options["rate"])
        labels = np.full(len(peaks), -1)
    elif options["target"] == "diagnosis":
        diagnosis = _diagnosis(fields.comments)
        if diagnosis is None:
            problems.add(record.with_suffix(".hea"), "diagnosis", "a comment '# Reason for admission: ...'", "none")
            return None
        peaks = detect_peaks(signal, options["rate"])
        labels = np.full(len(peaks), diagnosis)
    else:
        annotated = _annotations(record, float(fields.fs), options["rate"], problems)
        if annotated is None:
            return None
        peaks, labels = annotated
    rr = np.diff(peaks, prepend=peaks[:1]) / options["rate"]
    beat, whole = cut_beats(signal, peaks, options["length"])
    usable = np.isfinite(beat).all(1) & (np.ptp(np.nan_to_num(beat), axis=1) > 0) & (labels[whole] > -2)
    beat, labels, rr = beat[usable], labels[whole][usable], rr[whole][usable]
    if not len(beat):
        problems.add(record.with_suffix(".dat"), "beats", f"at least one of {options['length']} samples", "none")
        return None
    low, high = float(np.nanmin(signal)), float(np.nanmax(signal))
    ones = np.ones(len(beat), np.float32)
    patient = np.full(len(beat), number, np.int64)
    return Beats(
        beat.astype(np.float32),
        labels.astype(np.int64),
        patient,
        rr.astype(np.float32),
        low * ones,
        (high - low) * ones,
    )


def _annotations(record: Path, given: float, rate: float, problems: Problems) -> tuple[np.ndarray, np.ndarray] | None:
    """Samples of all beats, and their labels: number in N S V F, or -2 for beats that are no class."""
    file = record.with_suffix(".atr")
    if not file.is_file():
        problems.add(file, "annotations", "a class for each beat", "no such file")
        return None
    read: Any = require("wfdb", "medical")
    noted = _quietly(lambda: read.rdann(str(record), "atr"), file, problems, "annotations of beats")
    if noted is None:
        return None
    place = {name: i for i, name in enumerate("NSVF")}
    beats = [
        (s, place.get(AAMI.get(c, ""), -2)) for s, c in zip(noted.sample, noted.symbol, strict=True) if c in _BEATS
    ]
    if not any(label >= 0 for _, label in beats):
        problems.add(
            file, "annotations", "beats of the classes N, S, V, F", f"{len(noted.symbol)} annotations, none of these"
        )
        return None
    samples, labels = np.array(beats).T
    return np.round(samples * rate / given).astype(np.int64), labels


_BEATS = frozenset("NLRejAaJSVEF/fQ!Bn?")
"""Annotations that mark a beat, of whatever kind; the others mark rhythms and noise."""


def _diagnosis(comments: Sequence[str]) -> int | None:
    for comment in comments:
        if comment.strip().lower().startswith(_REASON):
            reason = comment.partition(":")[2].strip().lower()
            if reason and reason != "n/a":
                return 0 if "healthy" in reason else 1
    return None


def detect_peaks(signal: np.ndarray, rate: float) -> np.ndarray:
    """Samples of the R peaks, by the detector XQRS of `wfdb`, moved to the largest deflection within 50 ms.

    Raises:
        MissingExtra: without `wfdb`.
    """
    import importlib

    require("wfdb", "medical")
    detected = importlib.import_module("wfdb.processing").xqrs_detect(np.nan_to_num(signal), fs=rate, verbose=False)
    reach, moved = int(0.05 * rate), []
    for peak in np.asarray(detected, np.int64).ravel():
        low = max(0, peak - reach)
        near = signal[low : peak + reach + 1]
        moved.append(low + int(np.nanargmax(np.abs(near - np.nanmedian(near)))) if np.isfinite(near).any() else peak)
    return np.unique(np.array(moved, np.int64))


def beats_of_file(path: Path, options: dict[str, Any]) -> Beats:
    """Beats of a recording for prediction: at the R peaks that are detected in it.

    Args:
        path: of a `.hea`, `.dat` or `.atr` file, or without an ending.
        options: `lead`, `rate`, `length`.

    Raises:
        BadData: if it cannot be read.
        BadInput: if there is no such recording.
    """
    record = path.with_suffix("") if path.suffix in (".hea", ".dat", ".atr") else path
    if not record.with_suffix(".hea").is_file():
        raise BadInput(f"{path}: expected a WFDB record, but there is no {record.with_suffix('.hea').name} beside it.")
    problems = Problems(path)
    read = read_beats(record, 0, {"target": "beats", **options}, problems, labelled=False)
    problems.raise_if_any("Correct the recording, or cut beats yourself.")
    if read is None:
        raise BadData(f"{path}: expected beats, got none.")
    return read
