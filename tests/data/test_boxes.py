"""BoxesDataModule: formats, batches, noise, broken files."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.boxes import BoxesDataModule
from datamodules.boxes.labels import draw_subset, jitter, noisy_boxes, parse_noise
from datamodules.boxes.records import read_image
from zoo.errors import BadData, BadInput, RepositoryNotFound
from zoo.inputs.geometry import to_original

FORMATS = ("coco", "voc", "yolo")
SMALL = {"img_size": 64, "train_size": 8, "val_size": 4, "test_size": 4, "batch_size": 4}


def module(root: Path | None = None, **given: Any) -> BoxesDataModule:
    return BoxesDataModule(None if root is None else str(root), **{**SMALL, **given})


def fake(folder: Path, kind: str, **given: Any) -> Path:
    return module().fake(folder, kind, **given)


# Formats ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*FORMATS, "digit-scenes"])
def test_every_format_gives_the_same_batches(tmp_path: Path, kind: str) -> None:
    root = None if kind == "digit-scenes" else fake(tmp_path, kind)
    data = module(root)
    data.prepare_data()
    facts = data.facts()
    assert data.format == kind
    assert facts["num_classes"] == len(facts["class_names"]) == len(facts["category_ids"])
    assert facts["img_size"] == 64
    assert facts["channels"] == 3
    json.dumps(dict(data.hparams))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*no test split")
        loaders = data.train_dataloader(), data.val_dataloader(), data.predict_dataloader()
    for loader in loaders:
        batch = next(iter(loader))
        known = ["index", "image", "boxes", "labels", "scale", "pad", "size", "image_id"]
        assert list(batch) == [*known, "area", "ignored", "ignored_labels"]
        assert batch["image"].shape == (4, 3, 64, 64)
        assert batch["image"].dtype == torch.float32
        assert 0 <= batch["image"].min() <= batch["image"].max() <= 1
        assert batch["index"].dtype == batch["size"].dtype == torch.int64
        assert batch["size"].shape == batch["pad"].shape == (4, 2)
        assert batch["scale"].dtype == batch["pad"].dtype == torch.float32
        for boxes, labels in zip(batch["boxes"], batch["labels"], strict=True):
            assert boxes.dtype == torch.float32
            assert labels.dtype == torch.int64
            assert boxes.shape == (len(labels), 4)
            assert (boxes >= 0).all()
            assert (boxes <= 64).all()
            assert ((labels >= 0) & (labels < facts["num_classes"])).all()


@pytest.mark.parametrize("kind", FORMATS)
def test_boxes_fit_the_pixels_and_map_back(tmp_path: Path, kind: str) -> None:
    data = module(fake(tmp_path, kind, images=4))
    dataset = data.dataset("train")
    assert any(len(item["labels"]) == 0 for item in map(dataset.__getitem__, range(len(dataset))))
    checked = 0
    for index in range(len(dataset)):
        item = dataset[index]
        original, labels = dataset.targets(index)
        back = to_original(item["boxes"], item["scale"], item["pad"], item["size"])
        np.testing.assert_allclose(back, original, atol=1e-3)
        assert labels.tolist() == item["labels"].tolist()
        if len(original) == 1:  # one flat rectangle on noise: its pixels are all alike, those around are not
            image = dataset.source.image(index).astype(int)
            x1, y1, x2, y2 = np.rint(original[0]).astype(int)
            assert image[y1 + 2 : y2 - 2, x1 + 2 : x2 - 2].reshape(-1, 3).std(0).max() < 6
            checked += 1
    assert checked


def test_coco_ids_with_gaps_crowds_and_other_layouts(tmp_path: Path) -> None:
    root = fake(tmp_path / "a", "coco")
    file = root / "annotations/instances_train2017.json"
    content = json.loads(file.read_text())
    content["categories"] = [{"id": 90, "name": "cup"}, {"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}]
    for number, entry in enumerate(content["annotations"]):
        entry["category_id"] = (90, 7, 3)[number % 3]
    content["annotations"][0]["iscrowd"] = 1
    file.write_text(json.dumps(content))
    data = module(root)
    assert data.facts()["class_names"] == ["dog", "cat", "cup"]
    assert data.facts()["category_ids"] == [3, 7, 90]
    items = data.records("train").items
    assert sum(len(item.labels) for item in items) == len(content["annotations"]) - 1
    flat = tmp_path / "flat"
    shutil.copytree(root / "train2017", flat / "train")
    (flat / "train/_annotations.coco.json").write_text(json.dumps(content))
    assert len(module(flat).split("train")) == len(data.split("train"))


def test_voc_years_lists_offsets_and_difficult(tmp_path: Path) -> None:
    root = fake(tmp_path, "voc", images=3)
    data = module(root)
    assert data.facts()["num_classes"] == 20
    assert len(data.split("train")) == 6
    assert len(data.split("val")) == len(data.split("test")) == 3
    assert len(module(root, train_split="2007/trainval").split("train")) == 3
    assert len(module(root / "VOCdevkit/VOC2007", train_split="trainval+test").split("train")) == 6
    with pytest.raises(BadData, match=r"no list '2007/train'.*2007/test, 2007/trainval"):
        module(root, train_split="2007/train").split("train")
    file = next(p for p in sorted((root / "VOCdevkit/VOC2007/Annotations").iterdir()) if "trainval" in p.name)
    one = module(root).records("train").items[0].boxes
    zero = module(root, voc_one_based=False).records("train").items[0].boxes
    np.testing.assert_allclose(zero - one, np.tile([1.0, 1, 0, 0], (len(one), 1)))
    file.write_text(file.read_text().replace("<difficult>0", "<difficult>1"))
    assert len(module(root).records("train").items[0].boxes) == 0
    assert len(module(root, voc_difficult=True).records("train").items[0].boxes) == len(one)


def test_yolo_names_and_layouts(tmp_path: Path) -> None:
    root = fake(tmp_path / "a", "yolo")
    assert module(root).facts()["class_names"] == ["person", "bicycle", "car"]
    (root / "data.yaml").unlink()
    (root / "classes.txt").write_text("a\nb\nc\nd\n")
    assert module(root).facts()["class_names"] == ["a", "b", "c", "d"]
    (root / "classes.txt").unlink()
    assert module(root).facts()["class_names"] == ["0", "1", "2"]
    other = tmp_path / "b"
    for split in ("train", "valid"):
        for kind in ("images", "labels"):
            shutil.copytree(root / kind / split.replace("valid", "val"), other / split / kind)
    assert len(module(other).split("val")) == 6


def test_missing_test_split_uses_val_and_says_so(tmp_path: Path) -> None:
    data = module(fake(tmp_path, "coco"))
    with pytest.warns(UserWarning, match="no test split.*val"):
        assert len(data.split("test")) == len(data.split("val"))


def test_unknown_layout_says_what_it_looked_for(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    with pytest.raises(BadData, match=r"instances_train2017.json.*VOCdevkit.*labels/train.*There is: pictures"):
        module(tmp_path).facts()
    with pytest.raises(RepositoryNotFound, match="expected a folder"):
        module(tmp_path / "nowhere").facts()


def test_predict_takes_a_folder_of_pictures(tmp_path: Path) -> None:
    for number, shape in enumerate([(20, 30, 3), (50, 40, 3)]):
        Image.fromarray(np.full(shape, 99, np.uint8)).save(tmp_path / f"{number}.png")
    (tmp_path / "notes.txt").write_text("not a picture")
    batch = next(iter(module(predict_root=str(tmp_path)).predict_dataloader()))
    assert batch["image_id"] == ["0.png", "1.png"]
    assert batch["size"].tolist() == [[20, 30], [50, 40]]


def test_class_list(tmp_path: Path) -> None:
    root = fake(tmp_path, "coco")
    every = module(root).records("train").items
    data = module(root, classes=["car", "person"])
    assert data.facts()["class_names"] == ["car", "person"]
    assert data.facts()["category_ids"] == [3, 1]
    some = data.records("train").items
    assert len(some) == len(every)
    assert sum((item.labels == 2).sum() for item in every) == sum((item.labels == 0).sum() for item in some)
    with pytest.raises(BadInput, match="Did you mean 'bicycle'"):
        module(root, classes=["bicycel"]).facts()
    assert module(classes=[3, 5]).facts()["class_names"] == ["3", "5"]


def test_arguments_are_checked_at_once() -> None:
    for given, message in (
        ({"format": "cocoa"}, "Did you mean 'coco'"),
        ({"format": "coco"}, "need root"),
        ({"img_size": 100}, "Use 96 or 128"),
        ({"subset": 0.0}, "fraction"),
        ({"label_noise": "gauss:1"}, "uniform:E"),
        ({"label_noise": "uniform:0.9"}, "0.5"),
        ({"augment": "lihgt"}, "Did you mean 'light'"),
        ({"flip": 2.0}, "flip: expected a number in 0..1"),
        ({"hsv": [0.1]}, "three numbers"),
        ({"on_error": "ignore"}, "raise, clip, skip"),
        ({"train_size": 0}, "train_size"),
    ):
        with pytest.raises(BadInput, match=message):
            module(**given)  # type: ignore[arg-type]


# Pictures of every kind -------------------------------------------------------------------------------------------


def test_every_kind_of_picture_becomes_rgb(tmp_path: Path) -> None:
    grey = np.tile(np.linspace(0, 255, 40, dtype=np.uint8), (30, 1))
    wide = grey.astype(np.uint16) * 257
    pictures = {
        "L": Image.fromarray(grey),
        "I;16": Image.fromarray(wide),
        "P": Image.fromarray(np.stack([grey] * 3, -1)).quantize(256),
        "LA": Image.fromarray(grey).convert("LA"),
        "RGBA": Image.fromarray(grey).convert("RGBA"),
        "1": Image.fromarray(grey).convert("1"),
    }
    for name, picture in pictures.items():
        path = tmp_path / f"{name.replace(';', '')}.png"
        picture.save(path)
        pixels = read_image(path)
        assert pixels.shape == (30, 40, 3), name
        assert pixels.dtype == np.uint8, name
        if name != "1":
            assert np.abs(pixels[..., 0].astype(int) - grey).max() <= 2, name


def test_exif_orientation(tmp_path: Path) -> None:
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, :10] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.jpg"
    Image.fromarray(pixels).save(path, exif=exif, quality=100)
    turned = read_image(path)
    assert turned.shape == (40, 20, 3)
    assert turned[:8].min() > 200
    assert read_image(path, (40, 20)).shape == (40, 20, 3)
    assert read_image(path, (20, 40)).shape == (20, 40, 3)  # annotated on the raw pixels: leave them as they are


# Noise, subsets, epochs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "expected"), [(0.1, 0.811), (0.2, 0.663), (0.3, 0.545), (0.4, 0.448)])
def test_uniform_noise_has_the_published_mean_iou(rate: float, expected: float) -> None:
    rng = np.random.default_rng(0)
    clean = np.tile(np.array([[100.0, 50.0, 140.0, 130.0]]), (40_000, 1))
    noisy = jitter(clean, rate, rng)
    low, high = np.maximum(clean[:, :2], noisy[:, :2]), np.minimum(clean[:, 2:], noisy[:, 2:])
    inter = (high - low).clip(0).prod(1)
    area = (noisy[:, 2:] - noisy[:, :2]).prod(1)
    assert (inter / (area + 3200 - inter)).mean() == pytest.approx(expected, abs=0.003)


def test_mixture_noise_and_clipping() -> None:
    rng = np.random.default_rng(0)
    clean = np.tile(np.array([[0.0, 0.0, 40.0, 40.0]]), (4000, 1))
    noisy = noisy_boxes(clean, ("mixture", 0.4), (60, 50), rng)
    assert noisy.min() >= 0
    assert noisy[:, 2].max() <= 50
    assert noisy[:, 3].max() <= 60
    sides = (noisy[:, 2:] - noisy[:, :2]).min(1)
    assert (sides > 0).all()
    far = np.abs(noisy[:, 2:] - 40).max(1) > 40 * 0.05 * 1.5 + 1e-3
    assert 0.25 < far.mean() < 0.4  # the large rate in two fifths, most of which show it
    assert parse_noise("mixture:0.4") == ("mixture", 0.4)
    assert parse_noise(None) is None


def test_noise_is_drawn_once_and_only_for_training() -> None:
    plain, noisy = module(), module(label_noise="uniform:0.3")
    train = noisy.dataset("train")
    clean = plain.dataset("train")
    first = [train.targets(index)[0] for index in range(len(train))]
    train.set_epoch(5)
    assert all(np.array_equal(train.targets(index)[0], first[index]) for index in (3, 1, 0, 2))
    assert not any(np.array_equal(first[index], clean.targets(index)[0]) for index in range(len(train)))
    other = module(label_noise="uniform:0.3", seed=1).dataset("train")
    assert not np.array_equal(other.targets(0)[0], first[0])
    for split in ("val", "test"):
        for index in range(4):
            assert np.array_equal(noisy.dataset(split).targets(index)[0], plain.dataset(split).targets(index)[0])


def test_subset_is_nested_seeded_and_keeps_the_noise() -> None:
    assert draw_subset(100, 0.25, 3).tolist() == sorted(draw_subset(100, 0.25, 3).tolist())
    assert set(draw_subset(100, 0.25, 3)) < set(draw_subset(100, 0.5, 3))
    assert set(draw_subset(100, 0.25, 3)) != set(draw_subset(100, 0.25, 4))
    part = module(subset=0.5, label_noise="uniform:0.2")
    whole = module(label_noise="uniform:0.2").dataset("train")
    dataset = part.dataset("train")
    assert len(dataset) == 4
    assert [dataset[index]["index"] for index in range(4)] == [0, 1, 2, 3]
    for index, number in enumerate(dataset.chosen):
        assert np.array_equal(dataset.targets(index)[0], whole.targets(int(number))[0])
    assert len(part.dataset("val")) == 4


def test_seed_leaves_the_embedded_scenes_alone() -> None:
    first, second, third = (
        module(**given).dataset("test")[0]["image"] for given in ({}, {"seed": 9}, {"scene_seed": 9})
    )
    assert np.array_equal(first, second)
    assert not np.array_equal(first, third)


def test_workers_cache_and_order_change_nothing(tmp_path: Path) -> None:
    root = fake(tmp_path, "coco")
    given = {"augment": "full", "degrees": 5.0, "flip_vertical": 0.3, "multi_scale": 1, "seed": 4}
    batches = []
    for workers, cache in ((0, "ram"), (0, "none"), (2, "auto")):
        data = module(root, num_workers=workers, cache=cache, **given)
        loader = data.train_dataloader()
        loader.sampler.set_epoch(2)
        batches.append(list(loader))
    for other in batches[1:]:
        for a, b in zip(batches[0], other, strict=True):
            assert torch.equal(a["image"], b["image"])
            assert all(torch.equal(x, y) for x, y in zip(a["boxes"], b["boxes"], strict=True))
    dataset = module(root, **given).dataset("train")
    item = dataset[3]["image"]
    dataset.set_epoch(1)
    assert not np.array_equal(item, dataset[3]["image"])
    dataset.set_epoch(0)
    assert np.array_equal(item, dataset[3]["image"])
