"""What a section's signal must be: used where files are read and where people hand over arrays."""

from __future__ import annotations

import numpy as np

__all__ = ["signal_problem"]


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
    if float(np.abs(signal).max()) > 10:
        return "intensities of full scale, 0 to about 1.2", f"up to {float(np.abs(signal).max()):g}"
    return None
