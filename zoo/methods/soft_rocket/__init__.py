"""Soft ROCKET: random convolution kernels with a pooling that gradients pass, and a ridge head in closed form."""

from zoo.methods.soft_rocket.module import SoftRocket

__all__ = ["SoftRocket"]
