"""Classes that a config file names. Importing one runs code, so those of other packages are asked for first."""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any

from zoo.errors import InvalidConfig, ZooError
from zoo.index import Entry, entries
from zoo.index.rules import shown
from zoo.safe_yaml import load_yaml
from zoo.training.request import HEADER, Request

__all__ = ["ask", "foreign_classes"]

_OWN = frozenset({"zoo", "datamodules", "lightning", "torch"})
_PATH = re.compile(r"\s*[^\W\d]\w*(?:\.[^\W\d]\w*)+\s*")
_IMPORTED = re.compile(r"Callable|[Tt]ype\[")
_TEXT = re.compile(r"(?:str|Path|os\.PathLike(?:\[str\])?|None|\s|\||Optional|Union|\[|\]|,|<class 'str'>)*")
_NO_CLASS = (*HEADER, "ckpt_path", "default_root_dir")
_MAX_FILES = 20
_GIVEN = "ZOO_TRUSTED_CLASSES"
"""For the processes that DDP starts, which must not ask again; holds a hash of what was agreed to."""


def ask(request: Request, entry: Entry) -> None:
    """Ask whether the classes of other packages in the config files may be imported. Nothing of them is, before.

    Recipes are part of an installed package, and flags are the user's own words: neither is asked about.

    Args:
        request: the command line.
        entry: the method.

    Raises:
        InvalidConfig: if the user says no, or cannot be asked and did not give `--trust`.
    """
    if request.trust:
        return
    named = {f"{file}: {place}": path for file in request.configs for place, path in foreign_classes(file, entry)}
    named |= {f"--{place}": path for place, path in _in_flags(request.flags, entry)}
    if not named:
        return
    digest = sha256("\n".join(sorted(set(named.values()))).encode()).hexdigest()
    if os.environ.get(_GIVEN) == digest:
        return
    listed = "\n".join(f"  {place}: {shown(path)}" for place, path in named.items())
    print(f"These settings name classes of other packages, and importing one runs its code:\n{listed}", file=sys.stderr)
    if sys.stdin is not None and sys.stdin.isatty():
        print("Do you know who wrote them, and import them? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() in ("y", "yes"):
            os.environ[_GIVEN] = digest
            return
    place, path = next(iter(named.items()))
    raise InvalidConfig(
        f"{place}: expected classes of the zoo, Lightning and torch, got {shown(path)}, which "
        "was not imported. If the file is yours, or you have read it, add --trust."
    )


def foreign_classes(file: str, entry: Entry) -> list[tuple[str, str]]:
    """Place and import path of each class outside of this package, Lightning, torch and the packages of the index.

    Args:
        file: a config file.
        entry: the method whose settings it holds.

    Raises:
        InvalidConfig: if it, or a file that it names in place of settings, cannot be read.
    """
    reader = _Reader(entry)
    return [(place, path) for place, path in reader.file(Path(file).expanduser(), "") if not _is_own(path)]


def _in_flags(flags: Sequence[str], entry: Entry) -> list[tuple[str, str]]:
    """Those in files that a flag such as `--trainer FILE` names; classes in the flag itself are the user's words."""
    named: list[tuple[str, str]] = []
    for flag, following in zip(flags, [*flags, ""][1:], strict=True):
        name, equals, value = flag.partition("=")
        if name.startswith("--"):
            reader = _Reader(entry)
            kind = replace(reader.kind(name[2:], _Kind(classes=False)), classes=False)
            named += reader.value(value if equals else following, name[2:], Path(), kind)
    return [(place, path) for place, path in named if not _is_own(path)]


@dataclass
class _Reader:
    """Walks through the files in the way in which the parser would."""

    entry: Entry
    seen: set[Path] = field(default_factory=set)

    def file(self, path: Path, place: str) -> Iterator[tuple[str, str]]:
        """Import paths in a file."""
        if path.resolve() in self.seen:
            return
        self.seen.add(path.resolve())
        if len(self.seen) > _MAX_FILES:
            raise InvalidConfig(f"{path}: expected one config file, got more than {_MAX_FILES} that name each other.")
        try:
            content = load_yaml(path)
        except ZooError as error:
            raise InvalidConfig(f"{path} stands for settings, but cannot be read as such: {error}") from None
        yield from self.value(content, place, path.parent, _Kind(classes=bool(place)))

    def value(self, value: Any, place: str, folder: Path, kind: _Kind) -> Iterator[tuple[str, str]]:
        """Import paths in a value.

        Args:
            value: anything.
            place: where it stands, as the user would write it.
            folder: of the file it stands in.
            kind: what the parser takes texts for.
        """
        if isinstance(value, Mapping):
            for key, item in value.items():
                inner = f"{place}.{key}" if place else str(key)
                if key == "class_path" and isinstance(item, str) and "." in item:
                    yield inner, item
                elif not place and key in _NO_CLASS:
                    continue
                else:
                    yield from self.value(item, inner, folder, self.kind(inner, kind))
        elif isinstance(value, (list, tuple)):
            for number, item in enumerate(value):
                yield from self.value(item, f"{place}[{number}]", folder, kind)
        elif isinstance(value, str):
            if kind.classes and _PATH.fullmatch(value):
                yield place, value.strip()
            if kind.files:
                for path in (Path(value), folder / value):
                    if _is_file(path):
                        yield from self.file(path, place)

    def kind(self, place: str, outer: _Kind) -> _Kind:
        """What texts at a place stand for."""
        words = place.split(".")
        if words[-1] in _NO_CLASS:
            return _Kind(classes=False, files=False)
        if words[0] not in ("model", "data") or len(words) == 1:
            return _Kind(classes=words[0] not in ("model", "data"))
        if len(words) > 2:
            return outer
        cls = self.entry.model_class() if words[0] == "model" else self.entry.data_class()
        parameter = inspect.signature(cls).parameters.get(words[1])
        annotation = parameter.annotation if parameter else ""
        annotation = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
        return _Kind(
            classes=_IMPORTED.search(annotation) is not None,
            files=parameter is None or _TEXT.fullmatch(annotation) is None,
        )


@dataclass(frozen=True)
class _Kind:
    """What the parser takes a text for.

    Attributes:
        classes: a dotted text may be an import path.
        files: the name of a file stands for what is in it.
    """

    classes: bool
    files: bool = True


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, or with zero bytes
        return False


def _is_own(path: str) -> bool:
    """Whether an import path leads to a class of the packages that are trusted.

    The parser also follows attributes, so that `torch.serialization.os.system` would leave them.
    """
    own = _OWN | {text.partition(".")[0] for e in entries().values() for text in (e.model, e.data)}
    words = path.split(".")
    if words[0] not in own:
        return False
    target: Any = None
    for count in range(len(words) - 1, 0, -1):
        try:
            target = import_module(".".join(words[:count]))
        except ImportError:
            continue
        for word in words[count:]:
            target = getattr(target, word, None)
        break
    if target is None:
        return True  # there is no such class: the parser says so, with the nearest name
    return inspect.isclass(target) and target.__module__.partition(".")[0] in own
