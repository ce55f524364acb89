"""What a section's signal must be: used where files are read and where people hand over arrays."""

from __future__ import annotations

import numpy as np

__all__ = ["signal_problem"]

_DARK = 0.1  # noise and drift of a detector in the dark may be below 0
_LEAST = 1e-3  # less at the brightest detector is another unit, or no light


def signal_problem(signal: np.ndarray, channels: int | None, length: int | None) -> tuple[str, str] | None:
    """What is wrong with a signal.

    Args:
        signal: should be (C, L), intensities of full scale.
        channels: C if it is known.
        length: L if it is known.

    Returns:
        (expected, got), or None if nothing is wrong.
    """
    if signal.dtype.kind not in "fiu":
        return "numbers", f"the type {signal.dtype}"
    if signal.ndim != 2:
        return "the shape (C, L): detectors, samples", f"the shape {signal.shape}"
    if channels is not None and signal.shape[0] != channels:
        turned = "; turn it round" if signal.shape[1] == channels else ""
        return f"{channels} detectors (C, L)", f"the shape {signal.shape}{turned}"
    if length is not None and signal.shape[1] != length:
        return f"{length} samples", f"{signal.shape[1]}"
    if signal.size == 0:
        return "at least one sample", "none"
    if not np.isfinite(signal).all():
        k, t = np.argwhere(~np.isfinite(signal))[0]
        return "finite intensities", f"{signal[k, t]} at detector {k}, sample {t}"
    if float(np.ptp(signal)) == 0.0:
        return "a signal that varies", f"{float(signal.flat[0]):g} everywhere (laser off or detectors unplugged?)"
    low, high = float(signal.min()), float(signal.max())
    if high > 10 or high < _LEAST or low < -_DARK:
        got = f"up to {high:g}" if low >= -_DARK else f"down to {low:g}"
        return "intensities of full scale, 0 to about 1.2", got
    return None
