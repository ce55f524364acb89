"""ROCKET: random convolution kernels and what is pooled from them."""

from zoo.nn.rocket.transform import (
    POOLINGS,
    Hydra,
    Kernels,
    MiniRocket,
    Rocket,
    check_series,
    sample_kernels,
    standardise_series,
)
from zoo.nn.rocket.tuner import RocketTuner

__all__ = [
    "POOLINGS",
    "Hydra",
    "Kernels",
    "MiniRocket",
    "Rocket",
    "RocketTuner",
    "check_series",
    "sample_kernels",
    "standardise_series",
]
