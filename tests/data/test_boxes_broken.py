"""Broken folders of every format: each problem named with file and field, all at once."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datamodules.boxes import BoxesDataModule
from zoo.errors import BadData


def module(root: Path, **given: Any) -> BoxesDataModule:
    return BoxesDataModule(str(root), img_size=64, **given)


def fake(folder: Path, kind: str, **given: Any) -> Path:
    return BoxesDataModule().fake(folder, kind, **given)


def problems(root: Path, split: str = "train", **given: Any) -> list[str]:
    with pytest.raises(BadData) as caught:
        module(root, **given).split(split)
    for problem in caught.value.problems[:20]:
        assert problem in str(caught.value)
    return caught.value.problems


def change_json(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def edit(root: Path) -> None:
        file = root / "annotations/instances_train2017.json"
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))

    return edit


def bbox(*values: Any) -> Callable[[Path], None]:
    return change_json(lambda content: content["annotations"][0].__setitem__("bbox", list(values)))


def first_image(root: Path) -> Path:
    return sorted((root / "train2017").iterdir())[0]


def far_link(root: Path) -> None:
    outside = root.parent / "outside.jpg"
    first_image(root).rename(outside)
    (root / "train2017" / "000000001000.jpg").symlink_to(outside)


def huge(root: Path) -> None:
    header = b"P6 60000 60000 255\n"
    first_image(root).write_bytes(header + b"\0" * 100)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: first_image(root).unlink(), r"images\[0\].file_name: .*000000001000.jpg, which does not exist"),
        (lambda root: first_image(root).write_bytes(b"junk"), "000000001000.jpg: image: .*Pillow can read"),
        (lambda root: first_image(root).write_bytes(b""), "000000001000.jpg: image: .*an empty file"),
        (huge, "000000001000.jpg: image: .*megapixels"),
        (far_link, "symbolic link: .*follow_symlinks=True.*outside.jpg"),
        (bbox(40, 5, 500, 20), r"annotations\[0\].bbox: expected a box inside the image \(44 x 60 px\), got xyxy"),
        (bbox(-30, 5, 40, 20), r"annotations\[0\].bbox: expected a box inside the image"),
        (bbox(3, 5, 0, 20), r"annotations\[0\].bbox: expected a positive width and height, got 0 x 20"),
        (bbox(3, 5, 9, -4), r"annotations\[0\].bbox: expected a positive width and height, got 9 x -4"),
        (bbox(3, float("nan"), 9, 4), r"annotations\[0\].bbox: expected finite numbers"),
        (bbox(3, "5", 9, 4), r"annotations\[0\].bbox: expected \[x, y, width, height\]"),
        (bbox(3, 9, 4), r"annotations\[0\].bbox: expected \[x, y, width, height\]"),
        (
            change_json(lambda c: c["annotations"][0].update(category_id=77)),
            r"\[0\].category_id: expected one of \[1, 2",
        ),
        (
            change_json(lambda c: c["annotations"][1].update(id=1)),
            r"annotations\[1\].id: expected ids that occur once, got 1",
        ),
        (change_json(lambda c: c["images"].append(c["images"][0])), r"images\[6\].id: expected ids that occur once"),
        (change_json(lambda c: c["annotations"][0].update(image_id=5)), r"\[0\].image_id: expected the id of an image"),
        (
            change_json(lambda c: c["images"][0].update(height=9)),
            "000000001000.jpg: size: expected 44 x 9 px as annotated",
        ),
        (change_json(lambda c: c["images"][0].update(file_name="../../x.jpg")), "a path inside the data folder"),
        (
            change_json(lambda c: c["images"][0].pop("file_name")),
            r"images\[0\]: expected an object with id and file_name",
        ),
    ],
)
def test_broken_coco(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    root = fake(tmp_path / "data", "coco")
    damage(root)
    found = problems(root)
    assert any(re.search(message, problem) for problem in found), found
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert len(module(root, on_error="skip").split("train")) >= 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ('{"images": [', "expected JSON, got Expecting value: line 1"),
        ("[]", "expected a JSON object|categories"),
        ('{"categories": []}', "categories: expected a list with at least one"),
        ('{"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}', r"categories\[1\].id.*1 again"),
        ('{"categories": [{"id": 1, "name": "a"}], "images": []}', "annotations: expected a list"),
        ('{"categories": [{"id": 1, "name": "a"}], "images": [], "annotations": []}', "images: expected at least one"),
        ("\xff\xfe", "JSON"),
    ],
)
def test_wrong_json(tmp_path: Path, text: str, message: str) -> None:
    root = fake(tmp_path, "coco")
    (root / "annotations/instances_train2017.json").write_text(text, encoding="latin-1")
    with pytest.raises(BadData, match=message) as caught:
        module(root).split("train")
    assert "instances_train2017.json" in str(caught.value)


def replace_in(pattern: str, old: str, new: str) -> Callable[[Path], None]:
    def edit(root: Path) -> None:
        file = sorted(root.glob(pattern))[0]
        text = file.read_text()
        start = text.index(old)
        file.write_text(text[:start] + new + text[start + len(old) :])

    return edit


XML = "VOCdevkit/VOC2007/Annotations/*trainval_000000.xml"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (replace_in(XML, "</annotation>", ""), "trainval_000000.xml: XML: expected a VOC annotation"),
        (lambda root: sorted(root.glob(XML))[0].write_text(""), "XML: expected a VOC annotation, got an empty file"),
        (replace_in(XML, "<annotation>", '<!DOCTYPE a [<!ENTITY b "c">]><annotation>'), "entity declarations"),
        (replace_in(XML, "<name>", "<name>un"), r"object\[0\].name: expected one of aeroplane.*got 'un"),
        (replace_in(XML, "<xmin>", "<xmin>left"), r"object\[0\].bndbox.xmin: expected a number, got 'left"),
        (replace_in(XML, "xmax>", "xmux>"), "XML|xmax: expected a number, got nothing"),
        (replace_in(XML, "<xmin>", "<xmin>9"), r"object\[0\].bndbox: expected a positive width and height"),
        (lambda root: sorted(root.glob(XML))[0].unlink(), "expected an annotation file"),
        (
            lambda root: sorted(root.glob("VOCdevkit/VOC2007/JPEGImages/*trainval*"))[0].unlink(),
            "trainval.txt: 2007_trainval_000000: expected an image file",
        ),
        (
            lambda root: (root / "VOCdevkit/VOC2007/ImageSets/Main/trainval.txt").write_text("\n"),
            "trainval.txt: list: expected at least one image name, got an empty file",
        ),
    ],
)
def test_broken_voc(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    root = fake(tmp_path, "voc")
    names = module(root).facts()["class_names"]
    damage(root)
    data = module(root)
    data._names = names, list(range(20))  # as if the class list were fixed, which an unknown name contradicts
    with pytest.raises(BadData) as caught:
        data.split("train")
    assert any(re.search(message, problem) for problem in caught.value.problems), caught.value.problems


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("0 0.5 0.5 0.2", r"line 1: expected five numbers \(class cx cy w h\), got '0 0.5 0.5 0.2'"),
        ("0 0.5 0.5 0.2 wide", "line 1: expected five numbers"),
        ("0 0.5 nan 0.2 0.2", "line 1: expected five numbers"),
        ("3 0.5 0.5 0.2 0.2", r"line 1, class: expected an index in 0..2, got 3"),
        ("-1 0.5 0.5 0.2 0.2", r"line 1, class: expected an index in 0..2, got -1"),
        ("0.5 0.5 0.5 0.2 0.2", "line 1, class: expected an index"),
        ("0 20 30 10 10", "line 1: expected fractions of the image in 0..1"),
        ("0 0.95 0.5 0.4 0.2", r"line 1: expected a box inside the image \(44 x 60 px\)"),
        ("0 0.5 0.5 0.2 0", "line 1: expected a positive width and height"),
        ("0 0.5 0.5 -0.2 0.1", "line 1: expected a positive width and height"),
    ],
)
def test_broken_yolo_rows(tmp_path: Path, row: str, message: str) -> None:
    root = fake(tmp_path, "yolo")
    (root / "labels/train/000000.txt").write_text(row + "\n0 0.5 0.5 0.2 0.2\n")
    found = problems(root)
    assert len(found) == 1
    assert re.search(r"labels/train/000000.txt: " + message, found[0]), found
    data = module(root, on_error="skip")
    with pytest.warns(UserWarning, match="left out 1 broken"):
        found_records = data.records("train")
    assert len(found_records.items[0].boxes) == 1


def test_yolo_folders_that_do_not_match(tmp_path: Path) -> None:
    root = fake(tmp_path, "yolo")
    (root / "labels/train/extra.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    assert "expected an image of this name" in problems(root)[0]
    for file in (root / "labels/train").iterdir():
        file.unlink()
    assert "a text file for at least one image" in problems(root)[0]
    (root / "data.yaml").write_text("names: [a, b\n")
    with pytest.raises(BadData, match=r"data.yaml: expected YAML"):
        module(root).facts()


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    root = fake(tmp_path, "coco", images=30)
    for file in sorted((root / "train2017").iterdir())[:25]:
        file.unlink()
    first_image(root).write_bytes(b"junk")
    with pytest.raises(BadData, match=r"26 problems(.|\n)*and 6 more(.|\n)*on_error") as caught:
        module(root).split("train")
    assert len(caught.value.problems) == 26


def test_small_overruns_are_cut_and_clip_cuts_large_ones(tmp_path: Path) -> None:
    root = fake(tmp_path, "coco")
    bbox(-1.5, 5, 30, 56)(root)
    boxes = module(root).records("train").items[0].boxes
    assert boxes[0].tolist() == [0.0, 5.0, 28.5, 60.0]
    bbox(-9, 5, 30, 90)(root)
    assert module(root, on_error="clip").records("train").items[0].boxes[0].tolist() == [0.0, 5.0, 21.0, 60.0]
    bbox(5, 5, 1, 20)(root)
    with pytest.warns(UserWarning, match="left out 1 boxes with a side under 2 px"):
        assert len(module(root).records("train").items[0].boxes) == len(boxes) - 1
    assert len(module(root, min_side=0.5).records("train").items[0].boxes) == len(boxes)


def test_sizes_that_are_not_stated_are_read_from_the_image(tmp_path: Path) -> None:
    root = fake(tmp_path, "coco")
    change_json(lambda content: content["images"][0].pop("width"))(root)
    bbox(40, 5, 500, 20)(root)
    assert "a box inside the image (44 x 60 px)" in problems(root)[0]


def test_truncated_picture_is_named_when_it_is_read(tmp_path: Path) -> None:
    root = fake(tmp_path, "coco")
    path = first_image(root)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 44, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(BadData, match=r"000000001000.jpg: image: .*cut short"):
        module(root).split("train")[0]


def test_links_inside_the_folder_are_fine(tmp_path: Path) -> None:
    root = fake(tmp_path / "data", "coco")
    path = first_image(root)
    path.rename(root / "kept.jpg")
    path.symlink_to(os.path.join("..", "kept.jpg"))
    assert len(module(root).split("train")) == 6
    path.unlink()
    (root / "kept.jpg").rename(tmp_path / "kept.jpg")
    path.symlink_to(tmp_path / "kept.jpg")
    assert len(module(root, follow_symlinks=True).split("train")) == 6


def boxes_of(change: Callable[[list[float], int, int], list[float] | None]) -> Callable[[dict[str, Any]], None]:
    """Every box is another one, by the box and the width and height of its image."""

    def edit(content: dict[str, Any]) -> None:
        sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
        kept = []
        for one in content["annotations"]:
            bbox = change(one["bbox"], *sizes[one["image_id"]])
            kept += [one | {"bbox": bbox}] if bbox else []
        content["annotations"] = kept

    return edit


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda b, w, h: [b[0] / w, b[1] / h, b[2] / w, b[3] / h], "all within the first pixel: are these fractions"),
        (lambda b, w, h: None, "annotations: expected at least one box to train on, got none"),
        (lambda b, w, h: [b[0], b[1], 1.0, 1.5], r"at least one box to train on, got \d+ with a side under 2 px"),
        (
            lambda b, w, h: [w * 0.6, h * 0.6, w * 0.9, h * 0.9],
            r"boxes as x, y, width, height, got \d+ boxes outside of their image, which all fit as corners",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:train. left out")
def test_no_box_to_train_on_is_a_problem(tmp_path: Path, change: Any, told: str) -> None:
    root = fake(tmp_path / "data", "coco")
    change_json(boxes_of(change))(root)
    found = problems(root)
    assert any(re.search(told, problem) for problem in found), found


def test_boxes_of_each_class_are_told(tmp_path: Path) -> None:
    root = fake(tmp_path / "data", "coco")
    data = module(root)
    said = data.summary("train")
    boxes, sides = (next(line for line in said if line.startswith(start)) for start in ("boxes:", "median side"))
    counts = [int(part.split()[-1]) for part in boxes.removeprefix("boxes: ").split(", ")]
    assert sum(counts) == sum(len(item.boxes) for item in data.records("train").items) > 0
    assert len(counts) == data.facts()["num_classes"]
    assert re.fullmatch(r"median side of a box: \d+ of 64 input pixels.*", sides)
    change_json(boxes_of(lambda b, w, h: [b[0], b[1], 4.0, 4.0]))(root)
    assert any("A larger img_size" in line for line in module(root).summary("train"))
