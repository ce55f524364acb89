"""Crowds, difficult objects and tiny boxes are neither right nor wrong to detect, as pycocotools scores them."""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.boxes import BoxesDataModule
from zoo.base.detector import coco_results, true_boxes
from zoo.nn.metrics import MAP


def coco(root: Path, images: int = 6, seed: int = 0) -> Path:
    """A set with objects of all sizes, some of which are crowds or tiny, and stated areas."""
    rng = np.random.default_rng(seed)
    content: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": [], "categories": []}
    content["categories"] = [{"id": 3, "name": "a"}, {"id": 7, "name": "b"}]
    for number in range(images):
        width, height = (int(side) for side in rng.integers(150, 260, 2))
        name = f"{number}.jpg"
        for split in ("train2017", "val2017"):
            (root / split).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (width, height)).save(root / split / name)
        content["images"].append({"id": number, "file_name": name, "width": width, "height": height})
        for _ in range(int(rng.integers(2, 8))):
            w, h = (float(rng.choice([1.0, 12.0, 45.0, 120.0]) * rng.uniform(0.8, 1.1)) for _ in range(2))
            x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
            about = {"id": len(content["annotations"]) + 1, "image_id": number, "category_id": int(rng.choice([3, 7]))}
            about |= {"iscrowd": int(rng.random() < 0.25), "bbox": [x, y, w, h], "area": w * h * rng.uniform(0.3, 1)}
            content["annotations"].append(about)
    (root / "annotations").mkdir()
    for split in ("train", "val"):
        (root / f"annotations/instances_{split}2017.json").write_text(json.dumps(content))
    return root


def detections(batch: dict[str, Any], seed: int) -> list[dict[str, torch.Tensor]]:
    """Boxes near the true and the ignored ones, and some of no object."""
    torch.manual_seed(seed)
    found = []
    for i in range(len(batch["index"])):
        true = true_boxes(batch, i)
        boxes = torch.cat([true["boxes"], true["boxes"]])
        sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
        boxes = boxes + sides * 0.12 * torch.randn_like(boxes).clamp(-2, 2)
        scores = torch.rand(len(boxes))
        order = scores.argsort(descending=True)
        labels = torch.cat([true["labels"], true["labels"]])[order]
        found.append({"boxes": boxes[order], "scores": scores[order], "labels": labels})
    return found


def by_pycocotools(file: Path, rows: list[dict[str, Any]], tiny: float) -> dict[str, float]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    content = json.loads(file.read_text())
    for one in content["annotations"]:
        if min(one["bbox"][2:]) < tiny:
            one["iscrowd"] = 1
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = content
        truth.createIndex()
        judge = COCOeval(truth, truth.loadRes(rows), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    names = ("map", "map_50", "map_75", "map_small", "map_medium", "map_large")
    return dict(zip(names, judge.stats[:6].tolist(), strict=True))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_scores_equal_pycocotools(seed: int, tmp_path: Path) -> None:
    root = coco(tmp_path / "data", seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = BoxesDataModule(str(root), img_size=320, batch_size=4, min_side=2.0)
        data.prepare_data()
        metric, rows = MAP(), []
        for batch in data.val_dataloader():
            found = detections(batch, seed)
            metric.update(batch["index"], found, [true_boxes(batch, i) for i in range(len(found))])
            rows += coco_results(found, batch["image_id"], data.facts()["category_ids"])
    ours = metric.compute()
    theirs = by_pycocotools(root / "annotations/instances_val2017.json", rows, 2.0)
    assert {key: ours.get(key, -1.0) for key in theirs} == pytest.approx(theirs, abs=2e-6)
    assert 0.1 < ours["map"] < 0.99


def test_a_detection_in_a_crowd_is_no_mistake(tmp_path: Path) -> None:
    root = coco(tmp_path / "data", images=1)
    file = root / "annotations/instances_val2017.json"
    content = json.loads(file.read_text())
    content["annotations"] = [
        {"id": 1, "image_id": 0, "category_id": 3, "bbox": [10, 10, 30, 30]},
        {"id": 2, "image_id": 0, "category_id": 3, "bbox": [60, 60, 80, 80], "iscrowd": 1},
    ]
    file.write_text(json.dumps(content))
    batch = next(iter(BoxesDataModule(str(root), img_size=160).val_dataloader()))
    assert [len(batch[key][0]) for key in ("boxes", "ignored", "ignored_labels", "area")] == [1, 1, 1, 1]
    found = {"boxes": [[70.0, 70, 90, 90], [10, 10, 40, 40]], "scores": [0.9, 0.8]}
    metric = MAP()
    detected = {**{k: torch.tensor(v) for k, v in found.items()}, "labels": torch.tensor([0, 0])}
    metric.update(batch["index"], [detected], [true_boxes(batch, 0)])
    assert metric.compute()["map"] == pytest.approx(1.0)


def test_difficult_objects(tmp_path: Path) -> None:
    root = BoxesDataModule().fake(tmp_path, "voc")
    for path in root.rglob("*.xml"):
        path.write_text(path.read_text().replace("<difficult>0", "<difficult>1", 1))
    easy: Any = BoxesDataModule(str(root), img_size=160).split("val")
    whole: Any = BoxesDataModule(str(root), img_size=160, voc_difficult=True).split("val")
    ignored = sum(len(easy[i]["ignored"]) for i in range(len(easy)))
    assert ignored > 0
    assert sum(len(whole[i]["ignored"]) for i in range(len(whole))) == 0
    assert sum(len(whole[i]["boxes"]) - len(easy[i]["boxes"]) for i in range(len(easy))) == ignored


def test_chosen_classes_choose_regions_too(tmp_path: Path) -> None:
    root = coco(tmp_path / "data")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        items = BoxesDataModule(str(root), classes=["b"]).records("val").items
    whole = json.loads((root / "annotations/instances_val2017.json").read_text())["annotations"]
    regions = [a for a in whole if a["category_id"] == 7 and (a["iscrowd"] or min(a["bbox"][2:]) < 2)]
    assert sum(len(item.ignored) for item in items) == len(regions) > 0
    assert all(set(item.ignored_labels.tolist()) <= {0} and len(item.areas) == len(item.boxes) for item in items)
    stated = [a["area"] for a in whole if a["category_id"] == 7 and a not in regions]
    assert sorted(np.concatenate([item.areas for item in items]).tolist()) == pytest.approx(sorted(stated))
