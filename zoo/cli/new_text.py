"""Texts of `zoo new`: `$name` is replaced. Each method template is a small method that works."""

from __future__ import annotations

__all__ = ["INDEX", "METHOD", "PYPROJECT", "RECIPE", "TEST"]

_CLASSIFIER = '''\
"""$Title: say in one sentence what the method does.

Paper: authors, title, venue and year, and the sections this file follows.
The equations, with the names the code uses (here those of the example network, to be replaced):

    h = relu(W1 x + b1)         hidden features         (1)
    p = softmax(W2 h + b2)      class probabilities     (2)
    L = -log p[label]           loss                    (3)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

$data_import
from zoo.base import ZooModule


class $Class(ZooModule):
    """Say what it is, with its source.

    Args:
        num_classes: number of classes.
        class_names: their names.
$args        width: hidden features.
        lr: learning rate.
    """

    parameter_roles: ClassVar[dict[str, str]] = {"head": "head"}
    task = "$task"
    monitor = ("val/accuracy", "max")

    def __init__(
        self,
        num_classes: int = $classes,
        class_names: list[str] | None = None,
$params        width: int = 32,
        lr: float = 0.01,
    ) -> None:
        super().__init__()
        self.lr = lr
        $keep
        $body
        self.head = nn.Linear(width, num_classes)  # re-initialised by load(..., num_classes=...)
        names = ("val", "test")
        self.losses = nn.ModuleDict({f"at_{name}": MeanMetric() for name in names})
        self.scores = nn.ModuleDict({f"at_{name}": MulticlassAccuracy(num_classes, average="micro") for name in names})

    def forward(self, x: Tensor) -> Tensor:
        """Class scores (n, num_classes) of $what."""
        return self.head(self.body(x))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Equation (3)."""
        loss = nn.functional.cross_entropy(self(batch["$key"]).float(), batch["label"])
        self.log("train/loss", loss, batch_size=len(batch["index"]))
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Log loss and accuracy."""
        self._score("val", batch)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Log loss and accuracy."""
        self._score("test", batch)

    def _score(self, stage: str, batch: dict[str, Any]) -> None:
        logits = self(batch["$key"]).float()
        loss, score = self.losses[f"at_{stage}"], self.scores[f"at_{stage}"]
        # metrics, not plain numbers: under DDP the ranks may hold different numbers of samples
        loss(nn.functional.cross_entropy(logits, batch["label"]), weight=len(logits))
        score(logits, batch["label"])
        self.log(f"{stage}/loss", loss, batch_size=len(logits))
        self.log(f"{stage}/accuracy", score, batch_size=len(logits))

    def predict_step(self, batch: dict[str, Any], batch_idx: int = 0) -> dict[str, Any]:
        """Equation (2) and the most probable class."""
        logits = self(batch["$key"]).float()
        label = logits.argmax(1)
        names = [self.class_names[i] for i in label.tolist()]
        return {"logits": logits, "probs": logits.softmax(1), "label": label, "name": names}

    def make_batch(self, items: Sequence[Any]) -> dict[str, Any]:
        """$make_doc"""
        return {"index": torch.arange(len(items)), "$key": torch.stack([$convert for item in items])}

    def show(self, inputs: Any, result: dict[str, Any]) -> Image.Image:
        """$show_doc"""
        $show
        score = float(result["probs"][int(result["label"])])
        ImageDraw.Draw(picture).text((4, 4), f"{result['name']} {score:.2f}", fill="red")
        return picture

    def example_input(self) -> tuple[Tensor, ...]:
        """$example_doc"""
        return ($example,)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=self.lr)
'''

_REGRESSOR = '''\
"""$Title: say in one sentence what the method does.

Paper: authors, title, venue and year, and the sections this file follows.
The equations, with the names the code uses (here those of the example network, to be replaced):

    h = relu(W1 x + b1)                         hidden features             (1)
    m, s = W2 h + b2                            mean and log variance       (2)
    L = (s + (y - m)^2 / exp(s)) / 2            Gaussian likelihood         (3)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torchmetrics import MeanMetric, MeanSquaredError

$data_import
from zoo.base import ZooModule


class $Class(ZooModule):
    """Say what it is, with its source.

    Args:
        features: numbers per row.
        width: hidden features.
        lr: learning rate.
    """

    task = "$task"
    monitor = ("val/rmse", "min")

    def __init__(self, features: int = 4, width: int = 32, lr: float = 0.01) -> None:
        super().__init__()
        self.features, self.lr = features, lr
        self.body = nn.Sequential(nn.Linear(features, width), nn.ReLU())
        self.head = nn.Linear(width, 2)
        names = ("val", "test")
        self.losses = nn.ModuleDict({f"at_{name}": MeanMetric() for name in names})
        self.scores = nn.ModuleDict({f"at_{name}": MeanSquaredError(squared=False) for name in names})

    def forward(self, x: Tensor) -> Tensor:
        """Mean and log variance (n, 2) of rows (n, features), equations (1) and (2)."""
        return self.head(self.body(x))

    def _loss(self, out: Tensor, value: Tensor) -> Tensor:
        """Equation (3); in float32 also under mixed precision, where exp() would overflow."""
        mean, log_variance = out.float().unbind(1)
        return 0.5 * (log_variance + (value - mean).square() * torch.exp(-log_variance)).mean()

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Equation (3)."""
        loss = self._loss(self(batch["row"]), batch["value"])
        self.log("train/loss", loss, batch_size=len(batch["index"]))
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Log loss and root mean squared error."""
        self._score("val", batch)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Log loss and root mean squared error."""
        self._score("test", batch)

    def _score(self, stage: str, batch: dict[str, Any]) -> None:
        out = self(batch["row"])
        loss, score = self.losses[f"at_{stage}"], self.scores[f"at_{stage}"]
        # metrics, not plain numbers: under DDP the ranks may hold different numbers of samples
        loss(self._loss(out, batch["value"]), weight=len(out))
        score(out[:, 0].float(), batch["value"])
        self.log(f"{stage}/loss", loss, batch_size=len(out))
        self.log(f"{stage}/rmse", score, batch_size=len(out))

    def predict_step(self, batch: dict[str, Any], batch_idx: int = 0) -> dict[str, Any]:
        """The mean, and the interval that holds 95 % of the values."""
        mean, log_variance = self(batch["row"]).float().unbind(1)
        half = 1.96 * torch.exp(0.5 * log_variance)
        return {"value": mean, "interval": torch.stack([mean - half, mean + half], dim=1)}

    def make_batch(self, items: Sequence[Any]) -> dict[str, Any]:
        """Rows as lists, arrays, tensors, or CSV files of one line."""
        return {"index": torch.arange(len(items)), "row": torch.stack([as_row(item, self.features) for item in items])}

    def show(self, inputs: Any, result: dict[str, Any]) -> Image.Image:
        """The value and its interval, as text."""
        picture = Image.new("RGB", (240, 32), "white")
        low, high = (float(v) for v in result["interval"])
        text = f"{float(result['value']):.3g}   ({low:.3g} to {high:.3g})"
        ImageDraw.Draw(picture).text((4, 8), text, fill="black")
        return picture

    def example_input(self) -> tuple[Tensor, ...]:
        """Three rows."""
        return (torch.linspace(-1, 1, 3 * self.features).reshape(3, self.features),)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=self.lr)
'''

METHOD = {"classifier": _CLASSIFIER, "regressor": _REGRESSOR}

INDEX = """\
$id:
  model: $model_path
  data: $data_path
  task: $task
  summary: $summary
  paper: {title: To be filled in, year: $year}
  licence: Apache-2.0
  can: [$can]
  learns: gradient
  tiny: {model: {width: 8}, data: {$tiny_data}}
  default: example
  weights:
    example:
      init: {$init}
      recipe: $id/example.yaml
      licence: Apache-2.0
"""

RECIPE = """\
zoo: $id:example
minutes: 1
description: The example of `zoo new`; replace it by what makes the first weights.
seed_everything: 0
model: {lr: 0.01}
data: {$recipe_data}
trainer: {max_epochs: 10, accelerator: auto, devices: 1}
"""

TEST = '''\
"""The mathematics of $id, against the paper or a slow reference."""

from __future__ import annotations

import torch

from $module import $Class


def test_forward_follows_equations_1_and_2() -> None:
    """A literal reference; replace it by the equations of the paper."""
    torch.manual_seed(0)
    model = $Class(width=8).eval()
    (x,) = model.example_input()
    $reference
    torch.testing.assert_close(model(x), expected)
'''

PYPROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "$project"
version = "0.1.0"
description = "Methods for the zoo"
requires-python = ">=3.10"
dependencies = ["lightning-method-zoo"]

# the zoo finds the methods of this package by its index, without importing it
[project.entry-points."zoo.index"]
$package = "$package/index.yaml"

[tool.hatch.build.targets.wheel]
packages = ["$package"]
"""
