"""Trials in processes of their own, with a budget of seconds and bytes for each file.

PYTHONPATH=tests:. python -m fuzz.trial FORMAT NUMBER        shows one trial with its traceback
PYTHONPATH=tests:. python -m fuzz.trial FORMAT FIRST COUNT   tries many and lists what fails
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import tempfile
import traceback
import warnings
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fuzz.formats import FORMATS, ROOT, quiet
from fuzz.mutations import mutated

from zoo.errors import ZooError

__all__ = ["Failure", "trials"]

SECONDS = 10
BYTES = 1 << 30


@dataclass(frozen=True)
class Failure:
    """A file that was neither read nor refused by name.

    Attributes:
        format: which kind of file.
        number: of the trial.
        what: the exception and its place, "hang", "memory", or the signal that ended the process.
    """

    format: str
    number: int
    what: str

    def __str__(self) -> str:
        return f"{self.format} {self.number}: {self.what}"


def trials(name: str, first: int, count: int) -> list[Failure]:
    """Damage and read files of a format, as many as asked for.

    Args:
        name: of the format.
        first: number of the first trial; equal numbers give equal files.
        count: how many.
    """
    context = multiprocessing.get_context("fork")
    failures: list[Failure] = []
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
        root, log = Path(place) / "data", Path(place) / "log"
        FORMATS[name].make(root)
        end = first + count
        while first < end:
            log.write_text("")
            process = context.Process(target=_serve, args=(name, root, range(first, end), log))
            process.start()
            process.join(timeout=60 + count * SECONDS)
            if process.is_alive():
                process.kill()
                process.join()
            lines = log.read_text().splitlines()
            failures += [Failure(**json.loads(line)) for line in lines if line.startswith("{")]
            last = int(next(line for line in reversed(lines) if not line.startswith("{")))
            if process.exitcode == 0:
                break
            code = process.exitcode or 0
            what = "hang" if -code in (signal.SIGALRM, signal.SIGKILL) else f"ended with {code}"
            failures.append(Failure(name, last, what))
            first = last + 1
    return failures


def _serve(name: str, root: Path, numbers: Iterable[int], log: Path) -> None:
    """In the child: note each number before its trial, so that what ends the process is known."""
    import resource

    warnings.simplefilter("ignore")
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (taken + BYTES, taken + BYTES))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # a handler would wait for the end of a call into C
    with log.open("a") as file:
        for number in numbers:
            file.write(f"{number}\n")
            file.flush()
            signal.alarm(SECONDS)
            what = _try(name, root, number)
            signal.alarm(0)
            if what is not None:
                file.write(json.dumps({"format": name, "number": number, "what": what}) + "\n")
                file.flush()


def _try(name: str, root: Path, number: int) -> str | None:
    """None if a damaged file was read or refused by name, else what happened."""
    try:
        with quiet():
            attempt(name, root, number)
    except ZooError as error:
        if _asked_for_too_much(error):
            return f"memory: {_place(error)}"
        return None
    except MemoryError as error:
        return f"memory: {_place(error)}"
    except Exception as error:
        return f"{type(error).__name__} at {_place(error)}: {str(error)[:100]}"
    return None


def _asked_for_too_much(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _place(error: BaseException) -> str:
    """The innermost line of the project in a traceback."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(str(ROOT))]
    ours = [f for f in frames if "/tests/" not in f.filename] or frames
    return f"{Path(ours[-1].filename).relative_to(ROOT)}:{ours[-1].lineno}" if ours else "?"


def attempt(name: str, root: Path, number: int) -> None:
    """Damage one file of a good folder, read the folder, and put the file back."""
    about = FORMATS[name]
    rng = np.random.default_rng([number, zlib.crc32(name.encode())])
    files = sorted(p for p in root.glob(about.files) if p.is_file())
    file = files[int(rng.integers(len(files)))]
    good = file.read_bytes()
    try:
        file.write_bytes(mutated(good, rng, about.words))
        about.read(root, file, number % 2 == 0)
    finally:
        file.write_bytes(good)


def main(words: list[str]) -> Any:
    """See the module."""
    name, first = words[0], int(words[1])
    if len(words) > 2:
        for each in FORMATS if name == "all" else [name]:
            found = {failure.what.partition(": ")[0]: failure for failure in trials(each, first, int(words[2]))}
            print(each, len(found), *found.values(), sep="\n  ", flush=True)
        return
    with tempfile.TemporaryDirectory() as place:
        root = Path(place) / "data"
        FORMATS[name].make(root)
        attempt(name, root, first)


if __name__ == "__main__":
    main(sys.argv[1:])
