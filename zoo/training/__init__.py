"""The command line that `train.py` and `zoo train` share: LightningCLI with recipes, facts and starting weights.

The tag's recipe is the config, the user's own `--config FILE` comes on top, flags win. The model's arguments are
completed before it is built: from the starting weights, and from what the data say (`data.facts()`).
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from zoo.errors import InvalidConfig, ZooError
from zoo.index.recipes import read_recipe, stages_of
from zoo.text import plain_warnings, printable
from zoo.training import consent, resuming, stages
from zoo.training.failures import named
from zoo.training.request import HELP, Request, read_request
from zoo.training.signals import code_of, handlers_kept

if TYPE_CHECKING:
    pass

__all__ = ["main", "run"]

_NOISE = (
    ".*does not have many workers.*",  # num_workers=0 is our default on purpose
    ".*exists and is not empty. Previous log files.*",  # two loggers share the fresh run folder
    ".*It is recommended to use .*sync_dist=True.*",  # it would average counts; our metrics gather by themselves
    ".*callbacks used to create the checkpoint need to be provided.*",  # scoring needs none of them
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*number of training batches .* is smaller than the logging interval.*",  # the epoch's values are logged, too
    ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",
)


def main(args: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Run the command line and return its exit code; errors are one line on stderr.

    Args:
        args: words after the program's name; None takes `sys.argv`, which DDP's child processes are started with.
        prog: how help and errors call the program.
    """
    words = list(sys.argv[1:] if args is None else args)
    name = prog or f"python {os.path.basename(sys.argv[0]) or 'train.py'}"
    if not words or words[0] in ("-h", "--help"):
        print(HELP.format(prog=name), end="")
        return 0 if words else 2
    try:
        if words[0] == "replay":
            _replay(words[1:], name)
        else:
            run(words, prog=name)
    except BaseException as end:  # --print_config, signals, and errors
        code = code_of(end)
        error = named(end) if code is None else None
        if error is not None and "--debug" not in words:
            return _say(error)
        if code is None:
            raise
        return code
    return 0


def _say(error: ZooError) -> int:
    """Print an error and return its exit code; that a step was the same is none."""
    kind = type(error).__name__
    if kind == "Replayed":
        print(error)
        return 0
    print(f"error: {printable(str(error), lines=True)}", file=sys.stderr)
    return 1 if kind == "Differs" else 2


def _replay(words: Sequence[str], prog: str) -> None:
    if not words or words[0].startswith("-"):
        raise InvalidConfig(f"Which step? Give the file that the run has named, as in {prog} FILE.ckpt.")
    from zoo.training.replay import replay

    with _quiet(), handlers_kept():
        replay(words[0], [word for word in words[1:] if word != "--debug"], prog=prog)


def run(args: Sequence[str], *, prog: str = "python train.py") -> Any:
    """Parse and carry out one command; return the finished `LightningCLI` object (its `.trainer`, `.model`).

    Raises:
        ZooError: for every mistake of the user.
    """
    request = read_request(args)
    if request.zoo is None and request.weights not in (None, "null"):
        from zoo.training.arguments import describe_source

        request = _replace(request, zoo=describe_source(str(request.weights)).id)
    if request.zoo is None:
        if request.help:
            print(HELP.format(prog=prog), end="")
            raise SystemExit(0)
        raise InvalidConfig(f"Which method? Give --zoo NAME[:TAG] (`zoo list` shows the names). Help: {prog} --help")
    from zoo import index
    from zoo.training.fitting import without_own

    entry, tag = index.resolve(without_own(request))
    request = _replace(request, zoo=f"{entry.id}:{tag}" if tag else entry.id)
    request = resuming.with_own_settings(request, entry, tag)
    consent.ask(request, entry.tag(tag) if tag else entry)
    recipe = read_recipe(entry, tag)
    if request.command == "fit" and stages_of(recipe) and not request.help:
        trained = stages.prepare(request, entry, recipe)
        start = str(request.weights or recipe.get("weights"))
        request = _replace(
            request,
            # before the user's own flags, which win
            flags=(*stages.replaced(recipe, trained), *request.flags),
            weights=trained.get(start, request.weights),
        )
    cli_class = _cli_class()
    with _quiet(), plain_warnings(), handlers_kept():
        return cli_class(request, entry.tag(tag) if tag else entry, tag, prog)


def _replace(request: Request, **changes: Any) -> Request:
    from dataclasses import replace

    return replace(request, **changes)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide warnings about what is intended here."""
    tips = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    tips.addFilter(_is_no_tip)
    with warnings.catch_warnings():
        for message in _NOISE:
            warnings.filterwarnings("ignore", message=message)
        warnings.filterwarnings("ignore", message=r"(?s).*was deprecated in v4\.", module=r"lightning\..*")
        try:
            yield
        finally:
            tips.removeFilter(_is_no_tip)


def _is_no_tip(record: logging.LogRecord) -> bool:
    """Lightning advertises other products at every start, and says that it leaves out what is there already."""
    text = record.getMessage()
    return "Tip:" not in text and "already configured with model summary" not in text


def _cli_class() -> type:
    """The class is made on demand: importing Lightning takes seconds that help and mistakes need not wait for."""
    from zoo.training.lightning_cli import ZooCLI

    return cast(type, ZooCLI)
