"""Class names, lists and folders of boxes as tools and people write them: nothing is lost without a word."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from datamodules.boxes import BoxesDataModule
from zoo.errors import BadData, ZooError
from zoo.safe_yaml import load_yaml


def module(root: Path, **given: Any) -> BoxesDataModule:
    return BoxesDataModule(str(root), img_size=64, **given)


def fake(folder: Path, kind: str, **given: Any) -> Path:
    return BoxesDataModule().fake(folder, kind, **given)


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (60, 44), (90, 120, 30)).save(path)


# YOLO -------------------------------------------------------------------------------------------------------------


def test_pictures_in_folders_below_a_split(tmp_path: Path) -> None:
    for name in ("top", "s1/a", "s2/a", ".cache/x"):
        picture(tmp_path / f"images/train/{name}.png")
        label = tmp_path / f"labels/train/{name}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "classes.txt").write_text("thing\n")
    split = module(tmp_path).split("train")
    assert [split[i]["image_id"] for i in range(len(split))] == ["top", "s1/a", "s2/a"]  # type: ignore[arg-type]
    assert all(len(split[i]["boxes"]) == 1 for i in range(3))
    (tmp_path / "images/train/s1/a.png").unlink()
    with pytest.raises(BadData, match=r"labels/train/s1/a\.txt: image: expected an image of this name"):
        module(tmp_path).split("train")


def test_pictures_to_predict_in_folders(tmp_path: Path) -> None:
    root = fake(tmp_path / "data", "yolo")
    for name in ("a.png", "deep/b.png"):
        picture(tmp_path / "new" / name)
    split: Any = module(root, predict_root=str(tmp_path / "new")).split("predict")
    assert [split[i]["image_id"] for i in range(len(split))] == ["a.png", "deep/b.png"]


@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16"])
def test_class_lists_in_any_encoding(coding: str, tmp_path: Path) -> None:
    root = fake(tmp_path, "yolo")
    for path in root.glob("*.yaml"):
        path.unlink()
    (root / "classes.txt").write_text("Kätzchen\nb\nc\nd\ne\nf\ng\nh\ni\nj\n", encoding=coding)
    assert module(root).facts()["class_names"][:2] == ["Kätzchen", "b"]


def test_class_lists_in_other_bytes_are_named(tmp_path: Path) -> None:
    root = fake(tmp_path, "yolo")
    for path in root.glob("*.yaml"):
        path.unlink()
    (root / "classes.txt").write_bytes("Kätzchen\n".encode("latin-1"))
    with pytest.raises(BadData, match=r"classes\.txt: expected text in UTF-8, got the byte 0xe4 in line 1"):
        module(root).facts()


@pytest.mark.parametrize(
    ("file", "text", "match"),
    [
        (
            "classes.txt",
            "cat\ndog\ncat\n",
            r"classes\.txt: expected distinct .* got 'cat' for the classes 0 and 2",
        ),
        ("data.yaml", "names: [cat, cat]\n", r"data\.yaml: expected distinct class names"),
        ("data.yaml", "names: {0: cat, 1: ''}\n", r"data\.yaml: expected a name for each class, got none for class 1"),
        ("classes.txt", "cat\n\ndog\n", r"classes\.txt: expected a name for each class, got none for class 1"),
        ("classes.txt", "\ncat\ndog\n", r"got none for class 0"),
    ],
)
def test_each_label_has_a_name_of_its_own(file: str, text: str, match: str, tmp_path: Path) -> None:
    """The place of a name is its label: one that is left out or taken for another moves all others."""
    root = fake(tmp_path, "yolo")
    for path in root.glob("*.yaml"):
        path.unlink()
    (root / file).write_text(text)
    with pytest.raises(BadData, match=match):
        module(root).facts()


@pytest.mark.parametrize("names", ["[no, yes, null, 007, 1.0, ~]", "{0: no, 1: yes, 2: null, 3: 007, 4: 1.0, 5: ~}"])
def test_names_are_the_text_they_are(names: str, tmp_path: Path) -> None:
    root = fake(tmp_path, "yolo")
    (root / "data.yaml").write_text(f"names: {names}\n")
    assert module(root).facts()["class_names"] == ["no", "yes", "null", "007", "1.0", "~"]


@pytest.mark.parametrize(
    "names", ["{0: a, x: b}", "{0: a, 2: b}", "[[a], b]", "{}", "5", "!!bool maybe", "!!timestamp x"]
)
def test_names_that_are_none(names: str, tmp_path: Path) -> None:
    root = fake(tmp_path, "yolo")
    (root / "data.yaml").write_text(f"names: {names}\n")
    with pytest.raises(ZooError, match=r"data\.yaml"):
        module(root).facts()


@pytest.mark.parametrize(
    "text",
    ["!!bool maybe", "!!timestamp x", "0x" + "f" * 5000, "? !!set {a}\n: b", "!!int x", "!!float x", "!!binary é"],
)
def test_yaml_values_that_are_none(text: str) -> None:
    with pytest.raises(ZooError, match="YAML text"):
        load_yaml(text)


# COCO -------------------------------------------------------------------------------------------------------------


def edit(root: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    for file in (root / "annotations").iterdir():
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))


def test_categories_of_one_name_are_one_class(tmp_path: Path) -> None:
    """Roboflow lists the name of the set as category 0, which often is that of the only class."""
    root = fake(tmp_path, "coco")
    first = module(root).facts()["class_names"][0]
    edit(root, lambda content: content["categories"].append({"id": 99, "name": first}))
    edit(root, lambda content: content["annotations"][0].update(category_id=99))
    with pytest.warns(UserWarning, match=f"categories 1, 99 are all called {first!r}: taken as one class"):
        facts = module(root).facts()
    assert facts["class_names"].count(first) == 1
    assert facts["category_ids"][facts["class_names"].index(first)] == 99
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        records = module(root, classes=[first]).records("train")
    assert {int(label) for item in records.items for label in item.labels} == {0}


BROKEN: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a list as the id of an image": (lambda c: c["images"][0].update(id=[]), r"images\[0\]\.id"),
    "a list as the id of a category": (lambda c: c["annotations"][0].update(category_id=[]), "category_id"),
    "a giant width": (lambda c: c["images"][0].update(width=10**400), "size|width|image"),
    "a giant number": (lambda c: c["annotations"][0].update(bbox=[0, 0, 10**400, 5]), "bbox"),
    "a giant name": (lambda c: c["images"][0].update(file_name="x" * 5000), r"images\[0\]\.file_name"),
    "a name with a zero byte": (lambda c: c["images"][0].update(file_name="a\0b/c\0.jpg"), r"images\[0\]\.file_name"),
    "half a character": (lambda c: c["images"][0].update(file_name="a\ud800/c\ud800.jpg"), r"images\[0\]\.file_name"),
    "half a character as an id": (lambda c: c["categories"].append({"id": "\ud800", "name": 3}), r"categories\[\d+\]"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_values_of_other_kinds(case: str, tmp_path: Path) -> None:
    change, told = BROKEN[case]
    root = fake(tmp_path, "coco")
    edit(root, change)
    with pytest.raises(BadData, match=told) as error:
        module(root).split("train")
    str(error.value).encode()  # it can be printed


TEXTS = {
    "deep": "[" * 200_000,
    "deep categories": '{"images": [], "categories": ' + "[" * 200_000,
    "balanced": '{"categories": [{"id": 1, "name": "a", "x": ' + "[" * 900 + "]" * 900 + "}]}",
    "many digits": '{"categories": [{"id": 1%s, "name": "a"}]}' % ("0" * 4400),
    "no text": "\x80\x81",
}  # fmt: skip


@pytest.mark.parametrize("case", TEXTS)
def test_json_without_end(case: str, tmp_path: Path) -> None:
    root = fake(tmp_path, "coco")
    (root / "annotations/instances_train2017.json").write_text(TEXTS[case], encoding="latin-1")
    with pytest.raises(BadData, match=r"instances_train2017\.json") as caught:
        module(root).split("train")
    assert all("instances_train2017.json" in problem for problem in caught.value.problems), "what `data check` shows"


# VOC --------------------------------------------------------------------------------------------------------------


def voc(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A flat set, its list of training images, and the annotation of the first of them."""
    root = fake(tmp_path / "fake", "voc")
    place = next(root.rglob("ImageSets")).parent
    flat = tmp_path / "set"
    place.rename(flat)
    listed = flat / "ImageSets/Main/train.txt"
    next(listed.parent.glob("trainval.txt")).rename(listed)
    return flat, listed, flat / f"Annotations/{listed.read_text().split()[0]}.xml"


def renamed(file: Path, name: str) -> str:
    text = file.read_text()
    old = text.partition("<name>")[2].partition("</name>")[0]
    return text.replace(f"<name>{old}</name>", f"<name>{name}</name>")


NAMES = {
    "R&amp;D": "R&D",
    "<![CDATA[a < b]]>": "a < b",
    "<!-- cat -->dog": "dog",
    " a\n  b ": "a b",
    "château": "château",
}


@pytest.mark.parametrize("written", NAMES)
@pytest.mark.parametrize("coding", ["utf-8", "utf-16", "gb18030"])
def test_names_are_those_of_the_parser(written: str, coding: str, tmp_path: Path) -> None:
    root, _, file = voc(tmp_path)
    text = f'<?xml version="1.0" encoding="{coding}"?>\n' + renamed(file, written)
    file.write_bytes(text.encode(coding))
    assert NAMES[written] in module(root).facts()["class_names"]
    names = module(root).facts()["class_names"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        items = module(root, on_error="skip", voc_difficult=True).records("train").items
    assert names.index(NAMES[written]) in items[0].labels.tolist()


def test_tags_in_upper_case(tmp_path: Path) -> None:
    root, _, file = voc(tmp_path)
    before = module(root).records("train").items[0].boxes
    text = file.read_text()
    for tag in ("object", "name", "bndbox", "xmin", "size", "width"):
        text = text.replace(f"<{tag}>", f"<{tag.upper()}>").replace(f"</{tag}>", f"</{tag.upper()}>")
    file.write_text(text)
    assert (module(root).records("train").items[0].boxes == before).all()


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", ".jpg\n"),
        lambda text: text.replace("\n", " 1\n"),
        lambda text: text.replace("\n", ".jpg  -1\n"),
        lambda text: "\ufeff" + text.replace("\n", "\r\n"),
    ],
)
@pytest.mark.parametrize("coding", ["utf-8", "utf-16"])
def test_lists_as_people_write_them(change: Callable[[str], str], coding: str, tmp_path: Path) -> None:
    root, listed, _ = voc(tmp_path)
    before = [item.image_id for item in module(root).records("train").items]
    listed.write_bytes(change(listed.read_text()).removeprefix("\ufeff" if coding == "utf-16" else "").encode(coding))
    assert [item.image_id for item in module(root).records("train").items] == before


def test_names_with_spaces_in_a_list(tmp_path: Path) -> None:
    root, listed, file = voc(tmp_path)
    stem = file.stem
    for path in (file, next((root / "JPEGImages").glob(f"{stem}.*"))):
        path.rename(path.with_name(f"my {stem} 1{path.suffix}"))
    listed.write_text(f"my {stem} 1\n")
    assert [item.image_id for item in module(root).records("train").items] == [f"my {stem} 1"]


def test_lists_of_other_bytes_and_giant_names(tmp_path: Path) -> None:
    root, listed, _ = voc(tmp_path)
    listed.write_text("x" * 300 + "\n../../../etc/passwd\n" + listed.read_text())
    with pytest.raises(BadData, match=r"ImageSets/Main/train\.txt"):
        module(root).split("train")
    listed.write_bytes(b"\xe4\xf6\n")
    with pytest.raises(BadData, match=r"train\.txt: expected text in UTF-8, got the byte 0xe4 in line 1"):
        module(root).split("train")


def test_annotations_that_cannot_be_read_are_the_cause(tmp_path: Path) -> None:
    root, _, _ = voc(tmp_path)
    for path in (root / "Annotations").iterdir():
        path.write_bytes(b"<annotation><object>")
    with pytest.raises(BadData, match=r"\.xml: expected XML, got"):
        module(root).facts()


@pytest.mark.parametrize("split", ["train", "val"])
def test_names_of_files_as_windows_writes_them(split: str, tmp_path: Path) -> None:
    root = fake(tmp_path, "coco")
    expected = {part: len(module(root).split(part)) for part in ("train", "val")}
    for folder in root.glob(f"{split}*"):
        files = [p for p in folder.iterdir() if p.is_file()]
        (folder / "deep").mkdir()
        for path in files:
            path.rename(folder / "deep" / path.name)
    for file in (root / "annotations").glob(f"*{split}*"):
        content = json.loads(file.read_text())
        for image in content["images"]:
            image["file_name"] = "deep\\" + image["file_name"]
        file.write_text(json.dumps(content))
    assert {part: len(module(root).split(part)) for part in ("train", "val")} == expected
    edit(root, lambda content: content["images"][0].update(file_name="..\\..\\outside.jpg"))
    with pytest.raises(BadData, match="file_name"):
        module(root).split(split)
