"""`zoo data`: the layout a method reads, and whether a user's folder follows it."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli.fetch import add_fetch, run_data_fetch, run_data_list
from zoo.errors import BadData, BadInput, UnknownName, ZooError

if TYPE_CHECKING:
    from datamodules.base import ZooDataModule

__all__ = ["add_data", "run_data"]


def add_data(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of `zoo data`."""
    parser.add_argument(
        "action",
        choices=("fake", "check", "facts", "list", "fetch"),
        help="write a miniature, check a folder, show facts; list or fetch real data sets",
    )
    parser.add_argument("name", nargs="?", help="NAME[:TAG], whose data module it is about; list, fetch: a data set")
    parser.add_argument(
        "folder", nargs="?", help="folder to write, folder or file to read; facts without one: the embedded data"
    )
    parser.add_argument("--format", help="for data modules with several layouts, such as coco, voc, yolo")
    parser.add_argument(
        "--data.KEY", dest="example", metavar="VALUE", help="an argument of the data module, as for zoo train"
    )
    parser.add_argument("--quick", action="store_true", help="check: read the annotations, not every file")
    add_fetch(parser)
    parser.set_defaults(pass_through=True)


def run_data(options: argparse.Namespace) -> int:
    """Carry out one action."""
    options.data = _data_arguments(options.rest)
    if options.action in ("list", "fetch"):
        if options.data:
            raise BadInput(f"zoo data {options.action} takes no --data.{next(iter(options.data))}.")
        return {"list": run_data_list, "fetch": run_data_fetch}[options.action](options)
    if options.name is None:
        raise BadInput(f"Which method? As in: zoo data {options.action} NAME DIR")
    if options.folder is None and options.action != "facts":
        raise BadInput(f"Which folder? As in: zoo data {options.action} {options.name} DIR")
    return {"fake": _fake, "check": _check, "facts": _facts}[options.action](options)


def _data_arguments(words: Sequence[str]) -> dict[str, Any]:
    """Arguments of a data module among words: `--data.columns '{t: when}'`, or with `=`."""
    from zoo.safe_yaml import load_yaml

    arguments: dict[str, Any] = {}
    left = list(words)
    while left:
        name, equals, value = left.pop(0).partition("=")
        if not name.startswith("--data.") or not (equals or left):
            raise UnknownName(f"Unknown flag {name}, or its value is missing. Help: zoo data --help")
        value = value if equals else left.pop(0)
        arguments[name.removeprefix("--data.")] = load_yaml(value, where=name, error=BadInput)
    return arguments


def _build(options: argparse.Namespace, root: str | None) -> ZooDataModule:
    from zoo import index
    from zoo.base.arguments import parameters_of
    from zoo.store import datamodule

    given = {} if options.format is None else {"format": options.format}
    given |= options.data
    cls = index.info(options.name).data_class()
    known = parameters_of(cls)
    if "format" in given and "format" not in known:
        raise BadInput(f"{cls.__name__} reads one layout only: leave --format out.")
    built: Any = datamodule(options.name, root, **given)
    return built  # type: ignore[no-any-return]


def _fake(options: argparse.Namespace) -> int:
    folder = Path(options.folder).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"{folder} exists and is not empty: give a new folder.")
    # a data module with several layouts writes the one it was built for; root is where it would read
    options.data = _sizes_of_weights(options.name) | options.data
    _build(options, str(folder)).fake(folder)
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    for path in files[:20]:
        print(path.relative_to(folder).as_posix())
    if len(files) > 20:
        print(f"... and {len(files) - 20} more")
    chosen = f" --data.format {options.format}" if options.format else ""
    command = f"zoo train {options.name} --data.root {shlex.quote(str(folder))}{chosen}"
    print(f"\n{len(files)} files in {folder}. Train on it: {command}")
    return 0


def _sizes_of_weights(name: str) -> dict[str, Any]:
    """Sizes that a method's weights were made for, so that they can be tried on its miniature."""
    from zoo import index
    from zoo.base.arguments import parameters_of

    entry, tag = index.resolve(name)
    init = entry.weights[tag].init if tag else {}
    known = parameters_of(entry.tag(tag).data_class())
    return {key: init[key] for key in ("length", "img_size", "channels") if key in init and key in known}


def _facts(options: argparse.Namespace) -> int:
    print(json.dumps(_build(options, options.folder).facts(), indent=2, ensure_ascii=False))
    return 0


def _check(options: argparse.Namespace) -> int:
    folder = Path(options.folder).expanduser()
    if not folder.exists():
        raise BadInput(f"There is no folder {folder}, and no file. Check the path.")
    data = _build(options, str(folder))
    problems: list[str] = []
    facts = _collect(problems, data.facts)
    if facts is not None:
        print("facts  " + json.dumps(facts, ensure_ascii=False))
        for split in ("train", "val", "test"):
            _check_split(data, split, problems, quick=options.quick)
    problems = list(dict.fromkeys(problems))
    if not problems:
        print("no problems found")
        return 0
    print(f"{len(problems)} problem{'s' if len(problems) > 1 else ''}:")
    for line in problems:
        print(f"  {line}")
    return 1


def _collect(problems: list[str], call: Any, *args: Any) -> Any:
    try:
        return call(*args)
    except BadData as error:
        problems += error.problems or [str(error)]
    except ZooError as error:
        problems.append(str(error))
    return None


def _more(lines: Sequence[str]) -> str:
    return "".join(f"\n       {line}" for line in lines)


def _check_split(data: ZooDataModule, split: str, problems: list[str], *, quick: bool) -> None:
    dataset: Any = _collect(problems, data.samples, split)
    if dataset is None:
        return
    print(f"{split:<5}  {len(dataset)} samples{_more(data.summary(split))}")
    if not quick:
        for i in range(len(dataset)):
            _collect(problems, dataset.__getitem__, i)
