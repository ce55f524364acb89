"""How `zoo train` writes checkpoints: beside their place, made durable, renamed. The former one is whole until then."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import IO, Any, cast

import torch
from lightning import Trainer
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from zoo.files import write_whole, writing

__all__ = ["WholeFiles", "remove_partial", "use_whole_files"]

_PARTIAL = re.compile(r".+\.ckpt\.(\d+)\.[0-9a-f]{8}\.tmp")
_SETTLED = 60.0  # seconds; a younger file may belong to a run on another machine that shares the disk


class WholeFiles(TorchCheckpointIO):
    """Writes a checkpoint whole or not at all.

    Lightning's own way goes through a temporary file in TMPDIR. Where that is on another device than the run, it is
    copied over the former checkpoint, which a full disk or a kill in the middle destroys. It also holds the whole
    file in memory first; this one streams.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write `checkpoint` to `path`, a local path or any URL that Lightning takes.

        Raises:
            DiskFull: if there is no room; the former file is unchanged.
            NotWritable: if the folder cannot be written; the former file is unchanged.
        """
        if "://" in str(path):  # object storage replaces objects whole
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        place = Path(path)
        with writing(place):
            place.parent.mkdir(parents=True, exist_ok=True)
        write_whole(place, lambda file: _save(checkpoint, file))


class _Watched:
    """A file for torch.save, which reports a failed write as an inner error of its own; this keeps the real one."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return int(self.file.write(data))
        except OSError as error:
            self.error = self.error or error
            raise

    def flush(self) -> None:
        self.file.flush()


def _save(checkpoint: dict[str, Any], file: Any) -> None:
    watched = _Watched(file)
    try:
        torch.save(checkpoint, cast(IO[bytes], watched))
    except Exception as error:
        if watched.error is not None:
            raise watched.error from error
        raise


def use_whole_files(trainer: Trainer) -> None:
    """Let a Trainer write checkpoints this way; a plugin of the user's and strategies with a way of their own stay."""
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = WholeFiles()


def remove_partial(folder: Path) -> None:
    """Remove what a killed run left half-written among its checkpoints."""
    for path in folder.glob("*.tmp"):
        match = _PARTIAL.fullmatch(path.name)
        if match and time.time() - path.stat().st_mtime > _SETTLED and not _runs(int(match.group(1))):
            path.unlink(missing_ok=True)


def _runs(pid: int) -> bool:
    """Whether a process of this number exists on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is somebody else's
        return True
    return True
