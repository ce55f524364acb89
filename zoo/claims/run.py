"""Carry out a plan: some runs at a time, in the order of the plan; stopped at any moment, it goes on where it was."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from zoo.claims.planning import Job, code_of
from zoo.claims.steps import Place, RunFailed, Step, finished, steps_of, tail
from zoo.errors import BadInput
from zoo.files import PACKAGE, versions

__all__ = ["carry_out", "facts_of_machine", "is_done"]

_EPOCH = re.compile(r"epoch (\d+)/(\d+)")
_PACKAGES = ("torch", "torchvision", "lightning", "torchmetrics", "numpy")


def is_done(place: Place, job: Job) -> bool:
    """Whether every step of a run has ended."""
    return all(finished(place, job.key, step) is not None for step in steps_of(job))


def facts_of_machine() -> dict[str, Any]:
    """Versions, hardware and commit, without anything that names the machine."""
    return {"versions": versions(*_PACKAGES), "hardware": {"cpu": _cpu(), "cores": os.cpu_count()}, "commit": _commit()}


def _cpu() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """Of the checkout this code lies in, with a + where files differ from it; None where there is none."""
    root = PACKAGE.parent
    if not (root / ".git").exists():
        return None
    with suppress(OSError):
        head = _git(root, "rev-parse", "--short=12", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", "zoo", "datamodules")
        return f"{head}{'+' if changed else ''}" if head else None
    return None


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep a second `zoo reproduce` out of the same folder; the lock ends with the process, however that ends.

    Raises:
        BadInput: if another one is at work.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+", encoding="utf-8") as file:
        if os.name == "posix":
            import fcntl

            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise BadInput(
                    f"Another zoo reproduce is at work in {folder}. Wait for it, stop it, or use another --folder."
                ) from None
        yield


def carry_out(
    place: Place,
    jobs: Sequence[Job],
    *,
    parallel: int = 1,
    on_done: Callable[[Job], None] = lambda job: None,
    pause: float = 0.1,
    done: Iterable[str] = (),
    broken: Iterable[str] = (),
) -> list[str]:
    """Do the runs that are not done yet.

    Args:
        place: shared settings.
        jobs: in an order in which what others need comes first.
        parallel: processes at once.
        on_done: called after each run, also for those done before.
        pause: seconds between looks at the processes.
        done: keys of runs that an earlier call has done.
        broken: keys of runs that an earlier call could not do; what needs them is not started.

    Returns:
        One message for each run that failed or could not start.
    """
    with alone(place.folder), Display(len(jobs)) as display:
        queue = _Queue(place, jobs, parallel, on_done, display)
        queue.done |= set(done)
        queue.broken |= set(broken)
        return queue.work(pause)


class _Queue:
    def __init__(
        self, place: Place, jobs: Sequence[Job], parallel: int, on_done: Callable[[Job], None], display: Display
    ) -> None:
        self.place, self.parallel, self.on_done, self.display = place, parallel, on_done, display
        self.waiting = list(jobs)
        self.active: list[Step] = []
        self.done: set[str] = set()
        self.broken: set[str] = set()
        self.failed: dict[str, str] = {}

    def work(self, pause: float) -> list[str]:
        """Until nothing is left; whatever ends this ends the processes, too."""
        try:
            while self._start() or self.active:
                self._look()
                if self.active:
                    time.sleep(pause)
        finally:
            for step in self.active:
                step.stop()
        return list(self.failed.values())

    def _start(self) -> bool:
        """Start what can start; True if something is left or was done."""
        for job in list(self.waiting):
            if any(key in self.failed or key in self.broken for key in job.needs):
                self.waiting.remove(job)
                self.failed[job.key] = f"{job.label}: not started, because a run it needs has failed."
            elif is_done(self.place, job):
                self._end(job, "kept")
            elif len(self.active) < self.parallel and all(key in self.done for key in job.needs):
                self.waiting.remove(job)
                self._next(job)
        return bool(self.waiting)

    def _next(self, job: Job) -> None:
        """Start the first step of a run that is not done."""
        for name in steps_of(job):
            if finished(self.place, job.key, name) is None:
                if code_of(self.place.entry, job.spec) != job.code:
                    # the process would import other code than the run's folder is named after
                    self.failed[job.key] = f"{job.label}: the code has changed since the plan was made; start again."
                    self.display.end(job, "LEFT OUT")
                    return
                step = Step(self.place, job, name)
                self.active.append(step)
                self.display.begin(step)
                return
        self._end(job, "done")

    def _end(self, job: Job, how: str) -> None:
        if job in self.waiting:
            self.waiting.remove(job)
        self.done.add(job.key)
        self.on_done(job)
        self.display.end(job, how)

    def _look(self) -> None:
        for step in list(self.active):
            if step.process.poll() is None:
                self.display.follow(step)
                continue
            self.active.remove(step)
            try:
                step.finish()
            except RunFailed as error:
                self.failed[step.job.key] = str(error)
                self.display.end(step.job, "FAILED")
            else:
                self._next(step.job)


class Display:
    """A bar with the current runs where there is a terminal, else a line when a run begins and ends.

    Args:
        total: number of runs.
    """

    def __init__(self, total: int) -> None:
        self.total, self.count = total, 0
        self.bar: Any = None
        self.tasks: dict[str, Any] = {}
        self.begun: dict[str, float] = {}

    def __enter__(self) -> Display:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[at]}"),
                TimeElapsedColumn(),
            )
            self.bar = Progress(*columns, console=Console(stderr=True))
            self.bar.start()
            self.tasks[""] = self.bar.add_task("all runs", total=self.total, at=f"0/{self.total}")
        return self

    def __exit__(self, *exception: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def begin(self, step: Step) -> None:
        """A step begins."""
        key = step.job.key
        self.begun.setdefault(key, time.monotonic())
        if self.bar is None:
            print(f"[{self.count}/{self.total}] {step.name}: {step.job.label}", flush=True)
        elif key in self.tasks:
            self.bar.update(self.tasks[key], at=step.name)
        else:
            self.tasks[key] = self.bar.add_task(f"  {step.job.label[:90]}", total=None, at=step.name)

    def follow(self, step: Step) -> None:
        """Show how far a step is, from the last line about an epoch in its log."""
        if self.bar is None or step.name != "fit":
            return
        for line in reversed(tail(step.log, 3)):
            if match := _EPOCH.search(line):
                at, of = map(int, match.groups())
                self.bar.update(self.tasks[step.job.key], completed=at, total=of, at=f"epoch {at}/{of}")
                return

    def end(self, job: Job, how: str) -> None:
        """A run has ended."""
        self.count += 1
        begun = self.begun.get(job.key)
        took = f" in {(time.monotonic() - begun) / 60:.1f} min" if begun is not None else ""
        line = f"[{self.count}/{self.total}] {how}{took}: {job.label}"
        if self.bar is None:
            print(line, flush=True)
            return
        if job.key in self.tasks:
            self.bar.remove_task(self.tasks.pop(job.key))
        self.bar.console.print(line, markup=False, highlight=False)
        self.bar.update(self.tasks[""], completed=self.count, at=f"{self.count}/{self.total}")
