"""C17: a run stopped anywhere and resumed equals the uninterrupted one, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, seed_everything
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint

from conformance.support import (
    Interrupted,
    SaveAfter,
    StopAfter,
    data_of,
    different,
    model_of,
    names,
    run_state,
    trainer_of,
)
from zoo.index import Entry

EPOCHS = 2


def whole(entry: Entry, folder: Path, *callbacks: Callback, **data: Any) -> tuple[dict[str, Any], int]:
    """The uninterrupted run, and its number of batches per epoch."""
    model, module = model_of(entry), data_of(entry, **data)
    trainer = trainer_of(folder, *callbacks, max_epochs=EPOCHS)
    trainer.fit(model, module)
    return run_state(trainer), len(module.train_dataloader())


_STRAIGHT: dict[str, tuple[dict[str, Any], Path]] = {}


def straight(entry: Entry, factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """The uninterrupted run that the tests of this file share, with its checkpoints.

    `middle.ckpt` is from the middle of the second epoch; `before.ckpt` was written between the last batch of the first
    one and its validation, `first-epoch=0.ckpt` by ModelCheckpoint after it.
    """
    key = f"{entry.id} {entry.model} {entry.tiny}"
    if key not in _STRAIGHT:
        folder = factory.mktemp("straight")
        keep = ModelCheckpoint(dirpath=folder, filename="first-{epoch}", save_top_k=-1, monitor=None)
        before = SaveAfter(len(data_of(entry).train_dataloader()), folder / "before.ckpt")
        expected, _ = whole(entry, folder, keep, before, SaveAfter(middle(entry), folder / "middle.ckpt"))
        _STRAIGHT[key] = expected, folder
    return _STRAIGHT[key]


def resumed(entry: Entry, folder: Path, path: Path, *callbacks: Callback, **data: Any) -> dict[str, Any]:
    """A run in fresh objects under another seed, which must not matter."""
    model, module = model_of(entry, seed=99), data_of(entry, **data)
    trainer = trainer_of(folder, *callbacks, max_epochs=EPOCHS)
    seed_everything(1234, verbose=False)
    trainer.fit(model, module, ckpt_path=path, weights_only=True)
    return run_state(trainer)


def middle(entry: Entry) -> int:
    """So many batches lead into the middle of the second epoch."""
    return int(1.5 * len(data_of(entry).train_dataloader()))


def test_c17_middle_of_an_epoch(entry: Entry, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    expected, place = straight(entry, tmp_path_factory)
    path = place / "middle.ckpt"
    found = different(expected, resumed(entry, folder, path))
    assert not found, f"after resuming: {names(found)}"
    held = torch.load(path, weights_only=True)  # needs no pickle
    assert held["zoo"]["id"] == entry.id
    assert held["zoo"]["format"] == 1


def test_c17_killed(entry: Entry, folder: Path) -> None:
    """The run dies without tidying up; the checkpoint is from before."""
    path, stop = folder / "killed.ckpt", middle(entry) - 1
    with pytest.raises(Interrupted):
        whole(entry, folder, SaveAfter(stop, path), StopAfter(stop + 1))
    expected, _ = whole(entry, folder)
    found = different(expected, resumed(entry, folder, path))
    assert not found, f"after resuming: {names(found)}"


def test_c17_end_of_an_epoch(entry: Entry, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Before the validation of the first epoch, and after it, ModelCheckpoint's usual moment."""
    expected, place = straight(entry, tmp_path_factory)
    for name in ("before.ckpt", "first-epoch=0.ckpt"):
        found = different(expected, resumed(entry, folder, place / name))
        assert not found, f"after resuming from {name}: {names(found)}"


def test_c17_with_averaged_weights(gradient_entry: Entry, folder: Path) -> None:
    path = folder / "middle.ckpt"
    average = lambda: EMAWeightAveraging(decay=0.8)  # noqa: E731
    expected, _ = whole(gradient_entry, folder, average(), SaveAfter(middle(gradient_entry), path))
    found = different(expected, resumed(gradient_entry, folder, path, average()))
    assert not found, f"after resuming: {names(found)}"


@pytest.mark.slow
def test_c17_with_loader_processes(entry: Entry, folder: Path) -> None:
    path = folder / "middle.ckpt"
    expected, _ = whole(entry, folder, SaveAfter(middle(entry), path), num_workers=1)
    found = different(expected, resumed(entry, folder, path, num_workers=1))
    assert not found, f"after resuming: {names(found)}"
    inside = resumed(entry, folder, path, num_workers=0)
    assert not different(expected["state"], inside["state"]), "the number of loader processes must not matter"
