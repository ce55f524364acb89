"""Where models meet data: class names, their order and picture sizes, in every loop and command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from datamodules.images import ImagesDataModule
from zoo import training
from zoo.base import meeting
from zoo.cli import main
from zoo.errors import BadInput, InvalidConfig

FAST = {"enable_progress_bar": False, "logger": False, "accelerator": "cpu", "enable_model_summary": False}
NAMES = ["bag", "coat", "dress"]


def pictures(root: Path, names: list[str], side: int = 28, colour: bool = False) -> Path:
    """Class folders; each class has a brightness of its own."""
    shape = (side, side, 3) if colour else (side, side)
    for split in ("train", "val", "test"):
        for label, name in enumerate(sorted(names)):
            (root / split / name).mkdir(parents=True)
            for i in range(4):
                pixels = np.full(shape, (40 + 80 * label + i) % 256, np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")
    return root


def trainer(folder: Path, **options: Any) -> lightning.Trainer:
    return lightning.Trainer(**{**FAST, "max_epochs": 1, "default_root_dir": folder, **options})


def classifier(names: list[str] | None, **init: Any) -> Any:
    torch.manual_seed(0)
    sizes = {"channels": 1, "img_size": 28, "network": "resnet10-w1", "method": "natural", "num_classes": 3}
    return zoo.load("rslad", weights=False, class_names=names, **{**sizes, **init})


def data_of(root: Path, **init: Any) -> Any:
    return zoo.datamodule("rslad", root=root, batch_size=4, **init)


# Fitting ----------------------------------------------------------------------------------------------------------


def test_fitting_takes_the_names_of_the_data_and_a_new_head(tmp_path: Path) -> None:
    root = tmp_path / "own"
    data = zoo.datamodule("alpha-iou-yolo:bccd-n", root=root, format="yolo", batch_size=2, img_size=64)
    data.fake(root)
    wanted = data.facts()["class_names"]
    model = zoo.load("alpha-iou-yolo:bccd-n", num_classes=len(wanted))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    trainer(tmp_path, max_steps=1, limit_val_batches=0, enable_checkpointing=False).fit(model, data)
    assert model.class_names == wanted
    words = ["--data.root", str(root), "--data.img_size=64", "--data.batch_size=2", "--trainer.fast_dev_run=true"]
    words += ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    line = training.run(["fit", "--zoo", "alpha-iou-yolo:bccd-n", "--weights", "alpha-iou-yolo:bccd-n", *words])
    assert line.model.class_names == model.class_names
    assert line.model.report.reinitialised == model.report.reinitialised
    assert line.model.hparams["img_size"] == model.hparams["img_size"] == 64
    assert not set(model.report.loaded) & set(model.report.reinitialised)
    head = [k for k in model.report.reinitialised if k.endswith("weight") and before[k].std() > 0]
    assert head
    assert all((model.state_dict()[k] - before[k]).abs().max() > 0.01 for k in head), "one step moves weights less"
    assert zoo.load(zoo.save(model, tmp_path / "saved")).class_names == wanted


def test_the_same_names_leave_the_head(tmp_path: Path) -> None:
    model = classifier(NAMES)
    before = model.state_dict()[next(k for k in model.state_dict() if model.role_of(k) == "head")].clone()
    meeting.fit_to(model, data_of(pictures(tmp_path / "own", NAMES)))
    after = model.state_dict()[next(k for k in model.state_dict() if model.role_of(k) == "head")]
    assert torch.equal(before, after)
    meeting.fit_to(model, data_of(pictures(tmp_path / "other", ["a", "b", "c"])))
    assert model.class_names == ["a", "b", "c"]
    assert not torch.equal(before, after), "the state shares memory with the module"


def test_fitting_takes_the_size_of_the_data_or_refuses(tmp_path: Path) -> None:
    root = pictures(tmp_path / "own", NAMES, side=32)
    model = classifier(NAMES)
    trainer(tmp_path, enable_checkpointing=False, limit_val_batches=0).fit(model, data_of(root))
    assert model.make_batch([Image.new("L", (90, 90))])["image"].shape == (1, 1, 32, 32)
    fixed = classifier(NAMES, network="lenet5")
    with pytest.raises(InvalidConfig, match=r"side 32, and the network takes 28 alone.*img_size=28"):
        trainer(tmp_path).fit(fixed, data_of(root))
    with pytest.raises(InvalidConfig, match=r"channels: 3, the model takes 1.*channels=1"):
        trainer(tmp_path).fit(model, data_of(pictures(tmp_path / "colour", NAMES, 32, colour=True)))


def test_a_random_stream_is_the_same_with_and_without_a_new_head(tmp_path: Path) -> None:
    model = classifier(NAMES)
    other = data_of(pictures(tmp_path / "other", ["a", "b", "c"]))
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    meeting.fit_to(model, other)
    assert model.class_names == ["a", "b", "c"]
    assert torch.rand(1) == expected


def test_resuming_with_other_data_is_refused(tmp_path: Path) -> None:
    model = classifier(NAMES)
    root = pictures(tmp_path / "own", NAMES)
    run = trainer(tmp_path, limit_val_batches=0)
    run.fit(model, data_of(root))
    path = tmp_path / "last.ckpt"
    run.save_checkpoint(path)
    again = trainer(tmp_path, max_epochs=2, limit_val_batches=0, enable_checkpointing=False)
    again.fit(classifier(None), data_of(root), ckpt_path=path, weights_only=True)
    for other in (pictures(tmp_path / "other", ["a", "b", "c"]), pictures(tmp_path / "large", NAMES, side=32)):
        with pytest.raises(InvalidConfig, match="resume with the same data"):
            trainer(tmp_path, max_epochs=2).fit(classifier(None), data_of(other), ckpt_path=path, weights_only=True)
    words = ["fit", "--zoo", "rslad", "--model.network=resnet10-w1", "--ckpt_path", str(path)]
    words += ["--model.teacher=rslad:fmnist-resnet10w24-trades"]  # chosen, so that none is trained on these pictures
    with pytest.raises(InvalidConfig, match="resume with the same data"):
        training.run([*words, "--data.root", str(other)])


# Scoring ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def trained(tmp_path: Path) -> Any:
    """A model that tells three brightnesses apart, by names in another order than the folders' alphabet."""
    model = classifier(["dress", "bag", "coat"])

    class Brightness(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            mean = image.flatten(1).mean(1) * 255
            return torch.stack([-(mean - 202).abs(), -(mean - 42).abs(), -(mean - 122).abs()], 1)

    model.network = Brightness()
    model.normalize = torch.nn.Identity()
    return model


def test_another_order_is_scored_right(tmp_path: Path, trained: Any) -> None:
    data = data_of(pictures(tmp_path / "own", NAMES))
    assert data.facts()["class_names"] == NAMES
    for stage in ("validate", "test"):
        (scores,) = getattr(trainer(tmp_path), stage)(trained, data, verbose=False)
        assert scores[f"{'val' if stage == 'validate' else 'test'}/accuracy"] == 1
    report = zoo.evaluate_robustness(trained, data, 0.001, None, ["noise"], checks=False, progress=False)
    assert report.clean == 1
    assert trained.class_names == ["dress", "bag", "coat"]


def test_loaders_say_whose_they_are(tmp_path: Path, trained: Any) -> None:
    data = data_of(pictures(tmp_path / "own", NAMES))
    other = data_of(pictures(tmp_path / "other", ["a", "b", "c"]))
    large = data_of(pictures(tmp_path / "large", NAMES, side=32))
    for made in (data, other, large):
        made.prepare_data()
        made.setup("fit")
        made.setup("test")
        made.setup("predict")
    for loaders in (data.test_dataloader(), [data.test_dataloader()], {"own": data.test_dataloader()}):
        (scores,) = trainer(tmp_path).test(trained, loaders, verbose=False)
        assert scores["test/accuracy"] == 1
    assert trainer(tmp_path).validate(trained, data.val_dataloader(), verbose=False)[0]["val/accuracy"] == 1
    for stage in ("validate", "test"):
        with pytest.raises(InvalidConfig, match="knows the classes dress, bag, coat, the data have a, b, c"):
            getattr(trainer(tmp_path), stage)(trained, other.test_dataloader(), verbose=False)
    with pytest.raises(InvalidConfig, match="side 32, the model takes 28"):
        trainer(tmp_path).predict(trained, large.predict_dataloader())
    model = classifier(["x", "y", "z"])
    run = trainer(tmp_path, enable_checkpointing=False)
    run.fit(model, other.train_dataloader(), other.val_dataloader())
    assert model.class_names == ["a", "b", "c"]


def test_other_classes_and_sizes_are_refused(tmp_path: Path, trained: Any) -> None:
    other = data_of(pictures(tmp_path / "other", ["a", "b", "c"]))
    large = data_of(pictures(tmp_path / "large", NAMES, side=32))
    for stage in ("validate", "test"):
        with pytest.raises(InvalidConfig, match="knows the classes dress, bag, coat, the data have a, b, c"):
            getattr(trainer(tmp_path), stage)(trained, other, verbose=False)
        with pytest.raises(InvalidConfig, match=r"side 32, the model takes 28.*img_size=28"):
            getattr(trainer(tmp_path), stage)(trained, large, verbose=False)
    with pytest.raises(InvalidConfig, match="side 32, the model takes 28"):
        trainer(tmp_path).predict(trained, large)
    for data in (other, large):
        with pytest.raises(InvalidConfig):
            zoo.evaluate_robustness(trained, data, 0.001, None, ["noise"], checks=False)
    with pytest.raises(BadInput, match="The surrogate RSLAD has the classes a, b, c"):
        zoo.evaluate_robustness(
            trained, (torch.rand(2, 1, 28, 28), torch.arange(2)), 0.1, surrogates=[classifier(["a", "b", "c"])]
        )


def test_a_checkpoint_brings_its_names(tmp_path: Path) -> None:
    model = classifier(["a", "b", "c"])
    run = trainer(tmp_path, limit_val_batches=0)
    run.fit(model, data_of(pictures(tmp_path / "own", ["a", "b", "c"])))
    path = tmp_path / "last.ckpt"
    run.save_checkpoint(path)
    fresh = classifier(NAMES)
    data = data_of(tmp_path / "own")
    trainer(tmp_path).test(fresh, data, ckpt_path=path, verbose=False, weights_only=True)
    assert fresh.class_names == ["a", "b", "c"]
    data = data_of(pictures(tmp_path / "other", NAMES))
    with pytest.raises(InvalidConfig, match="knows the classes a, b, c"):
        trainer(tmp_path).test(classifier(NAMES), data, ckpt_path=path, verbose=False, weights_only=True)


def test_data_without_names_are_scored_as_they_are(tmp_path: Path, trained: Any) -> None:
    x = np.stack([np.full((28, 28), 42 + 80 * ((label + 2) % 3), np.uint8) for label in range(3)])
    np.savez(tmp_path / "set.npz", x_train=x, y_train=np.arange(3), x_test=x, y_test=np.arange(3))
    data = ImagesDataModule(str(tmp_path / "set.npz"))
    assert not data.has_class_names
    assert trainer(tmp_path).test(trained, data, verbose=False)[0]["test/accuracy"] == 1


def test_batches_without_labels_are_not_reordered_in_silence() -> None:
    boxes = {"labels": [torch.tensor([0, 1]), torch.tensor([], dtype=torch.int64)]}
    assert [part.tolist() for part in meeting.relabelled(boxes, [1, 0])["labels"]] == [[1, 0], []]
    assert meeting.relabelled({"target": 1}, None) == {"target": 1}
    with pytest.raises(InvalidConfig, match="no label to reorder"):
        meeting.relabelled({"target": torch.zeros(1)}, [1, 0])


# Command line -----------------------------------------------------------------------------------------------------


def run(capsys: pytest.CaptureFixture[str], *words: Any) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def test_command_line_scores_in_the_models_order_and_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names = zoo.load("rslad").class_names
    folders = [name.replace("/", "_") for name in names]  # a name with a slash is no folder
    same, other = (
        pictures(tmp_path / "same", folders, 40, colour=True),
        pictures(tmp_path / "other", list("abcdefghij")),
    )
    scored = training.run(["test", "--zoo", "rslad", "--data.root", str(same), "--trainer.logger=false"])
    assert (scored.datamodule.facts()["img_size"], scored.datamodule.facts()["channels"]) == (28, 1)
    assert scored.model._order == [folders.index(name) for name in sorted(folders)]
    for words in (("train", "test", "--zoo", "rslad", "--data.root"), ("evaluate", "rslad", "--eps", "0.1", "--root")):
        code, _, err = run(capsys, *words, other)
        assert code == 2
        assert "rslad" in err
        assert "knows the classes T-shirt/top" in err
    few = ("--eps", "0.01", "--n", "2", "--attacks", "noise", "--no-checks", "--json")
    code, out, _ = run(capsys, "evaluate", "rslad", *few, "--root", same)
    assert code == 0
    assert json.loads(out)["n"] == 2


def test_evaluate_asks_for_the_data_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = zoo.save(classifier(list("abcdefghij"), num_classes=10), tmp_path / "saved")
    code, _, err = run(capsys, "evaluate", saved, "--eps", "0.1", "--n", "2", "--attacks", "noise")
    assert code == 2
    assert "Give --root DIR" in err
    colour = zoo.save(classifier(None, num_classes=10, channels=3), tmp_path / "colour")
    code, _, err = run(capsys, "evaluate", colour, "--eps", "0.1", "--n", "2", "--attacks", "noise")
    assert code == 2
    assert "Give --root DIR" in err
