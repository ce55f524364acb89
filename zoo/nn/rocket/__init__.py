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

__all__ = [
    "POOLINGS",
    "Hydra",
    "Kernels",
    "MiniRocket",
    "Rocket",
    "check_series",
    "sample_kernels",
    "standardise_series",
]
