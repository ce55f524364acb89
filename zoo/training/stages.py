"""Recipes with `after: [tag, ...]`: train the stages that have no weights yet, and use what they left."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import InvalidConfig, ZooError
from zoo.files import tied_to_me
from zoo.index.recipes import section_of, stages_of
from zoo.safe_yaml import load_yaml
from zoo.training.request import Request
from zoo.training.signals import SIGNALS, Stopped, handlers_kept

if TYPE_CHECKING:
    from zoo.index import Entry

__all__ = ["RESULT", "number_of", "prepare", "run_folders", "stage_result"]

RESULT = "result.json"
"""Written into the run's folder when `fit` has ended: a run that was killed has none."""

_HOW = ("accelerator", "devices", "num_nodes", "strategy", "precision", "default_root_dir")
_FORWARDED = (*(f"trainer.{name}" for name in _HOW), "data.root", "data.format")  # how to train, and on what


def number_of(folder: Path) -> int:
    """N of a folder `version_N`; -1 for other names."""
    match = re.fullmatch(r"version_(\d+)", folder.name)
    return int(match.group(1)) if match else -1


def run_folders(root: Path) -> list[Path]:
    """Folders of earlier runs, oldest first."""
    runs = [p for p in root.glob("version_*") if p.is_dir() and number_of(p) >= 0] if root.is_dir() else []
    return sorted(runs, key=number_of)


def stage_result(root: Path, data: str | None = None) -> str | None:
    """The checkpoint of the newest finished run in `root`; the number of its folder counts, not a clock.

    Args:
        root: folder of the runs of a recipe.
        data: `data.root` that the run must have had.
    """
    for run in reversed(run_folders(root)):
        file = run / RESULT
        if not file.is_file() or _data_of(run) != data:
            continue
        chosen = json.loads(file.read_text(encoding="utf-8")).get("checkpoint")
        if chosen and Path(chosen).is_file():
            return str(chosen)
    return None


def _data_of(run: Path) -> str | None:
    """`data.root` of a run."""
    file = run / "config.yaml"
    config = (load_yaml(file, where=str(file)) if file.is_file() else None) or {}
    root = (config.get("data") or {}).get("root")
    return None if root is None else str(root)


def prepare(request: Request, entry: Entry, recipe: dict[str, Any]) -> dict[str, str]:
    """Make sure that every stage exists; return where the references `id:tag` to freshly trained ones now point.

    Raises:
        InvalidConfig: if a stage is missing and several processes were started together, or its training failed.
    """
    trained: dict[str, str] = {}
    for tag in stages_of(recipe):
        name = f"{entry.id}:{tag}"
        if tag not in entry.weights:
            raise InvalidConfig(f"The recipe of {request.zoo} comes after {name}, which is not in the index.")
        made = entry.weights[tag].sha256 is not None
        other_classes = made and not _for_these_classes(entry, tag, request)
        if (made and not other_classes) or _replaced_by_user(request, recipe, name):
            continue
        root = Path(_flag(request, "--trainer.default_root_dir") or "runs") / f"{entry.id}-{tag}"
        data = _flag(request, "--data.root")
        checkpoint = stage_result(root, data)
        if checkpoint is None:
            _train(name, request, "; its weights are for other classes than yours" if other_classes else "")
            checkpoint = stage_result(root, data)
        if checkpoint is None:
            raise InvalidConfig(f"Training {name} left no checkpoint in {root}: run it alone with zoo train {name}.")
        trained[name] = checkpoint
    return trained


def replaced(recipe: dict[str, Any], trained: dict[str, str]) -> list[str]:
    """Flags that point references of the recipe to the checkpoints of the stages."""
    return [f"--{section}.{key}={trained[name]}" for section, key, name in _references(recipe) if name in trained]


def _for_these_classes(entry: Entry, tag: str, request: Request) -> bool:
    """Whether published weights of a stage know the classes of the data; what is wrong with these is said later."""
    from zoo.store import datamodule

    root, format = _flag(request, "--data.root"), _flag(request, "--data.format")
    if root is None:
        return True
    try:
        facts = datamodule(f"{entry.id}:{tag}", root, **({"format": format} if format else {})).facts()
    except (ZooError, OSError):
        return True
    made_for = {k: v for k, v in entry.weights[tag].init.items() if k in ("num_classes", "class_names")}
    return all(facts[key] == value for key, value in made_for.items() if facts.get(key) is not None)


def _references(recipe: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Section, key and value of the settings that are texts, `id:tag` among them."""
    sections = [(name, section_of(recipe, name)) for name in ("model", "data")]
    return [(name, key, v) for name, values in sections for key, v in values.items() if isinstance(v, str)]


def _replaced_by_user(request: Request, recipe: dict[str, Any], name: str) -> bool:
    """Whether the recipe refers to a stage, and the user has put something else everywhere in its place."""
    chosen = {"model": request.explicit, "data": request.explicit_data}
    places = [key in chosen[section] for section, key, value in _references(recipe) if value == name]
    places += [request.weights is not None] if recipe.get("weights") == name else []
    return bool(places) and all(places)


def _flag(request: Request, name: str) -> str | None:
    words = [w for flag in request.flags for w in flag.split("=", 1)]
    return words[words.index(name) + 1] if name in words[:-1] else None


def _train(name: str, request: Request, why: str) -> None:
    """Run a stage in a process of its own: its DDP children are started with that process's words."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 or int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        raise InvalidConfig(f"{request.zoo} needs {name}, which is not trained yet. Train it first: zoo train {name}")
    print(f"{request.zoo} comes after {name}: training that first{why}", flush=True)
    words = []
    for part in _FORWARDED:
        value = _flag(request, f"--{part}")
        words += [f"--{part}={value}"] if value is not None else []
    code = _run([sys.executable, "-m", "zoo", "train", name, *words])
    if code:
        raise InvalidConfig(f"Training {name}, which {request.zoo} comes after, failed with exit code {code}.")


def _run(words: list[str]) -> int:
    """Run a command and return its exit code. Signals are passed on to it, and it ends when we are killed.

    Raises:
        Stopped: if a signal was passed on; the process has ended.
    """
    passed: list[int] = []
    # a session of its own: Ctrl-C at the terminal comes once, from us, and not twice, which would mean at once
    process = subprocess.Popen(words, preexec_fn=tied_to_me(), start_new_session=os.name == "posix")

    def pass_on(number: int, frame: object) -> None:
        passed.append(number)
        process.send_signal(number)

    with handlers_kept() as may_handle:
        for number in SIGNALS if may_handle else ():
            signal.signal(number, pass_on)
        code = process.wait()
    if passed:
        raise Stopped(passed[0])
    return code
