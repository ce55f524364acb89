"""Two processes that train together over gloo, kept alive between tasks: importing Lightning twice takes long.

A task is a function of `conformance.rank_tasks`, named by a string; both ranks run it with the same arguments and each
answers with a plain value.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import socket
import time
import traceback
from multiprocessing.connection import Connection
from typing import Any

RANKS = 2
PATIENCE = 120.0
"""Seconds for a task; a rank that waits for the other one longer shows where it stands."""


class RankError(AssertionError):
    """A rank failed; the message holds its traceback."""


class Pool:
    """The two processes; started by the first task, and started anew after one that failed."""

    def __init__(self) -> None:
        self.members: list[tuple[Any, Connection]] = []

    def _start(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        context = multiprocessing.get_context("spawn")
        for rank in range(RANKS):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, port, theirs), daemon=True)
            process.start()
            theirs.close()
            self.members.append((process, ours))

    def run(self, task: str, *args: Any) -> list[Any]:
        """Run a task on both ranks and return what each answered.

        Raises:
            RankError: with the traceback of the rank that failed or did not answer.
        """
        if not self.members:
            self._start()
        for _, pipe in self.members:
            pipe.send((task, args))
        answers = []
        until = time.monotonic() + PATIENCE
        for rank, (_, pipe) in enumerate(self.members):
            try:
                good, value = pipe.recv() if pipe.poll(max(1.0, until - time.monotonic())) else (False, "no answer")
            except EOFError:
                good, value = False, "the process died"
            if not good:
                self.close()
                raise RankError(f"rank {rank}, task {task}: {value}")
            answers.append(value)
        return answers

    def close(self) -> None:
        """End the processes."""
        for process, pipe in self.members:
            pipe.close()
            process.terminate()
            process.join(10)
        self.members = []


def _serve(rank: int, port: int, pipe: Connection) -> None:
    # what torchrun would set; Lightning then starts no processes of its own
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE=str(RANKS), NODE_RANK="0", LOCAL_RANK=str(rank)
    )
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    import torch

    torch.set_num_threads(1)
    from toys import register_toys

    from conformance import rank_tasks
    from zoo.index import entries

    register_toys()
    for entry in entries().values():  # imports are not the entries' own time
        entry.model_class()
        entry.data_class()
    while True:
        try:
            task, args = pipe.recv()
        except (EOFError, KeyboardInterrupt):
            return
        try:
            faulthandler.dump_traceback_later(PATIENCE - 20)
            before = time.process_time()
            value = getattr(rank_tasks, task)(*args)
            pipe.send((True, {"value": value, "seconds": time.process_time() - before}))
            faulthandler.cancel_dump_traceback_later()
        except BaseException:
            pipe.send((False, traceback.format_exc()))
            return
