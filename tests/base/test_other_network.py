"""Networks that a method uses and does not train: found by name, frozen, followed to the device, remembered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from zoo.base import Scores
from zoo.base.other_network import FrozenClassifier, FrozenNetwork, OtherNetworks, find_classifier, find_network
from zoo.errors import BadInput, InvalidConfig

NAME = "rslad:fmnist-resnet10w8"


class Follower(OtherNetworks):
    """Learns the mean logit of one network; may look at a second one."""

    references = ("leader", "judge")

    def __init__(self, leader: str | None = None, judge: str | None = None, judged: bool = False) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.scores = Scores()

    def needed_references(self) -> tuple[str, ...]:
        return self.references if self.hparams["judged"] else ("leader",)

    def error(self, batch: dict[str, Any]) -> Tensor:
        wanted = self.other("leader")(batch["image"]).mean(1, keepdim=True)
        return (self.layer(batch["image"].mean((1, 2, 3))[:, None]) - wanted).square().mean()

    def training_step(self, batch: dict[str, Any], batch_idx: int = 0) -> Tensor:
        return self.error(batch)

    def evaluate_step(self, stage: str, batch: dict[str, Any]) -> None:
        self.scores.update_loss(stage, self.error(batch), len(batch["index"]))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def loader() -> DataLoader[Any]:
    draw = torch.Generator().manual_seed(0)
    rows: Any = [{"index": i, "image": torch.rand(1, 28, 28, generator=draw)} for i in range(6)]
    return DataLoader(rows, batch_size=3)


def trainer(folder: Path, **options: Any) -> Trainer:
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(default_root_dir=folder, accelerator="cpu", num_sanity_val_steps=0, **quiet, **options)


def constant(value: float) -> FrozenNetwork:
    layer = nn.Linear(1, 2)
    nn.init.constant_(layer.weight, value)
    return FrozenNetwork(lambda image: layer(image.mean((1, 2, 3))[:, None]), f"constant {value}", f"{value:064.0f}")


def test_a_network_is_found_by_name_frozen_and_only_named(tmp_path: Path) -> None:
    model = Follower(NAME)
    assert not model.others
    run = trainer(tmp_path, max_epochs=1)
    run.fit(model, loader())
    found = model.other("leader")
    assert isinstance(found.model, nn.Module)
    assert not any(part.training for part in found.model.modules())
    assert not any(p.requires_grad for p in found.model.parameters())
    assert list(model.state_dict()) == ["layer.weight", "layer.bias"]
    run.save_checkpoint(tmp_path / "last.ckpt")
    held = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert held["leader"] == {"name": NAME, "sha256": found.sha256}
    assert len(found.sha256) == 64
    assert "judge" not in held
    x = torch.rand(2, 1, 28, 28, requires_grad=True)
    assert not found(x).requires_grad


def test_loading_leaves_the_random_state_alone(tmp_path: Path) -> None:
    """Training must not depend on what the other network drew while it was built."""
    states = []
    for model in (Follower(NAME), Follower()):
        if model.hparams["leader"] is None:
            model.use("leader", constant(1))
        torch.manual_seed(0)
        model.trainer = trainer(tmp_path, max_epochs=1)
        model.setup("fit")
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


def test_what_is_missing_is_named_before_training(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"--model\.leader"):
        trainer(tmp_path, max_epochs=1).fit(Follower(), loader())
    judged = Follower(judged=True)
    judged.use("leader", constant(1))
    with pytest.raises(InvalidConfig, match=r"--model\.judge"):
        trainer(tmp_path, max_epochs=1).fit(judged, loader())


def test_evaluation_alone_loads_nothing(tmp_path: Path) -> None:
    model = Follower("no-such-method")
    model.trainer = trainer(tmp_path)
    model.setup("test")
    assert not model.others


def test_resuming_needs_the_same_weights(tmp_path: Path) -> None:
    model = Follower()
    model.use("leader", constant(1))
    run = trainer(tmp_path, max_epochs=1)
    run.fit(model, loader())
    run.save_checkpoint(tmp_path / "last.ckpt")
    for value in (2, 1):
        again = Follower()
        again.use("leader", constant(value))
        run = trainer(tmp_path, max_epochs=2)
        if value == 2:
            with pytest.raises(InvalidConfig, match="The leader of this run had weights with sha256 0000"):
                run.fit(again, loader(), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
        else:
            run.fit(again, loader(), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
            assert run.current_epoch == 2


def test_classifiers_are_checked(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="has 10 classes, this model 7: choose one trained on the same data"):
        find_classifier(NAME, None, 7, 1, "victim")
    with pytest.raises(BadInput, match="has 1 colour channels, this model 3"):
        find_classifier(NAME, None, 10, 3, "victim")
    with pytest.raises(BadInput, match=r"--model\.victim_network"):
        find_classifier(str(tmp_path / "weights.pt"), None, 10, 1, "victim")
    with pytest.raises(BadInput, match="victim soft-rocket: expected a classifier of images"):
        find_classifier("soft-rocket", None, 10, 1, "victim")
    found = find_classifier(NAME, None, 10, 1, "victim")
    assert found(torch.rand(2, 1, 28, 28)).shape == (2, 10)
    assert found.sha256 == find_network(NAME).sha256


def test_logits_are_checked_once_and_in_single_precision() -> None:
    calls = []
    network = FrozenClassifier(lambda x: calls.append(1) or torch.full((len(x), 3), -1.0, dtype=torch.float64), 3, "f")
    assert network(torch.zeros(2, 4)).dtype == torch.float32
    with pytest.raises(BadInput, match="tells 3 classes apart, this model 4"):
        FrozenClassifier(network.model, 4, "f")(torch.zeros(2, 4))
