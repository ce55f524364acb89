"""A user's own data: what a recipe says about its own data does not hold for them; validation takes place."""

from __future__ import annotations

import csv
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from toys import cli as cli_toys

import zoo
from zoo import training
from zoo.cli import main


@pytest.fixture
def pictures(place: Path) -> Path:
    """Class folders of 60 small pictures."""
    for name in ("cat", "dog", "owl"):
        (place / "own" / name).mkdir(parents=True)
        for i in range(20):
            Image.fromarray(np.full((28, 28), 5 * i, np.uint8)).save(place / "own" / name / f"{i}.png")
    return place / "own"


def test_counts_of_the_recipe_are_for_its_own_data(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert zoo.datamodule("uav-swarm-fl").hparams["train_size"] == 12000
    data = zoo.datamodule("uav-swarm-fl", root=pictures)
    assert data.hparams["train_size"] is None
    assert data.hparams["batch_size"] == 32
    assert zoo.datamodule("uav-swarm-fl", root=pictures, train_size=20).hparams["train_size"] == 20
    assert main(["data", "check", "uav-swarm-fl", str(pictures)]) == 0
    words = ["fit", "--zoo", "uav-swarm-fl", "--data.root", str(pictures), "--data.num_clients", "2"]
    words += ["--trainer.fast_dev_run=true", "--trainer.accelerator=cpu"]
    capsys.readouterr()
    assert training.run(words).datamodule.hparams["train_size"] is None
    assert "train_size=12000 of the recipe is for its own data, not for yours" in capsys.readouterr().out
    assert training.run([*words, "--data.train_size", "30"]).datamodule.hparams["train_size"] == 30


def test_draws_of_the_recipe_are_for_its_own_series(place: Path) -> None:
    root = place / "series"
    zoo.datamodule("soft-rocket:ecg5000", root=root, format="tsv").fake(root)
    assert zoo.datamodule("soft-rocket:ecg5000", root=root).hparams["resplit"] is None
    draw = np.random.default_rng(0).normal(size=(20, 30))
    for split in ("TRAIN", "TEST"):
        rows = ["\t".join(map(str, [i % 5 + 1, *row])) for i, row in enumerate(draw)]
        (place / "ecg").mkdir(exist_ok=True)
        (place / "ecg" / f"ECG5000_{split}.tsv").write_text("\n".join(rows) + "\n")
    assert zoo.datamodule("soft-rocket:ecg5000", root=place / "ecg").hparams["resplit"] == 0.5, "the recipe's own data"


def test_a_format_of_the_recipe_keeps_its_counts(place: Path) -> None:
    root = place / "cifar"
    zoo.datamodule("rslad:cifar10-resnet10w16", root=root, format="cifar-10").fake(root)
    assert zoo.datamodule("rslad:cifar10-resnet10w16", root=root).hparams["val_size"] == 1000


def test_fewer_epochs_than_the_interval_of_validation(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = place / "recipes" / "toy-net" / "ten-n.yaml"
    recipe.write_text(recipe.read_text().replace("max_epochs: 2", "max_epochs: 10, check_val_every_n_epoch: 5"))
    done: Any = training.run(["fit", "--zoo", "toy-net", "--trainer.max_epochs", "2"])
    assert "check_val_every_n_epoch is 2, not 5" in capsys.readouterr().out
    folder = done.saved.path.parent
    assert [path for path in (folder / "checkpoints").iterdir() if not path.name.startswith("last")]
    with (folder / "metrics.csv").open() as file:
        assert any(row.get("val/loss") for row in csv.DictReader(file))
    assert "check_val_every_n_epoch: 2" in done.saved.path.read_text()


# Lines that a run prints ------------------------------------------------------------------------------------------


def printed(out: str, start: str) -> list[str]:
    """The words of the command that a line of the output shows, without the program's."""
    (line,) = [line for line in out.splitlines() if line.startswith(start)]
    words = shlex.split(line[line.index("zoo train") :].removesuffix(")"))
    assert words[:2] == ["zoo", "train"]
    return words[1:]


def test_printed_lines_go_on_with_the_users_data_and_settings(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = cli_toys.ToyData().fake(place / "my data")
    (root / "classes.json").write_text('["cat", "dog", "owl", "fox"]')
    folder = ["--trainer.default_root_dir", str(place / "my runs")]
    own = ["--data.root", str(root), "--data.batch_size", "6", "--data.length", "21", "--trainer.max_epochs", "3"]
    monkeypatch.setattr(sys, "argv", ["zoo"])
    with monkeypatch.context() as patch:
        patch.setattr(cli_toys.ToyNet, "on_train_epoch_end", stop_after(1), raising=False)
        assert main(["train", "--zoo", "toy-net", *own, *folder, "--seed_everything", "7"]) == 0
    out = capsys.readouterr().out
    assert main(printed(out, "last ")) == 0
    again = capsys.readouterr().out
    config = yaml.safe_load((place / "my runs" / "toy-net-ten-n" / "version_1" / "config.yaml").read_text())
    assert {key: config["data"][key] for key in ("root", "batch_size", "length")} == {
        "root": str(root),
        "batch_size": 6,
        "length": 21,
    }
    assert config["trainer"]["max_epochs"] == 3
    assert config["seed_everything"] == 7
    assert "epoch 3/3" in again
    assert "epoch 1/3" not in again
    for start in ("score it", "config "):
        assert main(printed(again, start)) == 0
    assert main(["train", "--zoo", "toy-net", *folder, "--ckpt_path", "last", "--trainer.max_epochs", "4"]) == 0
    assert "epoch 4/4" in capsys.readouterr().out
    newest = yaml.safe_load((place / "my runs" / "toy-net-ten-n" / "version_4" / "config.yaml").read_text())
    assert (newest["data"]["root"], newest["trainer"]["max_epochs"]) == (str(root), 4)


def stop_after(epoch: int) -> Any:
    """Ends the training as a stop from outside does."""

    def end(self: Any) -> None:
        self.trainer.should_stop = self.trainer.current_epoch + 1 >= epoch

    return end


def test_other_classes_are_not_resumed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = cli_toys.ToyData().fake(place / "own")
    first = training.run(["fit", "--zoo", "toy-net", "--data.root", str(root), "--trainer.max_epochs", "1"])
    path = first.trainer.checkpoint_callback.dirpath + "/last.ckpt"
    (root / "classes.json").write_text('["dog", "cat", "owl"]')
    assert main(["train", "--zoo", "toy-net", "--ckpt_path", path]) == 2
    assert "resume with the same data" in capsys.readouterr().err


def test_a_folder_with_spaces_is_quoted(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "fake", "toy-net", str(place / "my data")]) == 0
    assert f"--data.root '{place / 'my data'}'" in capsys.readouterr().out


def test_weights_for_other_colour_channels_are_refused_with_the_way_out(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for split, name in ((s, n) for s in ("train", "test") for n in ("cat", "dog")):
        (place / "colour" / split / name).mkdir(parents=True)
        for i in range(4):
            picture = Image.fromarray(rng.integers(0, 256, (28, 28, 3), np.uint8))
            picture.save(place / "colour" / split / name / f"{i}.png")
    words = ["train", "uav-swarm-fl", "--weights", "uav-swarm-fl", "--data.root", str(place / "colour")]
    words += ["--data.num_clients", "2", "--data.partition", "iid", "--trainer.fast_dev_run", "true"]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "take pictures with 1 colour channel, the data give 3" in error
    assert "--data.channels 1" in error
    assert main([*words, "--data.channels", "1"]) == 0
