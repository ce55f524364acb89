"""A folder as a user has it, with files of their own, and the documented lines run there in this process."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from functools import wraps
from pathlib import Path
from typing import Any

import lightning
import pytest
from documented.blocks import Block, commands
from PIL import Image

from zoo import cli, index, training

SHORT = ("--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1", "--trainer.limit_test_batches=1")
"""Appended to every documented training. Nothing else of the line changes, except `ONCE`."""
ONCE = "--trainer.max_epochs=1"
SEVERAL = ("--trainer.devices", "--trainer.strategy", "--trainer.num_nodes")
"""Flags of lines that start several processes; of these, the resolved settings are printed only."""

_EXPAND = (
    'zoo() { printf "%s\\0" zoo "$@"; printf "\\1"; cat; }; python() { printf "%s\\0" python "$@"; printf "\\1"; }\n'
)


class BriefTrainer(lightning.Trainer):
    """What documented Python trains with: one process and few batches instead of what the page says."""

    @wraps(lightning.Trainer.__init__)  # commands read its signature
    def __init__(self, **given: Any) -> None:
        few = {"max_epochs": 1, "limit_train_batches": 2, "limit_val_batches": 1, "limit_test_batches": 1}
        here = {"accelerator": "cpu", "devices": 1, "strategy": "auto", "enable_progress_bar": False}
        super().__init__(**{**given, **few, **here})


class Place:
    """The user's folder.

    Args:
        folder: an empty folder; it becomes the current one.
        patch: undone after the test.
        few: added to trainings that bring no data of their own.
        processes: so many stages that come before a training are processes of their own, as for users; those after
            them run in this one, which saves the imports.
    """

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, few: tuple[str, ...] = (), processes: int = 0) -> None:
        self.folder = folder
        self.few = few
        self.processes = processes
        self.patch = patch
        self.names: dict[str, Any] = {"__name__": "__main__"}
        patch.chdir(folder)
        start = training.stages._run

        def stage(words: list[str]) -> int:
            words = [*words, *SHORT, ONCE]
            self.processes -= 1
            if self.processes >= 0:
                return start(words)
            assert words[:3] == [sys.executable, "-m", "zoo"]
            with contextlib.redirect_stdout(io.StringIO()):
                return exit_code(words[3:])

        patch.setattr(training.stages, "_run", stage)

    def run(self, line: str, words: dict[str, str] | None = None) -> str:
        """Run a command line and return what it printed.

        Args:
            line: as it is printed in a page.
            words: placeholders, and what a user puts in their place.
        """
        for word, instead in (words or {}).items():
            line = line.replace(word, instead)
        if line.startswith("export "):
            name, _, value = line.removeprefix("export ").partition("=")
            self.patch.setenv(name, value.replace("$PWD", str(self.folder)))
            return ""
        done = subprocess.run(
            ["bash", "-c", _EXPAND + line], cwd=self.folder, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        assert done.returncode == 0, f"{line}: {done.stderr.decode()}"
        given, _, typed = done.stdout.partition(b"\1")
        program, *rest = given.decode().split("\0")[:-1]
        assert program in ("zoo", "python"), f"{line}: run it here, or say above the block why not"
        return self._call(program, rest, typed.decode(), line)

    def _call(self, program: str, rest: list[str], typed: str, line: str) -> str:
        if program == "python":
            assert rest[0] == "train.py", line
            rest = ["train", *rest[1:]]
        said, mistakes = io.StringIO(), io.StringIO()
        self.patch.setattr(sys, "stdin", io.StringIO(typed))
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(mistakes):
            code = exit_code([*rest, *brief(rest, self.few)])
        assert code == 0, f"{line}: exit code {code}\n{said.getvalue()[-2000:]}\n{mistakes.getvalue()[-2000:]}"
        return said.getvalue()

    def execute(self, code: str, name: str) -> None:
        """Run Python; names stay for the next block of the page."""
        with self.patch.context() as brief_trainers:
            brief_trainers.setattr(lightning, "Trainer", BriefTrainer)
            exec(compile(code, name, "exec"), self.names)


def exit_code(words: list[str]) -> int:
    """That of the command line; `--help` and `--print_config` end it from inside."""
    try:
        return cli.main(words)
    except SystemExit as end:
        return int(end.code or 0)


def brief(words: list[str], few: tuple[str, ...] = ()) -> list[str]:
    """What is appended to a command so that it ends soon; most commands are run as they are."""
    if words[0] == "reproduce" and "--dry-run" not in words:
        return ["--dry-run"]
    if words[0] == "card":
        return ["--check"]
    if words[0] == "evaluate":  # later flags win
        return ["--n", "3", "--attacks", "fgsm", "--no-checks"]
    if words[0] != "train" or "--help" in words or "--print_config" in words:
        return []
    if any(word.startswith(SEVERAL) for word in words):
        return ["--print_config"]
    scoring = words[1] in training.request.COMMANDS and words[1] != "fit"
    own = {"--data.root", "--ckpt_path"} & set(words)
    return [*SHORT, *([] if scoring else [ONCE]), *([] if own else few)]


def picture(path: Path) -> None:
    """A photograph-like picture of no meaning."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise((160, 120), 60).convert("RGB").save(path)


def file_to_predict(name: str, folder: Path) -> str:
    """What stands for INPUT: a picture of one's own, else a file of the method's miniature.

    Args:
        name: of the method.
        folder: its miniature, written by `zoo data fake`.
    """
    if index.TASKS[index.info(name).task].reads == "image":
        picture(Path("picture.jpg"))
        return "picture.jpg"
    return next(p.as_posix() for p in sorted(folder.rglob("*")) if p.is_file() and p.suffix not in (".md", ".txt"))


def run_block(block: Block, place: Place, words: dict[str, str]) -> None:
    """Every line of a block that does not say why it is not run."""
    if block.language == "python":
        if block.why_not(block.code) is None:
            place.execute(block.code, f"{block.page}:{block.line}")
        return
    assert block.language == "bash", f"{block.page}:{block.line}: blocks in {block.language} are not known here"
    for line in commands(block.code):
        if block.why_not(line) is None:
            place.run(line, words)
