"""Disks of training runs that fill up, that are read-only, or that die in the middle of a write: nothing is lost."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from fault_tools import FORK, in_child, small_disk
from toys import cli as cli_toys

from zoo import errors, index, training
from zoo.training import checkpoint_io

EPOCHS = ("--trainer.max_epochs", 4, "--trainer.logger", "false")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An empty folder and the toy in the index."""
    monkeypatch.chdir(tmp_path)
    cli_toys.register(tmp_path)
    yield tmp_path
    index._registered.pop("toy-net", None)


def fit(root: Path, *words: Any) -> Any:
    return training.run(["fit", "--zoo", "toy-net", "--trainer.default_root_dir", *map(str, (root, *words))])


def last(root: Path, run: int = 0) -> Path:
    return root / "toy-net-ten-n" / f"version_{run}" / "checkpoints" / "last.ckpt"


def fill(disk: Path) -> None:
    """Leave no room on a disk; where it is none of its own, files may not be large."""
    if disk.is_mount():
        with (disk / "filler").open("wb", buffering=0) as file:
            for size in (1 << 16, 1 << 10, 1):
                try:
                    while True:
                        file.write(b"\0" * size)
                except OSError:
                    continue
    else:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (9000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def same(one: Any, other: Any) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True))


@pytest.mark.parametrize("second", [False, True], ids=["one-device", "other-tmpdir"])
def test_disk_full(place: Path, monkeypatch: pytest.MonkeyPatch, second: bool) -> None:
    """The checkpoint of the epoch before is whole, and with room again the run goes on from it."""
    whole = fit(place / "runs", *EPOCHS)
    disk = place / "disk"
    start = cli_toys.ToyNet.on_train_epoch_start

    def hook(self: cli_toys.ToyNet) -> None:
        if self.current_epoch == 2:
            fill(disk)
        start(self)

    if second:
        (place / "tmp").mkdir()
    with small_disk(disk, "512k") as remount:
        monkeypatch.setattr(tempfile, "tempdir", str(place / "tmp") if second else str(disk))
        with monkeypatch.context() as patch:
            patch.setattr(cli_toys.ToyNet, "on_train_epoch_start", hook)
            with pytest.raises(errors.DiskFull, match="checkpoints"):
                fit(disk, *EPOCHS)
        remount("size=16m")
        assert torch.load(last(disk), weights_only=True)["epoch"] == 1
        assert [p.name for p in last(disk).parent.iterdir() if p.name.endswith(".tmp")] == []
        assert not second or list((place / "tmp").iterdir()) == []
        rest = fit(disk, "--ckpt_path", "last", *EPOCHS)
    assert same(whole, rest)


def test_other_disk_for_temporary_files_is_full(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints do not pass through TMPDIR."""
    disk = place / "disk"
    with small_disk(disk, "64k"):
        if not disk.is_mount():
            pytest.skip("mounting is not allowed here")
        fill(disk)
        monkeypatch.setattr(tempfile, "tempdir", str(disk))
        fit(place / "runs", *EPOCHS)
    assert torch.load(last(place / "runs"), weights_only=True)["epoch"] == 3


@pytest.mark.skipif(not FORK, reason="needs fork")
def test_killed_in_the_middle_of_a_write(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written so far lies beside the former checkpoint, and is removed by the run that goes on."""
    write = checkpoint_io._Watched.write
    calls: dict[str, int] = {}

    def killed(self: Any, data: Any) -> int:
        calls[self.file.name] = calls.get(self.file.name, 0) + 1
        if len([name for name in calls if "last" in name]) == 4 and calls[self.file.name] == 20:
            os.kill(os.getpid(), signal.SIGKILL)
        return write(self, data)

    root = place / "runs"
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_io._Watched, "write", killed)
        child = in_child(lambda: fit(root, "--trainer.max_epochs", 50, *EPOCHS[2:]))
        child.join(120)
    assert child.exitcode == -signal.SIGKILL
    (partial,) = last(root).parent.glob("*.tmp")
    epoch = torch.load(last(root), weights_only=True)["epoch"]
    os.utime(partial, (1.0, 1.0))
    rest = fit(root, "--ckpt_path", "last", "--trainer.max_epochs", epoch + 2, *EPOCHS[2:])
    assert rest.trainer.current_epoch == epoch + 2
    assert not partial.exists()
    assert same(rest, fit(root, "--trainer.max_epochs", epoch + 2, *EPOCHS[2:]))


def test_partial_files_of_living_runs_stay(place: Path) -> None:
    mine, young, other = (place / f"last.ckpt.{pid}.0123abcd.tmp" for pid in (os.getpid(), 2**22 + 1, 2**22 + 2))
    for path in (mine, young, other, place / "notes.tmp"):
        path.write_bytes(b"")
    for path in (mine, other, place / "notes.tmp"):
        os.utime(path, (1.0, 1.0))
    checkpoint_io.remove_partial(place)
    assert sorted(p.name for p in place.glob("*.tmp")) == sorted([mine.name, young.name, "notes.tmp"])


def test_own_way_of_writing_wins(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning.pytorch.plugins import AsyncCheckpointIO

    done = fit(place / "runs", "--trainer.max_epochs", 1)
    assert isinstance(done.trainer.strategy.checkpoint_io, checkpoint_io.WholeFiles)
    plugin = "lightning.pytorch.plugins.AsyncCheckpointIO"
    done = fit(place / "runs", "--trainer.max_epochs", 1, f"--trainer.plugins={plugin}")
    assert isinstance(done.trainer.strategy.checkpoint_io, AsyncCheckpointIO)
    assert last(place / "runs", 1).is_file()


# The command line -------------------------------------------------------------------------------------------------

RANKS = ("--trainer.devices", 2, "--trainer.strategy", "ddp_fork", "--trainer.limit_val_batches", 0)
BY_RANKS = pytest.mark.parametrize(
    "ranks", [(), pytest.param(RANKS, marks=pytest.mark.skipif(not FORK, reason="needs fork"))], ids=["1", "2"]
)


def command(root: Path, *words: Any) -> int:
    return training.main(["fit", "--zoo", "toy-net", "--trainer.default_root_dir", *map(str, (root, *words))])


def fail_in_a_step(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def step(self: Any, batch: Any, batch_idx: int) -> None:
        raise error

    monkeypatch.setattr(cli_toys.ToyNet, "training_step", step)


def test_folder_that_cannot_be_written(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file stands in the way, which stops also those whom modes do not hold back; and a read-only disk."""
    (place / "file").write_text("")
    assert command(place / "file" / "runs") == 2
    assert f"Cannot write {place}/file/runs/toy-net-ten-n/version_0" in capsys.readouterr().err
    with small_disk(place / "disk", "512k") as remount:
        remount("ro")
        assert command(place / "disk") == 2
        remount("rw")
    assert f"error: Cannot write {place}/disk/toy-net-ten-n/version_0" in capsys.readouterr().err


def test_disk_that_fills_up_under_the_loggers(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    start = cli_toys.ToyNet.on_train_epoch_start

    def hook(self: cli_toys.ToyNet) -> None:
        if self.current_epoch == 1:
            fill(place / "disk")
        start(self)

    monkeypatch.setattr(cli_toys.ToyNet, "on_train_epoch_start", hook)
    with small_disk(place / "disk", "512k"):
        assert command(place / "disk", "--trainer.max_epochs", 4) == 2
    said = capsys.readouterr().err
    assert "error: No room left to write" in said
    assert "Traceback" not in said


@BY_RANKS
@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 9 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: 9 bytes"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB\nmore"),
    ],
    ids=["python", "torch", "device"],
)
def test_no_memory(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], error: Exception, ranks: Any
) -> None:
    fail_in_a_step(monkeypatch, error)
    assert command(place / "runs", *ranks) == 2
    said = capfd.readouterr().err
    assert "error: Memory ran out (" in said
    assert "Traceback" not in said


@BY_RANKS
@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(28, "No space left on device", "/runs/x"), "No room left to write /runs/x"),
        (PermissionError(13, "Permission denied", "/runs/x"), "Cannot write /runs/x"),
        (errors.BadData("broken rows\n  row 3"), "broken rows\n  row 3"),
    ],
    ids=["full", "denied", "data"],
)
def test_errors_of_ranks_are_named(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], error: Any, text: str, ranks: Any
) -> None:
    fail_in_a_step(monkeypatch, error)
    assert command(place / "runs", *ranks) == 2
    assert f"error: {text}" in capfd.readouterr().err


def test_killed_reader_is_named(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_in_a_step(monkeypatch, RuntimeError("DataLoader worker (pid 17) is killed by signal: Killed. "))
    assert command(place / "runs") == 2
    assert "--data.num_workers 0" in capsys.readouterr().err


@BY_RANKS
def test_mistakes_of_a_program_keep_their_traceback(place: Path, monkeypatch: pytest.MonkeyPatch, ranks: Any) -> None:
    fail_in_a_step(monkeypatch, ZeroDivisionError("in the method"))
    with pytest.raises(Exception, match="in the method"):
        command(place / "runs", *ranks)
