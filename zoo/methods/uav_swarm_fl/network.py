"""A classifier whose features go through a projection, and a look at what a layer sees."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from zoo.errors import BadInput
from zoo.nn.classifiers import head_of

__all__ = ["ProjectedClassifier", "features_of"]


class ProjectedClassifier(nn.Module):
    """Features (N, d) -> linear d, ReLU, linear -> representation (N, width) -> logits (N, K) (Li, He, Song 2021).

    Args:
        backbone: a classifier, whose last layer is taken away.
        width: of the representation.
        num_classes: K.
    """

    head_name = "head"

    def __init__(self, backbone: nn.Module, width: int, num_classes: int) -> None:
        super().__init__()
        name = head_of(backbone)
        last = backbone.get_submodule(name)
        if not isinstance(last, nn.Linear):
            raise BadInput(f"a projection needs a network that ends in a linear layer, not {type(last).__name__}.")
        size = last.in_features
        backbone.set_submodule(name, nn.Identity())
        self.backbone = backbone
        self.project = nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, width))
        self.head = nn.Linear(width, num_classes)

    def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, K) and representation (N, width)."""
        z = self.project(self.backbone(x))
        return self.head(z), z

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K)."""
        return self.both(x)[0]


@contextmanager
def features_of(network: nn.Module, name: str) -> Iterator[list[Tensor]]:
    """What arrives at the layer `name` while the network runs, one tensor (N, d) per pass."""
    seen: list[Tensor] = []
    hook = network.get_submodule(name).register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    try:
        yield seen
    finally:
        hook.remove()
