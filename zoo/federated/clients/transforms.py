"""What happens to an update between local training and the server: clipping, noise, sparsification.

Each works on the difference from the weights that the client received, over all floating-point entries together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from zoo.errors import BadInput, UnknownName, nearest
from zoo.index.registers import import_registering, registered_names

__all__ = [
    "TRANSFORMS",
    "Clip",
    "Noise",
    "Sparsify",
    "UpdateTransform",
    "create_transform",
    "register_transform",
]


class UpdateTransform(Protocol):
    """Anything that maps a difference (tensors by name) to another one."""

    def __call__(self, delta: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Transform; `generator` belongs to (seed, round, client). Arguments stay as they are."""


class Clip:
    """Scale a difference down to a largest Euclidean norm, as differential privacy wants it.

    Args:
        norm: C, above 0.
    """

    def __init__(self, norm: float) -> None:
        if not norm > 0:
            raise BadInput(f"clip: norm must be above 0, got {norm}.")
        self.norm = norm

    def __call__(self, delta: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """`delta * min(1, C / ||delta||)`."""
        length = math.sqrt(sum(float(d.double().square().sum()) for d in delta.values()))
        if length <= self.norm:
            return delta
        return {name: d * (self.norm / length) for name, d in delta.items()}


class Noise:
    """Add Gaussian noise.

    Args:
        std: standard deviation of each element, at least 0.
    """

    def __init__(self, std: float) -> None:
        if not std >= 0:
            raise BadInput(f"noise: std must be at least 0, got {std}.")
        self.std = std

    def __call__(self, delta: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Add noise to each element."""
        return {
            name: d + self.std * torch.randn(d.shape, generator=generator, dtype=d.dtype) for name, d in delta.items()
        }


class Sparsify:
    """Keep the largest elements by size, over all entries together; the others become 0.

    Args:
        share: of the elements that are kept, in (0, 1].
    """

    def __init__(self, share: float) -> None:
        if not 0 < share <= 1:
            raise BadInput(f"sparsify: share must be in (0, 1], got {share}.")
        self.share = share

    def __call__(self, delta: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Keep `ceil(share * n)` elements; of equal ones, the first."""
        flat = torch.cat([d.flatten() for d in delta.values()])
        keep = flat.abs().sort(descending=True, stable=True).indices[: math.ceil(self.share * len(flat))]
        sparse = torch.zeros_like(flat).index_copy(0, keep, flat[keep])
        parts = torch.split(sparse, [d.numel() for d in delta.values()])
        return {name: part.view(d.shape) for (name, d), part in zip(delta.items(), parts, strict=True)}


TRANSFORMS: dict[str, Callable[..., UpdateTransform]] = {"clip": Clip, "noise": Noise, "sparsify": Sparsify}
"""Transforms by name, as far as they are imported. `register_transform` adds to it."""

_Made = TypeVar("_Made", bound=Callable[..., UpdateTransform])


def register_transform(name: str) -> Callable[[_Made], _Made]:
    """Decorator: add a transform under a name.

    Raises:
        BadInput: if the name is taken.
    """

    def add(made: _Made) -> _Made:
        if TRANSFORMS.setdefault(name, made) is not made:
            raise BadInput(f"There is a transform {name!r} already.")
        return made

    return add


def create_transform(options: Mapping[str, Any]) -> UpdateTransform:
    """Build a transform from plain values, such as `{"name": "clip", "norm": 1.0}`.

    Raises:
        UnknownName: if there is none of that name.
        BadInput: if its options do not fit.
    """
    given = dict(options)
    name = given.pop("name", None)
    import_registering("transforms", str(name), TRANSFORMS)
    if name not in TRANSFORMS:
        known = sorted({*TRANSFORMS, *registered_names("transforms")})
        raise UnknownName(f"There is no transform {name!r}.{nearest(str(name), known)} Known: {', '.join(known)}.")
    try:
        return TRANSFORMS[name](**given)
    except TypeError as error:
        raise BadInput(f"transform {name}: {error}.") from error
