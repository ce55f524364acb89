"""Several ranks: one raises, is killed, has no labels or fewer samples; a run goes on with others, and is compared."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from fault_tools import FORK
from test_training_processes import SOON, children, until
from toys import cli as cli_toys

from zoo import index, training

pytestmark = pytest.mark.skipif(not FORK or sys.platform != "linux", reason="needs fork and /proc")
ONE = ("--trainer.devices", 1, "--trainer.strategy", "auto")
TWO = ("--trainer.devices", 2, "--trainer.strategy", "ddp_fork")
UNUSED = ("--trainer.devices", 2, "--trainer.strategy", "ddp_fork_find_unused_parameters_true")


def own_children() -> set[int]:
    """Children of this process, without Python's own, which serve it to its end."""
    found = set()
    for pid in children(os.getpid()):
        with suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
            found |= set() if b"resource_tracker" in words or b"forkserver" in words else {pid}
    return found


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An empty folder, the toys in the index, and no child left in the end."""
    monkeypatch.chdir(tmp_path)
    cli_toys.register(tmp_path)
    cli_toys.register_rounds()
    before = set(children(os.getpid()))
    yield tmp_path
    assert until(lambda: not (own_children() - before), SOON)
    for name in ("toy-net", "toy-learner", "toy-ridge"):
        index._registered.pop(name, None)


def fit(*words: Any, zoo: str = "toy-net") -> int:
    return training.main(["fit", "--zoo", zoo, *map(str, words)])


def last(run: int, name: str = "toy-net-ten-n") -> dict[str, Any]:
    return torch.load(f"runs/{name}/version_{run}/checkpoints/last.ckpt", weights_only=True)


def apart(one: dict[str, Any], other: dict[str, Any], key: str = "state_dict") -> float:
    return max(float((v.double() - other[key][k].double()).abs().max()) for k, v in one[key].items())


def in_step(monkeypatch: pytest.MonkeyPatch, rank: int, step: int, act: Any) -> None:
    former = cli_toys.ToyNet.training_step

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        if self.global_rank == rank and self.global_step == step:
            act()
        return former(self, batch, batch_idx)

    monkeypatch.setattr(cli_toys.ToyNet, "training_step", training_step)


# One of them fails ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [0, 1])
def test_rank_that_is_killed(rank: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """The run ends with a named error, and goes on from the epoch before as if nothing had been."""
    assert fit("--trainer.max_epochs", 3, *TWO) == 0
    with monkeypatch.context() as patch:
        in_step(patch, rank, 6, lambda: os.kill(os.getpid(), signal.SIGKILL))
        assert fit("--trainer.max_epochs", 3, *TWO) == 2
    said = capfd.readouterr().err
    assert f"error: Rank {rank} of this run was killed (signal 9;" in said or "Connection closed by peer" in said
    assert fit("--ckpt_path", "last", "--trainer.max_epochs", 3, *TWO) == 0
    assert apart(last(0), last(2)) == 0


@pytest.mark.parametrize("rank", [0, 1])
def test_rank_that_raises(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ZeroDivisionError("of one rank")

    in_step(monkeypatch, rank, 6, fail)
    with pytest.raises(Exception, match=r"of one rank|closed by peer|Connection reset"):
        fit("--trainer.max_epochs", 3, *TWO)


def test_rank_without_labels(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """A mean over no labelled samples is NaN: it ends the run, and does not end up in the weights of every rank."""
    former = cli_toys.ToyNet.training_step

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        if self.global_rank == 1 and self.global_step == 5:
            batch = {**batch, "label": torch.full_like(batch["label"], -100)}  # what the loss leaves out
        return former(self, batch, batch_idx)

    monkeypatch.setattr(cli_toys.ToyNet, "training_step", training_step)
    assert fit("--trainer.max_epochs", 3, *TWO) == 2
    assert "the loss is nan" in capfd.readouterr().err
    assert all(bool(v.isfinite().all()) for v in last(0)["state_dict"].values())


@pytest.mark.parametrize("length", [33, 35, 38])
def test_unequal_batches(length: int) -> None:
    """The number of samples is no multiple of ranks and batches; each rank does as many steps."""
    assert fit("--data.length", length, "--trainer.max_epochs", 2, *TWO) == 0
    assert last(0)["global_step"] == 2 * (length // 2 // 4)


# Others go on -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "second"), [(ONE, TWO), (TWO, ONE)], ids=["1-then-2", "2-then-1"])
@pytest.mark.parametrize("name", ["toy-learner", "toy-ridge"])
def test_rounds_go_on_with_other_ranks(name: str, first: Any, second: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed form and federated rounds are the same for any number of ranks."""
    data = ("--data.kind", "regression") if name == "toy-ridge" else ("--data.clients", 4)
    always = ("--trainer.accelerator", "cpu", "--trainer.limit_val_batches", 0, *data)
    assert fit("--trainer.max_epochs", 4, *ONE, *always, zoo=name) == 0
    assert fit("--trainer.max_epochs", 2, *first, *always, zoo=name) == 0
    assert fit("--trainer.max_epochs", 4, "--ckpt_path", "last", *second, *always, zoo=name) == 0
    assert last(2, name)["epoch"] == 3
    assert apart(last(0, name), last(2, name)) < 1e-5


@pytest.mark.parametrize(("first", "second"), [(ONE, TWO), (TWO, ONE)], ids=["1-then-2", "2-then-1"])
def test_steps_go_on_with_other_ranks(first: Any, second: Any) -> None:
    """With batches of the same size in all, gradients are the same up to the order of sums."""

    def size(ranks: Any) -> tuple[Any, ...]:
        return (*ranks, "--data.batch_size", 8 // ranks[1], "--data.length", 32)

    assert fit("--trainer.max_epochs", 4, *size(first)) == 0
    assert fit("--trainer.max_epochs", 2, *size(first)) == 0
    assert fit("--trainer.max_epochs", 4, "--ckpt_path", "last", *size(second)) == 0
    assert last(2)["global_step"] == last(0)["global_step"] == 16
    assert apart(last(0), last(2)) < 1e-5


def test_averaged_weights_go_on_with_two_ranks() -> None:
    flags = ("--trainer.callbacks+=zoo.nn.averaging.RampedEMA", *TWO)
    assert fit("--trainer.max_epochs", 4, *flags) == 0
    assert fit("--trainer.max_epochs", 2, *flags) == 0
    assert fit("--trainer.max_epochs", 4, "--ckpt_path", "last", *TWO) == 0  # its own config has the callback
    for key in ("state_dict", "current_model_state", "averaging_state"):
        assert apart(last(0), last(2), key) == 0
    assert apart({"state_dict": last(0)["current_model_state"]}, last(0)) > 0


def test_looking_for_unused_parameters_changes_nothing() -> None:
    assert fit("--trainer.max_epochs", 2, *TWO) == 0
    assert fit("--trainer.max_epochs", 2, *UNUSED) == 0
    assert apart(last(0), last(1)) == 0


@pytest.mark.parametrize("ranks", [ONE, TWO], ids=["1", "2"])
def test_sanity_check_is_never_the_best(ranks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Untrained weights would win here."""
    former = cli_toys.ToyNet.on_train_epoch_start

    def worse(self: Any) -> None:
        former(self)
        with torch.no_grad():
            self.head.bias[0] += 10

    monkeypatch.setattr(cli_toys.ToyNet, "on_train_epoch_start", worse)
    flags = ("--trainer.max_epochs", 3, "--model.lr", 0, "--trainer.num_sanity_val_steps", 2, *ranks)
    assert fit(*flags) == 0
    (best,) = (state for name, state in last(0)["callbacks"].items() if name.startswith("BestCheckpoint"))
    assert best["best_model_path"].endswith("best-epoch000.ckpt")
    assert float(best["best_model_score"]) > 3


@pytest.mark.slow
def test_spawned_ranks_give_what_forked_ones_give() -> None:
    assert fit("--trainer.max_epochs", 2, *TWO) == 0
    assert fit("--trainer.max_epochs", 2, "--trainer.devices", 2, "--trainer.strategy", "ddp_spawn") == 0
    assert apart(last(0), last(1)) == 0


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_readers_by_start_method(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that read data, started in each way, give the batches of one process."""
    from datamodules.base import ZooLoader

    former = ZooLoader.__init__

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        if kwargs.get("num_workers"):
            kwargs["multiprocessing_context"] = method
        former(self, *args, **kwargs)

    monkeypatch.setattr(ZooLoader, "__init__", init)
    always = ("--trainer.max_epochs", 1, "--trainer.limit_val_batches", 0)
    assert fit(*always) == 0
    assert fit(*always, "--data.num_workers", 1) == 0
    assert apart(last(0), last(1)) == 0
