"""What a run was left by, as one error that says what to do. Nothing here imports torch."""

from __future__ import annotations

import re
from importlib import import_module

from zoo.errors import OutOfMemory, ZooError
from zoo.files import disk_error

__all__ = ["named"]

_OURS = re.compile(r"^(zoo\.(?:errors|training\.replay|federated\.processes))\.(\w+): (.*)\Z", re.MULTILINE | re.DOTALL)
_SYSTEM = re.compile(r"^\w*Error: \[Errno (\d+)\] ([^\n]*?)(?:: '([^'\n]*)')?\Z", re.MULTILINE)
_LAST = re.compile(r"^([\w.]*(?:Error|Exception)): (.*)\Z", re.MULTILINE | re.DOTALL)
_MEMORY = re.compile(
    r"can't allocate memory|out of memory|Unable to allocate|Cannot allocate memory|not enough memory", re.IGNORECASE
)
_WORKER = re.compile(r"DataLoader worker \(pid\(?s?\)? [\d, ]+\) (?:is killed by signal|exited unexpectedly)[^\n]*")


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
    if match := _OURS.search(text):
        kind = getattr(import_module(match.group(1)), match.group(2), None)
        if isinstance(kind, type) and issubclass(kind, ZooError):
            return kind(match.group(3))
    if match := _SYSTEM.search(text):
        return named(OSError(int(match.group(1)), match.group(2), match.group(3) or "the files of this run"))
    if match := _LAST.search(text):
        kind_name = match.group(1).rpartition(".")[2]
        return _of_memory(match.group(2), memory=kind_name in ("MemoryError", "OutOfMemoryError"))
    return None
