"""RSLAD: a small network learns robustness from the soft labels of a robust one."""

from zoo.methods.rslad.module import METHODS, RSLAD, rslad_loss

__all__ = ["METHODS", "RSLAD", "rslad_loss"]
