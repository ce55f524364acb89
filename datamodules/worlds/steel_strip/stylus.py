"""A stylus instrument: from a height profile to Ra, Rq, Rz and RPc.

ISO 4287 (parameters), ISO 16610-21 (Gaussian filter), EN 10049 (RPc). The filter's weight function is
s(x) = exp(-pi (x / (alpha lambda))^2) / (alpha lambda) with alpha = sqrt(ln 2 / pi), whose transmission at wavelength
l is exp(-pi (alpha lambda / l)^2): exactly one half at the cut-off.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zoo.errors import BadInput

__all__ = ["Stylus", "dilate", "measure", "roughness_profile", "transmission"]


@dataclass(frozen=True)
class Stylus:
    """Settings of the instrument.

    Attributes:
        cutoff_mm: lambda_c of the high-pass, also the sampling length.
        lambda_s_um: of the low-pass.
        band_um: RPc counts profiles that rise above this and fall below its negative.
    """

    cutoff_mm: float = 0.8
    lambda_s_um: float = 8.0
    band_um: float = 0.5


def transmission(frequency: np.ndarray, cutoff: float) -> np.ndarray:
    """Share of the amplitude that the Gaussian low-pass lets through.

    Args:
        frequency: in 1/um.
        cutoff: wavelength in um where it is one half.
    """
    return np.exp(-np.log(2.0) * (np.asarray(frequency) * cutoff) ** 2)


def dilate(profiles: np.ndarray, step_um: float, radius_um: np.ndarray) -> np.ndarray:
    """Path of the centre of a spherical tip, less its radius.

    Args:
        profiles: heights (n, N) in um; the ends are joined.
        step_um: distance of two points.
        radius_um: of the tip, (n,).
    """
    highest = profiles.copy()
    for k in range(1, int(radius_um.max() / step_um) + 1):
        inside = radius_um >= k * step_um
        drop = np.sqrt(np.maximum(radius_um**2 - (k * step_um) ** 2, 0)) - radius_um
        drop = np.where(inside, drop, -np.inf)[:, None]
        for shift in (k, -k):
            np.maximum(highest, np.roll(profiles, shift, axis=1) + drop, out=highest)
    return highest


def roughness_profile(profiles: np.ndarray, step_um: float, stylus: Stylus) -> np.ndarray:
    """Filtered profiles without one cut-off at each end.

    The filter is applied by Fourier transform. That joins the ends, but its weight one cut-off away is 4e-7 of that in
    the middle, so what is left does not feel them.

    Raises:
        BadInput: if the profile is shorter than three cut-offs.
    """
    count, drop = profiles.shape[1], round(1000 * stylus.cutoff_mm / step_um)
    if count < 3 * drop:
        raise BadInput(
            f"A profile of {count * step_um / 1000:.2f} mm is too short for a cut-off of {stylus.cutoff_mm:g} mm: "
            f"expected at least {3 * stylus.cutoff_mm:g} mm."
        )
    frequency = np.fft.rfftfreq(count, step_um)
    band = transmission(frequency, stylus.lambda_s_um) * (1 - transmission(frequency, 1000 * stylus.cutoff_mm))
    return np.fft.irfft(np.fft.rfft(profiles, axis=1) * band, count, axis=1)[:, drop : count - drop]


def measure(
    profiles: np.ndarray, step_um: float, stylus: Stylus, tip_um: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Roughness parameters of profiles (n, N) in um.

    Args:
        profiles: heights.
        step_um: distance of two points.
        stylus: settings.
        tip_um: radius of the tip, (n,); None for a needle.

    Returns:
        `ra`, `rq`, `rz` in um and `rpc` in peaks per 10 mm, each (n,).
    """
    touched = profiles if tip_um is None else dilate(profiles, step_um, tip_um)
    z = roughness_profile(touched, step_um, stylus)
    one = round(1000 * stylus.cutoff_mm / step_um)
    lengths = min(5, z.shape[1] // one)  # five sampling lengths where they are there
    pieces = z[:, : lengths * one].reshape(len(z), lengths, one)
    return {
        "ra": np.abs(z).mean(1),
        "rq": np.sqrt((z**2).mean(1)),
        "rz": (pieces.max(2) - pieces.min(2)).mean(1),
        "rpc": peak_count(z, stylus.band_um) / (z.shape[1] * step_um / 10_000),
    }


def peak_count(z: np.ndarray, band_um: float) -> np.ndarray:
    """How often a profile rises above `band_um` and then falls below `-band_um`, (n,)."""
    side = np.where(z > band_um, 1, np.where(z < -band_um, -1, 0))
    last = np.maximum.accumulate(np.where(side != 0, np.arange(z.shape[1]), 0), axis=1)  # the last time it was outside
    state = np.take_along_axis(side, last, axis=1)
    return ((state[:, :-1] == 1) & (state[:, 1:] == -1)).sum(1).astype(float)
