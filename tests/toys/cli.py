"""A small method and its data, registered for the tests of the command line. Also a script: DDP starts it again."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from datamodules.base import Problems, ZooDataModule
from zoo import index
from zoo.base import ZooModule
from zoo.errors import BadInput

if TYPE_CHECKING:
    import pytest


class ToyRows(Dataset[dict[str, Any]]):
    """Points around one centre per class."""

    def __init__(self, classes: int, length: int, seed: int) -> None:
        draw = np.random.default_rng(seed)
        self.label = draw.integers(0, classes, length)
        centres = np.random.default_rng(1).normal(size=(classes, 4)) * 3
        self.x = (centres[self.label] + draw.normal(size=(length, 4))).astype(np.float32)

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"index": i, "x": torch.from_numpy(self.x[i]), "label": int(self.label[i])}


class ToyData(ZooDataModule):
    """Ten classes by default; a folder holds `classes.json`, a list of names."""

    def __init__(
        self,
        root: str | None = None,
        format: str = "json",
        batch_size: int = 8,
        num_workers: int = 0,
        seed: int = 0,
        length: int = 33,
    ) -> None:
        super().__init__(root, batch_size, num_workers, seed)
        self.length = length

    def read_facts(self) -> dict[str, Any]:
        if self.root is None:
            names = [str(i) for i in range(10)]
        else:
            file = self.root / "classes.json"
            problems = Problems(self.root)
            names = json.loads(file.read_text()) if file.is_file() else []
            if not names:
                problems.add(file, "names", "a list of class names", "nothing")
                problems.add(file, "count", "at least 1", 0)
            problems.raise_if_any()
        return {"num_classes": len(names), "class_names": names, "channels": 4}

    def dataset(self, split: str) -> ToyRows:
        return ToyRows(self.facts()["num_classes"], self.length, {"train": 0, "val": 1}.get(split, 2))

    def fake(self, folder: str | Path) -> Path:
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / "classes.json").write_text('["cat", "dog", "owl"]')
        return Path(folder)


class ToyNet(ZooModule):
    """A linear classifier of four numbers.

    Args:
        num_classes: classes.
        class_names: their names.
        size: n or s, the width.
        lr: learning rate.
    """

    parameter_roles: ClassVar[dict[str, str]] = {"head": "head"}
    task = "tabular-classification"
    monitor = ("val/loss", "min")

    def __init__(
        self, num_classes: int = 10, class_names: list[str] | None = None, size: str = "n", lr: float = 0.1
    ) -> None:
        super().__init__()
        width = {"n": 8, "s": 16}[size]
        self.body = nn.Sequential(nn.Linear(4, width), nn.ReLU())
        self.head = nn.Linear(width, num_classes)
        self.names = class_names or [str(i) for i in range(num_classes)]
        self.lr = lr

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))

    def _loss(self, batch: dict[str, Any], stage: str) -> Tensor:
        loss = nn.functional.cross_entropy(self(batch["x"]), batch["label"])
        self.log(f"{stage}/loss", loss, on_epoch=True, batch_size=len(batch["index"]))
        return loss

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        return self._loss(batch, "train")

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self._loss(batch, "val")

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self._loss(batch, "test")

    def predict_step(self, batch: dict[str, Any], batch_idx: int = 0, *, top: int = 1) -> dict[str, Any]:
        logits = self(batch["x"])
        label = logits.argmax(1)
        probs = logits.softmax(1)
        return {"logits": logits, "probs": probs, "label": label, "name": [self.names[i] for i in label.tolist()]}

    def make_batch(self, items: Any) -> dict[str, Any]:
        rows = [json.loads(Path(i).read_text()) if isinstance(i, (str, Path)) else i for i in items]
        if any(len(r) != 4 for r in rows):
            raise BadInput("Expected four numbers.")
        return {"index": torch.arange(len(rows)), "x": torch.tensor(rows, dtype=torch.float32)}

    def show(self, inputs: Any, result: dict[str, Any]) -> Any:
        from PIL import Image

        return Image.new("RGB", (8, 8), (int(result["label"]) * 20, 0, 0))

    def example_input(self) -> tuple[Tensor, ...]:
        return (torch.zeros(2, 4),)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.lr)


RECIPE = """\
zoo: toy-net:{tag}
minutes: 1
description: for the tests
seed_everything: 3
model: {{size: {size}, lr: 5e-2}}
data: {{batch_size: 4}}
trainer: {{max_epochs: 2, accelerator: cpu, devices: 1, enable_model_summary: false, log_every_n_steps: 1}}
"""


def register(folder: Path) -> index.Entry:
    """Write the recipes below `folder` and put the toy into the index; nothing is trained."""
    for tag, size in (("ten-n", "n"), ("ten-s", "s")):
        path = folder / "recipes" / "toy-net" / f"{tag}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(RECIPE.format(tag=tag, size=size))
    weights = {
        tag: index.Weights(
            tag, init={"size": tag[-1], "num_classes": 10}, recipe=f"toy-net/{tag}.yaml", licence="CC0-1.0"
        )
        for tag in ("ten-n", "ten-s")
    }
    entry = index.Entry(
        id="toy-net",
        model="toys.cli:ToyNet",
        data="toys.cli:ToyData",
        task="tabular-classification",
        summary="A linear classifier.",
        paper={"title": "Toys", "year": 2026},
        licence="Apache-2.0",
        can=("num_classes", "onnx", "export"),
        tiny={"model": {}, "data": {}},
        default="ten-n",
        weights=weights,
        source=str(folder / "index.yaml"),
    )
    index.register(entry, replace=True)
    return entry


def register_rounds() -> None:
    """Put the two toys that learn in rounds into the index."""
    from toys import TOYS

    learner = index.Entry(
        id="toy-learner",
        model="toys.learners:ToyLearner",
        data="toys.learners:ToyClients",
        task="tabular-classification",
        summary="Federated averaging.",
        paper={"title": "Toys", "year": 2026},
        licence="Apache-2.0",
        learns="rounds",
        tiny={"model": {}, "data": {}},
    )
    for entry in (learner, *(toy for toy in TOYS if toy.id == "toy-ridge")):
        index.register(entry, replace=True)


# The command ------------------------------------------------------------------------------------------------------


def run(*words: Any) -> int:
    """`zoo` in this process: its exit code."""
    from zoo import cli

    return cli.main([*map(str, words)])


def output(capsys: pytest.CaptureFixture[str], *words: Any, code: int = 0) -> str:
    """What the command prints."""
    capsys.readouterr()
    assert run(*words) == code
    return capsys.readouterr().out


def failure(capsys: pytest.CaptureFixture[str], *words: Any) -> str:
    """The one line that a mistake prints."""
    capsys.readouterr()
    assert run(*words) == 2
    err = capsys.readouterr().err.strip()
    assert err.startswith("error: ")
    assert "\n" not in err
    return err


if __name__ == "__main__":
    from toys import cli as cli_toys
    from zoo.training import main

    cli_toys.register(Path("toy_index").resolve())
    sys.exit(main(prog="python toys/cli.py"))
