"""Settings for a user's own data: what data modules suggest, and what a run takes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import zoo
from datamodules.clients import ClientsDataModule
from datamodules.fitting import small_set
from datamodules.images import ImagesDataModule
from datamodules.images.advice import evenly, fitting_side, moments
from datamodules.series import SeriesDataModule
from datamodules.steel import SteelStripDataModule
from zoo import training
from zoo.errors import InvalidConfig


def pictures(root: Path, sizes: tuple[tuple[int, int], ...], groups: int = 0) -> Path:
    """Class folders of grey-green pictures, twenty a class, of sizes in turn."""
    for kind in range(2):
        for number in range(20):
            folder = root / f"class{kind}" / (f"site{number % groups}" if groups else "")
            folder.mkdir(parents=True, exist_ok=True)
            pixels = np.zeros((*sizes[number % len(sizes)], 3), np.uint8)
            pixels[..., 1] = 51 if kind else 153
            Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


def test_few_samples_get_enough_steps() -> None:
    assert small_set(5000, 128, 12) == {}
    assert small_set(0, 128, 12) == {}
    assert small_set(800, 128, 12) == {"data.batch_size": 32, "trainer.max_epochs": 16}
    assert small_set(99, 128, 12) == {"data.batch_size": 16, "trainer.max_epochs": 65}
    assert small_set(10, 8, 12) == {"trainer.max_epochs": 100}


def test_sides_and_moments() -> None:
    assert [fitting_side(side) for side in (28, 64, 90, 1000)] == [28, 64, 80, 128]
    assert evenly(3).tolist() == [0, 1, 2]
    assert len(evenly(10_000)) == 200
    mean, std = moments(np.stack([np.zeros((1, 4, 4), np.uint8), np.full((1, 4, 4), 255, np.uint8)]))
    assert (mean, std) == ([0.5], [0.5])


def test_pictures_suggest_their_own_size_and_colours(tmp_path: Path) -> None:
    root = pictures(tmp_path / "own", ((400, 300), (90, 120), (120, 90)))
    fits = ImagesDataModule(root=str(root)).fitting(12)
    assert fits["data.img_size"] == 80, "the median picture, not the first one"
    assert fits["model.mean"] == pytest.approx([0.0, 0.4, 0.0], abs=0.02)
    assert fits["model.std"] == [0.01, 0.2, 0.01]
    assert fits["data.batch_size"] == 16
    assert ImagesDataModule().fitting(12) == {}
    same = ImagesDataModule(root=str(pictures(tmp_path / "same", ((48, 48),)))).fitting(12)
    assert "data.img_size" not in same


def test_clients_are_the_groups_or_as_many_as_there_can_be(tmp_path: Path) -> None:
    plain = pictures(tmp_path / "plain", ((16, 16),))
    assert ClientsDataModule(root=str(plain), num_clients=10).fitting(20)["data.num_clients"] == 2
    grouped = pictures(tmp_path / "grouped", ((16, 16),), groups=2)
    fits = ClientsDataModule(root=str(grouped), num_clients=10).fitting(20)
    assert (fits["data.partition"], fits["data.num_clients"]) == ("group", 0)
    assert ClientsDataModule(root=str(grouped), num_clients=0, partition="group").num_clients == 2


@pytest.mark.parametrize("kind", [SeriesDataModule, SteelStripDataModule])
def test_few_series_get_small_batches(kind: Any, tmp_path: Path) -> None:
    root = kind().fake(tmp_path / "own")
    assert kind(root=str(root), batch_size=64).fitting(5) == {"data.batch_size": 16, "trainer.max_epochs": 100}
    assert kind().fitting(5) == {}


def resolved(*words: str) -> Any:
    quick = ["--trainer.fast_dev_run=true", "--trainer.accelerator=cpu"]
    return training.run(["fit", *words, *quick])


def test_a_run_takes_what_its_method_has(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = pictures(place / "own", ((20, 24),))
    own = ["--data.root", str(root), "--data.val_size=4", "--data.test_size=4"]
    done = resolved("--zoo", "uav-swarm-fl:own", *own)
    assert (done.entry.id, done.tag) == ("uav-swarm-fl", zoo.info("uav-swarm-fl").default)
    assert done.model.hparams["mean"] == [0.0, 0.4, 0.0]
    assert (done.datamodule.batch_size, done.datamodule.num_clients) == (16, 2)
    assert "set for your data: --data.batch_size 16, " in capsys.readouterr().out
    kept = resolved("--zoo", "uav-swarm-fl", *own, "--data.num_clients=1", "--model.mean=[0.1,0.1,0.1]")
    assert kept.model.hparams["mean"] == [0.1, 0.1, 0.1]
    assert kept.datamodule.num_clients == 1
    bare = resolved("--zoo", "rslad:fmnist-resnet10w24-natural", *own)
    assert bare.model.hparams["mean"] is None, "its recipe does without"


def test_what_is_fitted_in_closed_form_needs_no_more_epochs(place: Path) -> None:
    root = SeriesDataModule().fake(place / "own")
    done = resolved("--zoo", "soft-rocket", "--data.root", str(root))
    assert done.config["fit"]["trainer"]["max_epochs"] == 1
    assert done.datamodule.batch_size == 16


def test_own_needs_a_folder_and_is_no_trained_model(place: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"give their folder with --data\.root DIR"):
        training.run(["fit", "--zoo", "toy-net:own"])
    with pytest.raises(InvalidConfig, match=r"say which is meant with --ckpt_path or --weights"):
        training.run(["test", "--zoo", "toy-net:own", "--data.root", str(place)])
