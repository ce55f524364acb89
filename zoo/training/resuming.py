"""A run that is resumed or scored keeps its own settings: the config that it saved lies beneath the user's flags."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

from zoo.index import Entry
from zoo.training.request import Request, read_config
from zoo.training.stages import run_folders

__all__ = ["CHECKPOINTS", "last_checkpoint", "next_line", "with_own_settings"]

CHECKPOINTS, CONFIG, RUNS = "checkpoints", "config.yaml", "runs"


def last_checkpoint(root: Path) -> Path | None:
    """The `last.ckpt` of the newest run in `root` that has one; numbers count, as clocks may have been set back."""
    for run in reversed(run_folders(root)):
        if kept := sorted(p for p in (run / CHECKPOINTS).glob("last*.ckpt") if p.is_file()):
            return kept[-1]
    return None


def with_own_settings(request: Request, entry: Entry, tag: str | None) -> Request:
    """The request with the config of the checkpoint's run as its first config file, if there is one.

    Args:
        request: the command line.
        entry: the method.
        tag: whose runs `last` looks among.

    Raises:
        InvalidConfig: if the run's config cannot be read.
    """
    if request.ckpt_path in (None, "null"):
        return request
    path: Path | None = Path(str(request.ckpt_path)).expanduser()
    if request.ckpt_path == "last":
        path = last_checkpoint(_root(request) / (f"{entry.id}-{tag}" if tag else entry.id))
    config = None if path is None or path.parent.name != CHECKPOINTS else path.parent.parent / CONFIG
    given = [Path(file).expanduser().resolve() for file in request.configs]
    if config is None or not config.is_file() or config.resolve() in given:
        return request
    saved = read_config(config)
    if saved.get("command") != "fit" or str(saved.get("zoo")).partition(":")[0] != entry.id:
        return request
    facts: Any = saved.get("facts")
    known = request.saved_facts or (facts if isinstance(facts, dict) else {})
    return replace(request, configs=(str(config), *request.configs), saved_facts=known)


def _root(request: Request) -> Path:
    """The folder of all runs: by flag, by config file, or the usual one."""
    name = "--trainer.default_root_dir"
    words = [word for flag in request.flags for word in flag.split("=", 1)]
    if name in words[:-1]:
        return Path(words[len(words) - 1 - words[::-1].index(name) + 1])
    folder: Any = None
    for file in request.configs:
        trainer = read_config(file).get("trainer")
        folder = (trainer.get("default_root_dir") if isinstance(trainer, dict) else None) or folder
    return Path(str(folder or RUNS))


def next_line(prog: str, command: str, config: Path | None, name: str, ckpt: str | None = None, *, trust: bool) -> str:
    """A command that goes on with a run, as it can be pasted: all settings are in the config.

    Args:
        prog: how the program is called.
        command: `fit`, `test`, ...
        config: which the run saved; None: there is none, and `name` stands in its place.
        name: `id:tag`.
        ckpt: a checkpoint.
        trust: whether the config names classes of other packages.
    """
    words = ["--config", str(config)] if config is not None else ["--zoo", name]
    words += ["--ckpt_path", ckpt] if ckpt else []
    words += ["--trust"] if trust else []
    return f"{prog} {command} {shlex.join(words)}"
