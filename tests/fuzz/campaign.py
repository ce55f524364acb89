"""Many damaged files of every kind, in chunks: what was done is kept, and a stopped command goes on where it was.

PYTHONPATH=tests:. python -m fuzz.campaign                      50,000 files, counted in tests/fuzz/results.json
PYTHONPATH=tests:. python -m fuzz.campaign --first 9000000      other files: equal numbers give equal files
PYTHONPATH=tests:. python -m fuzz.campaign --again              only the files that failed, after a repair
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

from fuzz.formats import FORMATS
from fuzz.trial import SECONDS, Failure, trials

__all__ = ["QUICK", "RESULTS", "THOROUGH", "main", "share"]

RESULTS = Path(__file__).with_name("results.json")
QUICK, THOROUGH = 2_000, 50_000
FIRST = 7_000_000
CHUNK = 100
_WEIGHTS = sum(about.weight for about in FORMATS.values())


def share(name: str, total: int) -> int:
    """Trials of a format."""
    return round(total * FORMATS[name].weight / _WEIGHTS) + 1


def kind(failure: dict[str, Any]) -> str:
    """What a failure counts as: a raw exception, a hang, memory, or the end of the process."""
    what = failure["what"].partition(":")[0]
    return what if what in ("hang", "memory") else "ended" if what.startswith("ended with") else "raw exceptions"


def summary(found: dict[str, Any]) -> dict[str, int]:
    """Files and failures of each kind."""
    counts = dict.fromkeys(["raw exceptions", "hang", "memory", "ended"], 0)
    for failure in found["failures"]:
        counts[kind(failure)] += 1
    return {"files": sum(found["done"].values()), **counts}


def write(path: Path, found: dict[str, Any]) -> None:
    """Replace the results at once."""
    found["summary"] = summary(found)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


def chunks(found: dict[str, Any], total: int) -> list[tuple[str, int, int]]:
    """What is left to do, a chunk of each format after the other."""
    left = []
    for name in FORMATS:
        wanted, done = share(name, total), found["done"].get(name, 0)
        left += [(at, name, min(CHUNK, wanted - at)) for at in range(done, wanted, CHUNK)]
    return [(name, at, count) for at, name, count in sorted(left)]


def go_on(found: dict[str, Any], args: argparse.Namespace) -> None:
    """Do what is left, or as much as there is time for; write after each chunk."""
    end = time.monotonic() + 60 * args.minutes
    left = chunks(found, args.files)
    with ProcessPoolExecutor(args.jobs, multiprocessing.get_context("spawn")) as pool:
        tasks: dict[Future[list[Failure]], tuple[str, int]] = {}
        while tasks or (left and time.monotonic() < end):
            while left and len(tasks) < args.jobs and time.monotonic() < end:
                name, at, count = left.pop(0)
                tasks[pool.submit(trials, name, args.first + at, count)] = (name, count)
            for task in wait(tasks, return_when=FIRST_COMPLETED).done:
                name, count = tasks.pop(task)
                found["done"][name] = found["done"].get(name, 0) + count
                found["failures"] += [vars(failure) for failure in task.result()]
                write(args.out, found)
                print(*task.result(), sep="\n", end="", flush=True)


def main(words: list[str] | None = None) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=THOROUGH)
    parser.add_argument("--first", type=int, default=FIRST, help="number of the first file of each format")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after a while; the next call goes on")
    parser.add_argument("--again", action="store_true", help="try those that failed once more")
    args = parser.parse_args(words)
    fresh: dict[str, Any] = {"first": args.first, "seconds": SECONDS, "done": {}, "failures": []}
    found = json.loads(args.out.read_text(encoding="utf-8")) if args.out.is_file() else fresh
    if found["first"] != args.first and not args.again:
        found = fresh
    if args.again:
        before: list[dict[str, Any]] = found["failures"]
        found["failures"] = [vars(f) for b in before for f in trials(b["format"], b["number"], 1)]
        found["repaired"] = found.get("repaired", 0) + len(before) - len(found["failures"])
    else:
        go_on(found, args)
    write(args.out, found)
    print(json.dumps(found["summary"]))
    return 1 if found["failures"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
