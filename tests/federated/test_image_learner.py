"""The base of federated classifiers: hooks, settings from hyper-parameters, how much the accuracy changes."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, seed_everything
from toys.learners import trainer_of

from datamodules.clients import ClientsDataModule
from zoo.federated.clients import ClientAlgorithm, FedProx, LocalTraining, ParamScope
from zoo.federated.images import CHANGES, FederatedClassifier
from zoo.federated.rules import Rule, create_rule

SMALL: dict[str, Any] = {"num_clients": 2, "train_size": 40, "val_size": 20, "test_size": 10, "batch_size": 8}


class Plain(FederatedClassifier):
    """What a subclass is at least."""

    def __init__(
        self,
        lr: float = 0.05,
        num_classes: int = 10,
        class_names: list[str] | None = None,
        channels: int = 1,
        img_size: int = 28,
        network: str = "resnet10-w2-gn",
    ) -> None:
        super().__init__()


class Particular(FederatedClassifier):
    """A subclass that says everything."""

    def __init__(
        self,
        lr: float = 0.03,
        local_epochs: int = 2,
        momentum: float = 0.5,
        nesterov: bool = True,
        weight_decay: float = 0.1,
        optimizer: str = "adam",
        optimizer_policy: str = "persistent",
        milestones: tuple[int, ...] | list[int] = (2,),
        transforms: list[dict[str, Any]] | None = None,
        client_processes: int | None = 1,
        num_classes: int = 10,
        class_names: list[str] | None = None,
        channels: int = 1,
        img_size: int = 28,
        network: str = "resnet10-w2-gn",
    ) -> None:
        super().__init__()

    def make_rule(self) -> Rule:
        return create_rule("median")

    def make_client(self) -> ClientAlgorithm:
        return FedProx(mu=0.2)

    def make_scope(self) -> ParamScope:
        return ParamScope([("linear", "local")])


class Curve(Callback):
    """Accuracy and change of every round, as a logger gets them."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self.rows.append({k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")})


def fitted(learner: FederatedClassifier, folder: Path, rounds: int, **options: Any) -> list[dict[str, float]]:
    curve = Curve()
    path = options.pop("ckpt_path", None)
    trainer = trainer_of(folder, curve, max_epochs=rounds, **options)
    trainer.fit(learner, ClientsDataModule(**SMALL), ckpt_path=path, weights_only=path is not None or None)
    return curve.rows


def test_defaults_of_a_subclass() -> None:
    learner = Plain()
    assert learner.rule.name == "fedavg"
    assert learner.client.name == "plain"
    assert learner.local == LocalTraining(lr=0.05)
    assert learner.scope.of("anything") == "global"
    assert learner.transforms == ()
    assert learner.client_processes is None


def test_a_subclass_says_what_is_particular() -> None:
    learner = Particular(transforms=[{"name": "clip", "norm": 2.0}], milestones=[3])
    assert learner.rule.name == "median"
    assert learner.client.mu == 0.2  # type: ignore[attr-defined]
    assert learner.scope.of("linear.weight") == "local"
    assert learner.local == LocalTraining(2, 0.03, "adam", 0.5, True, 0.1, "persistent", (3,))
    assert learner.transforms[0].norm == 2.0  # type: ignore[attr-defined]
    assert learner.client_processes == 1


def test_change_is_the_mean_step_of_the_last_rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.federated.images.CHANGES", 3)
    seed_everything(0, verbose=False)
    rows = fitted(Plain(lr=0.3), tmp_path, 6)
    accuracies = [row["val/accuracy"] for row in rows]
    assert len(set(accuracies)) > 2
    assert "val/change" not in rows[0], "one round has nothing to compare with"
    for number in range(1, 6):
        last = accuracies[max(0, number - 3) : number + 1]
        wanted = sum(abs(b - a) for a, b in pairwise(last)) / (len(last) - 1)
        assert rows[number]["val/change"] == pytest.approx(wanted, abs=1e-6)


def test_change_goes_on_after_resuming(tmp_path: Path) -> None:
    def start() -> Plain:
        seed_everything(0, verbose=False)
        return Plain(lr=0.3)

    whole = fitted(start(), tmp_path, 4)
    first = start()
    fitted(first, tmp_path, 2)
    first.trainer.save_checkpoint(tmp_path / "two.ckpt")
    saved = torch.load(tmp_path / "two.ckpt", weights_only=True)
    assert saved["federated"]["accuracies"] == [row["val/accuracy"] for row in whole[:2]]
    assert fitted(start(), tmp_path, 4, ckpt_path=tmp_path / "two.ckpt") == whole[2:]
    fitted(first, tmp_path, 1)
    assert len(first.accuracies) == 1, "another run forgets the rounds of the former one"
    assert CHANGES == 10


def test_validation_without_training_changes_nothing(tmp_path: Path) -> None:
    learner = Plain()
    (metrics,) = trainer_of(tmp_path).validate(learner, ClientsDataModule(**SMALL), verbose=False)
    assert set(metrics) == {"val/loss", "val/accuracy"}
    assert learner.accuracies == []
