"""Several clients at once on one machine: processes with one thread each, forked for a round.

A fork inherits the global model, the clients' data and their states as they are, so nothing is sent to it, nothing can
be out of date, and it starts within milliseconds. One client per core beats one client on all cores where networks are
small. Results do not depend on how many processes there are: each client's numbers belong to (seed, round, client),
and every client runs on one thread.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from zoo.errors import ZooError
from zoo.files import tied_to_me

__all__ = ["ClientProcessDied", "can_fork", "in_processes", "waiting"]

_GRACE = 2.0  # seconds that a child has to end after SIGTERM
_rounds: list[int] = []


class ClientProcessDied(ZooError, RuntimeError):
    """A process that trained clients ended without an answer."""


def can_fork() -> bool:
    """Whether processes can be forked safely here: as for torch's own loader processes, on Linux."""
    return sys.platform == "linux" and not multiprocessing.current_process().daemon


def waiting() -> bool:
    """Whether this process only waits for its children, so that stopping it need not wait for more."""
    return bool(_rounds)


def in_processes(work: Callable[[Any], Any], jobs: Sequence[Any], processes: int) -> list[Any]:
    """`[work(job) for job in jobs]`, where each process takes the next job when it is done with one.

    Args:
        work: what to do; it inherits everything, and what it changes is lost. It returns tensors and plain values.
        jobs: the longest first.
        processes: how many.

    Returns:
        Results in the order of the jobs.

    Raises:
        ClientProcessDied: if a process was killed; otherwise, what `work` raised.
    """
    context = multiprocessing.get_context("fork")
    following = context.Value("i", 0)
    members: dict[Connection, Any] = {}
    results: dict[int, Any] = {}
    tie = tied_to_me()
    _rounds.append(os.getpid())
    try:
        for _ in range(min(processes, len(jobs))):
            ours, theirs = context.Pipe(duplex=False)
            inherited = [*members, ours]
            process = context.Process(target=_serve, args=(work, jobs, following, theirs, inherited, tie), daemon=True)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
                process.start()
            theirs.close()
            members[ours] = process
        while members:
            for pipe in wait(list(members)):
                _receive(pipe, members, results)  # type: ignore[arg-type]
    finally:
        _rounds.pop()
        _end(members)
    return [results[number] for number in range(len(jobs))]


def _end(members: dict[Connection, Any]) -> None:
    """End what still runs: asked first, then killed."""
    for pipe, process in members.items():
        pipe.close()
        process.terminate()
    deadline = time.monotonic() + _GRACE
    for process in members.values():
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()


def _receive(pipe: Connection, members: dict[Connection, Any], results: dict[int, Any]) -> None:
    try:
        kind, number, value = pickle.loads(pipe.recv_bytes())
    except (EOFError, OSError):  # nothing, or half an answer
        members[pipe].join()
        raise ClientProcessDied(
            f"A process that trained clients died (exit code {members[pipe].exitcode}; -9 often means that memory ran "
            "out). The global model is as before the round. client_processes=1 trains in this process."
        ) from None
    if kind == "error":
        raise value
    if kind == "end":
        members.pop(pipe).join()
        pipe.close()
    else:
        results[number] = tree_map(lambda v: torch.from_numpy(v.array) if isinstance(v, _Array) else v, value)


class _Array:
    """A tensor on its way through a pipe: torch's own pickling would go through shared memory and its limits."""

    def __init__(self, tensor: Tensor) -> None:
        self.array = tensor.numpy()


def _serve(
    work: Callable[[Any], Any],
    jobs: Sequence[Any],
    following: Any,
    pipe: Connection,
    inherited: Sequence[Connection],
    tie: Callable[[], None] | None,
) -> None:
    if tie is not None:
        tie()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its children
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a Trainer's handler would only take a note
    for end in inherited:  # held open here, they would keep a sibling waiting for a reader that is gone
        end.close()
    torch.set_num_threads(1)

    def send(*message: Any) -> None:
        pipe.send_bytes(pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL))

    try:
        while True:
            with following.get_lock():
                number = following.value
                following.value += 1
            if number >= len(jobs):
                break
            value = work(jobs[number])
            send("done", number, tree_map(lambda v: _Array(v) if isinstance(v, Tensor) else v, value))
        send("end", 0, None)
    except BrokenPipeError:  # the parent is gone, or has given up
        os._exit(1)
    except BaseException as error:
        try:
            send("error", 0, error)
        except Exception:  # it cannot be pickled
            send("error", 0, ClientProcessDied(f"{type(error).__name__}: {error}"))
    finally:
        pipe.close()
