"""Steel roughness: the stylus parameter Ra of a strip section, read from its laser reflection while it runs by."""

from zoo.methods.steel_roughness.module import FITS, NETWORKS, SteelRoughness, reflected_slope

__all__ = ["FITS", "NETWORKS", "SteelRoughness", "reflected_slope"]
