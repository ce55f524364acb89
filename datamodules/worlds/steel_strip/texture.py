"""Rolled surfaces: the texture that a coil got from its roll, and lines across it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datamodules.worlds.steel_strip.stylus import transmission

__all__ = ["TEXTURES", "Coil", "draw_coil", "heights", "spectrum_of"]

TEXTURES = ("random", "edt", "mill")
"""Shot-blasted rolls (random), electro-discharge textured ones (with craters), ground ones (mill finish: a lay)."""

_MEAN_SPACING_UM = 120.0


@dataclass(frozen=True)
class Coil:
    """What the sections of a coil share.

    Attributes:
        texture: one of `TEXTURES`.
        tau_um: correlation length.
        hurst: exponent of the spectrum's decay.
        crater: share of the variance that is craters, and `crater_um`, their width.
        lay: share of the variance in grinding marks, whose mean wavelength is `lay_um`; neighbouring lines share them.
        skew: s of z -> (exp(s z) - 1) / s.
        ra_um: mean level of Ra.
        tip_um: radius of the stylus tip that measured this coil.
    """

    texture: str
    tau_um: float
    hurst: float
    crater: float
    crater_um: float
    lay: float
    lay_um: float
    skew: float
    ra_um: float
    tip_um: float


def draw_coil(textures: Sequence[str], key: tuple[int, ...]) -> Coil:
    """Draw a coil's texture; `key` seeds it."""
    rng = np.random.default_rng((*key, 0))
    u = rng.uniform(size=9)
    texture = textures[int(u[0] * len(textures))]
    return Coil(
        texture=texture,
        tau_um=15.0 * 4.0 ** u[1],
        hurst=0.6 + 0.4 * u[2],
        crater=0.3 + 0.4 * u[3] if texture == "edt" else 0.0,
        crater_um=30 + 60 * u[4],
        lay=0.5 + 0.3 * u[3] if texture == "mill" else 0.0,
        lay_um=60 + 90 * u[4],
        skew=0.6 * u[5] - 0.3,
        ra_um=0.4 * (2.2 / 0.4) ** u[6],
        tip_um=2 + 3 * u[7],
    )


def spectrum_of(coil: Coil, frequency: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Power spectra of a coil's three parts at frequencies in 1/um, each with sum 1: random, craters, lay."""
    random = (1 + (2 * np.pi * frequency * coil.tau_um) ** 2) ** (-(2 * coil.hurst + 1) / 2)
    # a crater with a rim: the second derivative of a Gaussian, whose width between the zeros is crater_um
    s = np.pi * frequency * coil.crater_um
    craters = (s**2 * np.exp(-(s**2) / 2)) ** 2
    lay = np.exp(-((frequency - 1 / coil.lay_um) ** 2) / (2 * (0.25 / coil.lay_um) ** 2))
    parts = []
    for power in (random, craters, lay):
        power = power.copy()
        power[0] = 0  # no mean height
        parts.append(power / power.sum())
    return parts[0], parts[1], parts[2]


def heights(
    coils: Sequence[Coil],
    draws: Sequence[np.random.Generator],
    count: int,
    step_um: float,
    cutoff_mm: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Two neighbouring lines of each section.

    Args:
        coils: texture of each of the n sections.
        draws: random numbers of each section.
        count: points of a line.
        step_um: their distance.
        cutoff_mm: of the filter for which the level of Ra is set.

    Returns:
        The lit line and the touched line, (n, count) in um.
    """
    frequency = np.fft.rfftfreq(count, step_um)
    roughness = transmission(frequency, 8.0) * (1 - transmission(frequency, 1000 * cutoff_mm))
    parts = [spectrum_of(coil, frequency) for coil in coils]
    random, craters, lay = (np.stack([p[i] for p in parts]) for i in range(3))
    share = np.array([(1 - c.crater - c.lay, c.crater, c.lay) for c in coils])
    total = share[:, :1] * random + share[:, 1:2] * craters + share[:, 2:] * lay
    passed = np.sqrt((total * roughness**2).sum(1) / total.sum(1))  # rms that the filter leaves of a unit rms
    # the pressure of the mill varies along a coil
    level = np.array([c.ra_um for c in coils]) * np.exp([rng.uniform(-0.15, 0.15) for rng in draws])
    skew = np.array([c.skew for c in coils])[:, None]
    common = _noise(draws, len(frequency))
    lines = []
    for _ in range(2):
        amplitude = _noise(draws, len(frequency)) * np.sqrt(share[:, :1] * random)
        amplitude = amplitude + _impacts(draws, count, step_um) * np.sqrt(share[:, 1:2] * craters)
        own = _noise(draws, len(frequency))
        amplitude = amplitude + (np.sqrt(0.8) * common + np.sqrt(0.2) * own) * np.sqrt(share[:, 2:] * lay)
        unit = np.fft.irfft(amplitude, count, axis=1) * (count / np.sqrt(2.0))
        lines.append(np.expm1(skew * unit) / skew)
    scale = (level / (np.sqrt(2 / np.pi) * passed))[:, None]  # Ra = sqrt(2 / pi) Rq of a Gaussian surface
    return scale * lines[0], scale * lines[1]


def _noise(draws: Sequence[np.random.Generator], count: int) -> np.ndarray:
    """White noise by frequency: complex (n, count) with E|.|^2 = 1."""
    noise = np.stack([rng.standard_normal((2, count), dtype=np.float32) for rng in draws])
    return np.asarray(noise[:, 0] + 1j * noise[:, 1], dtype=np.complex128) / np.sqrt(2.0)


def _impacts(draws: Sequence[np.random.Generator], count: int, step_um: float) -> np.ndarray:
    """Poisson impacts of random depth, by frequency, scaled like `_noise`."""
    rate = step_um / _MEAN_SPACING_UM
    trains = []
    for rng in draws:
        number = rng.poisson(rate * count)
        depth = rng.uniform(0.5, 1.5, size=number)
        trains.append(-np.bincount(rng.integers(count, size=number), weights=depth, minlength=count))
    return np.fft.rfft(np.stack(trains), axis=1) / np.sqrt(rate * count * (1 + 1 / 12))
