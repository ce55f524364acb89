"""ROCKET straight from its definition, slowly."""

from __future__ import annotations

import numpy as np

from zoo.nn.rocket import Kernels


def responses(kernels: Kernels, x: np.ndarray) -> list[np.ndarray]:
    """Responses (M, L_out) of each kernel in float64, straight from the definition."""
    found, at, place = [], 0, 0
    for i in range(len(kernels)):
        n, taps = int(kernels.channel_counts[i]), int(kernels.lengths[i])
        weight = kernels.weights[at : at + n * taps].reshape(n, taps).astype(np.float64)
        chosen = kernels.channels[place : place + n]
        at, place = at + n * taps, place + n
        padding, dilation = int(kernels.paddings[i]), int(kernels.dilations[i])
        count = x.shape[2] + 2 * padding - (taps - 1) * dilation
        z = np.full((len(x), count), float(kernels.biases[i]))
        for t in range(count):
            for j in range(taps):
                where = t - padding + j * dilation
                if 0 <= where < x.shape[2]:
                    z[:, t] += x[:, chosen, where] @ weight[:, j]
        found.append(z)
    return found
