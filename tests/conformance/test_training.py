"""C13-C15, C18, C19: every loop of the Trainer, the command line, precision, accumulation, metrics."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback
from lightning.pytorch.utilities.exceptions import MisconfigurationException

import zoo
from conformance.support import Losses, all_finite, data_of, different, learned, model_of, state_of, trainer_of
from zoo import training
from zoo.base import ZooModule
from zoo.errors import ZooError
from zoo.index import Entry

PREFIXES = ("train/", "val/", "test/", "lr")


@pytest.mark.filterwarnings("ignore")
def test_c13_fast_dev_run(entry: Entry, folder: Path) -> None:
    model, data = model_of(entry), data_of(entry)
    trainer = trainer_of(folder, fast_dev_run=True)
    trainer.fit(model, data)
    trainer.validate(model, data, verbose=False)
    trainer.test(model, data, verbose=False)
    assert trainer.predict(model, data)
    assert not list(folder.iterdir()), "fast_dev_run leaves nothing behind"


def test_c14_command_line(entry: Entry, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    small = flags("model", entry.tiny.get("model", {})) + flags("data", entry.tiny.get("data", {}))
    quick = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.limit_val_batches=2"]
    quick += [
        "--trainer.accelerator=cpu",
        "--trainer.devices=1",
        "--trainer.default_root_dir=out",
        "--trainer.logger=false",
    ]
    torch.manual_seed(0)
    first = training.run(["fit", "--zoo", entry.id, *small, *quick, "--trainer.logger=true"])
    saved = sorted(folder.rglob("config.yaml"))
    assert saved, "the resolved config is saved with the run"
    assert training.main(["fit", "--config", str(saved[0])]) == 0
    configs = sorted(folder.rglob("config.yaml"))
    assert len(configs) == 2, "a run has a folder of its own"
    checkpoints = [sorted(c.parent.rglob("last.ckpt")) for c in configs]
    assert all(checkpoints), "each run keeps last.ckpt"
    again = torch.load(checkpoints[1][0], weights_only=True)["state_dict"]
    assert not different(again, state_of(first.model)), "running the saved config again gives the same weights"


def flags(section: str, values: dict[str, Any], prefix: str = "") -> list[str]:
    """Arguments as flags; the command line reads YAML values."""
    import json

    return [f"--{section}.{name}={json.dumps(value)}".replace('="', "=").rstrip('"') for name, value in values.items()]


class Modes(Callback):
    """Names of the modules in evaluation mode when each training step begins."""

    def __init__(self) -> None:
        self.resting: list[list[str]] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.resting.append([name or "all" for name, part in pl_module.named_modules() if not part.training])


def loaded(entry: Entry, folder: Path) -> ZooModule:
    """What `zoo.load` returns of a model that has learned."""
    model, _ = learned(entry, folder / "run")
    return zoo.load(zoo.save(model, folder / "saved"))


def test_what_load_returns_trains_in_training_mode(entry: Entry, folder: Path) -> None:
    model, modes = loaded(entry, folder), Modes()
    assert not model.training
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*in eval mode at the start of training")
        trainer_of(folder, modes, limit_train_batches=1).fit(model, data_of(entry))
    assert modes.resting == [[]], f"in evaluation mode in the first step: {modes.resting}"


@pytest.mark.parametrize("flag", ["--model.no_such_argument=1", "--trainer.max_epoks=1", "--modle.x=1"])
def test_c14_misspelt_flag_is_one_line(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    from conformance.support import variants

    assert training.main(["fit", "--zoo", variants()[0][1].id, flag]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert flag.partition("=")[0] in told
    assert "Traceback" not in told


def test_c15_bf16(entry: Entry, folder: Path) -> None:
    model, data = model_of(entry), data_of(entry)
    losses = Losses()
    trainer = trainer_of(folder, losses, precision="bf16-mixed", limit_train_batches=3)
    trainer.fit(model, data)
    assert all(map(math.isfinite, losses.values))
    assert all_finite(state_of(model))
    assert all_finite(dict(trainer.callback_metrics))
    assert all(p.dtype != torch.bfloat16 for p in model.parameters())


def test_c18_accumulation_and_clipping(entry: Entry, folder: Path) -> None:
    model, data = model_of(entry), data_of(entry)
    options: dict[str, Any] = {"accumulate_grad_batches": 2, "gradient_clip_val": 0.1, "limit_val_batches": 0}
    trainer = trainer_of(folder, limit_train_batches=4, **options)
    if model.automatic_optimization:
        trainer.fit(model, data)
        assert trainer.global_step == 2
        assert all_finite(state_of(model))
    else:
        with pytest.raises((MisconfigurationException, ZooError)):
            trainer.fit(model, data)


def test_c19_monitor_is_logged(entry: Entry, folder: Path) -> None:
    model, data = model_of(entry), data_of(entry)
    trainer = trainer_of(folder, limit_train_batches=2)
    trainer.fit(model, data)
    assert model.monitor[0] in trainer.callback_metrics, f"logged: {sorted(trainer.callback_metrics)}"
    strange = [k for k in trainer.callback_metrics if not k.startswith(PREFIXES)]
    assert not strange, f"logged under a name of its own: {strange}"
    trainer = trainer_of(folder)
    trainer.test(model, data, verbose=False)
    assert trainer.callback_metrics
    assert all(k.startswith("test/") for k in trainer.callback_metrics)


def test_c19_metrics_start_anew(entry: Entry, folder: Path) -> None:
    model, data = learned(entry, folder)
    first = trainer_of(folder).validate(model, data, verbose=False)
    again = trainer_of(folder).validate(model, data, verbose=False)
    assert not different(first, again), "a metric kept something from the last epoch"


def test_c19_partial_batches_are_weighted(batch_independent_entry: Entry, folder: Path) -> None:
    """The metrics must not depend on how the samples fall into batches."""
    model, _ = learned(batch_independent_entry, folder)
    found = []
    for size in (3, 7):
        other = data_of(batch_independent_entry, batch_size=size)
        found.append(trainer_of(folder).validate(model, other, verbose=False)[0])
    assert found[0].keys() == found[1].keys()
    for key, value in found[0].items():
        assert math.isclose(value, found[1][key], rel_tol=1e-4, abs_tol=1e-5), f"{key}: {value} and {found[1][key]}"


def test_images_are_logged_without_a_logger(entry: Entry, folder: Path) -> None:
    model, data = model_of(entry), data_of(entry)
    trainer = trainer_of(folder, limit_train_batches=1, limit_val_batches=0)
    trainer.fit(model, data)
    model.log_image("val/picture", torch.zeros(3, 4, 4))
    assert list(folder.rglob("val_picture_*.png"))
