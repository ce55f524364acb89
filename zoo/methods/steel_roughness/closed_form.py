"""The closed form of the instrument: roughness from the width of the reflected lobe."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zoo.methods.steel_roughness.regressor import Gather, Regressor, Sections, Sum

__all__ = ["ClosedForm", "reflected_slope"]


def reflected_slope(signal: Tensor, angles: Tensor, aperture: float) -> Tensor:
    """Root mean square slope of the facets, in degrees, from the width of the reflected lobe.

        w^2 = mean_t v(t) + var_t mu(t) - aperture^2,  slope = w / 2

    where mu and v are mean and variance of the detectors' angles, weighted by their intensities less the background.

    Args:
        signal: intensities (B, C, L).
        angles: of the detectors in degrees, (C,).
        aperture: standard deviation of a detector's acceptance in degrees.

    Returns:
        (B,), at least 0.1.
    """
    light = signal - signal.amin((1, 2), keepdim=True)  # the least light anywhere in the section is background
    total = light.sum(1).clamp(min=1e-6)
    mean = (light * angles[:, None]).sum(1) / total
    variance = (light * (angles[:, None] - mean[:, None]).square()).sum(1) / total
    width = variance.mean(1) + mean.var(1, unbiased=False) - aperture**2
    return width.clamp(min=0.04).sqrt() / 2


class ClosedForm(Regressor):
    """log Ra = a log(slope) + b: two fitted numbers for each parameter, no more. It reads intensities.

    Args:
        channels: C, detectors evenly from -span to span degrees.
        targets: T.
        span: of the outer detectors.
        aperture: standard deviation of a detector's acceptance in degrees.
    """

    standardised = False

    def __init__(self, channels: int, targets: int, span: float = 21.0, aperture: float = 3.0) -> None:
        super().__init__()
        self.aperture = aperture
        self.register_buffer("angles", torch.linspace(-span, span, channels), persistent=False)
        self.register_buffer("coefficients", torch.zeros(targets, 2))
        self.angles: Tensor
        self.coefficients: Tensor
        self._clear()

    def _clear(self) -> None:
        self._gram = torch.zeros(2, 2, dtype=torch.float64)
        self._moment = torch.zeros(2, len(self.coefficients), dtype=torch.float64)

    def forward(self, signal: Tensor, meta: Tensor | None = None) -> Tensor:
        """Logarithms (B, T) of intensities (B, C, L)."""
        slope = reflected_slope(signal, self.angles, self.aperture).log()[:, None]
        return slope * self.coefficients[:, 0] + self.coefficients[:, 1]

    def collect(self, sections: Sections) -> None:
        """Add to the normal equations."""
        assert sections.wanted is not None
        slope = reflected_slope(sections.signal, self.angles, self.aperture).double().log()
        row = torch.stack([slope, torch.ones_like(slope)], 1)
        self._gram = self._gram.to(row.device) + row.T @ row
        self._moment = self._moment.to(row.device) + row.T @ sections.wanted.double()

    def solve(self, total: Sum, gather: Gather) -> dict[str, Tensor]:
        """Least squares; the tiny ridge keeps one section alone from dividing by zero."""
        gram, moment = total(self._gram), total(self._moment)
        self._clear()
        eye = torch.eye(2, dtype=gram.dtype, device=gram.device)
        return {"coefficients": torch.linalg.solve(gram + 1e-9 * gram.trace() * eye, moment).T.float()}

    def collected(self) -> dict[str, Any]:
        """The sums so far."""
        return {"gram": self._gram, "moment": self._moment}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `collected` returned."""
        self._gram, self._moment = state["gram"], state["moment"]
