"""The checkpoints of `zoo train`: the last one is the last state, the best one is remembered, results say which."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import cli as cli_toys

from zoo import training
from zoo.training.checkpoints import best_of, last_of
from zoo.training.resuming import last_checkpoint
from zoo.training.stages import stage_result

FLAT = ("--model.lr", 0)  # nothing is learned, so the monitor never improves


def fit(*words: Any) -> Any:
    return training.run(["fit", "--zoo", "toy-net", *map(str, words)])


def kept(run: int = 0, name: str = "last.ckpt") -> dict[str, Any]:
    return torch.load(folder(run) / "checkpoints" / name, weights_only=True)


def folder(run: int = 0) -> Path:
    return Path("runs/toy-net-ten-n") / f"version_{run}"


def result(run: int = 0) -> dict[str, Any]:
    return json.loads((folder(run) / "result.json").read_text())


def stop_at(epoch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let training break off at the start of an epoch, counted from 0."""

    def fail(self: cli_toys.ToyNet) -> None:
        if self.current_epoch == epoch:
            raise RuntimeError("broken off")

    monkeypatch.setattr(cli_toys.ToyNet, "on_train_epoch_start", fail)


# The last state ---------------------------------------------------------------------------------------------------


def test_last_is_the_last_epoch_where_nothing_improves() -> None:
    done = fit("--trainer.max_epochs", 3, *FLAT)
    assert best_of(done.trainer).best_model_path.endswith("best-epoch000.ckpt")
    assert kept()["epoch"] == 2
    assert kept()["global_step"] == done.trainer.global_step == 24
    assert kept(name="best-epoch000.ckpt")["epoch"] == 0


@pytest.mark.parametrize("flags", [FLAT, ("--trainer.limit_val_batches", 0), ("--trainer.check_val_every_n_epoch", 5)])
def test_every_epoch_is_kept(flags: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever validation does: a run that breaks off has lost the epoch it was in, and nothing else."""
    stop_at(2, monkeypatch)
    with pytest.raises(RuntimeError, match="broken off"):
        fit("--trainer.max_epochs", 4, *flags)
    assert kept()["epoch"] == 1
    assert [p.name for p in Path().rglob("last*.ckpt")] == ["last.ckpt"]


@pytest.mark.parametrize("flags", [FLAT, ("--trainer.limit_val_batches", 0)])
def test_broken_off_and_resumed_equals_the_uninterrupted_run(
    flags: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ("--trainer.max_epochs", 4, *flags)
    fit(*flags)
    with monkeypatch.context() as patch:
        stop_at(3, patch)
        with pytest.raises(RuntimeError, match="broken off"):
            fit(*flags)
    seen: list[int] = []
    monkeypatch.setattr(cli_toys.ToyNet, "on_train_epoch_start", lambda self: seen.append(self.current_epoch))
    fit("--ckpt_path", "last", *flags)
    assert seen == [3]
    whole, resumed = kept(0), kept(2)
    assert whole["epoch"] == resumed["epoch"] == 3
    assert whole["global_step"] == resumed["global_step"]
    assert all(torch.equal(v, resumed["state_dict"][k]) for k, v in whole["state_dict"].items())
    assert torch.equal(whole["zoo"]["ranks"][0]["rng"]["torch"], resumed["zoo"]["ranks"][0]["rng"]["torch"])


def test_steps_between_epochs_by_a_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: cli_toys.ToyNet, batch: Any, batch_idx: int) -> None:
        if batch_idx == 7:
            raise RuntimeError("broken off")

    flags = ("--trainer.max_epochs", 2, "--checkpoint_every_n_steps", 3)
    whole = fit(*flags)
    with monkeypatch.context() as patch:
        patch.setattr(cli_toys.ToyNet, "on_train_batch_start", fail)
        with pytest.raises(RuntimeError, match="broken off"):
            fit(*flags)
    assert kept(1)["global_step"] == 6
    rest = fit("--ckpt_path", "last", *flags)
    assert rest.trainer.global_step == whole.trainer.global_step
    assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), rest.model.parameters(), strict=True))
    config = (folder(0) / "config.yaml").read_text()
    assert "checkpoint_every_n_steps: 3" in config


def test_unfinished_steps_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of an accumulation the gradients would be lost."""

    def fail(self: cli_toys.ToyNet, batch: Any, batch_idx: int) -> None:
        if batch_idx == 7:
            raise RuntimeError("broken off")

    flags = ("--trainer.max_epochs", 1, "--checkpoint_every_n_steps", 1, "--trainer.accumulate_grad_batches", 3)
    whole = fit(*flags)
    with monkeypatch.context() as patch:
        patch.setattr(cli_toys.ToyNet, "on_train_batch_start", fail)
        with pytest.raises(RuntimeError, match="broken off"):
            fit(*flags)
    assert kept(1)["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]["ready"] == 6
    rest = fit("--ckpt_path", "last", *flags)
    assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), rest.model.parameters(), strict=True))


def test_stopped_in_the_first_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long validation comes before the first epoch has ended: its training is kept already."""
    flags = ("--trainer.max_epochs", 1, "--trainer.num_sanity_val_steps", 0)
    whole = fit(*flags)

    def fail(self: cli_toys.ToyNet, batch: Any, batch_idx: int) -> None:
        raise RuntimeError("broken off")

    with monkeypatch.context() as patch:
        patch.setattr(cli_toys.ToyNet, "validation_step", fail)
        with pytest.raises(RuntimeError, match="broken off"):
            fit(*flags)
    assert kept(1)["global_step"] == whole.trainer.global_step
    steps: list[int] = []
    trained = cli_toys.ToyNet.training_step
    monkeypatch.setattr(
        cli_toys.ToyNet, "training_step", lambda self, batch, i: steps.append(i) or trained(self, batch, i)
    )
    rest = fit("--ckpt_path", "last", *flags)
    assert steps == []  # only the validation was missing
    assert rest.trainer.callback_metrics["val/loss"] == whole.trainer.callback_metrics["val/loss"]


def test_own_checkpoint_callback_does_not_replace_the_last_state() -> None:
    """`save_last` of Lightning is the last improvement."""
    own = ("--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.monitor=val/loss")
    done = fit("--trainer.max_epochs", 3, *own, "--trainer.callbacks.save_last=true", *FLAT)
    assert kept()["epoch"] == 2
    assert sorted(p.name for p in (folder() / "checkpoints").iterdir()) == ["epoch=0-step=8.ckpt", "last.ckpt"]
    assert last_of(done.trainer).last_model_path.endswith("last.ckpt")
    assert result()["selected"] == "best"  # the user selects on validation
    assert result()["checkpoint_epoch"] == 1


def test_no_checkpoints_if_they_are_switched_off() -> None:
    fit("--trainer.max_epochs", 1, "--trainer.enable_checkpointing", "false")
    assert not list(Path().rglob("*.ckpt"))


# What a result says -----------------------------------------------------------------------------------------------


def test_result_says_which_epoch_it_points_to() -> None:
    done = fit("--trainer.max_epochs", 3, "--trainer.check_val_every_n_epoch", 2, *FLAT)
    found = result()
    assert Path(found["checkpoint"]).name == "last.ckpt"
    assert found["selected"] == "last"
    assert (found["checkpoint_epoch"], found["epochs"], found["validated_at"]) == (3, 3, 2)
    assert found["checkpoint_step"] == found["steps"] == done.trainer.global_step
    held = torch.load(found["checkpoint"], weights_only=True)
    assert held["epoch"] + 1 == found["checkpoint_epoch"]
    assert all(torch.equal(v, held["state_dict"][k]) for k, v in done.model.state_dict().items())


def test_clock_that_was_set_back() -> None:
    """The newest run is the one with the highest number, whatever the clock said when it was written."""
    fit("--trainer.max_epochs", 1)
    fit("--trainer.max_epochs", 2)
    for path in folder(1).rglob("*"):
        os.utime(path, (1.0, 1.0))
    assert last_checkpoint(Path("runs/toy-net-ten-n")) == folder(1) / "checkpoints" / "last.ckpt"
    assert Path(stage_result(Path("runs/toy-net-ten-n")) or "").resolve() == last_checkpoint(folder().parent).resolve()


# The best one -----------------------------------------------------------------------------------------------------


def test_resumed_run_remembers_the_best_score() -> None:
    """A worse epoch after the resume is not the best one."""
    first = best_of(fit("--trainer.max_epochs", 2).trainer)
    rest = best_of(fit("--ckpt_path", "last", "--trainer.max_epochs", 3, "--trainer.limit_train_batches", 9).trainer)
    assert rest.best_model_score is not None
    score, path = first.best_model_score, first.best_model_path
    worse = fit("--ckpt_path", folder() / "checkpoints" / "last.ckpt", "--trainer.max_epochs", 2)
    assert best_of(worse.trainer).best_model_score == score
    assert Path(best_of(worse.trainer).best_model_path) == Path(path)
    assert best_of(worse.trainer).best_k_models == {path: score}


def test_worse_epochs_after_a_resume(monkeypatch: pytest.MonkeyPatch) -> None:
    best = best_of(fit("--trainer.max_epochs", 2).trainer)
    monkeypatch.setattr(cli_toys.ToyNet, "validation_step", lambda self, batch, i: self.log("val/loss", 1e3))
    rest = best_of(fit("--ckpt_path", "last", "--trainer.max_epochs", 4).trainer)
    assert rest.best_model_path == best.best_model_path
    assert rest.best_model_score == best.best_model_score
    assert Path(best.best_model_path).is_file()
    assert not list((folder(1) / "checkpoints").glob("best*"))
    assert Path(result(1)["best"]).samefile(best.best_model_path)


def test_better_epochs_after_a_resume(monkeypatch: pytest.MonkeyPatch) -> None:
    best = best_of(fit("--trainer.max_epochs", 2).trainer)
    monkeypatch.setattr(cli_toys.ToyNet, "validation_step", lambda self, batch, i: self.log("val/loss", -1.0))
    rest = best_of(fit("--ckpt_path", "last", "--trainer.max_epochs", 4).trainer)
    assert Path(rest.best_model_path).parent.samefile(folder(1) / "checkpoints")
    assert float(rest.best_model_score) == -1.0
    assert Path(best.best_model_path).is_file()  # it belongs to the earlier run


def test_best_one_that_has_moved_or_gone(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked for beside the checkpoint that is resumed; one that is gone is nothing to compare with."""
    best = Path(best_of(fit("--trainer.max_epochs", 2).trainer).best_model_path)
    moved = folder().rename(place / "moved") / "checkpoints"
    monkeypatch.setattr(cli_toys.ToyNet, "validation_step", lambda self, batch, i: self.log("val/loss", 1e3))
    words = ("--ckpt_path", moved / "last.ckpt", "--trainer.max_epochs", 3)
    assert Path(best_of(fit(*words).trainer).best_model_path) == moved / best.name
    (moved / best.name).unlink()
    assert float(best_of(fit(*words).trainer).best_model_score) == 1e3
