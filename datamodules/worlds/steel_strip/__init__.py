"""Steel strip: rolled surfaces, the stylus that measures their roughness, and the laser that only sees them glitter.

A coil shares a texture (correlation length, Hurst exponent, craters, skew, level of roughness); its sections are drawn
from it. Of each section two parallel lines exist: the laser runs over one, the stylus over the other, so that no model
can predict a label better than one line tells about its neighbour.

    height   z(x): power spectrum (1 + (2 pi f tau)^2)^(-(2H+1)/2), craters of shot-blasted or spark-eroded rolls
    stylus   Ra, Rq, Rz, RPc of the line by ISO 4287 and 16610-21 (`_steel_stylus`), with 2 % gauge noise
    laser    reflection angle 2 atan(z') + tilt(t); detector k at phi_k sees
             I_k(t) = P sum_spot w(x) exp(-(angle - phi_k)^2 / (2 aperture^2)) + offset, speckle and read noise

Ra here is near 1 um, above the wavelength of a red laser: facets reflect, and the law for smooth surfaces,
R = R0 exp(-(4 pi Rq cos(theta) / lambda)^2), does not hold.

Section `k` of coil `c` depends only on (config, split, c, k): not on how many are drawn, nor on the order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datamodules.worlds.steel_strip.stylus import Stylus, measure, transmission
from datamodules.worlds.steel_strip.texture import TEXTURES, Coil, draw_coil, heights
from zoo.errors import BadInput, nearest

__all__ = ["SPLITS", "TEXTURES", "VERSION", "Sections", "StripConfig", "reflect", "render"]

VERSION = 1  # raise it when any number of any section changes: caches and published metrics hang on it
SPLITS = ("train", "val", "test")
_BLOCK = 250  # sections computed at once: about 150 MB
_STEP_UM = 4.0


@dataclass(frozen=True)
class StripConfig:
    """What a line looks like and how it is measured.

    Attributes:
        seed: everything random derives from it.
        detectors: C, evenly from -21 to 21 degrees.
        length: L, samples of a section.
        pitch_um: distance of two samples, a multiple of 4 um.
        cutoff_mm: of the roughness filter, 0.25, 0.8 or 2.5.
        textures: kinds of rolls the coils come from, some of `TEXTURES`.
        gain: factor of the laser power, which itself varies from 0.6 to 1.2; 1 is as calibrated.
        offset: background light that is added, in full scales; 0 to 0.03 are there anyway.
        tilt: factor of the strip's tilt (2 degrees of flutter, 1 degree of mounting).
        speckle: relative standard deviation of each intensity.
        fine: the stylus samples at 1.5 um as EN 10049 demands, instead of 4 um.
    """

    seed: int = 0
    detectors: int = 8
    length: int = 256
    pitch_um: float = 32.0
    cutoff_mm: float = 0.8
    textures: tuple[str, ...] = ("random", "edt")
    gain: float = 1.0
    offset: float = 0.0
    tilt: float = 1.0
    speckle: float = 0.05
    fine: bool = False

    def __post_init__(self) -> None:
        for name in self.textures:
            if name not in TEXTURES:
                known = ", ".join(TEXTURES)
                raise BadInput(f"textures: expected some of {known}, got {name!r}.{nearest(name, TEXTURES)}")
        if not self.textures:
            raise BadInput("textures: expected at least one, got none.")
        if self.cutoff_mm not in (0.25, 0.8, 2.5):
            raise BadInput(f"cutoff_mm: expected 0.25, 0.8 or 2.5 (ISO 4288), got {self.cutoff_mm}.")
        if self.detectors < 2 or self.length < 8:
            raise BadInput(f"Expected at least 2 detectors and 8 samples, got {self.detectors} and {self.length}.")
        if self.pitch_um < _STEP_UM or self.pitch_um % _STEP_UM:
            raise BadInput(f"pitch_um: expected a multiple of {_STEP_UM:g} um, got {self.pitch_um}.")
        if min(self.gain, self.speckle + 1, self.tilt + 1) <= 0 or self.speckle < 0 or self.tilt < 0:
            raise BadInput("gain must be above 0, tilt and speckle at least 0.")

    @property
    def angles(self) -> np.ndarray:
        """Degrees of the detectors, (C,)."""
        return np.linspace(-21.0, 21.0, self.detectors)

    @property
    def points(self) -> int:
        """Points of a line at 4 um: the section, or as much as the stylus needs (seven cut-offs) if that is longer."""
        needed = max(self.length * self.pitch_um, 7000 * self.cutoff_mm)
        return 2 * int(np.ceil(needed / _STEP_UM / 2))


APERTURE_DEG = 3.0
"""Standard deviation of a detector's angular acceptance."""

SPOT_UM = 60.0
"""Full width at half maximum of the laser spot."""

EXPOSURE_US = 2.0
"""Time in which the strip moves on under the spot."""


@dataclass
class Sections:
    """Measured sections; each array's first axis counts them.

    Attributes:
        signal: float32 (n, C, L), intensities in [0, 1.2] of full scale.
        meta: float32 (n, 3): line speed in m/s, mean tilt in degrees, laser power.
        ra: float32 (n,) in um, with gauge noise: the label.
        ra_clean: the same without gauge noise.
        ra_lit: Ra of the line under the laser: what a perfect reading of the light would give.
        rq: float32 (n,) in um, as is `rz`; `rpc` is peaks per 10 mm; all with gauge noise.
        tip_um: float32 (n,), radius of the stylus tip.
        coil: int64 (n,), number within the split; `texture`: index into TEXTURES.
    """

    signal: np.ndarray
    meta: np.ndarray
    ra: np.ndarray
    ra_clean: np.ndarray
    ra_lit: np.ndarray
    rq: np.ndarray
    rz: np.ndarray
    rpc: np.ndarray
    tip_um: np.ndarray
    coil: np.ndarray
    texture: np.ndarray

    def __len__(self) -> int:
        return len(self.ra)


def render(config: StripConfig, split: str, coils: Sequence[int], per_coil: int) -> Sections:
    """Draw and measure sections.

    Args:
        config: surface and instruments.
        split: train, val or test; the same coil number is another coil in another split.
        coils: numbers of the coils.
        per_coil: sections of each.
    """
    if split not in SPLITS:
        raise BadInput(f"split: expected one of {', '.join(SPLITS)}, got {split!r}.{nearest(split, SPLITS)}")
    if not len(coils) or per_coil < 1:
        raise BadInput(f"Expected at least one coil and one section, got {len(coils)} and {per_coil}.")
    where = [(int(coil), section) for coil in coils for section in range(per_coil)]
    known = {coil: draw_coil(config.textures, (config.seed, SPLITS.index(split), coil)) for coil, _ in where}
    parts = [_block(config, split, where[i : i + _BLOCK], known) for i in range(0, len(where), _BLOCK)]
    return Sections(**{k: np.concatenate([p[k] for p in parts]) for k in Sections.__dataclass_fields__})


def _block(
    config: StripConfig, split: str, where: list[tuple[int, int]], known: dict[int, Coil]
) -> dict[str, np.ndarray]:
    """Some sections at once: random numbers are drawn one section at a time, everything else is vectorised."""
    coils = [known[coil] for coil, _ in where]
    draws = [np.random.default_rng((config.seed, SPLITS.index(split), coil, 1 + k)) for coil, k in where]
    lit, touched = heights(coils, draws, config.points, _STEP_UM, config.cutoff_mm)
    tip = np.array([coil.tip_um for coil in coils])
    gauge = np.stack([1 + 0.02 * rng.standard_normal(4) for rng in draws])
    scalars = np.stack([rng.uniform(size=6) for rng in draws])
    stylus = Stylus(cutoff_mm=config.cutoff_mm)
    track, step = touched, _STEP_UM
    if config.fine:
        count = round(config.points * _STEP_UM / 1.5)
        track, step = resample(touched, count), config.points * _STEP_UM / count
    measures = measure(track, step, stylus, tip)
    signal, meta = _laser(config, lit, scalars, draws)
    noisy = {name: measures[name] * gauge[:, i] for i, name in enumerate(("ra", "rq", "rz", "rpc"))}
    return {
        "signal": signal.astype(np.float32),
        "meta": meta.astype(np.float32),
        **{k: v.astype(np.float32) for k, v in noisy.items()},
        "ra_clean": measures["ra"].astype(np.float32),
        "ra_lit": measure(lit, _STEP_UM, stylus, tip)["ra"].astype(np.float32),
        "tip_um": tip.astype(np.float32),
        "coil": np.array([coil for coil, _ in where], np.int64),
        "texture": np.array([TEXTURES.index(coil.texture) for coil in coils], np.int64),
    }


def resample(lines: np.ndarray, count: int) -> np.ndarray:
    """Periodic lines (n, N) at another number of points: the band-limited surface seen more finely."""
    spectrum = np.fft.rfft(lines, axis=1)
    return np.fft.irfft(spectrum, count, axis=1) * (count / lines.shape[1])


def _laser(
    config: StripConfig, lit: np.ndarray, scalars: np.ndarray, draws: list[np.random.Generator]
) -> tuple[np.ndarray, np.ndarray]:
    """Signal (n, C, L) and meta (n, 3) of the lit lines."""
    power, offset, phase, waves, mounting, speed = scalars.T
    power = config.gain * (0.6 + 0.6 * power)
    speed = 2 + 10 * speed
    along = np.arange(lit.shape[1]) / lit.shape[1]
    flutter = 2.0 * np.sin(2 * np.pi * (np.outer(0.5 + 2.5 * waves, along) + phase[:, None]))
    tilt = config.tilt * (flutter + (2 * mounting - 1)[:, None])
    clean = reflect(lit, config, tilt, speed) * power[:, None, None]
    clean += (config.offset + 0.03 * offset)[:, None, None]
    shape = clean.shape[1:]
    speckle = np.stack([rng.standard_normal(shape, dtype=np.float32) for rng in draws])
    noise = np.stack([rng.standard_normal(shape, dtype=np.float32) for rng in draws])
    signal = clean * (1 + config.speckle * speckle) + 0.005 * noise
    return np.clip(signal, 0.0, 1.2), np.stack([speed, tilt.mean(1), power], 1)


def reflect(
    lines: np.ndarray, config: StripConfig, tilt: np.ndarray | float = 0.0, speed: np.ndarray | float = 0.0
) -> np.ndarray:
    """Intensities (n, C, L) of lines without noise, at power 1.

    Args:
        lines: heights (n, N) in um at 4 um.
        config: gives the geometry.
        tilt: of the strip in degrees, a number or (n, N).
        speed: of the strip in m/s, a number or (n,); it smears the spot.
    """
    count = lines.shape[1]
    frequency = np.fft.rfftfreq(count, _STEP_UM)  # 1/um
    spectrum = np.fft.rfft(lines, axis=1) * transmission(frequency, 8.0)  # the optics do not resolve finer facets
    slope = np.fft.irfft(spectrum * (2j * np.pi * frequency), count, axis=1)
    angle = np.degrees(2 * np.arctan(slope)) + tilt
    blur = (SPOT_UM / 2.3548) ** 2 + (np.atleast_1d(speed).astype(float) * EXPOSURE_US) ** 2 / 12
    spot = np.exp(-2 * (np.pi * frequency) ** 2 * blur[:, None])
    every = int(config.pitch_um / _STEP_UM)
    light = np.empty((len(lines), config.detectors, config.length))
    for k, centre in enumerate(config.angles):
        seen = np.exp(-((angle - centre) ** 2) / (2 * APERTURE_DEG**2))
        spread = np.fft.irfft(np.fft.rfft(seen, axis=1) * spot, count, axis=1)
        light[:, k] = spread[:, : config.length * every : every]
    return light
