"""Processes of a run end with it, however it ends; signals leave a checkpoint from which it goes on exactly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fault_tools import FORK, in_child
from toys import cli as cli_toys
from toys.learners import ToyClients, ToyLearner, trainer_of

from zoo import index, training
from zoo.training import stages
from zoo.training.signals import Stopped, code_of
from zoo.training.stopping import StopOnSignal

LINUX = pytest.mark.skipif(not FORK or sys.platform != "linux", reason="needs fork and /proc")
SOON = 60.0  # seconds; a busy machine is slow, and what hangs hangs for longer
FOR_EVER = 600.0
BY_SIGNAL = pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Ctrl-C as on a terminal: a shell starts what runs in the background with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An empty folder and the toy in the index."""
    monkeypatch.chdir(tmp_path)
    cli_toys.register(tmp_path)
    yield tmp_path
    index._registered.pop("toy-net", None)


def until(condition: Callable[[], Any], seconds: float = SOON) -> Any:
    """What a condition returns once it holds, or at last."""
    end = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.02)
    return found


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has asked after does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(words[1]) == pid and words[0] not in "ZX":
            found.append(int(stat.parent.name))
    return found


# One process ------------------------------------------------------------------------------------------------------


class Signals:
    """Sends this process signals in chosen steps of the toy, counted over the whole run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, hook: str, moments: dict[int, list[int]]) -> None:
        self.count = 0
        former = getattr(cli_toys.ToyNet, hook)

        def step(module: Any, *args: Any) -> Any:
            for number in moments.get(self.count, []):
                os.kill(os.getpid(), number)
            self.count += 1
            return former(module, *args)

        monkeypatch.setattr(cli_toys.ToyNet, hook, step)


def fit(*words: Any) -> int:
    return training.main(["fit", "--zoo", "toy-net", *map(str, words)])


def last(run: int) -> dict[str, Any]:
    return torch.load(f"runs/toy-net-ten-n/version_{run}/checkpoints/last.ckpt", weights_only=True)


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(torch.equal(v, other["state_dict"][k]) for k, v in one["state_dict"].items())


@BY_SIGNAL
@pytest.mark.parametrize("step", [3, 7, 8])
def test_signal_in_a_step(
    number: int, code: int, step: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the first epoch, in its last batch, and in the first batch of the second one."""
    assert fit("--trainer.max_epochs", 3) == 0
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)]
    with monkeypatch.context() as patch:
        Signals(patch, "training_step", {step: [number]})
        assert fit("--trainer.max_epochs", 3) == code
    assert last(1)["global_step"] == step + 1
    out = capsys.readouterr().out
    assert "fit --config runs" in out
    assert "--ckpt_path runs" in out
    assert not Path("runs/toy-net-ten-n/version_1/result.json").exists()
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)] == before
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    assert fit("--ckpt_path", "last", "--trainer.max_epochs", 3) == 0
    assert same(last(0), last(2))


@BY_SIGNAL
def test_signal_in_a_validation(number: int, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fit("--trainer.max_epochs", 3) == 0
    with monkeypatch.context() as patch:
        Signals(patch, "validation_step", {12: [number]})  # two of the sanity check, nine of the first epoch
        assert fit("--trainer.max_epochs", 3) == code
    assert fit("--ckpt_path", "last", "--trainer.max_epochs", 3) == 0
    assert same(last(0), last(2))


def test_second_signal_stops_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the step was doing is lost; the state from before it is whole."""
    assert fit("--trainer.max_epochs", 3) == 0
    with monkeypatch.context() as patch:
        Signals(patch, "training_step", {11: [signal.SIGINT, signal.SIGINT]})
        assert fit("--trainer.max_epochs", 3) == 130
    assert last(1)["global_step"] == 8
    assert fit("--ckpt_path", "last", "--trainer.max_epochs", 3) == 0
    assert same(last(0), last(2))


def test_step_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.training import stopping

    monkeypatch.setattr(stopping, "GRACE", 0.3)
    former = cli_toys.ToyNet.training_step

    def endless(self: Any, batch: Any, batch_idx: int) -> Any:
        if self.global_step == 10:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(FOR_EVER)
        return former(self, batch, batch_idx)

    monkeypatch.setattr(cli_toys.ToyNet, "training_step", endless)
    started = time.monotonic()
    assert fit("--trainer.max_epochs", 3) == 143
    assert time.monotonic() - started < FOR_EVER / 2
    assert last(0)["global_step"] == 8


def test_error_after_a_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C reaches a loader's processes, too, and the Trainer then complains about them."""
    former = cli_toys.ToyNet.training_step

    def worker_lost(self: Any, batch: Any, batch_idx: int) -> Any:
        if self.global_step == 3:
            os.kill(os.getpid(), signal.SIGINT)
            raise RuntimeError("DataLoader worker (pid 1) exited unexpectedly")
        return former(self, batch, batch_idx)

    monkeypatch.setattr(cli_toys.ToyNet, "training_step", worker_lost)
    assert fit("--trainer.max_epochs", 1) == 130


@BY_SIGNAL
def test_signal_while_scoring(number: int, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fit("--trainer.max_epochs", 1) == 0
    Signals(monkeypatch, "test_step", {2: [number]})
    assert training.main(["test", "--zoo", "toy-net", "--ckpt_path", "last"]) == code


def test_codes_of_other_ends() -> None:
    class ProcessExitedException(Exception):
        exit_code = 143

    assert code_of(ProcessExitedException()) == 143
    ProcessExitedException.exit_code = -2
    assert code_of(ProcessExitedException()) == 130
    ProcessExitedException.exit_code = 1
    assert code_of(ProcessExitedException()) is None
    assert code_of(SystemExit()) == 0
    assert code_of(SystemExit(3)) == 3
    assert code_of(SystemExit("text")) == 1
    assert code_of(KeyboardInterrupt()) == 130
    assert code_of(ValueError()) is None


@LINUX
@BY_SIGNAL
def test_signal_with_two_ranks(number: int, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of them gets the signal; both stop after the same step, and the state is whole."""
    ranks = ("--trainer.devices", 2, "--trainer.strategy", "ddp_fork", "--trainer.limit_val_batches", 0)
    former = cli_toys.ToyNet.training_step

    def step(self: Any, batch: Any, batch_idx: int) -> Any:
        if self.global_rank == 1 and self.global_step == 5:
            os.kill(os.getpid(), number)
        return former(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(cli_toys.ToyNet, "training_step", step)
        assert fit("--trainer.max_epochs", 3, *ranks) == code
    assert last(0)["global_step"] == 6
    assert fit("--ckpt_path", "last", "--trainer.max_epochs", 3, *ranks) == 0
    assert fit("--trainer.max_epochs", 3, *ranks) == 0
    assert same(last(1), last(2))


# Clients' processes -----------------------------------------------------------------------------------------------


class Slow(ToyLearner):
    """Clients take long enough to be killed."""

    seconds = 0.3

    def client_batch(self, client: int, batch: dict[str, Any]) -> dict[str, Any]:
        time.sleep(self.seconds)
        return batch


def federated(folder: Path, handlers: bool = True) -> None:
    """A run in this process, which ends with the exit code that the command line would have.

    Args:
        folder: of the run.
        handlers: those of the command line; False: of a Trainer in a program of the user's.
    """
    from zoo.federated.processes import ClientProcessDied

    torch.set_num_threads(1)
    try:
        trainer_of(folder, *([StopOnSignal()] if handlers else []), max_epochs=50).fit(
            Slow(client_processes=2), ToyClients()
        )
    except ClientProcessDied as error:
        (folder / "error").write_text(str(error))
        os._exit(2)
    except Stopped as end:
        os._exit(int(end.code or 0))
    os._exit(0)


@LINUX
@pytest.mark.parametrize("handlers", [True, False], ids=["command-line", "own-program"])
@pytest.mark.parametrize("moment", [0.0, 0.4])
def test_killed_client(place: Path, moment: float, handlers: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Slow, "seconds", FOR_EVER)  # on a busy machine they would be done before they are killed
    trainer = in_child(lambda: federated(place, handlers))
    clients = until(lambda: found if len(found := children(trainer.pid)) == 2 else [])
    time.sleep(moment)
    os.kill(clients[0], signal.SIGKILL)
    trainer.join(SOON)
    assert trainer.exitcode == 2
    assert "exit code -9" in (place / "error").read_text()
    assert until(lambda: not any(map(alive, clients)), SOON)


@LINUX
def test_killed_trainer_leaves_no_clients(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Slow, "seconds", FOR_EVER)  # they do not end by themselves
    trainer = in_child(lambda: federated(place))
    clients = until(lambda: found if len(found := children(trainer.pid)) == 2 else [])
    assert len(clients) == 2
    os.kill(trainer.pid, signal.SIGKILL)  # joining it would wait for its children, which hold its end of a pipe
    assert until(lambda: not any(map(alive, clients)), SOON)


@LINUX
@BY_SIGNAL
def test_signal_while_clients_train(place: Path, number: int, code: int) -> None:
    trainer = in_child(lambda: federated(place))
    clients = until(lambda: found if len(found := children(trainer.pid)) == 2 else [])
    os.kill(trainer.pid, number)
    trainer.join(SOON)
    assert trainer.exitcode == code
    assert until(lambda: not any(map(alive, clients)), SOON)


@LINUX
@BY_SIGNAL
def test_signal_within_a_fork(place: Path, number: int, code: int) -> None:
    """Python swallows what is raised in a callback of `os.fork`, also what a signal's handler raises there."""
    forks: list[int] = []

    def signalled() -> None:
        forks.append(len(forks))
        if len(forks) == 2:
            os.kill(os.getpid(), number)

    def train() -> None:
        os.register_at_fork(after_in_parent=signalled)
        federated(place)

    trainer = in_child(train)
    trainer.join(SOON)
    assert trainer.exitcode == code


@LINUX
def test_clients_that_ignore_sigterm_are_killed(place: Path) -> None:
    from zoo.federated.processes import in_processes

    def work(job: int) -> int:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if job == 0:
            (place / "ready").write_text("")
            time.sleep(FOR_EVER)
        until((place / "ready").exists)
        raise ValueError("the other one")

    started, others = time.monotonic(), set(children(os.getpid()))  # other tests of this process may have a pool
    with pytest.raises(ValueError, match="the other one"):
        in_processes(work, [0, 1], 2)
    assert time.monotonic() - started < SOON
    assert not set(children(os.getpid())) - others


# Stages -----------------------------------------------------------------------------------------------------------

STAGE = """
import os, signal, sys, time
from pathlib import Path
def stop(number, frame):
    Path("got").write_text(str(number)); sys.exit(128 + number)
signal.signal(signal.SIGINT, stop); signal.signal(signal.SIGTERM, stop)
Path("pid").write_text(str(os.getpid()))
time.sleep(600)
"""


def stage_pid(place: Path) -> int:
    assert until(lambda: (place / "pid").is_file() and (place / "pid").read_text())
    return int((place / "pid").read_text())


@LINUX
def test_killed_training_leaves_no_stage(place: Path) -> None:
    parent = in_child(lambda: stages._run([sys.executable, "-c", STAGE]))
    pid = stage_pid(place)
    os.kill(parent.pid, signal.SIGKILL)
    assert until(lambda: not alive(pid), SOON)


@LINUX
@BY_SIGNAL
def test_signals_are_passed_on_to_a_stage(place: Path, number: int, code: int) -> None:
    def run() -> None:
        try:
            stages._run([sys.executable, "-c", STAGE])
        except Stopped as end:
            os._exit(int(end.code or 0))

    parent = in_child(run)
    pid = stage_pid(place)
    os.kill(parent.pid, number)
    parent.join(SOON)
    assert parent.exitcode == code
    assert not alive(pid)
    assert (place / "got").read_text() == str(int(number))


@LINUX
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_whole_command_in_a_stage(place: Path, number: int) -> None:
    """The command line from outside: signals end trainer and stage; the stage's checkpoint is whole."""
    from zoo.training.resuming import last_checkpoint

    recipe = place / "toy_index" / "recipes" / "toy-net"
    script = f"""
import sys; sys.path[:0] = {[str(Path(cli_toys.__file__).parents[n]) for n in (1, 2)]!r}
from pathlib import Path
from toys import cli as cli_toys
from zoo.training import main, stages
cli_toys.register(Path("toy_index").resolve())
path = Path("toy_index/recipes/toy-net/ten-s.yaml")
path.write_text(path.read_text() + "after: [ten-n]\\n")
run = stages._run
more = "--trainer.max_epochs=100000"
stages._run = lambda words: run([sys.executable, sys.argv[0], "fit", "--zoo", *words[4:], more])
sys.exit(main())
"""
    (place / "program.py").write_text(script)
    words = [sys.executable, "program.py", "fit", "--zoo", "toy-net:ten-s"]
    run = subprocess.Popen(words, cwd=place, env={**os.environ, "OMP_NUM_THREADS": "1"})
    kept = until(lambda: last_checkpoint(place / "runs" / "toy-net-ten-n"), 300)
    assert recipe.is_dir()
    stage = children(run.pid)
    run.send_signal(number)
    assert run.wait(SOON) == (-9 if number == signal.SIGKILL else 128 + number)
    assert until(lambda: not any(map(alive, stage)), SOON)
    assert torch.load(kept, weights_only=True)["global_step"] > 0
