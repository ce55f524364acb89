"""Sets without splits, as annotation tools export them: recognised, read, and divided the same way every time."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datamodules.boxes import BoxesDataModule
from zoo.errors import BadData, BadInput


def module(root: Path, **given: Any) -> BoxesDataModule:
    return BoxesDataModule(str(root), img_size=64, **given)


def plain(tmp_path: Path) -> tuple[Path, list[Any], list[str]]:
    """The images of a miniature in one folder, with their records and class names."""
    data = module(BoxesDataModule().fake(tmp_path / "fake", "coco", images=10))
    records = data.records("train")
    root = tmp_path / "set"
    root.mkdir()
    for item in records.items:
        shutil.copy(item.path, root)
    return root, records.items, records.class_names


def xml(item: Any, names: list[str]) -> str:
    boxes = [
        f"<object><name>{names[label]}</name><bndbox><xmin>{b[0] + 1}</xmin><ymin>{b[1] + 1}</ymin><xmax>{b[2]}</xmax>"
        f"<ymax>{b[3]}</ymax></bndbox></object>"
        for b, label in zip(item.boxes.tolist(), item.labels.tolist(), strict=True)
    ]
    return f"<annotation><filename>{item.path.name}</filename>{''.join(boxes)}</annotation>"


def labelimg(root: Path, items: list[Any], names: list[str]) -> None:
    for item in items:
        (root / f"{item.path.stem}.xml").write_text(xml(item, names))


def voc_without_lists(root: Path, items: list[Any], names: list[str]) -> None:
    for folder in ("Annotations", "JPEGImages"):
        (root / folder).mkdir()
    for item in items:
        (root / item.path.name).rename(root / "JPEGImages" / item.path.name)
        (root / "Annotations" / f"{item.path.stem}.xml").write_text(xml(item, names))


def rows(item: Any) -> str:
    height, width = item.size
    lines = []
    for (x1, y1, x2, y2), label in zip(item.boxes.tolist(), item.labels.tolist(), strict=True):
        centre = f"{(x1 + x2) / 2 / width:.9f} {(y1 + y2) / 2 / height:.9f}"
        lines.append(f"{label} {centre} {(x2 - x1) / width:.9f} {(y2 - y1) / height:.9f}\n")
    return "".join(lines)


def flat_yolo(root: Path, items: list[Any], names: list[str]) -> None:
    for item in items:
        (root / f"{item.path.stem}.txt").write_text(rows(item))
    (root / "classes.txt").write_text("\n".join(names))
    (root / "README.txt").write_text("Mine.\n")


def yolo_without_splits(root: Path, items: list[Any], names: list[str]) -> None:
    for folder in ("images", "labels"):
        (root / folder).mkdir()
    for item in items:
        (root / item.path.name).rename(root / "images" / item.path.name)
        (root / "labels" / f"{item.path.stem}.txt").write_text(rows(item))
    (root / "data.yaml").write_text(json.dumps({"names": names}))


def coco(root: Path, items: list[Any], names: list[str], file: str = "_annotations.coco.json") -> None:
    annotations: list[dict[str, Any]] = []
    for number, item in enumerate(items):
        for (x1, y1, x2, y2), label in zip(item.boxes.tolist(), item.labels.tolist(), strict=True):
            about = {"id": len(annotations), "image_id": number, "category_id": label + 1}
            annotations.append(about | {"bbox": [x1, y1, x2 - x1, y2 - y1]})
    images = [{"id": i, "file_name": item.path.name} for i, item in enumerate(items)]
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(names)]
    (root / file).parent.mkdir(exist_ok=True)
    (root / file).write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))


def coco_of_cvat(root: Path, items: list[Any], names: list[str]) -> None:
    coco(root, items, names, "annotations/instances_default.json")
    (root / "images").mkdir()
    for item in items:
        (root / item.path.name).rename(root / "images" / item.path.name)


def cvat(root: Path, items: list[Any], names: list[str]) -> None:
    (root / "images").mkdir()
    parts = []
    for item in items:
        (root / item.path.name).rename(root / "images" / item.path.name)
        boxes = [
            f'<box label="{names[label]}" xtl="{b[0]}" ytl="{b[1]}" xbr="{b[2]}" ybr="{b[3]}" occluded="0"></box>'
            for b, label in zip(item.boxes.tolist(), item.labels.tolist(), strict=True)
        ]
        size = f'width="{item.size[1]}" height="{item.size[0]}"'
        parts.append(f'<image id="0" name="{item.path.name}" {size}>{"".join(boxes)}</image>')
    labels = "".join(f"<label><name>{name}</name></label>" for name in names)
    text = f"<annotations><meta><task><labels>{labels}</labels></task></meta>{''.join(parts)}</annotations>"
    (root / "annotations.xml").write_text(text)


LAYOUTS: dict[str, tuple[str, Callable[[Path, list[Any], list[str]], None]]] = {
    "LabelImg": ("voc", labelimg),
    "VOC without lists": ("voc", voc_without_lists),
    "text files beside the images": ("yolo", flat_yolo),
    "images and labels": ("yolo", yolo_without_splits),
    "one COCO file": ("coco", coco),
    "COCO of CVAT": ("coco", coco_of_cvat),
    "CVAT": ("cvat", cvat),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_sets_without_splits(layout: str, tmp_path: Path) -> None:
    kind, write = LAYOUTS[layout]
    root, items, names = plain(tmp_path)
    write(root, items, names)
    data = module(root, val_share=0.3)
    assert data.format == kind
    used = {names[label] for item in items for label in item.labels.tolist()}
    assert set(data.facts()["class_names"]) >= used
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*no test split")
        parts = {split: data.records(split) for split in ("train", "val", "test")}
    assert [len(part.items) for part in parts.values()] == [7, 3, 3]
    true = {item.path.name: item for item in items}
    both = [*parts["train"].items, *parts["val"].items]
    assert {item.path.name for item in both} == set(true)
    for item in both:
        expected = true[item.path.name]
        assert np.allclose(item.boxes, expected.boxes, atol=1e-3)
        given = [parts["train"].class_names[label] for label in item.labels.tolist()]
        assert given == [names[label] for label in expected.labels.tolist()]
    again = [item.path.name for item in module(root, val_share=0.3, seed=7).records("val").items]
    assert again == [item.path.name for item in parts["val"].items]


def test_splits_go_before_sets_without(tmp_path: Path) -> None:
    root = BoxesDataModule().fake(tmp_path, "yolo")
    (root / "notes.json").write_text('{"annotations": [], "categories": []}')
    data = module(root)
    assert data.format == "yolo"
    assert {item.path.parent.name for item in data.records("val").items} == {"val"}


def test_a_named_split_is_not_replaced(tmp_path: Path) -> None:
    root, items, names = plain(tmp_path)
    coco(root, items, names)
    with pytest.raises(BadData, match="train split in coco format"):
        module(root, format="coco", train_split="other").records("train")
    with pytest.raises(BadInput, match="val_share"):
        module(root, val_share=1.0)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('xtl="', 'xtl="x', r"image\[0\].box\[0\]: expected numbers xtl, ytl, xbr, ybr"),
        ('label="', 'label="other ', r"image\[0\].box\[0\].label: expected one of"),
        ("<box ", "<polygon ", r"image\[0\].polygon\[0\]: expected boxes, got a polygon"),
        ('name="', 'name="../../', r"image\[0\].name: expected a path inside the data folder"),
        ("<image ", "<image", "annotations.xml"),
    ],
)
def test_broken_tasks_of_cvat(old: str, new: str, told: str, tmp_path: Path) -> None:
    root, items, names = plain(tmp_path)
    cvat(root, items, names)
    text = (root / "annotations.xml").read_text().replace(old, new)
    (root / "annotations.xml").write_text(text.replace("</box>", "</polygon>") if "polygon" in new else text)
    with pytest.raises(BadData, match=told):
        module(root).split("train")
