"""Counts of `kill -9`: how often a command was hit, and what was wrong afterwards."""

from __future__ import annotations

import fcntl
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fault_tools import in_child
from hub_server import LoopbackHub
from test_training_processes import SOON, alive, children, until

__all__ = ["FULL", "QUICK", "ROUNDS", "Tally", "after", "after_requests", "counted", "locked", "seconds"]

QUICK, FULL = 2, 16
ROUNDS = pytest.mark.parametrize(
    "rounds", [pytest.param(QUICK, id="quick"), pytest.param(FULL, id="full", marks=pytest.mark.slow)]
)
_TRIES = 4
"""A process that was done before its moment came does not count; so many starts there are for each kill at most."""


@dataclass
class Tally:
    """The kills of one command.

    Attributes:
        command: which.
        wanted: kills.
        tries: starts; some processes were done before they were hit.
        killed: processes that were hit while they ran.
        lost: what was finished before and is not whole any more, or what a repeated call does not get right.
        orphans: processes that outlived the one that started them.
        locks: that are still held, or in the way.
    """

    command: str
    wanted: int
    tries: int = 0
    killed: int = 0
    lost: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    locks: list[str] = field(default_factory=list)

    def rounds(self) -> Iterator[int]:
        """Numbers of the starts, until enough were hit."""
        while self.killed < self.wanted and self.tries < _TRIES * self.wanted:
            self.tries += 1
            yield self.tries - 1

    def kill(self, work: Callable[[], Any], wait: Callable[[Any], Any]) -> None:
        """Start a process, kill it when `wait` returns, and see whether what it had started ends, too."""
        process = in_child(work)
        wait(process)
        started, hit = descendants(process.pid), process.is_alive()
        process.kill()
        if not until(lambda: not any(map(alive, [process.pid, *started])), SOON):
            self.orphans.append(f"start {self.tries}: {[pid for pid in started if alive(pid)]}")
        process.join(SOON)
        self.killed += hit

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Note what is lost as such, and go on."""
        try:
            yield
        except Exception as error:
            self.lost.append(f"start {self.tries}: {type(error).__name__}: {str(error)[:300]}")

    def unlocked(self, folder: Path) -> None:
        """Note locks below a folder that somebody still holds."""
        self.locks += [f"start {self.tries}: {path.name}" for path in locked(folder)]


@contextmanager
def counted(command: str, wanted: int, record: Callable[[str, Any], None]) -> Iterator[Tally]:
    """Count the kills of a test; at its end something was killed, and nothing was lost or left behind."""
    tally = Tally(command, wanted)
    try:
        yield tally
    finally:
        record("kills", asdict(tally))
    assert (tally.lost, tally.orphans, tally.locks) == ([], [], [])
    assert tally.killed, f"{tally.tries} processes were done before they were killed"


def descendants(pid: int) -> list[int]:
    """Processes that a process has started, and those that they have started."""
    found = children(pid)
    return found + [further for child in found for further in descendants(child)]


def seconds(work: Callable[[], Any]) -> float:
    """How long a process takes that does this."""
    start = time.monotonic()
    process = in_child(work)
    process.join(SOON)
    assert process.exitcode == 0
    return time.monotonic() - start


def after(delay: float) -> Callable[[Any], None]:
    """A moment, counted from the start."""
    return lambda process: time.sleep(delay)


def after_requests(hub: LoopbackHub, rng: random.Random, most: int) -> Callable[[Any], None]:
    """A random moment after a random number of requests."""
    before, wanted, more = len(hub.requests), rng.randrange(most + 1), rng.random() * 0.03

    def wait(process: Any) -> None:
        end = time.monotonic() + 2 * SOON
        while process.is_alive() and len(hub.requests) - before < wanted and time.monotonic() < end:
            time.sleep(0.0005)
        time.sleep(more)

    return wait


def locked(folder: Path) -> list[Path]:
    """Lock files below a folder that cannot be taken at once."""
    found = []
    for path in folder.rglob("*.lock"):
        with path.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                found.append(path)
    return found
