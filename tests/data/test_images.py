"""ImagesDataModule: layouts, splits, subsets, augmentation, and what broken files say."""

from __future__ import annotations

import gzip
import hashlib
import multiprocessing
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import assets
from datamodules.images import FORMATS, ImagesDataModule
from datamodules.images.dataset import Augment, ImageSet, stratified, uniforms
from zoo.errors import BadData, BadInput, RepositoryNotFound, ZooError

LAYOUTS = [kind for kind in FORMATS[1:] if kind != "gtsrb-roi"]  # the same files as gtsrb


def fake(folder: Path, kind: str) -> Path:
    return ImagesDataModule().fake(folder / kind, format=kind)


# Embedded data ----------------------------------------------------------------------------------------------------


def test_embedded_fashion_mnist_is_the_pinned_one() -> None:
    """Hashes of the pixels, which no version of a PNG writer changes."""
    found = {}
    for split, per_class in (("train", 2000), ("test", 500)):
        images, labels = assets.fashion(split)
        assert images.shape == (10 * per_class, 28, 28)
        assert np.bincount(labels).tolist() == [per_class] * 10
        assert not images.flags.writeable
        found[split] = hashlib.sha256(images.tobytes()).hexdigest()[:16]
    assert found == {"train": "d46f1c3f46046045", "test": "37ed5c445dd5f082"}


def test_assets_stay_small(checkout: Path) -> None:
    total = sum(p.stat().st_size for p in (checkout / "datamodules" / "assets").rglob("*") if p.is_file())
    assert total <= 20_000_000


@pytest.mark.parametrize(("kind", "sizes"), [("fashion-mnist", (18000, 2000, 5000)), ("mnist", (3600, 400, 1000))])
def test_default_splits(kind: str, sizes: tuple[int, int, int]) -> None:
    data = ImagesDataModule(format=kind)
    sets = [data.split(s) for s in ("train", "val", "test")]
    assert tuple(len(s) for s in sets) == sizes  # type: ignore[arg-type]
    for part in sets:
        assert len(set(np.bincount(part.labels).tolist())) == 1, "every class has its share"  # type: ignore[attr-defined]
    train, val = set(sets[0].chosen.tolist()), set(sets[1].chosen.tolist())  # type: ignore[attr-defined]
    assert not train & val


# Layouts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LAYOUTS)
def test_layouts_are_recognised_and_read(kind: str, tmp_path: Path) -> None:
    root = fake(tmp_path, kind)
    data = ImagesDataModule(root=str(root), batch_size=4)
    assert data.format == kind
    facts = data.facts()
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (4, facts["channels"], facts["img_size"], facts["img_size"])
    assert batch["image"].dtype == torch.float32
    assert batch["image"].min() >= 0
    assert 0.9 < batch["image"].max() <= 1
    assert batch["label"].dtype == batch["index"].dtype == torch.int64
    assert len(facts["class_names"]) == facts["num_classes"]
    assert "label" not in data.split("predict")[0]


@pytest.mark.parametrize("kind", [kind for kind in LAYOUTS if kind != "gtsrb"])  # signs: test_images_signs.py
def test_bars_mark_the_class(kind: str, tmp_path: Path) -> None:
    """Labels belong to their images, whatever the layout: the fake data draw a bar that moves with the class."""
    data = ImagesDataModule(root=str(fake(tmp_path, kind)))
    classes, side = data.facts()["num_classes"], data.facts()["img_size"]
    for split in ("train", "val", "test"):
        part = data.split(split)
        for i in range(min(40, len(part))):  # type: ignore[arg-type]
            item = part[i]
            bright = (item["image"].mean(2).amax(0) > 0.9).nonzero()[:, 0]  # JPEG keeps no exact values
            assert int(bright[0]) == 1 + (int(item["label"]) * (side - 4)) // classes


def test_debian_and_torchvision_layouts_agree(tmp_path: Path) -> None:
    root = fake(tmp_path, "fashion-mnist")
    flat = tmp_path / "usr-share-fashion-mnist"
    flat.mkdir()
    for path in (root / "FashionMNIST" / "raw").iterdir():
        (flat / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    one, two = (ImagesDataModule(root=str(place)) for place in (root, flat))
    assert two.format == "fashion-mnist"
    for split in ("train", "test"):
        assert torch.equal(one.split(split)[3]["image"], two.split(split)[3]["image"])


def test_class_folders_without_splits(tmp_path: Path) -> None:
    root = fake(tmp_path, "folders")
    data = ImagesDataModule(root=str(root / "train"))
    sizes = [len(data.split(s)) for s in ("train", "val", "test")]  # type: ignore[arg-type]
    assert sum(sizes) == 40
    assert sizes[2] == 8
    chosen = [set(data.split(s).chosen.tolist()) for s in ("train", "val", "test")]  # type: ignore[attr-defined]
    assert not (chosen[0] & chosen[1]) | (chosen[0] & chosen[2]) | (chosen[1] & chosen[2])


def test_npz_of_other_projects(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (30, 8, 8, 3), dtype=np.uint8), np.arange(30)[:, None] % 3
    np.savez(tmp_path / "medical.npz", train_images=x, train_labels=y, test_images=x[:6], test_labels=y[:6])
    np.savez(tmp_path / "keras.npz", x_train=x[..., 0], y_train=y[:, 0], x_test=x[:6, ..., 0], y_test=y[:6, 0])
    first = ImagesDataModule(root=str(tmp_path / "medical.npz"))
    assert (first.facts()["num_classes"], first.facts()["channels"]) == (3, 3)
    np.testing.assert_array_equal((first.split("test")[2]["image"] * 255).round().byte(), x[2].transpose(2, 0, 1))
    second = ImagesDataModule(root=str(tmp_path / "keras.npz"))
    np.testing.assert_array_equal((second.split("test")[2]["image"] * 255).round().byte()[0], x[2, ..., 0])


def test_two_layouts_in_one_folder_need_a_choice(tmp_path: Path) -> None:
    for kind in ("mnist", "fashion-mnist"):
        ImagesDataModule().fake(tmp_path / "both", format=kind)
    with pytest.raises(BadData, match="format="):
        ImagesDataModule(root=str(tmp_path / "both")).facts()
    assert ImagesDataModule(root=str(tmp_path / "both"), format="mnist").facts()["class_names"][3] == "3"


def test_size_and_channels(tmp_path: Path) -> None:
    data = ImagesDataModule(img_size=16, channels=3, train_size=20, val_size=10, test_size=10)
    assert data.split("test")[0]["image"].shape == (3, 16, 16)
    folder = fake(tmp_path, "folders")
    grey = ImagesDataModule(root=str(folder), img_size=20)
    assert grey.split("train")[0]["image"].shape == (1, 20, 20)


def test_wide_images_are_cut_to_the_middle(tmp_path: Path) -> None:
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 20:40] = 200
    for name in ("a", "b"):
        (tmp_path / "train" / name).mkdir(parents=True)
        for i in range(6):
            Image.fromarray(pixels).save(tmp_path / "train" / name / f"{i}.png")
    data = ImagesDataModule(root=str(tmp_path), img_size=20)
    assert torch.equal(data.split("train")[0]["image"], torch.full((3, 20, 20), 200 / 255))


def test_predict_root(tmp_path: Path) -> None:
    folder = fake(tmp_path, "folders")
    data = ImagesDataModule(predict_root=str(folder / "test"))
    assert len(data.split("predict")) == 10  # type: ignore[arg-type]
    with pytest.raises(RepositoryNotFound, match="predict_root"):
        ImagesDataModule(predict_root=str(tmp_path / "nowhere")).split("predict")


def test_celeba_splits_by_its_list_and_labels_by_one_attribute(tmp_path: Path) -> None:
    root = fake(tmp_path, "celeba")
    lines = (root / "celeba" / "list_eval_partition.txt").read_text().split()
    expected = [lines[1::2].count(str(number)) for number in range(3)]
    data = ImagesDataModule(root=str(root), attribute="Young", img_size=32)
    assert data.facts() == {"num_classes": 2, "class_names": ["not Young", "Young"], "channels": 3, "img_size": 32}
    assert [len(data.split(s)) for s in ("train", "val", "test")] == expected  # type: ignore[arg-type]
    rows = dict(
        line.split(maxsplit=1) for line in (root / "celeba" / "list_attr_celeba.txt").read_text().split("\n")[2:-1]
    )
    part = data.split("val")
    for i, place in enumerate(part.chosen.tolist()):  # type: ignore[attr-defined]
        name = part.source.paths[place].name  # type: ignore[attr-defined]
        assert int(part[i]["label"]) == (rows[name].split()[1] == "1")
    with pytest.raises(BadInput, match=r"attribute: .*Smiling, Young.*Yuong.*Did you mean"):
        ImagesDataModule(root=str(root), attribute="Yuong").facts()


def test_celeba_tells_all_broken_lines_at_once(tmp_path: Path) -> None:
    root = fake(tmp_path, "celeba")
    path = root / "celeba" / "list_attr_celeba.txt"
    lines = path.read_text().split("\n")
    lines[4], lines[7], lines[9] = "000003.jpg 1", "000006.jpg 3 1", lines[8]
    path.write_text("\n".join(lines))
    with pytest.raises(BadData) as told:
        ImagesDataModule(root=str(root)).split("train")
    assert len(told.value.problems) == 3
    assert [f"list_attr_celeba.txt:{n}" in p for n, p in zip((5, 8, 10), told.value.problems, strict=True)] == [
        True
    ] * 3
    (root / "celeba" / "img_align_celeba" / "000002.jpg").unlink()
    path.write_text("\n".join(line for line in lines if not line.startswith(("000003", "000006", "000007"))))
    with pytest.raises(BadData, match=r"000002\.jpg: file: expected an image"):
        ImagesDataModule(root=str(root)).split("train")


# Subsets ----------------------------------------------------------------------------------------------------------


def test_stratified_draws_keep_shares_and_nest() -> None:
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    small, large = stratified(labels, 10, seed=1), stratified(labels, 50, seed=1)
    assert np.bincount(labels[small]).tolist() == [5, 3, 2]
    assert np.bincount(labels[large]).tolist() == [25, 15, 10]
    assert set(small) <= set(large)
    assert np.bincount(labels[stratified(labels, 11, seed=1)]).sum() == 11
    assert not np.array_equal(small, stratified(labels, 10, seed=2))
    assert np.array_equal(stratified(labels, 100, seed=0), np.arange(100))


def test_splits_do_not_depend_on_the_seed() -> None:
    one, two = (ImagesDataModule(seed=s, train_size=100, val_size=50) for s in (0, 1))
    for split in ("train", "val"):
        assert np.array_equal(one.split(split).chosen, two.split(split).chosen)  # type: ignore[attr-defined]
    other = ImagesDataModule(split_seed=1, train_size=100, val_size=50)
    assert not np.array_equal(one.split("val").chosen, other.split("val").chosen)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"format": "fashon-mnist"}, "fashion-mnist"),
        ({"format": "cifar-10"}, "root"),
        ({"channels": 2}, "channels"),
        ({"val_size": 0}, "val_size"),
        ({"train_size": 2.5}, "train_size"),
        ({"flip": 2.0}, "flip"),
        ({"crop": -1}, "crop"),
        ({"img_size": 0}, "img_size"),
    ],
)
def test_arguments_are_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        ImagesDataModule(**given)


def test_more_images_than_there_are() -> None:
    with pytest.raises(BadInput, match="train_size: expected at most 18000"):
        ImagesDataModule(train_size=20_000).split("train")


# Augmentation -----------------------------------------------------------------------------------------------------


def literal_augment(image: np.ndarray, draws: np.ndarray, crop: int, flip: float) -> np.ndarray:
    """One image at a time."""
    channels, height, width = image.shape
    padded = np.zeros((channels, height + 2 * crop, width + 2 * crop), np.uint8)
    padded[:, crop : crop + height, crop : crop + width] = image
    top, left = int(draws[0] * (2 * crop + 1)), int(draws[1] * (2 * crop + 1))
    out = padded[:, top : top + height, left : left + width]
    return out[..., ::-1] if draws[2] < flip else out


def test_augmentation_of_a_batch_is_that_of_each_image() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (9, 3, 6, 7), dtype=np.uint8)
    draws = uniforms(4, 2, np.arange(9), 3)
    found = Augment(2, 0.5)(pixels, draws)
    for image, numbers, got in zip(pixels, draws, found, strict=True):
        np.testing.assert_array_equal(got, literal_augment(image, numbers, 2, 0.5))


def test_draws_belong_to_seed_epoch_and_index() -> None:
    whole = uniforms(1, 3, np.arange(1000), 3)
    np.testing.assert_array_equal(uniforms(1, 3, np.array([17, 5]), 3), whole[[17, 5]])
    assert ((whole >= 0) & (whole < 1)).all()
    assert abs(whole.mean() - 0.5) < 0.02
    assert abs(np.corrcoef(whole.T)[0, 1]) < 0.1
    for other in (uniforms(2, 3, np.arange(1000), 3), uniforms(1, 4, np.arange(1000), 3)):
        assert abs(np.corrcoef(whole[:, 0], other[:, 0])[0, 1]) < 0.1
        assert not np.array_equal(whole, other)


def test_items_and_batches_agree_and_epochs_differ() -> None:
    data = ImagesDataModule(train_size=30, crop=3, flip=0.5, batch_size=8)
    part = data.split("train")
    assert isinstance(part, ImageSet)
    batch = part.__getitems__([3, 1, 4])
    for row, index in enumerate((3, 1, 4)):
        item = part[index]
        assert torch.equal(item["image"], batch["image"][row])
        assert int(item["index"]) == index
        assert item["label"] == batch["label"][row]
    part.set_epoch(1)
    assert not torch.equal(part.__getitems__([3, 1, 4])["image"], batch["image"])
    assert not ImagesDataModule(crop=3, val_size=10).split("val").augment  # type: ignore[attr-defined]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_processes_share_what_they_decode(tmp_path: Path) -> None:
    part = ImagesDataModule(root=str(fake(tmp_path, "folders"))).split("train")
    assert isinstance(part, ImageSet)
    source: Any = part.source
    process = multiprocessing.get_context("fork").Process(target=part.__getitems__, args=([2, 5],))
    process.start()
    process.join()
    assert np.flatnonzero(source.decoded).tolist() == sorted(part.chosen[[2, 5]].tolist())
    for path in source.paths:
        path.unlink()
    assert part.__getitems__([5, 2])["image"].max() > 0.9


# Broken files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LAYOUTS)
def test_each_broken_file_is_named(kind: str, tmp_path: Path) -> None:
    place = fake(tmp_path, kind)
    files = sorted(p for p in place.rglob("*") if p.is_file())
    if kind in ("folders", "eurosat", "celeba", "gtsrb"):
        lists = [
            p for p in files if p.suffix in (".txt", ".csv") and "identity" not in p.name
        ]  # only clients need identities
        pictures = [p for p in files if p.suffix not in (".txt", ".csv")]
        files = [*lists, pictures[0], pictures[-1]]
    for victim in files:
        whole = victim.read_bytes()
        for content in (b"", b"\x00broken\xff" * 4, whole[: len(whole) // 2]):
            broken = tmp_path / "broken"
            shutil.rmtree(broken, ignore_errors=True)
            shutil.copytree(place, broken)
            (broken / victim.relative_to(place)).write_bytes(content)
            with pytest.raises(ZooError, match=victim.name.split("-ubyte")[0]):
                read_everything(broken, kind)


def read_everything(root: Path, kind: str) -> None:
    data = ImagesDataModule(root=str(root), format=kind)
    for split in ("train", "val", "test"):
        part = data.split(split)
        part.__getitems__(range(len(part)))  # type: ignore[attr-defined, arg-type]


def test_hostile_pickles_are_refused(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return print, ("executed",)

    place = fake(tmp_path, "cifar-10")
    (place / "cifar-10-batches-py" / "data_batch_2").write_bytes(pickle.dumps({"data": Bomb()}, protocol=2))
    with pytest.raises(BadData, match=r"data_batch_2.*print"):
        ImagesDataModule(root=str(place)).split("train")


def test_labels_outside_the_classes_are_told(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "train.npz", images=np.zeros((4, 8, 8), np.uint8), labels=[0, 1, 2, 5], class_names=["a", "b", "c"]
    )
    with pytest.raises(BadData, match="0 to 2"):
        ImagesDataModule(root=str(tmp_path)).facts()


def test_unknown_folder_tells_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(BadData, match="cifar-10-batches-py"):
        ImagesDataModule(root=str(tmp_path)).facts()
    with pytest.raises(RepositoryNotFound, match="nowhere"):
        ImagesDataModule(root=str(tmp_path / "nowhere")).facts()


def test_cutout_covers_one_square_and_leaves_other_draws_alone() -> None:
    pixels = np.full((40, 2, 9, 9), 200, np.uint8)
    draws = uniforms(0, 1, np.arange(40), 5)
    assert np.array_equal(draws[:, :3], uniforms(0, 1, np.arange(40), 3)), "crop and flip stay those without cutout"
    for side in (3, 4):
        holed = Augment(cutout=side)(pixels, draws)
        for i in range(40):
            row, column = (int(draws[i, 3 + axis] * 9) for axis in (0, 1))
            expected = pixels[i].copy()
            low = (side - 1) // 2 + (side % 2 == 0)
            high = (side - 1) // 2 + 1
            expected[:, max(0, row - low) : row + high, max(0, column - low) : column + high] = 0
            assert np.array_equal(holed[i], expected), (side, i)
