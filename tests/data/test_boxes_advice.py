"""What a folder of boxes suggests, and the command line that follows it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import zoo
from datamodules.boxes import BoxesDataModule
from datamodules.boxes.advice import doubts, fitting
from datamodules.boxes.records import Record
from zoo import training
from zoo.cli import main
from zoo.training.arguments import drop_other_channels


def folder(root: Path, names: list[str], side: int, size: int = 320) -> Path:
    """A COCO folder of four pictures in each split, with one box per class but the last."""
    for split in ("train", "valid"):
        (root / split).mkdir(parents=True)
        images = [{"id": i, "file_name": f"{i}.png", "width": size, "height": size} for i in range(4)]
        boxes = [
            {"id": 10 * i + k, "image_id": i, "category_id": k, "bbox": [20 * k, 30, side, side], "area": side**2}
            for i in range(4)
            for k in range(len(names) - 1)
        ]
        for image in images:
            Image.fromarray(np.full((size, size, 3), 90, np.uint8)).save(root / split / image["file_name"])
        content = {"images": images, "annotations": boxes}
        content["categories"] = [{"id": k, "name": name} for k, name in enumerate(names)]
        (root / split / "_annotations.coco.json").write_text(json.dumps(content))
    return root


def records(count: int, side: float) -> list[Any]:
    box = np.array([[0, 0, side, side]], np.float32)
    return [Record(Path("a.png"), "a", (1000, 1000), box, np.zeros(1, np.int64)) for _ in range(count)]


def test_settings_that_fit() -> None:
    given = {"img_size": 160, "batch_size": 32, "augment": "none", "epochs": 10}
    assert fitting(records(5000, 200), **given) == {}
    assert fitting(records(5000, 50), **given) == {"data.img_size": 320}
    assert fitting(records(5000, 5), **given) == {"data.img_size": 640}
    small = fitting(records(100, 200), **given)
    assert small == {"data.batch_size": 8, "data.augment": "light", "trainer.max_epochs": 32}
    assert fitting(records(5, 200), **given)["trainer.max_epochs"] == 50
    assert fitting([], **given) == {}


def test_doubts() -> None:
    assert doubts(["square", "sqquare", "disc"], [40, 3, 9]) == [
        "square (40) and sqquare (3) are two classes: is one of them a slip?"
    ]
    assert "Cat (1) and cat (2)" in doubts(["Cat", "cat"], [1, 2])[0]
    assert doubts(["class 1", "class 2", "cat", "car", "male", "female"], [1] * 6) == []
    assert "without a box: empty" in doubts(["full", "empty"], [1, 0])[0]


def test_check_names_doubts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = folder(tmp_path / "own", ["square", "sqquare", "super"], side=12)
    assert main(["data", "check", "alpha-iou-yolo", str(root)]) == 0
    out = capsys.readouterr().out
    assert "square (4) and sqquare (4) are two classes" in out
    assert "classes without a box: super" in out
    assert "median side of a box: 6 of 160 input pixels: few" in out


def test_training_takes_what_fits_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    root = folder(tmp_path / "own", ["square", "disc", "bar"], side=12)
    words = ["fit", "--zoo", "alpha-iou-yolo", "--trainer.fast_dev_run=true", "--trainer.accelerator=cpu"]
    words += ["--model.size=p"]
    own = training.run([*words, "--data.root", str(root), "--data.batch_size", "2"])
    out = capsys.readouterr().out
    assert "set for your data: --data.img_size 512, --data.augment light, --trainer.max_epochs 50" in out
    assert (own.datamodule.img_size, own.model.hparams["img_size"], own.datamodule.batch_size) == (512, 512, 2)
    (tmp_path / "mine.yaml").write_text("trainer: {max_epochs: 7}\ndata: {augment: none}\n")
    chosen = ["--config", "mine.yaml", "--data.img_size=64", "--data.batch_size=2"]
    mine = training.run([*words, "--data.root", str(root), *chosen])
    assert "set for your data" not in capsys.readouterr().out
    assert mine.datamodule.img_size == 64
    assert zoo.datamodule("alpha-iou-yolo", root=root).img_size == 160, "in Python nothing is set unasked"
    assert BoxesDataModule().fitting(10) == {}


def test_grey_means_are_replaced_for_colour(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("cat", "dog"):
        (tmp_path / "own" / name).mkdir(parents=True)
        for i in range(20):
            pixels = np.full((32, 32, 3), 5 * i, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "own" / name / f"{i}.png")
    words = ["fit", "--zoo", "uav-swarm-fl", "--trainer.fast_dev_run=true", "--trainer.accelerator=cpu"]
    done = training.run([*words, "--data.root", str(tmp_path / "own"), "--data.num_clients", "2"])
    assert done.model.hparams["mean"] == [0.195] * 3
    assert "--model.mean [0.195, 0.195, 0.195]" in capsys.readouterr().out
    model = {"channels": 3, "mean": [0.286], "std": [0.353]}
    assert drop_other_channels(model, explicit=["std"]) == ["mean"]
    assert model["mean"] is None
