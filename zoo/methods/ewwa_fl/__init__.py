"""EWWA-FL: the server weights every element of the model by its own shares over the clients."""

from zoo.methods.ewwa_fl.module import EWWAFL, VARIANTS

__all__ = ["EWWAFL", "VARIANTS"]
