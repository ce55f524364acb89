"""Arguments of a module's constructor: their names, and those that fetch other weights."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

__all__ = ["parameters_of", "without_downloads"]

_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".npz", ".h5", ".onnx", ".pkl")


def parameters_of(cls: type) -> dict[str, inspect.Parameter]:
    """Arguments of a constructor by name."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]  # type: ignore[misc]
    return {p.name: p for p in parameters if p.kind in kinds}


def without_downloads(cls: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `given` and of the constructor that fetch other weights, switched off."""
    off: dict[str, Any] = {}
    for name in parameters_of(cls):
        value = given.get(name)
        if name.startswith("pretrained"):
            off[name] = False
        elif name.endswith("_weights") and isinstance(value, str) and ("/" in value or value.endswith(_SUFFIXES)):
            off[name] = None
    return off
