"""A loss or weights that are not finite end a run; the step is kept and can be done again bit for bit."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from toys import cli as cli_toys
from toys.learners import ToyLearner
from toys.ridge import ToyRidge

from zoo import training
from zoo.store.checkpoint import read_checkpoint

FORK = pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
ONE = ("--trainer.devices", 1)
TWO = ("--trainer.devices", 2, "--trainer.strategy", "ddp_fork")
RUN = Path("runs/toy-net-ten-n/version_0")


def fit(*words: Any) -> int:
    return training.main(["fit", "--zoo", "toy-net", *map(str, words)])


def capsule() -> Path:
    (path,) = RUN.glob("nonfinite-*.ckpt")
    return path


def replay(*words: Any) -> int:
    return training.main(["replay", str(capsule()), *map(str, words)])


def last() -> dict[str, Any]:
    return torch.load(RUN / "checkpoints" / "last.ckpt", weights_only=True)


def spoil(monkeypatch: pytest.MonkeyPatch, step: int, what: str, rank: int = 0) -> None:
    """Let a step of the toy, counted over the run, have a bad batch, a bad loss, bad gradients, or none of these."""
    former = cli_toys.ToyNet.training_step

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        here = self.trainer.fit_loop.epoch_loop.total_batch_idx == step and self.global_rank == rank
        torch.rand(3)  # the random state goes on
        noise = 1 + 1e-3 * torch.randn(()) * batch["x"].mean()
        loss = former(self, batch, batch_idx) * noise
        if here and what == "loss":
            return loss * float("nan")
        if here and what == "infinite":
            return loss + float("inf")
        if here and what == "gradient":
            return loss + torch.sqrt(0 * self.head.weight.sum())  # 0, whose gradient is not finite
        if here and what == "step":
            return loss + 3e38 * (self.head.weight - self.head.weight.detach()).sum()  # more than weights can hold
        return loss

    monkeypatch.setattr(cli_toys.ToyNet, "training_step", training_step)


KINDS = ["loss", "infinite", "gradient", "step"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", [0, 8, 12, 17])
def test_step_is_kept_and_replayed(
    kind: str, step: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the first step, the first one of an epoch, one within, and the last one."""
    spoil(monkeypatch, step, kind)
    assert fit("--trainer.max_epochs", 4, "--checkpoint_every_n_steps", 2, "--model.lr", 10) == 2
    said = capsys.readouterr().err
    assert str(capsule()) in said
    assert not (RUN / "result.json").exists()
    if step:
        assert last()["global_step"] <= step
        assert all(bool(v.isfinite().all()) for v in last()["state_dict"].values())
    held = read_checkpoint(capsule())
    assert held["global_step"] == step
    assert all(bool(v.isfinite().all()) for v in held["state_dict"].values())
    assert replay() == 0, capsys.readouterr().err
    assert "The same, bit for bit" in capsys.readouterr().out


def test_gradients_of_an_unfinished_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second of three batches whose gradients are added up."""
    spoil(monkeypatch, 9, "gradient")
    flags = ("--trainer.max_epochs", 3, "--trainer.accumulate_grad_batches", 3)
    assert fit(*flags) == 2
    held = read_checkpoint(capsule())
    assert (held["global_step"], held["capsule"]["batch_idx"]) == (3, 1)
    assert held["capsule"]["ranks"][0]["gradients"]
    assert replay() == 0


def test_bad_sample_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    former = cli_toys.ToyRows.__getitem__

    def item(self: Any, i: int) -> Any:
        found = former(self, i)
        return {**found, "x": found["x"] * float("nan")} if i == 21 and len(self) == 40 else found

    monkeypatch.setattr(cli_toys.ToyRows, "__getitem__", item)
    assert fit("--data.length", 40) == 2
    assert "'x' of sample 21: look at these data first" in capsys.readouterr().err
    assert replay() == 0
    assert "not finite first: the output of body.0 (Linear)" in capsys.readouterr().out


def test_averaged_weights_stay_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, 18, "loss")
    flags = ("--trainer.callbacks+=zoo.nn.averaging.RampedEMA", "--checkpoint_every_n_steps", 1)
    assert fit("--trainer.max_epochs", 4, *flags) == 2
    assert last()["global_step"] == 18
    for key in ("state_dict", "current_model_state", "averaging_state"):
        assert all(bool(v.isfinite().all()) for v in last()[key].values())
    assert replay() == 0


def test_another_result_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with monkeypatch.context() as patch:
        spoil(patch, 12, "loss")
        assert fit("--trainer.max_epochs", 3) == 2
    assert replay() == 1
    assert "Another result: the loss is" in capsys.readouterr().err


def test_going_on_is_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, 3, "loss")
    assert fit("--terminate_on_nan", "false") == 0
    assert last()["global_step"] == 16


def test_what_is_not_finite_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A buffer that means `nothing yet`."""
    former = cli_toys.ToyNet.__init__

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        former(self, *args, **kwargs)
        self.register_buffer("least", torch.tensor(float("inf")))

    init.__wrapped__ = former  # type: ignore[attr-defined]  # its arguments are those of the toy
    monkeypatch.setattr(cli_toys.ToyNet, "__init__", init)
    assert fit("--trainer.max_epochs", 1) == 0


def test_large_numbers_are_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sum of their squares is not."""
    former = cli_toys.ToyNet.on_train_start

    def start(self: Any) -> None:
        former(self)
        self.register_buffer("large", torch.full((4,), 1e30))

    monkeypatch.setattr(cli_toys.ToyNet, "on_train_start", start)
    assert fit("--trainer.max_epochs", 1) == 0


def test_capsule_is_no_state_to_resume(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with monkeypatch.context() as patch:
        spoil(patch, 12, "loss")
        assert fit("--trainer.max_epochs", 3) == 2
    capsys.readouterr()
    assert fit("--ckpt_path", capsule()) == 2
    assert "zoo replay" in capsys.readouterr().err
    assert training.main(["replay", str(RUN / "checkpoints" / "last.ckpt")]) == 2
    assert "holds no step" in capsys.readouterr().err
    assert fit("--weights", capsule(), "--trainer.max_epochs", 1) == 0


@FORK
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("kind", ["loss", "infinite"])
def test_two_ranks(rank: int, kind: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """One rank has the bad step. An infinite constant leaves the weights as they are, and the other rank must know."""
    spoil(monkeypatch, 6, kind, rank)
    assert fit("--trainer.max_epochs", 3, *TWO) == 2
    assert f"zoo replay {capsule()}" in capfd.readouterr().err
    assert len(read_checkpoint(capsule())["capsule"]["ranks"]) == 2
    assert replay() == 0, capfd.readouterr().err
    assert replay("--trainer.devices", 1, "--trainer.strategy", "auto") == 2
    assert "The run had 2 ranks" in capfd.readouterr().err


# Rounds -----------------------------------------------------------------------------------------------------------


BY_RANKS = pytest.mark.parametrize("ranks", [ONE, pytest.param(TWO, marks=FORK)], ids=["1", "2"])


def fit_rounds(name: str, *words: Any) -> int:
    always = ("--trainer.accelerator", "cpu", "--trainer.max_epochs", 3, "--trainer.limit_val_batches", 0)
    return training.main(["fit", "--zoo", name, *map(str, (*always, *words))])


def only(name: str) -> str:
    (path,) = Path("runs", name, "version_0").glob("nonfinite-*.ckpt")
    return str(path)


@BY_RANKS
def test_closed_form(ranks: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    cli_toys.register_rounds()
    former = ToyRidge.collect

    def collect(self: Any, batch: Any, batch_idx: int) -> None:
        former(self, batch, batch_idx)
        if self.current_epoch == 1 and self.global_rank == 0 and batch_idx == 0:
            self.moment[0] = float("nan")

    monkeypatch.setattr(ToyRidge, "collect", collect)
    assert fit_rounds("toy-ridge", *ranks, "--data.kind", "regression") == 2
    assert "weight holds NaN or infinity" in capfd.readouterr().err
    held = read_checkpoint(only("toy-ridge"))
    assert held["epoch"] == 1
    assert bool(held["state_dict"]["weight"].isfinite().all())
    assert training.main(["replay", only("toy-ridge")]) == 0, capfd.readouterr().err


@BY_RANKS
@pytest.mark.parametrize("where", ["client", "server"])
def test_federated(where: str, ranks: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """A client's update that the rule refuses, and a global model that is not finite after aggregation."""
    cli_toys.register_rounds()
    if where == "client":
        former = ToyLearner.local_step

        def local_step(self: Any, network: Any, batch: Any) -> Any:
            loss, z = former(self, network, batch)
            return loss * (float("nan") if self.current_epoch == 1 else 1), z

        monkeypatch.setattr(ToyLearner, "local_step", local_step)
    else:
        update = ToyLearner.update

        def spoiled(self: Any) -> Any:
            values, bad = update(self), self.current_epoch == 1
            return {k: v * float("inf") if bad and v.is_floating_point() else v for k, v in values.items()}

        monkeypatch.setattr(ToyLearner, "update", spoiled)
    assert fit_rounds("toy-learner", *ranks, "--data.clients", 4) == 2
    said = "".join(capfd.readouterr())
    assert ("The update of client 0 is not finite" if where == "client" else "hold NaN or infinity") in said
    assert f"zoo replay {only('toy-learner')}" in said
    assert training.main(["replay", only("toy-learner")]) == 0, capfd.readouterr().err


def test_classes_of_others_are_asked_for(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The config in a stranger's file imports nothing by itself."""
    with monkeypatch.context() as patch:
        spoil(patch, 3, "loss")
        assert fit("--trainer.max_epochs", 1) == 2
    held = torch.load(capsule(), weights_only=True)
    config = yaml.safe_load(held["capsule"]["config"])
    config["trainer"]["callbacks"] = [{"class_path": "evilmod.Evil"}]
    held["capsule"]["config"] = yaml.safe_dump(config)
    torch.save(held, capsule())
    Path("evilmod.py").write_text("open('executed', 'w').close()")
    monkeypatch.syspath_prepend(".")
    assert replay() == 2
    assert "evilmod.Evil" in capsys.readouterr().err
    assert not Path("executed").exists()
