"""The base of detectors, by one that adds nothing but a network and a loss."""

from __future__ import annotations

import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Trainer
from torch import Tensor, nn

from datamodules.boxes import BoxesDataModule
from zoo.base.detector import Detector, best_boxes, coco_results, letterboxed
from zoo.errors import BadInput


class Grid(Detector):
    """A box of half a cell around the middle of each 32 x 32 cell."""

    def __init__(
        self,
        num_classes: int = 10,
        class_names: list[str] | None = None,
        img_size: int = 64,
        optimizer: str = "sgd",
        lr: float = 0.1,
        weight_decay: float = 0.1,
        warmup: float = 0.5,
        lr_final: float = 0.01,
        schedule_span: list[float] | None = None,
    ) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, num_classes, 32, stride=32)

    def raw(self, images: Tensor) -> dict[str, Any]:
        logits = self.layer(images)
        rows, columns = torch.meshgrid(*(torch.arange(n) * 32.0 + 16 for n in logits.shape[2:]), indexing="ij")
        centres = torch.stack([columns, rows], -1).view(1, -1, 2).expand(len(images), -1, -1)
        return {"logits": logits.flatten(2).mT, "boxes": torch.cat([centres - 8, centres + 8], -1)}

    def training_step(self, batch: dict[str, Any], batch_idx: int = 0) -> Tensor:
        return self.evaluation_loss(self.raw(batch["image"]), batch)

    def evaluation_loss(self, predictions: dict[str, Any], batch: dict[str, Any]) -> Tensor:
        return predictions["logits"].square().mean()


def trainer(folder: Path, **options: Any) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return Trainer(default_root_dir=folder, num_sanity_val_steps=0, enable_checkpointing=False, **{**quiet, **options})


def test_a_network_and_a_loss_are_enough(tmp_path: Path) -> None:
    """It trains, is evaluated under the declared names, predicts in the picture's pixels, draws, exports to COCO."""
    model = Grid()
    data = BoxesDataModule(img_size=64, batch_size=2, train_size=6, val_size=3, test_size=3)
    run = trainer(tmp_path, max_epochs=1)
    run.fit(model, data)
    assert model.scores.names("val") == ["loss", "map"]
    (values,) = run.test(model, data, verbose=False)
    names = {name.removeprefix("test/") for name in values}
    assert {"loss", "map", "map_50"} <= names
    assert all(any(fnmatch.fnmatch(name, known) for known in model.logged) for name in names)
    own = {name.removeprefix("map/") for name in names if name.startswith("map/")}
    assert own
    assert own <= set(data.facts()["class_names"])
    picture = np.zeros((30, 100, 3), np.uint8)
    (result,) = model.predict(picture, threshold=0.0)
    assert (result["boxes"][:, 2] <= 100).all()
    assert (result["boxes"][:, 3] <= 30).all()
    assert model.show(picture, result).size == (400, 120)
    rows = model.to_coco([result], ["a"])
    assert len(rows) == len(result["scores"])


def test_detections_are_scored_in_the_pictures_pixels() -> None:
    """True boxes and detections go through the letterbox's inverse; a perfect detector reaches 1 on every stage."""
    model = Grid(num_classes=2).eval()
    batch = letterboxed([np.zeros((32, 64, 3), np.uint8)] * 2, 64)
    batch |= {
        "boxes": [torch.tensor([[8.0, 24, 24, 40]]), torch.tensor([[40.0, 24, 56, 40]])],
        "labels": [torch.tensor([0]), torch.tensor([1])],
    }
    points = torch.tensor([[8.0, 24, 24, 40], [40.0, 24, 56, 40]]).expand(2, -1, -1)
    logits = torch.full((2, 2, 2), -9.0)
    logits[0, 0, 0] = logits[1, 1, 1] = 3.0
    model.raw = lambda images: {"boxes": points, "logits": logits}  # type: ignore[method-assign]
    for stage in ("val", "test"):
        model.evaluate_step(stage, batch)
        values = model.scores[stage, "map"].compute()
        assert values["map"] == pytest.approx(1)
    seen = model.scores["val", "map"].seen
    assert seen[0][2]["boxes"].tolist() == [[8, 8, 24, 24]]
    assert seen[0][1]["boxes"][0].tolist() == [8, 8, 24, 24]


def test_letterboxed_pictures_of_several_sizes() -> None:
    pictures = [np.full((10, 20, 3), 255, np.uint8), np.full((64, 64, 3), 51, np.uint8)]
    batch = letterboxed(pictures, 64)
    assert batch["image"].shape == (2, 3, 64, 64)
    assert batch["scale"].tolist() == pytest.approx([3.2, 1.0])
    assert batch["pad"].tolist() == [[0, 16], [0, 0]]
    assert batch["size"].tolist() == [[10, 20], [64, 64]]
    assert float(batch["image"][1].max()) == pytest.approx(0.2)
    assert float(batch["image"][0, 0, 32, 32]) == 1


def test_at_most_so_many_and_above_the_threshold() -> None:
    boxes = torch.arange(5)[None, :, None] * 20.0 + torch.tensor([0.0, 0, 10, 10])
    scores = torch.tensor([[[0.5], [0.9], [0.1], [0.7], [0.3]]])
    batch = {"scale": torch.ones(1), "pad": torch.zeros(1, 2), "size": torch.tensor([[200, 200]])}
    (found,) = best_boxes(boxes, scores, batch, threshold=0.3, most=2)
    assert found["scores"].tolist() == pytest.approx([0.9, 0.7])
    (found,) = best_boxes(boxes, scores, batch, threshold=0.3)
    assert found["scores"].tolist() == pytest.approx([0.9, 0.7, 0.5])
    assert coco_results([found], [7], [3])[0] == {
        "image_id": 7,
        "category_id": 3,
        "bbox": [20.0, 20.0, 10.0, 10.0],
        "score": pytest.approx(0.9),
    }


def test_schedule_and_groups(tmp_path: Path) -> None:
    model = Grid()
    rates = []

    class Stub:
        estimated_stepping_batches = 10

    model._trainer = Stub()  # type: ignore[assignment]
    made = model.configure_optimizers()
    assert made["lr_scheduler"]["interval"] == "step"
    for _ in range(11):
        rates.append(made["optimizer"].param_groups[0]["lr"])
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
    assert rates[:6] == pytest.approx([0.02, 0.02, 0.04, 0.06, 0.08, 0.1])
    assert rates[10] == pytest.approx(0.001)
    assert [g["weight_decay"] for g in made["optimizer"].param_groups] == [0.1, 0.0]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"num_classes": 0}, "num_classes must be at least 1"),
        ({"class_names": ["a"]}, "1 class_names were given for 10"),
        ({"img_size": 100}, "multiple of 32"),
        ({"optimizer": "adam"}, "Did you mean 'adamw'"),
        ({"schedule_span": [0.5, 0.5]}, "schedule_span"),
    ],
)
def test_arguments_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        Grid(**options)
