"""Words of the command line as files (folders, wildcards, lists on standard input), and names for what is written."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from zoo.errors import BadInput, RepositoryNotFound

__all__ = ["MARK", "Names", "beside_inputs", "expanded", "given_paths", "problem_of"]

MARK = "-predicted"
"""Ends the stem of what is written beside inputs."""


def given_paths(words: Iterable[str]) -> list[str]:
    """Paths that words stand for: wildcards that no shell replaced, and `-` for one path a line of standard input.

    Raises:
        BadInput: for an address of the web, or a pattern that fits no file.
    """
    paths: list[str] = []
    for word in words:
        if word == "-":
            paths += [line for line in (line.rstrip("\r\n") for line in sys.stdin) if line.strip()]
        elif "://" in word:
            raise BadInput(f"{word} is an address, and files are read only. Download it first, then give its path.")
        elif any(sign in word for sign in "*?[") and not Path(word).expanduser().exists():
            matches = sorted(glob.glob(os.path.expanduser(word), recursive=True))
            if not matches:
                raise BadInput(f"No file fits the pattern {word}. Give paths of files that exist.")
            paths += matches
        else:
            paths.append(word)
    return paths


def problem_of(path: str) -> RepositoryNotFound | None:
    """What is wrong with a path that leads nowhere."""
    try:
        if Path(path).expanduser().exists():
            return None
    except (OSError, ValueError):  # too long, or with a zero byte
        pass
    return RepositoryNotFound(f"There is no file {path}. Give paths of files that exist.")


def expanded(paths: Iterable[str], suffixes: Sequence[str], out: Path | None) -> list[str]:
    """Files, with those of folders in place of the folders.

    Args:
        paths: of files and folders.
        suffixes: of the files that are taken from folders; empty for all.
        out: where results are written; what an earlier run wrote there is left out.

    Raises:
        BadInput: if a folder holds no such file.
    """
    files: list[str] = []
    for path in paths:
        folder = Path(path).expanduser()
        if not folder.is_dir():
            files.append(path)
            continue
        inside = [str(file) for file in sorted(folder.rglob("*")) if _is_input(file, folder, suffixes, out)]
        if not inside:
            wanted = f"ending in {', '.join(suffixes)}" if suffixes else "in it"
            raise BadInput(f"{path}: expected a folder with files {wanted}, got none.")
        files += inside
    return files


def _is_input(file: Path, folder: Path, suffixes: Sequence[str], out: Path | None) -> bool:
    inner = file.relative_to(folder)
    if any(part.startswith(".") for part in inner.parts) or not file.is_file():
        return False
    if suffixes and file.suffix.lower() not in suffixes:
        return False
    if out is not None and out.exists() and out.resolve() in file.resolve().parents:
        return out.resolve() == folder.resolve() and MARK not in file.stem
    return True


def beside_inputs(target: Path, paths: Iterable[str]) -> Path:
    """A file to write, under another name where that is an input."""
    same = (path for path in paths if Path(path).name == target.name)
    if any(target.resolve() == Path(path).expanduser().resolve() for path in same):
        return target.with_name(f"{target.stem}{MARK}{target.suffix}")
    return target


class Names:
    """A name for each input, distinct where stems repeat, and never that of an input once `MARK` follows it.

    Args:
        paths: of all inputs.
    """

    def __init__(self, paths: Collection[str]) -> None:
        self._inputs = {Path(path).stem for path in paths}
        self._taken: set[str] = set()

    def of(self, path: str, part: int | None = None) -> str:
        """The name of one input, or of a part of it, in the order in which they are asked for."""
        base = Path(path).stem if part is None else f"{Path(path).stem}-{part}"
        name, number = base, 1
        while name in self._taken or f"{name}{MARK}" in self._inputs:
            number += 1
            name = f"{base}-{number}"
        self._taken.add(name)
        return name
