"""SVHN and GTSRB: read as they are published, against other readers, and every broken file named."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image

from datamodules.images import ImagesDataModule
from datamodules.images.gtsrb import GTSRB_NAMES
from zoo.cli import main
from zoo.errors import BadData, MissingExtra

SIGN = "32;32;4;4;27;27;0"


def fake(folder: Path, kind: str) -> Path:
    return ImagesDataModule().fake(folder, format=kind, images=60)


def every(data: ImagesDataModule, split: str) -> tuple[np.ndarray, np.ndarray]:
    items = [data.split(split)[i] for i in range(len(data.split(split)))]
    return torch.stack([item["image"] for item in items]).numpy(), np.array([int(item["label"]) for item in items])


# SVHN -------------------------------------------------------------------------------------------------------------


def test_svhn_is_what_torchvision_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import SVHN

    root = fake(tmp_path, "svhn")
    data = ImagesDataModule(root=str(root), val_size=6)
    assert data.format == "svhn"
    assert data.facts() == {
        "num_classes": 10, "class_names": [str(i) for i in range(10)], "channels": 3, "img_size": 32,
    }  # fmt: skip
    images, labels = every(data, "test")
    monkeypatch.setattr(SVHN, "__init__", torch.utils.data.Dataset.__init__)
    content = scipy.io.loadmat(str(root / "test_32x32.mat"))
    theirs = content["y"].astype(np.int64).squeeze()
    np.place(theirs, theirs == 10, 0)
    assert np.array_equal(labels, theirs)
    assert 0 in labels
    assert np.allclose(images * 255, np.transpose(content["X"], (3, 2, 0, 1)))
    assert len(data.split("train")) == 54


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda p: p.write_bytes(b"MATLAB 5.0 MAT-file" + bytes(400)), "a file of MATLAB 5"),
        (lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]), r"y: expected numbers \(N, 1\)"),
        (lambda p: p.unlink(), "expected this file of SVHN"),
        (lambda p: scipy.io.savemat(str(p), {"X": np.zeros((32, 32, 3, 4), np.uint8)}), "y: expected numbers"),
        (
            lambda p: scipy.io.savemat(str(p), {"X": np.zeros((32, 32, 1, 4), np.uint8), "y": np.ones((4, 1))}),
            r"X: expected bytes \(32, 32, 3, N\)",
        ),
        (
            lambda p: scipy.io.savemat(
                str(p), {"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.array([[1], [11]], np.uint8)}
            ),
            "whole numbers from 1 to 10",
        ),
        (
            lambda p: scipy.io.savemat(
                str(p), {"X": np.zeros((32, 32, 3, 4), np.uint8), "y": np.ones((3, 1), np.uint8)}
            ),
            "as many as images",
        ),
    ],
)
def test_broken_svhn_is_named(change: Callable[[Path], Any], expected: str, tmp_path: Path) -> None:
    root = fake(tmp_path, "svhn")
    change(root / "test_32x32.mat")
    with pytest.raises(BadData, match=expected) as caught:
        ImagesDataModule(root=str(root)).split("test")
    assert "test_32x32.mat" in str(caught.value)


def test_a_small_file_that_claims_gigabytes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = fake(tmp_path, "svhn")
    monkeypatch.setattr(
        scipy.io, "whosmat", lambda path: [("X", (32, 32, 3, 10**9), "uint8"), ("y", (10**9, 1), "uint8")]
    )
    monkeypatch.setattr(scipy.io, "loadmat", lambda *_, **__: pytest.fail("it must not be read"))
    with pytest.raises(BadData, match="bytes can hold"):
        ImagesDataModule(root=str(root)).split("test")


def test_without_scipy_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = fake(tmp_path, "svhn")
    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(MissingExtra, match=r"lightning-method-zoo\[matlab\]"):
        ImagesDataModule(root=str(root)).split("test")


# GTSRB ------------------------------------------------------------------------------------------------------------


def test_gtsrb_is_what_torchvision_reads(tmp_path: Path) -> None:
    from torchvision.datasets import GTSRB

    root = fake(tmp_path / "gtsrb", "gtsrb").rename(tmp_path / "data")
    (tmp_path / "data" / "gtsrb").mkdir()
    for name in ("GTSRB", "GT-final_test.csv"):
        (root / name).rename(root / "gtsrb" / name)
    data = ImagesDataModule(root=str(root), img_size=32, val_size=6, batch_size=4)
    assert data.format == "gtsrb"
    assert data.facts()["class_names"] == list(GTSRB_NAMES)
    assert len(set(GTSRB_NAMES)) == 43
    for split in ("train", "test"):
        theirs = GTSRB(root, split=split)
        if split == "test":
            assert every(data, "test")[1].tolist() == [label for _, label in theirs]
        else:
            assert len(data.split("train")) + len(data.split("val")) == len(theirs)


def test_signs_are_cut_out(tmp_path: Path) -> None:
    root = fake(tmp_path, "gtsrb-roi")
    whole, cut = (ImagesDataModule(root=str(root), format=kind, img_size=24) for kind in ("gtsrb", "gtsrb-roi"))
    images, labels = every(cut, "test")
    files = sorted((root / "GTSRB/Final_Test/Images").glob("*.ppm"))
    for number, (image, path) in enumerate(zip(images, files, strict=True)):
        edge = 4 + number % 3
        with Image.open(path) as picture:
            inside = np.asarray(picture)[edge:-edge, edge:-edge]
        assert np.allclose(image * 255, inside.transpose(2, 0, 1))
    assert labels.tolist() == every(whole, "test")[1].tolist()
    assert every(whole, "test")[0].mean() < images.mean(), "the border is black"


def test_the_other_folder_of_the_training_pictures(tmp_path: Path) -> None:
    root = fake(tmp_path, "gtsrb")
    (root / "GTSRB/Final_Training").mkdir()
    (root / "GTSRB/Training").rename(root / "GTSRB/Final_Training/Images")
    (root / "GT-final_test.csv").rename(root / "GTSRB/Final_Test/Images/GT-final_test.csv")
    data = ImagesDataModule(root=str(root), val_size=6)
    assert (len(data.split("train")), len(data.split("test"))) == (54, 15)


def edited(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda r: (r / "GT-final_test.csv").unlink(), "no GT-final_test.csv"),
        (lambda r: (r / "GTSRB/Final_Test/Images/00003.ppm").unlink(), r"csv:5: Filename: .* '00003\.ppm'"),
        (lambda r: edited(r / "GT-final_test.csv", "00001.ppm", "../1.ppm"), r"csv:3: Filename"),
        (lambda r: edited(r / "GT-final_test.csv", "ClassId", "Class"), "no ClassId"),
        (lambda r: edited(r / "GT-final_test.csv", SIGN, "32;32;4;4;27;27;43"), "ClassId: expected 0 to 42"),
        (lambda r: edited(r / "GT-final_test.csv", SIGN, "32;32;27;4;4;27;0"), "Roi: expected"),
        (lambda r: edited(r / "GT-final_test.csv", SIGN, "32;32;4"), "csv:2: line: expected a file name"),
        (lambda r: (r / "GT-final_test.csv").write_bytes(b"\xff\x00\n" * 9), "columns: expected"),
    ],
)  # fmt: skip
def test_broken_gtsrb_is_named(
    change: Callable[[Path], Any], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = fake(tmp_path, "gtsrb")
    change(root)
    with pytest.raises(BadData, match=expected):
        ImagesDataModule(root=str(root)).split("test")
    assert main(["data", "check", "robust-wrn", str(root), "--quick"]) == 1
    assert "problem" in capsys.readouterr().out


def test_tables_of_training_must_be_there_and_of_their_class(tmp_path: Path) -> None:
    root = fake(tmp_path, "gtsrb")
    (root / "GTSRB/Training/00002/GT-00002.csv").unlink()
    edited(root / "GTSRB/Training/00001/GT-00001.csv", ";1\n", ";3\n")
    edited(root / "GTSRB/Training/00003/GT-00003.csv", "00000_00003.ppm;", "#;")
    with pytest.raises(BadData, match=r"GT-00003\.csv: 00000_00003\.ppm: expected a line for each picture"):
        ImagesDataModule(root=str(root)).split("train")
    with pytest.raises(BadData, match=r"(?s)GT-00001\.csv:2: ClassId.*GT-00002\.csv: file"):
        ImagesDataModule(root=str(root)).split("train")


def test_a_box_outside_of_its_picture_is_named(tmp_path: Path) -> None:
    root = fake(tmp_path, "gtsrb")
    edited(root / "GT-final_test.csv", SIGN, "32;32;4;4;99;27;0")
    data = ImagesDataModule(root=str(root), format="gtsrb-roi")
    with pytest.raises(BadData, match=r"00000\.ppm: expected a box inside of 32x32"):
        data.split("test")[0]
