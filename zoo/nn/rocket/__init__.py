"""ROCKET: random convolution kernels and what is pooled from them."""

from zoo.nn.rocket.transform import (
    POOLINGS,
    Kernels,
    Rocket,
    check_series,
    sample_kernels,
    standardise_series,
)
from zoo.nn.rocket.tuner import RocketTuner

__all__ = [
    "POOLINGS",
    "Kernels",
    "Rocket",
    "RocketTuner",
    "check_series",
    "sample_kernels",
    "standardise_series",
]
