"""Heartbeats of virtual patients in one lead: normal, supraventricular, ventricular and fusion beats with exact labels.

Each patient draws a heart rate and the amplitude, place and width of the waves P, Q, R, S, T, and each wave is a
Gaussian around its place (the sum-of-Gaussians model of McSharry, Clifford, Tarassenko, Smith 2003, without its
differential equation). A recording is the sum of its beats, so that a window shows the end of the beat before. Beats:

    N    normal: all five waves, the patient's own rhythm
    S    early (0.6 to 0.8 of the usual RR), its P inverted, small or absent and its PR shorter
    V    early (0.55 to 0.75), no P, R 2.5 to 3 times as wide, T opposite to R; a pause follows
    F    fusion: w N + (1 - w) V with w in [0.3, 0.7], hardly early

On top: baseline wander of 0.15 to 0.4 Hz, mains of 50 or 60 Hz, white noise of muscles, and slow jumps of an electrode.
Amplitudes are in mV and times in seconds.

What this leaves out: everything between patients that is not in these numbers (bundle branch blocks, pacemakers,
ischaemia, infarction), rhythms that go on (flutter, fibrillation), correlation of artefacts with movement, other leads.
Numbers measured here say nothing about patients.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["CLASS_NAMES", "Patient", "Recording", "cut_beats", "draw_patient", "ecg_beats", "ecg_recording", "waves_of"]

CLASS_NAMES = ("N", "S", "V", "F")
SHARES = (0.70, 0.10, 0.15, 0.05)
"""Of the classes; the imbalance of clinical recordings, weakened."""

RATE = 360.0
LENGTH = 280
VERSION = 1
"""Part of the cache's key: it changes with anything drawn here."""

_WAVES = (  # amplitude in mV, place after R and standard deviation in seconds, of P, Q, R, S, T
    (0.15, -0.16, 0.022),
    (-0.10, -0.030, 0.009),
    (1.10, 0.0, 0.012),
    (-0.22, 0.032, 0.011),
    (0.28, 0.26, 0.045),
)
P, Q, R, S, T = range(5)


@dataclass(frozen=True)
class Patient:
    """What stays the same through a recording.

    Attributes:
        rr: usual time between two beats, in seconds.
        waves: (5, 3) amplitude in mV, place and standard deviation in seconds, of P, Q, R, S, T.
        wide: (5, 3) the same of this patient's ventricular beats.
        noise: standard deviations in mV of wander, mains, muscles and electrode, and the mains' frequency in Hz.
    """

    rr: float
    waves: np.ndarray
    wide: np.ndarray
    noise: tuple[float, float, float, float, float]


@dataclass(frozen=True)
class Recording:
    """One lead of a patient.

    Attributes:
        signal: (M,) float32 mV.
        peaks: (n,) int64 samples of the R peaks.
        labels: (n,) int64 number in `CLASS_NAMES`.
        rr: (n,) float32 seconds since the beat before.
        rate: samples a second.
        waves: (n, 10, 3) Gaussians of each beat: amplitude, place, standard deviation. Unused ones have amplitude 0.
    """

    signal: np.ndarray
    peaks: np.ndarray
    labels: np.ndarray
    rr: np.ndarray
    rate: float
    waves: np.ndarray


def draw_patient(rng: np.random.Generator) -> Patient:
    """A patient."""
    waves = np.array(_WAVES)
    waves[:, 0] *= rng.lognormal(0, (0.35, 0.4, 0.25, 0.4, 0.35))
    waves[:, 1] *= rng.uniform(0.85, 1.15, 5)
    waves[:, 2] *= rng.uniform(0.8, 1.25, 5)
    if rng.uniform() < 0.15:
        waves[T, 0] *= -0.6  # an inverted T is no rarity
    wide = waves.copy()
    sign = 1.0 if rng.uniform() < 0.6 else -1.0
    wide[P, 0] = 0.0
    wide[[Q, S], 0] *= rng.uniform(0.0, 1.5, 2)
    wide[[Q, S], 1] *= 2.5
    wide[R, 0] = sign * waves[R, 0] * rng.uniform(0.8, 1.5)
    wide[R, 2] = waves[R, 2] * rng.uniform(2.5, 3.0)
    wide[T, 0] = -sign * abs(waves[T, 0]) * rng.uniform(1.0, 2.0)
    wide[T, 1:] *= (1.1, 1.3)
    noise = (rng.uniform(0.03, 0.15), rng.uniform(0.0, 0.015), rng.uniform(0.008, 0.03), rng.uniform(0.0, 0.12))
    return Patient(60.0 / rng.uniform(55, 95), waves, wide, (*noise, float(rng.choice([50.0, 60.0]))))


def waves_of(patient: Patient, label: int, rng: np.random.Generator) -> np.ndarray:
    """Gaussians (10, 3) of one beat; those of a fusion beat are all of N and all of V, weighted."""
    normal, wide = patient.waves.copy(), patient.wide.copy()
    for shape in (normal, wide):  # no beat is the copy of another one
        shape[:, 0] *= rng.normal(1, 0.06, 5)
        shape[:, 2] *= rng.normal(1, 0.03, 5)
    if label == 1:
        normal[P, 0] *= rng.choice([-0.8, 0.0, 0.25])
        normal[P, 1] *= rng.uniform(0.6, 0.9)
    weight = {0: 1.0, 1: 1.0, 2: 0.0}.get(label)
    weight = rng.uniform(0.3, 0.7) if weight is None else weight
    normal[:, 0] *= weight
    wide[:, 0] *= 1 - weight
    return np.concatenate([normal, wide])


def ecg_recording(
    patient: Patient, beats: int, rng: np.random.Generator, shares: tuple[float, ...] = SHARES, rate: float = RATE
) -> Recording:
    """A recording of so many beats, with more than a second before the first one and behind the last one."""
    labels = rng.choice(len(CLASS_NAMES), beats, p=np.array(shares) / sum(shares))
    early = np.stack([np.ones(beats), rng.uniform(0.6, 0.8, beats), rng.uniform(0.55, 0.75, beats), np.ones(beats)])
    early[3] = rng.uniform(0.85, 1.0, beats)
    rr = patient.rr * early[labels, np.arange(beats)] * rng.lognormal(0, 0.03, beats)
    rr[1:] *= np.where(labels[:-1] == 2, rng.uniform(1.15, 1.35, beats - 1), 1.0)  # the pause behind V
    times = 1.2 + np.cumsum(rr) - rr[0]
    size = int(np.ceil((times[-1] + 1.2) * rate))
    peaks = np.round(times * rate).astype(np.int64)
    signal = np.zeros(size)
    waves = np.stack([waves_of(patient, int(label), rng) for label in labels])
    reach = int(0.75 * rate)
    near = np.arange(-reach, reach + 1)
    for peak, shape, gap in zip(peaks, waves, rr, strict=True):
        place = shape[:, 1].copy()
        place[[T, 5 + T]] *= np.sqrt(np.clip(gap, 0.4, 1.5) / 0.8)  # the QT interval follows the rhythm (Bazett)
        parts = shape[:, :1] * np.exp(-0.5 * ((near / rate - place[:, None]) / shape[:, 2:]) ** 2)
        low, high = max(0, peak - reach), min(size, peak + reach + 1)
        signal[low:high] += parts.sum(0)[low - peak + reach : high - peak + reach]
    signal += _noise(patient, size, rate, rng)
    return Recording(signal.astype(np.float32), peaks, labels.astype(np.int64), rr.astype(np.float32), rate, waves)


def _noise(patient: Patient, size: int, rate: float, rng: np.random.Generator) -> np.ndarray:
    wander, mains, muscle, electrode, hertz = patient.noise
    time = np.arange(size) / rate
    slow = np.sin(2 * np.pi * (rng.uniform(0.15, 0.4) * time + rng.uniform()))
    hum = np.sin(2 * np.pi * (hertz * time + rng.uniform()))
    jumps = np.zeros(size)
    for start in rng.integers(0, size, rng.poisson(size / rate / 20)):  # three a minute, each dying away in a second
        jumps[start:] += rng.normal() * np.exp(-time[: size - start])
    noise: np.ndarray = wander * slow + mains * hum + electrode * jumps + muscle * rng.standard_normal(size)
    return noise


def cut_beats(signal: np.ndarray, peaks: np.ndarray, length: int = LENGTH) -> tuple[np.ndarray, np.ndarray]:
    """Windows (n, length) with the R peak at sample length // 2, and which of the peaks (bool) have a whole one."""
    start = np.asarray(peaks) - length // 2
    whole = (start >= 0) & (start + length <= len(signal))
    return signal[start[whole, None] + np.arange(length)], whole


def ecg_beats(
    count: int,
    key: tuple[int, ...],
    *,
    beats_per_patient: int = 40,
    length: int = LENGTH,
    rate: float = RATE,
    shares: tuple[float, ...] = SHARES,
) -> dict[str, np.ndarray]:
    """Beats of as many patients as they need; equal keys give equal beats, other keys other patients.

    Args:
        count: beats.
        key: seeds; a data module gives (seed of the world, number of the split).
        beats_per_patient: of each patient.
        length: L, points of a beat.
        rate: samples a second.
        shares: of the classes.

    Returns:
        `beat` (n, L) float32 mV, `label`, `patient` int64 (n,), `rr` float32 (n,) in seconds, and `low` and `span`
        float32 (n,), minimum and range of the beat's recording in mV.
    """
    columns: dict[str, list[np.ndarray]] = {name: [] for name in ("beat", "label", "patient", "rr", "low", "span")}
    for number in range(-(-count // beats_per_patient)):
        rng = np.random.default_rng((*key, number))
        made = ecg_recording(draw_patient(rng), beats_per_patient, rng, shares, rate)
        beat, whole = cut_beats(made.signal, made.peaks, length)
        low, high = made.signal.min(), made.signal.max()
        ones = np.ones(len(beat), np.float32)
        values = (beat, made.labels[whole], np.full(len(beat), number), made.rr[whole], low * ones, (high - low) * ones)
        for column, value in zip(columns.values(), values, strict=True):
            column.append(value)
    return {name: np.concatenate(column)[:count] for name, column in columns.items()}
