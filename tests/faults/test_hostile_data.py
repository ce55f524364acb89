"""Data folders made to harm: files outside of the folder, bombs of every kind. Named, not followed, not unpacked."""

from __future__ import annotations

import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from memory import grown
from PIL import Image

from datamodules.boxes import BoxesDataModule
from zoo import errors

MEGABYTE = 1 << 20


def make(folder: Path, kind: str) -> Path:
    return BoxesDataModule().fake(folder / kind, kind)


def read(root: Path, kind: str) -> None:
    """Read all annotations and the first pictures of the training split."""
    data = BoxesDataModule(str(root), format=kind, img_size=64)
    split: Any = data.split("train")
    for i in range(min(4, len(split))):
        split[i]


def rename_in_coco(root: Path, name: str) -> None:
    file = root / "annotations/instances_train2017.json"
    content = json.loads(file.read_text())
    content["images"][0]["file_name"] = name
    file.write_text(json.dumps(content))


def first_list(root: Path) -> Path:
    return next(root.rglob("ImageSets/Main/train*.txt"))


def secret(tmp_path: Path) -> Path:
    """A picture that is nobody's business."""
    path = tmp_path / "secret.jpg"
    Image.new("RGB", (64, 64)).save(path)
    return path


@pytest.mark.parametrize(
    "name", ["../../secret.jpg", "/etc/passwd", "..\\..\\secret.jpg", "train2017/../../../secret.jpg"]
)
def test_coco_names_outside(tmp_path: Path, name: str) -> None:
    secret(tmp_path)
    root = make(tmp_path, "coco")
    rename_in_coco(root, name)
    with pytest.raises(errors.BadData):
        read(root, "coco")


def test_coco_absolute_name_of_a_picture(tmp_path: Path) -> None:
    root = make(tmp_path, "coco")
    rename_in_coco(root, str(secret(tmp_path)))
    with pytest.raises(errors.BadData):
        read(root, "coco")


@pytest.mark.parametrize("name", ["../../../../../secret", "../Annotations/x", "/etc/passwd"])
def test_voc_names_outside(tmp_path: Path, name: str) -> None:
    root = make(tmp_path, "voc")
    listed = first_list(root)
    listed.write_text(f"{name}\n{listed.read_text()}")
    with pytest.raises(errors.BadData):
        read(root, "voc")


@pytest.mark.parametrize("kind", ["coco", "voc", "yolo"])
def test_links_that_lead_out(tmp_path: Path, kind: str) -> None:
    root = make(tmp_path, kind)
    picture = next(p for p in sorted(root.rglob("*.jpg")) if "train" in p.as_posix() or kind == "voc")
    picture.unlink()
    picture.symlink_to(secret(tmp_path))
    listed = first_list(root).read_text().split() if kind == "voc" else [picture.stem]
    if picture.stem not in listed:
        first_list(root).write_text(picture.stem + "\n")
    with pytest.raises(errors.BadData, match="follow_symlinks"):
        read(root, kind)


@pytest.mark.parametrize("kind", ["voc", "yolo"])
def test_annotations_behind_a_link(tmp_path: Path, kind: str) -> None:
    root = make(tmp_path, kind)
    pattern = "*.xml" if kind == "voc" else "*.txt"
    file = next(
        p
        for p in sorted(root.rglob(pattern))
        if ("ImageSets" not in p.parts and "train" in p.as_posix()) or kind == "voc"
    )
    if kind == "voc":
        file = next(root.rglob(f"Annotations/{first_list(root).read_text().split()[0]}.xml"))
    outside = tmp_path / f"outside{file.suffix}"
    file.rename(outside)
    file.symlink_to(outside)
    with pytest.raises(errors.BadData, match="follow_symlinks"):
        read(root, kind)


def laughs() -> str:
    """An XML file of a kilobyte that stands for gigabytes."""
    entities = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 11))
    return f'<!DOCTYPE a [<!ENTITY l0 "{"x" * 100}">{entities}]><annotation><folder>&l10;</folder></annotation>'


def reader() -> str:
    return '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation><object><name>&x;</name></object></annotation>'


def picture_bomb(width: int, height: int) -> bytes:
    """A PNG of some kilobytes that unpacks to gigabytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * MEGABYTE)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def voc_annotation(text: str) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        next(root.rglob(f"Annotations/{first_list(root).read_text().split()[0]}.xml")).write_text(text)

    return damage


def coco_text(text: str) -> Callable[[Path], None]:
    return lambda root: (root / "annotations/instances_train2017.json").write_text(text) and None


def coco_picture(data: bytes) -> Callable[[Path], None]:
    return lambda root: sorted((root / "train2017").iterdir())[0].write_bytes(data) and None


def yolo_yaml(text: str) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        for path in root.glob("classes.txt"):
            path.unlink()
        (root / "data.yaml").write_text(text)

    return damage


def swelling() -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    return "\n".join(lines + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)])


BOMBS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "XML entities": ("voc", voc_annotation(laughs())),
    "XML that reads files": ("voc", voc_annotation(reader())),
    "deep XML": ("voc", voc_annotation("<a>" * 100_000)),
    "picture of gigabytes": ("coco", coco_picture(picture_bomb(60_000, 60_000))),
    "deep JSON": ("coco", coco_text("[" * 200_000)),
    "YAML entities": ("yolo", yolo_yaml(f"{swelling()}\nnames: [*a11]")),
    "YAML lists for names": ("yolo", yolo_yaml("names: [[a, b], [c]]")),
    "deep YAML": ("yolo", yolo_yaml("[" * 100_000)),
    "YAML that executes": ("yolo", yolo_yaml("names: !!python/object/apply:os.system ['touch executed']")),
}


QUICK = ("XML entities", "picture of gigabytes", "YAML entities")


@pytest.mark.parametrize("case", [c if c in QUICK else pytest.param(c, marks=pytest.mark.slow) for c in BOMBS])
def test_bombs(tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused by name, with less than 50 MB more memory than the good folder takes."""
    monkeypatch.chdir(tmp_path)
    kind, damage = BOMBS[case]
    root = make(tmp_path, kind)
    good = grown(lambda: read(root, kind))
    damage(root)

    def refused() -> None:
        with pytest.raises(errors.ZooError):
            read(root, kind)

    assert grown(refused) < good + 50 * MEGABYTE
    assert not (tmp_path / "executed").exists()


def test_rendered_cache_that_is_a_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of rendered scenes that somebody replaced is rendered anew; no pickle in it is read."""
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    sizes = {"train_size": 4, "val_size": 2, "test_size": 2, "img_size": 64}
    first: Any = BoxesDataModule(**sizes).split("train")  # type: ignore[arg-type]
    expected = [np.array(first[i]["image"]) for i in range(4)]  # the file itself is mapped
    del first
    files = [p for p in (tmp_path / "cache").rglob("*") if p.suffix in (".npz", ".npy")]
    assert files
    for path in files:
        if path.suffix == ".npz":
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("checks.npy", b"\x93NUMPY\x01\x00" + b"\0" * (80 * MEGABYTE))
        else:
            np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)

    def again() -> None:
        second: Any = BoxesDataModule(**sizes).split("train")  # type: ignore[arg-type]
        assert all(np.array_equal(np.asarray(second[i]["image"]), expected[i]) for i in range(4))

    again()


def test_the_message_names_file_and_field(tmp_path: Path) -> None:
    root = make(tmp_path, "coco")
    rename_in_coco(root, "../../secret.jpg")
    with pytest.raises(errors.BadData) as caught:
        read(root, "coco")
    assert re.search(r"images\[0\].file_name", str(caught.value))
