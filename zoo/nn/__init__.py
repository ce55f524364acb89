"""Layers, losses and metrics used by two methods or more."""
