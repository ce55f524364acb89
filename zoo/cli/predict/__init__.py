"""`zoo predict`: from files, folders, wildcards, animations and videos to lines, pictures and tables, as they come."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import BadInput, UnknownName, ZooError

if TYPE_CHECKING:
    from zoo.base import ZooModule
    from zoo.cli.predict.outputs import Outputs
    from zoo.cli.predict.reading import Failure, Item

__all__ = ["add_predict", "run_predict"]

_FLAGS = ("out", "json", "save", "no-pictures", "on-error", "batch-size", "device", "debug")


def add_predict(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of `zoo predict`; further flags are options of the method's `predict`."""
    parser.add_argument("model", help="NAME[:TAG], hf://owner/repo, a saved folder or a .ckpt")
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="input",
        help="files, folders, quoted wildcards, animations (each frame), videos, or - for paths on standard input",
    )
    parser.add_argument(
        "--out", metavar="DIR", help="write pictures and results.json there; inputs are never overwritten"
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument(
        "--save",
        default="",
        metavar="FORMATS",
        help="further files in --out: csv, yolo, coco, geojson, joined by commas",
    )
    parser.add_argument("--no-pictures", action="store_true", help="draw nothing")
    parser.add_argument(
        "--on-error", choices=("stop", "skip"), default="stop", help="at a file that cannot be used (stop)"
    )
    parser.add_argument("--batch-size", type=int, default=16, help="inputs computed at once (16)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (auto: a GPU if there is one)")
    parser.set_defaults(pass_through=True)


def run_predict(options: argparse.Namespace) -> int:
    """Predict, print and write while it goes on; 1 if files were left out."""
    from zoo.cli.predict import paths
    from zoo.cli.predict.saves import check_saves

    words, extra = predict_options(options.rest)
    given = paths.given_paths([*options.inputs, *words])
    skip = options.on_error == "skip"
    missing = [problem for path in given if (problem := paths.problem_of(path)) is not None]
    if missing and not skip:
        more = f" {len(missing) - 1} more are missing, too." if len(missing) > 1 else ""
        raise BadInput(f"{missing[0]}{more}")
    saves = [name.strip() for name in options.save.split(",") if name.strip()]
    folder = _folder(options.out, saves)

    module = _loaded(options.model, options.device)
    module.check_options(extra)
    check_saves(saves, module.task)
    from zoo.cli.predict.outputs import Outputs
    from zoo.cli.predict.reading import Reader

    reader = Reader(module)
    files = given if reader.whole_folders else paths.expanded(given, reader.suffixes, folder)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    pictures = not options.no_pictures
    outputs = Outputs(module, files, folder, as_json=options.json, pictures=pictures, saves=saves)
    run = _Run(module, outputs, extra, options.batch_size, skip)
    run.all(reader.items(files), files)
    if folder is not None and not options.json:
        print(f"written to {folder}")
    if run.skipped:
        print(f"{run.skipped} of {len(files)} files were left out", file=sys.stderr)
    return 1 if run.skipped else 0


def predict_options(words: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Split words that the parser does not know into inputs and options: `--name 0.4`, with `=`, or bare for true."""
    import yaml

    inputs: list[str] = []
    values: dict[str, Any] = {}
    left = list(words)
    while left:
        word = left.pop(0)
        if not word.startswith("--"):
            inputs.append(word)
            continue
        name, equals, value = word.partition("=")
        if near := get_close_matches(name[2:], _FLAGS, n=1, cutoff=0.8):
            raise UnknownName(f"Unknown flag {name}. Did you mean '--{near[0]}'? Help: zoo predict --help")
        if not equals:
            value = left.pop(0) if left and not left[0].startswith("--") else "true"
        try:
            values[name[2:].replace("-", "_")] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise BadInput(f"{name}: {value!r} is no value. Give a number, true, false or a text.") from None
    return inputs, values


def _folder(out: str | None, saves: Sequence[str]) -> Path | None:
    if out is None:
        if saves:
            raise BadInput(f"--save {','.join(saves)} writes files: say where with --out DIR.")
        return None
    folder = Path(out).expanduser()
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"--out {out} is a file: give a folder.")
    return folder


def _loaded(name: str, device: str) -> ZooModule:
    from zoo.cli.devices import device_of
    from zoo.store import load

    return load(name, map_location=device_of(device))


class _Run:
    """One run over all inputs.

    Args:
        module: the method.
        outputs: where results go.
        extra: options of `predict`.
        batch_size: inputs computed at once.
        skip: go on after files that cannot be used.
    """

    def __init__(self, module: ZooModule, outputs: Outputs, extra: dict[str, Any], batch_size: int, skip: bool) -> None:
        if batch_size < 1:
            raise BadInput(f"--batch-size must be at least 1, got {batch_size}.")
        self.module, self.outputs, self.extra, self.size, self.skip = module, outputs, extra, batch_size, skip
        self.skipped = 0

    def all(self, items: Iterator[Item | Failure], files: Sequence[str]) -> None:
        """Predict all, and leave complete files behind however it ends."""
        from zoo.cli.predict.progress import progress

        whole, done = False, 0
        try:
            with progress(len(files)) as advance:
                for batch in self._batches(items):
                    for answered in self._answers(batch):
                        self.outputs.add(answered)
                    done += len({item.path for item in batch})
                    advance(done)
            whole = True
        finally:
            self.outputs.close(whole=whole)
            if not whole and self.outputs.count and self.outputs.folder is not None:
                print(f"{self.outputs.count} results are in {self.outputs.folder}", file=sys.stderr)

    def _batches(self, items: Iterator[Item | Failure]) -> Iterator[list[Item]]:
        from zoo.cli.predict.reading import Failure

        batch: list[Item] = []
        for item in items:
            if isinstance(item, Failure):
                if not self.skip and batch:
                    yield batch  # what came before the mistake is not lost
                    batch = []
                self._failed(item.path, item.error)
                continue
            batch.append(item)
            if len(batch) == self.size:
                yield batch
                batch = []
        if batch:
            yield batch

    def _answers(self, items: list[Item]) -> Iterator[list[tuple[Item, dict[str, Any]]]]:
        """Results of a batch; where it fails, its halves are tried, so that only what is broken is left out."""
        try:
            answers = self.module.predict([item.value for item in items], batch_size=self.size, **self.extra)
        except ZooError as error:
            if len(items) == 1:
                self._failed(items[0].where, error)
                return
        else:
            if note := getattr(answers, "note", ""):
                print(f"note: {note}", file=sys.stderr)
            yield list(zip(items, answers, strict=True))
            return
        half = len(items) // 2
        yield from self._answers(items[:half])
        yield from self._answers(items[half:])

    def _failed(self, where: str, error: ZooError) -> None:
        text = str(error)
        if where.partition(",")[0] not in text:
            text = f"{where}: {text}"
        if not self.skip:
            raise BadInput(text) from error
        self.skipped += 1
        print(f"left out: {text}", file=sys.stderr)
