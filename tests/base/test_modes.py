"""Training and evaluation mode: what a loaded module trains in, what stays frozen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conformance.support import data_of, different, model_of, state_of, trainer_of, variants
from lightning import Callback, seed_everything
from toys import register_toys

import zoo
from zoo.base import ZooModule
from zoo.index import Entry


@pytest.fixture(autouse=True, scope="module")
def toys() -> None:
    register_toys()


def student() -> Entry:
    """With batch normalisation and dropout, so that the mode matters."""
    return dict(variants())["toy-student"]


def loaded(folder: Path) -> ZooModule:
    return zoo.load(zoo.save(model_of(student(), teacher=0), folder / "saved"))


class Modes(Callback):
    """Names of the modules in evaluation mode when each training step begins."""

    def __init__(self) -> None:
        self.resting: list[set[str]] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.resting.append({name for name, part in pl_module.named_modules() if not part.training})


def fit(model: ZooModule, folder: Path) -> list[set[str]]:
    modes = Modes()
    seed_everything(1, verbose=False)
    trainer_of(folder, modes, limit_train_batches=2).fit(model, data_of(student()))
    return modes.resting


def test_loaded_weights_train_as_those_of_the_class_do(tmp_path: Path) -> None:
    """Batch statistics move, and they move as they would without the detour over a file."""
    model, direct = loaded(tmp_path), model_of(student(), teacher=0)
    before = state_of(model)["norm.running_mean"]
    assert fit(model, tmp_path) == [set(), set()]
    assert different(before, state_of(model)["norm.running_mean"])
    fit(direct, tmp_path)
    assert not different(state_of(model), state_of(direct))


def test_frozen_parts_rest_while_the_others_train(tmp_path: Path) -> None:
    model = loaded(tmp_path)
    model.freeze("norm")
    assert fit(model, tmp_path) == [{"norm"}, {"norm"}]


def test_parts_put_into_evaluation_mode_by_hand_stay_so(tmp_path: Path) -> None:
    model = loaded(tmp_path)
    model.train()
    model.dropout.eval()  # type: ignore[operator, union-attr]
    assert fit(model, tmp_path) == [{"dropout"}, {"dropout"}]


def test_evaluating_does_not_change_the_mode(tmp_path: Path) -> None:
    model = loaded(tmp_path)
    trainer_of(tmp_path).validate(model, data_of(student()), verbose=False)
    assert not any(part.training for part in model.modules())
