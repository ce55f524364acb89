"""Small methods for the tests of index and store, and helpers that put them into an index and on the loopback Hub."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from zoo.base import ZooModule
from zoo.index import Entry, Pin, Weights


class ToyNet(ZooModule):
    """A classifier with a head, a tied weight, an elastic buffer, a teacher for training, and a count."""

    parameter_roles: ClassVar[dict[str, str]] = {"head": "head", "table": "elastic", "teacher": "training"}
    task = "image-classification"

    def __init__(
        self,
        width: int = 4,
        num_classes: int = 3,
        class_names: list[str] | None = None,
        pretrained_backbone: bool = False,
        backbone_weights: str | None = None,
        rows: int = 2,
    ) -> None:
        super().__init__()
        if pretrained_backbone or backbone_weights:
            raise RuntimeError("would download")
        self.num_classes = num_classes
        self.body = nn.Linear(5, width)
        self.twin = nn.Linear(5, width)
        self.twin.weight = self.body.weight
        self.norm = nn.BatchNorm1d(width)
        self.head = nn.Linear(width, num_classes)
        self.teacher = nn.Linear(5, num_classes)
        self.table: Tensor
        self.register_buffer("table", torch.zeros(rows, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.body(x) + self.twin(x))) + self.table.sum()

    def example_input(self) -> tuple[Tensor, ...]:
        return (torch.randn(2, 5),)


class SecretNet(ToyNet):
    """A method whose teacher must not be shared."""

    parameter_roles: ClassVar[dict[str, str]] = {**ToyNet.parameter_roles, "teacher": "private"}


class ToyData:
    """Stands for a data module."""

    def __init__(self, root: str | None = None, batch_size: int = 2, size: int = 8) -> None:
        self.root, self.batch_size, self.size = root, batch_size, size


def entry(source: Path | str = "register()", name: str = "toy-net", cls: type = ToyNet, **changes: Any) -> Entry:
    """An index entry of a toy, whose files lie beside `source`."""
    values: dict[str, Any] = {
        "model": f"{cls.__module__}:{cls.__qualname__}",
        "data": f"{ToyData.__module__}:{ToyData.__qualname__}",
        "task": "image-classification",
        "summary": "A toy.",
        "paper": {"title": "On Toys", "year": 2020},
        "licence": "Apache-2.0",
        "can": ("num_classes",),
        "source": str(source),
        **changes,
    }
    return Entry(name, **values)


def weights(tag: str = "small", **values: Any) -> Weights:
    defaults: dict[str, Any] = {
        "init": {"width": 4, "num_classes": 3, "class_names": ["a", "b", "c"]},
        "licence": "Apache-2.0",
        "trained_on": {"data": "nothing", "licence": "CC0-1.0"},
        "params": 50,
    }
    return Weights(tag, **{**defaults, **values})


def trained(seed: int = 0, cls: type[ToyNet] = ToyNet, **init: Any) -> ToyNet:
    """A toy with numbers that no fresh one has."""
    torch.manual_seed(1000 + seed)
    module = cls(**{"width": 4, "num_classes": 3, "class_names": ["a", "b", "c"], "rows": 3, **init})
    with torch.no_grad():
        for tensor in module.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.1, 1.0)
    return module.eval()


def with_weights(base: Entry, about: Weights) -> Entry:
    return dataclasses.replace(base, weights={**base.weights, about.tag: about}, default=base.default or about.tag)


def published(
    repo: str, commit: str, sha256: str, size: int, *, file: str | None = None, tag: str = "small"
) -> Weights:
    return weights(tag, hub=Pin(repo, commit), sha256=sha256, bytes=size, file=file)
