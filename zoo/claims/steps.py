"""One run as steps, each in a process of its own: fit, then score; or a study. A finished step is kept in one file."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.claims.planning import QUICK, Job
from zoo.claims.results import round_values
from zoo.errors import ZooError
from zoo.files import PACKAGE, tied_to_me, write_whole
from zoo.index import Entry
from zoo.training.stages import RESULT

__all__ = ["Place", "RunFailed", "Step", "finished", "result_of", "steps_of"]

_THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


class RunFailed(ZooError):
    """A process of `zoo reproduce` ended with an error; the message holds its last lines and where its log is."""


@dataclass(frozen=True)
class Place:
    """What all steps share.

    Attributes:
        entry: the method.
        folder: `runs/reproduce`.
        roots: folders of data sets by the names that claims use.
        threads: of each process.
        program: how the zoo is started; tests put a stand-in here.
    """

    entry: Entry
    folder: Path
    roots: Mapping[str, Path] = field(default_factory=dict)
    threads: int = 1
    program: tuple[str, ...] = (sys.executable, "-m")

    def of(self, key: str) -> Path:
        """Folder of a run."""
        return self.folder / key


def finished(place: Place, key: str, step: str) -> dict[str, Any] | None:
    """What a step left, or None if it has not ended."""
    path = place.of(key) / f"{step}.json"
    if not path.is_file():
        return None
    try:
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:  # a full disk may leave an empty file behind
        return None
    checkpoint = result.get("checkpoint")
    return result if checkpoint is None or (place.of(key) / checkpoint).is_file() else None


def steps_of(job: Job) -> list[str]:
    """Names of a run's steps, in order."""
    return ["study"] if "study" in job.spec else ["fit", *job.measures]


class Step:
    """One process. Each attempt works in a folder of its own, so that nothing of a killed one is ever read.

    Args:
        place: shared settings.
        job: the run.
        name: `fit`, `test`, `validate` or `study`.
    """

    def __init__(self, place: Place, job: Job, name: str) -> None:
        self.place, self.job, self.name = place, job, name
        self.home = place.of(job.key)
        self.folder = self.home / f"{name}-{os.getpid()}-{time.time_ns()}"
        self.log = self.home / f"{name}.log"
        self.started = time.monotonic()
        self._clear()
        self.folder.mkdir(parents=True)
        self._write(self.home / "spec.json", {"zoo": place.entry.id, **job.spec, "code": job.code})
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*place.program, *self.words()],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=_environment(place.threads),
                # Ctrl-C is for us; Lightning would begin to save and to clean up
                start_new_session=os.name == "posix",
                preexec_fn=tied_to_me(),
            )

    def _clear(self) -> None:
        for earlier in self.home.glob(f"{self.name}-*"):
            shutil.rmtree(earlier, ignore_errors=True)

    # Words --------------------------------------------------------------------------------------------------------

    def words(self) -> list[str]:
        """The command behind `python -m`."""
        job, entry = self.job, self.place.entry
        if self.name == "study":
            given = {key: self._data_set(value) for key, value in job.spec["set"].items()}
            given |= {"seed": job.seed} if job.seed is not None else {}
            return ["zoo.studies", entry.id, job.spec["study"], json.dumps(given), str(self.folder / "study.json")]
        words = [
            "zoo",
            "train",
            self.name,
            "--zoo",
            f"{entry.id}:{job.spec['recipe']}",
            f"--seed_everything={job.seed}",
        ]
        if self.name == "fit":
            # that a run diverges is a result, too
            words += ["--terminate_on_nan=false", *self._start()]
        else:
            words += ["--ckpt_path", str(self._checkpoint(job.key))]
        settings = {"data.seed": job.seed, **job.spec["set"], **(QUICK if job.quick else {})}
        for key, value in settings.items():
            if self.name == "fit" or key.partition(".")[0] in ("data", "trainer"):
                words += [f"--{key}={self._text(value)}"]
        return [*words, f"--trainer.default_root_dir={self.folder}", "--trainer.enable_progress_bar=false"]

    def _start(self) -> list[str]:
        """Weights of the run to start from, and stages put where training looks for them."""
        for tag, key in self.job.stages.items():
            version = self.folder / f"{self.place.entry.id}-{tag}" / "version_0"
            version.mkdir(parents=True)
            self._write(version / RESULT, {"command": "fit", "checkpoint": str(self._checkpoint(key))})
        return ["--weights", str(self._checkpoint(self.job.needs[0]))] if "start" in self.job.spec else []

    def _checkpoint(self, key: str) -> Path:
        fit = finished(self.place, key, "fit")
        if fit is None:
            raise RunFailed(f"The run {key}, which {self.job.label} starts from, has left no checkpoint.")
        return self.place.of(key) / fit["checkpoint"]

    def _data_set(self, value: Any) -> Any:
        """The folder that a placeholder such as `$bccd` stands for; anything else as it is."""
        return str(self.place.roots[value[1:]]) if isinstance(value, str) and value.startswith("$") else value

    def _text(self, value: Any) -> str:
        value = self._data_set(value)
        return value if isinstance(value, str) else json.dumps(value)

    # Results ------------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Keep what the ended process left.

        Raises:
            RunFailed: if it failed.
        """
        code = self.process.returncode
        result = self._read() if code == 0 else None
        if result is None:
            raise RunFailed(
                f"{self.job.label}: {self.name} ended with code {code}. Its log is {self.log}; the last lines:\n"
                + "\n".join(f"  {line}" for line in tail(self.log, 12))
            )
        result["minutes"] = (time.monotonic() - self.started) / 60
        result["threads"] = self.place.threads
        self._write(self.home / f"{self.name}.json", result)
        if self.name != "fit":
            shutil.rmtree(self.folder, ignore_errors=True)

    def _read(self) -> dict[str, Any] | None:
        if self.name == "study":
            path = self.folder / "study.json"
            return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None
        stages = {f"{self.place.entry.id}-{tag}" for tag in self.job.stages}
        results = [p for p in self.folder.glob(f"*/version_*/{RESULT}") if p.parent.parent.name not in stages]
        if len(results) != 1:
            return None
        result = json.loads(results[0].read_text(encoding="utf-8"))
        kept: dict[str, Any] = {k: result[k] for k in ("metrics", "epochs", "steps") if k in result}
        if self.name == "fit":
            checkpoint = Path(result.get("checkpoint") or "-")
            if not checkpoint.is_file():
                return None
            for other in checkpoint.parent.glob("*.ckpt"):  # hundreds of megabytes that are not read again
                if other.resolve() != checkpoint.resolve():
                    other.unlink(missing_ok=True)
            kept |= {"scored_epoch": _scored_epoch(self.job.label, result)} if "checkpoint_epoch" in result else {}
            kept["checkpoint"] = os.path.relpath(checkpoint.resolve(), self.home.resolve())
            kept["curves"] = read_curves(results[0].parent / "metrics.csv")
        return kept

    def _write(self, path: Path, content: dict[str, Any]) -> None:
        write_whole(path, json.dumps(content, indent=1))

    def stop(self) -> None:
        """End the process and everything it started."""
        if self.process.poll() is None:
            if os.name == "posix":
                import signal

                os.killpg(self.process.pid, signal.SIGKILL)
            else:
                self.process.kill()
            self.process.wait()


def _scored_epoch(label: str, result: Mapping[str, Any]) -> int:
    """The epoch of the weights that the next steps measure, checked against what the run says about itself.

    Raises:
        RunFailed: if the weights are said to be the last ones and are not.
    """
    if result["selected"] == "last" and result["checkpoint_step"] != result["steps"]:
        raise RunFailed(
            f"{label}: {result['checkpoint']} holds step {result['checkpoint_step']}, but the run ended after "
            f"{result['steps']}: a measurement of it would not be of the last epoch."
        )
    return int(result["checkpoint_epoch"])


def _environment(threads: int) -> dict[str, str]:
    """Fixed threads and hashing, and the zoo that runs now rather than another one on the path."""
    here = str(PACKAGE.parent)
    path = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    fixed = {name: str(threads) for name in _THREADS}
    return {**os.environ, **fixed, "PYTHONPATH": path, "PYTHONHASHSEED": "0", "PYTHONUNBUFFERED": "1"}


def tail(path: Path, lines: int) -> list[str]:
    """The last lines of a log."""
    if not path.is_file():
        return []
    return path.read_bytes()[-20_000:].decode("utf-8", "replace").splitlines()[-lines:]


def read_curves(path: Path) -> dict[str, list[list[float]]]:
    """Values per epoch from a CSV logger's file: validation as logged, training as the mean of the epoch.

    The first coordinate is the number of epochs trained so far. Per-class values (two slashes) are left out.
    """
    if not path.is_file():
        return {}
    columns: dict[str, dict[int, list[float]]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if not row.get("epoch"):
                continue
            for key, text in row.items():
                if key and text and key.count("/") == 1 and not key.startswith("test/"):
                    columns.setdefault(key, {}).setdefault(int(float(row["epoch"])) + 1, []).append(float(text))
    return {k: [[e, sum(v) / len(v)] for e, v in sorted(points.items())] for k, points in sorted(columns.items())}


def result_of(place: Place, job: Job, about: Mapping[str, Any]) -> dict[str, Any] | None:
    """Everything a finished run measured, as results.json keeps it; None if a step is missing.

    Args:
        place: shared settings.
        job: the run.
        about: facts of the machine and the code to add.
    """
    steps: Sequence[dict[str, Any] | None] = [finished(place, job.key, step) for step in steps_of(job)]
    if any(step is None for step in steps):
        return None
    done = [step for step in steps if step is not None]
    metrics = {k: v for step in done for k, v in step.get("metrics", {}).items()}
    result = {"spec": job.spec, "metrics": dict(sorted(metrics.items())), "curves": done[0].get("curves", {})}
    result |= {key: done[0][key] for key in ("epochs", "scored_epoch") if key in done[0]}
    result |= {"minutes": sum(step["minutes"] for step in done), "threads": done[0]["threads"], "code": job.code}
    rounded: dict[str, Any] = round_values({**result, **about})
    return rounded
