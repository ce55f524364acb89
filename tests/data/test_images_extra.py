"""Mixed training images, and further ones that are one half of each batch."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from datamodules.images import ImagesDataModule
from datamodules.images.dataset import CutMix
from datamodules.images.extra import HalfSampler
from zoo.errors import BadData, BadInput, InvalidConfig

NAME = "ti_500K_pseudo_labeled.pickle"


def cifar(folder: Path, **init: Any) -> ImagesDataModule:
    place = ImagesDataModule(extra=NAME).fake(folder, format="cifar-10", images=100)
    return ImagesDataModule(**({"root": str(place), "format": "cifar-10", "batch_size": 8, "val_size": 20} | init))


# CutMix -----------------------------------------------------------------------------------------------------------


def test_cutmix_against_a_literal_loop() -> None:
    rng = np.random.default_rng(0)
    pixels, others = (rng.integers(0, 256, (50, 3, 12, 9), dtype=np.uint8) for _ in range(2))
    draws = rng.random((50, 4))
    mixed, share = CutMix(0.7, 10)(pixels, others, draws)
    for i in range(50):
        expected = pixels[i].copy()
        if draws[i, 0] < 0.7:
            side = draws[i, 1] ** 0.5
            (a, b), (c, d) = (
                (max(0, int(np.floor(m * n - side * n / 2 + 0.5))), min(n, int(np.floor(m * n + side * n / 2 + 0.5))))
                for m, n in ((draws[i, 2], 12), (draws[i, 3], 9))
            )
            expected[:, a:b, c:d] = others[i, :, a:b, c:d]
            assert share[i] == pytest.approx(1 - (b - a) * (d - c) / 108)
        else:
            assert share[i] == 1
        np.testing.assert_array_equal(mixed[i], expected)
    assert (share < 1).mean() == pytest.approx(0.65, abs=0.15)


def test_mixed_labels_are_shares_of_the_area() -> None:
    mix = CutMix(1.0, 3)
    found = mix.labels(np.array([0, 1, 2]), np.array([1, 1, 0]), np.array([0.75, 0.2, 1.0], np.float32))
    np.testing.assert_allclose(found, [[0.75, 0.25, 0], [0, 1, 0], [0, 0, 1]])


def test_mixing_belongs_to_seed_epoch_and_sample() -> None:
    data = ImagesDataModule(train_size=60, val_size=10, cutmix=1.0, batch_size=8)
    part = data.split("train")
    first = part.__getitems__([3, 4, 5])  # type: ignore[attr-defined]
    assert torch.equal(part.__getitems__([9, 4])["image"][1], first["image"][1])  # type: ignore[attr-defined]
    assert torch.equal(part.__getitems__([9, 4])["mixed"][1], first["mixed"][1])  # type: ignore[attr-defined]
    torch.testing.assert_close(first["mixed"].sum(1), torch.ones(3))
    assert first["mixed"].shape == (3, 10)
    part.set_epoch(1)  # type: ignore[attr-defined]
    assert not torch.equal(part.__getitems__([3, 4, 5])["image"], first["image"])  # type: ignore[attr-defined]
    assert "mixed" not in data.split("val")[0]
    assert "mixed" not in part.without_augmentation()[0]  # type: ignore[attr-defined]


def test_a_method_of_single_labels_refuses_mixed_ones() -> None:
    data = ImagesDataModule(train_size=60, val_size=10, cutmix=0.5)
    data.trainer = SimpleNamespace(lightning_module=SimpleNamespace())  # type: ignore[assignment]
    with pytest.raises(InvalidConfig, match="cutmix: SimpleNamespace needs one label"):
        data.split("train")
    with pytest.raises(BadInput, match="cutmix"):
        ImagesDataModule(cutmix=1.5)


# Further images ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", [1, 2, 3])
def test_each_batch_is_half_and_half(world: int) -> None:
    """On each rank; an epoch is as long as the labelled images, and no labelled one comes twice."""
    seen = []
    for rank in range(world):
        sampler = HalfSampler(range(100 + 30), world, rank, seed=1, labelled=100)
        mine = list(sampler)
        assert len(mine) == len(sampler) == 100 // world
        for start in range(0, len(mine) - 3, 4):
            assert sum(i < 100 for i in mine[start : start + 4]) == 2
        seen += mine
        sampler.set_epoch(1)
        assert list(sampler) != mine
    own = [i for i in seen if i < 100]
    assert len(own) == len(set(own))
    further = np.bincount([i - 100 for i in seen if i >= 100], minlength=30)
    assert further.min() >= 1
    assert further.max() <= 2


def test_batches_of_the_published_file(tmp_path: Path) -> None:
    data = cifar(tmp_path, extra=NAME)
    batches = list(data.train_dataloader())
    assert len(batches) == 80 // 8  # 100 images without the 20 of validation
    content = pickle.loads((tmp_path / NAME).read_bytes())
    for batch in batches:
        further = batch["index"] >= 80
        assert int(further.sum()) == 4
        rows = batch["index"][further].numpy() - 80
        assert batch["label"][further].tolist() == content["extrapolated_targets"][rows].tolist()
        expected = content["data"][rows].transpose(0, 3, 1, 2).astype(np.float32) / 255
        np.testing.assert_allclose(batch["image"][further].numpy(), expected, atol=1e-6)
    assert len(data.split("val")) == 20  # type: ignore[arg-type]


def test_an_npz_file_and_a_path_of_its_own(tmp_path: Path) -> None:
    images = np.full((6, 28, 28), 7, np.uint8)
    np.savez(tmp_path / "more.npz", images=images, labels=np.arange(6))
    data = ImagesDataModule(train_size=20, val_size=10, batch_size=4, extra=str(tmp_path / "more.npz"))
    batch = next(iter(data.train_dataloader()))
    assert int((batch["image"].amax((1, 2, 3)) == 7 / 255).sum()) == 2


def refused(folder: Path, content: Any, told: str) -> None:
    data = cifar(folder, extra=NAME)
    (folder / NAME).write_bytes(content if isinstance(content, bytes) else pickle.dumps(content))
    with pytest.raises(BadData, match=told) as caught:
        data.train_dataloader()
    assert NAME in str(caught.value)


def test_broken_files_are_named(tmp_path: Path) -> None:
    images, labels = np.zeros((4, 32, 32, 3), np.uint8), np.arange(4)
    refused(tmp_path, {"extrapolated_targets": labels}, r"data: expected bytes \(N, S, S, 3\)")
    refused(tmp_path, {"data": images}, "extrapolated_targets: expected whole numbers")
    refused(tmp_path, {"data": images, "extrapolated_targets": labels[:3]}, "labels: expected as many as images")
    refused(tmp_path, {"data": images, "extrapolated_targets": labels + 9}, "labels: expected 0 to 9")
    refused(tmp_path, {"data": images[:, :16, :16], "extrapolated_targets": labels}, "images of shape")
    refused(tmp_path, {"data": images / 2, "extrapolated_targets": labels}, "f8|which no file|call")
    refused(tmp_path, pickle.dumps({"data": images, "extrapolated_targets": labels})[:-200], "file: expected")
    refused(tmp_path, b"not a pickle", "file: expected")


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "executed",)

    refused(tmp_path, {"data": Evil(), "extrapolated_targets": np.arange(4)}, "file: expected")
    assert not (tmp_path / "executed").exists()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"extra: expected a file.*none\.pickle"):
        cifar(tmp_path, extra="none.pickle").train_dataloader()


def test_batches_of_cifar_stay_bytes(tmp_path: Path) -> None:
    """Whole numbers of eight bytes are for the further images only."""
    data = cifar(tmp_path)
    place = tmp_path / "cifar-10-batches-py" / "data_batch_1"
    place.write_bytes(pickle.dumps({"data": np.zeros((10, 3072), np.int64), "labels": [0] * 10}, protocol=2))
    with pytest.raises(BadData, match="data_batch_1"):
        data.train_dataloader()
