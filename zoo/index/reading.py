"""Reading index files: our own, and those that installed packages name by an entry point."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

from zoo.errors import InvalidIndex, ZooError
from zoo.files import PACKAGE
from zoo.index.entry import Entry, Pin, Weights
from zoo.index.rules import raise_if_any
from zoo.index.schema import problems_of
from zoo.safe_yaml import load_yaml

__all__ = ["index_path", "read_index", "third_parties", "warn_broken"]

GROUP = "zoo.index"

_PLAIN_FINDER = "_frozen_importlib_external"  # that of packages in the folders of sys.path


def index_path() -> Path:
    """Path of our own index: inside the installed package, else beside it in a checkout."""
    for path in (PACKAGE / "checkpoints.yaml", PACKAGE.parent / "checkpoints.yaml"):
        if path.is_file():
            return path
    raise InvalidIndex(
        f"expected checkpoints.yaml in {PACKAGE} or {PACKAGE.parent}, got none. "
        "The installation is damaged: pip install --force-reinstall lightning-method-zoo"
    )


def _parse(raw: Any, source: str, *, ordered: bool = False) -> dict[str, Entry]:
    """Build the entries of a parsed YAML file; all problems of the file are reported together."""
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise InvalidIndex(f"{source}: expected a mapping from id to entry, got {type(raw).__name__}.")
    problems = [p for name, block in raw.items() for p in problems_of(name, block)]
    names = list(map(str, raw))
    if ordered and names != sorted(names):
        late = next(b for a, b in pairwise(names) if b < a)
        before = next(n for n in names if n > late)
        problems.append(f"{late}: blocks are in alphabetical order; move it before {before}")
    raise_if_any(source, problems, "the index", InvalidIndex)
    return {name: _entry(name, block, source) for name, block in raw.items()}


def _entry(name: str, raw: dict[str, Any], source: str) -> Entry:
    given = {k: v for k, v in raw.items() if v is not None} | {"id": name, "source": source}
    given["can"] = tuple(given.get("can", ()))
    given["weights"] = {tag: _weights(tag, block) for tag, block in given.get("weights", {}).items()}
    return Entry(**given)


def _weights(tag: str, raw: dict[str, Any]) -> Weights:
    given = {k: v for k, v in raw.items() if v is not None} | {"tag": tag}
    given["hub"] = Pin(**given.get("hub", {}))
    if "can" in given:
        given["can"] = tuple(given["can"])
    return Weights(**given)


def read_index(path: Path, *, text: str | None = None, ordered: bool = False) -> dict[str, Entry]:
    """Read and check one index file.

    Args:
        path: a YAML file.
        text: what the file is to hold, to check it before it is written.
        ordered: also insist on alphabetical order.

    Raises:
        InvalidIndex: listing all problems.
        UnsafeFile: if the YAML is hostile.
    """
    raw = load_yaml(path) if text is None else load_yaml(text, where=str(path))
    return _parse(raw, str(path), ordered=ordered)


def third_parties() -> Iterator[tuple[str, Path]]:
    """Name and YAML file of each entry point of the group, from file lists, without importing anything."""
    if not _may_have_entry_points():
        return
    from importlib.metadata import entry_points  # takes as long as all else of a listing

    for point in entry_points(group=GROUP):
        relative = PurePosixPath(point.value.replace(":", "/"))
        if ":" in point.value:  # "package.sub:file.yaml"
            package, _, file = point.value.partition(":")
            relative = PurePosixPath(package.replace(".", "/"), file)
        owner = f"{point.name} ({point.dist.name})" if point.dist else point.name
        try:
            if relative.is_absolute() or ".." in relative.parts:
                raise InvalidIndex(f"expected package_dir/file.yaml or package:file.yaml, got {point.value!r}")
            yield owner, _locate(point.dist, relative)
        except (ZooError, OSError, ImportError, ValueError) as error:
            warn_broken(owner, error)


def _may_have_entry_points() -> bool:
    """Whether some installed distribution names our group; True where only `importlib.metadata` can tell."""
    if any(hasattr(f, "find_distributions") and getattr(f, "__module__", "") != _PLAIN_FINDER for f in sys.meta_path):
        return True
    for place in sys.path:
        folder = place or "."
        if os.path.isfile(folder):
            return True  # packages inside a zip archive
        try:
            with os.scandir(folder) as inside:
                names = [item.path for item in inside if item.name.endswith((".dist-info", ".egg-info", ".egg"))]
        except OSError:
            continue
        for name in names:
            if name.endswith(".egg"):
                return True
            try:
                with open(os.path.join(name, "entry_points.txt"), "rb") as file:
                    if GROUP.encode() in file.read():
                        return True
            except OSError:
                continue
    return False


def _locate(dist: Any, relative: PurePosixPath) -> Path:
    for file in (dist.files if dist else None) or ():
        if PurePosixPath(file) == relative:
            return Path(str(dist.locate_file(file)))
    from importlib.machinery import PathFinder  # an editable install lists no package files

    spec = PathFinder.find_spec(relative.parts[0])
    for folder in (spec.submodule_search_locations if spec else None) or ():
        if (path := Path(folder).parent / relative).is_file():
            return path
    raise InvalidIndex(f"no file {relative} in the distribution")


def warn_broken(owner: str, error: Exception) -> None:
    """Say that a third party's index was left out, and why."""
    warnings.warn(
        f"The zoo index of {owner} was left out: {error}. Update or uninstall that package.",
        RuntimeWarning,
        stacklevel=2,
    )
