"""What a run was left by, as one error that says what to do. Nothing here imports torch."""

from __future__ import annotations

import re
from importlib import import_module

from zoo.errors import OutOfMemory, ZooError
from zoo.files import disk_error

__all__ = ["RankDied", "named"]

_MODULES = ("zoo.errors", "zoo.training.replay", "zoo.training.failures", "zoo.federated.processes")
_FIRST = re.compile(r"^([\w.]+): (.*)", re.DOTALL)
_SYSTEM = re.compile(r"\[Errno (\d+)\] ([^\n]*?)(?:: '([^'\n]*)')?\Z")
_MEMORY = re.compile(
    r"can't allocate memory|out of memory|Unable to allocate|Cannot allocate memory|not enough memory", re.IGNORECASE
)
_WORKER = re.compile(r"DataLoader worker \(pid\(?s?\)? [\d, ]+\) (?:is killed by signal|exited unexpectedly)[^\n]*")


class RankDied(ZooError, RuntimeError):
    """A rank of a run was killed; the others were ended."""


def named(error: BaseException) -> ZooError | None:
    """An error of ours for what is none of the program's: disks, memory, processes that were killed.

    A forked rank hands over its error as text alone.

    Args:
        error: what a run was left by.

    Returns:
        None if it is another one, whose traceback is of use.
    """
    if isinstance(error, ZooError):
        return error
    text = str(error).strip()
    if type(error).__name__ == "ProcessRaisedException":
        return _of_rank(text)
    if type(error).__name__ == "ProcessExitedException" and int(getattr(error, "exit_code", 1)) < 0:
        return RankDied(
            f"Rank {getattr(error, 'error_index', '?')} of this run was killed (signal {-error.exit_code}; 9 often "  # type: ignore[attr-defined]
            "means that memory ran out), and the other ranks were ended. Go on with --ckpt_path last."
        )
    if isinstance(error, OSError):
        return disk_error(error, error.filename if error.filename is not None else "the files of this run")
    memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return _of_memory(text, memory=memory) if memory or isinstance(error, RuntimeError) else None


def _of_memory(text: str, *, memory: bool) -> ZooError | None:
    if match := _WORKER.search(text):
        return OutOfMemory(
            f"A process that reads data ended: {match.group(0).rstrip('.')}. Often memory or shared memory ran out: "
            "--data.num_workers 0 reads in the process that trains."
        )
    if memory or _MEMORY.search(text):
        first = " ".join((text.splitlines() or ["no memory"])[0].split())
        return OutOfMemory(
            f"Memory ran out ({first[:200]}). Use a smaller --data.batch_size, with --trainer.accumulate_grad_batches "
            "for the same steps."
        )
    return None


def _of_rank(text: str) -> ZooError | None:
    """Read the last error of a traceback: its class and its message, which may have several lines."""
    lines = re.split(r"^Traceback \(most recent call last\):$", text, flags=re.MULTILINE)[-1].strip("\n").splitlines()
    start = next((number for number, line in enumerate(lines) if line and not line[0].isspace()), len(lines))
    if not (match := _FIRST.match("\n".join(lines[start:]))):
        return None
    place, _, name = match.group(1).rpartition(".")
    message = match.group(2)
    if place in _MODULES:
        kind = getattr(import_module(place), name, None)
        return kind(message) if isinstance(kind, type) and issubclass(kind, ZooError) else None
    if system := _SYSTEM.match(message):
        number, what, where = system.groups()
        return named(OSError(int(number), what, where or "the files of this run"))
    return _of_memory(message, memory=name in ("MemoryError", "OutOfMemoryError"))
