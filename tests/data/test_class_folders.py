"""Which folders are splits and which are classes, and what classes there must be."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datamodules.clients import ClientsDataModule
from datamodules.images import ImagesDataModule
from datamodules.images.folders import split_of
from zoo.cli import main
from zoo.errors import BadData

MODULES: tuple[Any, ...] = (ImagesDataModule, ClientsDataModule)


def tree(root: Path, *folders: str, count: int = 6) -> Path:
    """Pictures in folders; each folder has its own grey."""
    for shade, folder in enumerate(folders):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.fromarray(np.full((8, 8), 20 * shade, np.uint8)).save(root / folder / f"{i}.png")
    return root


# Splits with usual names --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "test"),
        ("Train", "Test"),
        ("Training", "Testing"),
        ("TRAIN", "test"),
        ("train_set", "test_set"),
        ("Training Set", "Test Set"),
        ("train2017", "test2017"),
        ("train_images", "test_images"),
        ("my_train", "my_test"),
        ("seg_train/seg_train", "seg_test/seg_test"),
    ],
)
@pytest.mark.parametrize("module", MODULES)
def test_split_folders_with_usual_names_are_splits(module: Any, train: str, test: str, tmp_path: Path) -> None:
    tree(tmp_path, f"{train}/cat", f"{train}/dog", f"{test}/cat", f"{test}/dog")
    data = module(root=str(tmp_path))
    assert data.facts()["class_names"] == ["cat", "dog"]
    assert len(data.split("test")) == 12
    own = data.split("test").source.paths
    assert all(test.split("/")[0] in path.parts for path in own)


@pytest.mark.parametrize("name", ["val", "Valid", "VALIDATION", "val_set", "validate", "dev", "dev_set"])
def test_validation_folders_with_usual_names_are_splits(name: str, tmp_path: Path) -> None:
    tree(tmp_path, "train/cat", "train/dog", f"{name}/cat", f"{name}/dog", "test/cat", "test/dog")
    data: Any = ImagesDataModule(root=str(tmp_path))
    assert all(name in path.parts for path in data.split("val").source.paths)


@pytest.mark.parametrize(
    "name", ["valley", "trains", "tests", "values", "freight train", "trainer", "protest", "cat", "device"]
)
def test_names_of_classes_are_no_splits(name: str) -> None:
    assert split_of(name) is None


@pytest.mark.parametrize("module", MODULES)
def test_folders_that_hold_the_classes_and_are_no_split_are_told(module: Any, tmp_path: Path) -> None:
    tree(tmp_path, "train/cat", "train/dog", "holdout/cat", "holdout/dog", "extra/notes")
    with pytest.warns(UserWarning, match="holdout holds classes, too, and is no split"):
        assert module(root=str(tmp_path)).facts()["class_names"] == ["cat", "dog"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (tmp_path / "holdout").rename(tmp_path / "test")
        assert len(module(root=str(tmp_path)).split("test")) == 12


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    data = ImagesDataModule(root=str(tree(tmp_path, "bus", "car", "train")))
    assert data.facts()["class_names"] == ["bus", "car", "train"]


def test_splits_without_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="no layout recognised"):
        ImagesDataModule(root=str(tree(tmp_path, "Train", "Test"))).facts()
    with pytest.raises(BadData, match=r"expected images in train/CLASS/ or CLASS/, got none"):
        ImagesDataModule(root=str(tmp_path), format="folders").facts()


def test_two_folders_of_one_split_are_refused(tmp_path: Path) -> None:
    tree(tmp_path, "train/a", "train/b", "Training/a", "Training/b")
    with pytest.raises(BadData, match=r"one folder of the train split, got Training and train"):
        ImagesDataModule(root=str(tmp_path)).facts()


# A single class -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", MODULES)
def test_a_single_class_is_refused(module: Any, tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"at least two classes with images, got cat\."):
        module(root=str(tree(tmp_path / "one", "cat"))).facts()
    tree(tmp_path / "deep", "archive/train/cat", "archive/train/dog", "archive/test/cat", "archive/test/dog")
    with pytest.raises(BadData, match=r"got archive. It holds the folders test, train: .* set root to .*archive"):
        module(root=str(tmp_path / "deep")).facts()
    np.savez(tmp_path / "train.npz", images=np.zeros((4, 8, 8), np.uint8), labels=np.zeros(4, int))
    with pytest.raises(BadData, match="at least two classes, got one"):
        module(root=str(tmp_path / "train.npz")).facts()


def test_data_check_finds_a_single_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "rslad", str(tree(tmp_path, "cat"))]) == 1
    assert "at least two classes" in capsys.readouterr().out


def test_classes_without_images_are_told(tmp_path: Path) -> None:
    (tree(tmp_path, "cat", "dog") / "bird").mkdir()
    with pytest.warns(UserWarning, match="without images are left out: bird"):
        assert ImagesDataModule(root=str(tmp_path)).facts()["class_names"] == ["cat", "dog"]


def test_classes_that_hold_the_same_folders_are_told(tmp_path: Path) -> None:
    tree(tmp_path, "first/cat", "first/dog", "second/cat", "second/dog")
    with pytest.warns(UserWarning, match=r"first, second holds the same folders \(cat, dog\)"):
        ImagesDataModule(root=str(tmp_path)).facts()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # for clients they are persons
        assert ClientsDataModule(root=str(tmp_path), num_clients=2, partition="group").num_clients == 2
        ImagesDataModule(root=str(tree(tmp_path / "other", "a/x", "a/y", "b/x"))).facts()


# Labels of other splits -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("one_file", [True, False])
def test_labels_beyond_those_of_training_are_refused(one_file: bool, module: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (12, 8, 8), np.uint8)
    train, test = np.arange(12) % 3, np.arange(12) % 4
    if one_file:
        root = tmp_path / "x.npz"
        np.savez(root, x_train=x, y_train=train, x_test=x, y_test=test)
    else:
        root = tmp_path
        np.savez(root / "train.npz", images=x, labels=train)
        np.savez(root / "test.npz", images=x, labels=test)
    data = module(root=str(root))
    assert data.facts()["num_classes"] == 3
    with pytest.raises(BadData, match=r"test split: labels: expected 0 to 2, got 0 to 3"):
        data.split("test")


def test_other_class_names_or_sizes_in_another_split_are_refused(tmp_path: Path) -> None:
    x, y = np.zeros((4, 8, 8), np.uint8), np.arange(4) % 2
    np.savez(tmp_path / "train.npz", images=x, labels=y, class_names=["cat", "dog"])
    np.savez(tmp_path / "test.npz", images=x, labels=y, class_names=["dog", "cat"])
    with pytest.raises(BadData, match=r"class_names of test: expected those of train \(cat, dog\), got dog, cat"):
        ImagesDataModule(root=str(tmp_path)).split("test")
    np.savez(tmp_path / "test.npz", images=np.zeros((4, 9, 9), np.uint8), labels=y)
    with pytest.raises(BadData, match=r"images of test: expected \(N, 1, 8, 8\), got \(4, 1, 9, 9\)"):
        ImagesDataModule(root=str(tmp_path)).split("test")
    assert len(ImagesDataModule(root=str(tmp_path), img_size=8).split("test")) == 4  # type: ignore[arg-type]


def test_names_of_classes_in_arrays_are_distinct(tmp_path: Path) -> None:
    x, y = np.zeros((6, 8, 8), np.uint8), np.arange(6) % 3
    np.savez(tmp_path / "x.npz", x_train=x, y_train=y, x_test=x, y_test=y, class_names=["cat", "dog", "cat"])
    with pytest.raises(BadData, match="class_names: expected distinct names, got 'cat' twice"):
        ImagesDataModule(root=str(tmp_path / "x.npz")).facts()
