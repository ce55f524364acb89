"""A small classifier of digits, trained in seconds, for tests of attacks."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from datamodules.assets import digits
from datamodules.base import ZooDataModule
from zoo import index
from zoo.base import ZooModule


def network(width: int = 8) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, width, 5, 2, 2), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, 2 * width, 5, 2, 2), nn.ReLU(),
        nn.Flatten(), nn.Linear(98 * width, 10),
    )  # fmt: skip


@lru_cache(maxsize=1)
def data() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training and test digits: x (N, 1, 28, 28) in [0, 1], y (N,)."""
    pixels, labels = digits()
    x = torch.from_numpy(pixels.copy()).float()[:, None] / 255
    y = torch.from_numpy(labels.copy()).long()
    test = torch.arange(len(x)) % 5 == 0
    order = torch.randperm(int(test.sum()), generator=torch.Generator().manual_seed(1))
    return x[~test], y[~test], x[test][order], y[test][order]


@lru_cache(maxsize=1)
def trained() -> nn.Module:
    """Three epochs, FGSM noise in the last two, so that attacks at eps 0.1 beat some digits and not others."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = network()
        x, y, _, _ = data()
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        for epoch in range(3):
            for rows in torch.randperm(len(x)).split(64):
                batch = x[rows]
                if epoch:
                    batch = batch.clone().requires_grad_()
                    (grad,) = torch.autograd.grad(F.cross_entropy(model(batch), y[rows]), batch)
                    batch = (batch.detach() + 0.05 * grad.sign()).clamp(0, 1)
                loss = F.cross_entropy(model(batch), y[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return model.eval().requires_grad_(True)


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    return (model(x).argmax(1) == y).float().mean().item()


class DigitSet(Dataset[dict[str, Any]]):
    """The test digits, sorted by class as a folder would be."""

    def __init__(self) -> None:
        _, _, x, y = data()
        order = y.argsort(stable=True)
        self.x, self.y = x[order], y[order]

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"index": i, "image": self.x[i], "label": int(self.y[i])}


class DigitData(ZooDataModule):
    """Digits of the package."""

    def read_facts(self) -> dict[str, Any]:
        return {"num_classes": 10, "class_names": [str(i) for i in range(10)]}

    def dataset(self, split: str) -> Dataset[Any]:
        return DigitSet()


class DigitNet(ZooModule):
    """The trained network as a method of the zoo."""

    task = "image-classification"

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.net = network()

    def forward(self, image: Tensor) -> Tensor:
        return self.net(image)


def register_digits() -> None:
    """Make `toy-digits` known; once per process."""
    if "toy-digits" not in index.entries():
        index.register(
            index.Entry(
                id="toy-digits", model="toys.attacks:DigitNet", data="toys.attacks:DigitData",
                task="image-classification",
                summary="Digits.", paper={"title": "A toy", "year": 2026}, licence="Apache-2.0",
                tiny={"model": {}, "data": {}},
            )
        )  # fmt: skip
