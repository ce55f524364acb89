"""What the operating system is asked for: files written whole or not at all, hashes, children that end with us."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any, BinaryIO

from zoo.errors import BadInput, DiskFull, NotWritable, RepositoryNotFound, UnsafeFile, ZooError

__all__ = [
    "PACKAGE",
    "VERSION",
    "disk_error",
    "file_sha256",
    "open_regular",
    "read_regular",
    "temporary",
    "tied_to_me",
    "versions",
    "write_whole",
    "writing",
]

VERSION = "0.1.0"
"""Of the distribution; stated here only."""

PACKAGE = Path(__file__).resolve().parent
"""Folder of the package, in a checkout or where it is installed."""

_BLOCK = 8 << 20


def versions(*packages: str) -> dict[str, str]:
    """Versions of the zoo, of Python, and of those of the packages that are installed."""
    import platform
    from contextlib import suppress
    from importlib import metadata

    known = {"zoo": VERSION, "python": platform.python_version()}
    for name in packages:
        with suppress(metadata.PackageNotFoundError):
            known[name] = metadata.version(name)
    return known


def write_whole(path: Path, content: str | bytes | Callable[[Any], None], *, private: bool = False) -> None:
    """Write a file beside its place, make it durable, then rename it: a reader sees the old file or the new one.

    Args:
        path: of the file; its folder exists.
        content: text (written as UTF-8), bytes, or a function that writes to an open binary file.
        private: only its owner may ever read it, from its first byte on (where the system knows such modes).

    Raises:
        DiskFull: if there is no room; the former file is unchanged.
        NotWritable: if the folder cannot be written; the former file is unchanged.
    """
    import secrets
    import shutil

    partial = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    mode = 0o600 if private else 0o666  # less what the umask takes
    with writing(path):
        try:
            with open(partial, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
                if callable(content):
                    content(file)
                else:
                    file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            if path.exists() and not private:
                shutil.copymode(path, partial)
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def open_regular(path: Path, *, links: bool = True) -> BinaryIO:
    """Open a file that somebody handed over, for reading; a pipe or a device would never end, or never answer.

    Args:
        path: of the file.
        links: whether a symbolic link to a file will do.

    Raises:
        RepositoryNotFound: if there is no such file.
        UnsafeFile: if it is a pipe, a device, a socket, a link to itself, or any link where none is allowed.
        BadInput: if it is a folder, or may not be read.
    """
    # without O_NONBLOCK, opening a pipe waits for somebody who writes
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        if not links and path.is_symlink():
            raise UnsafeFile(f"{path}: expected a file, got a link to another place. It is not followed.")
        number = os.open(path, flags | (0 if links else getattr(os, "O_NOFOLLOW", 0)))
    except FileNotFoundError:
        raise RepositoryNotFound(f"{path}: there is no such file. Check the path.") from None
    except (IsADirectoryError, PermissionError, NotADirectoryError) as error:
        if path.is_dir():  # Windows answers "permission denied"
            raise BadInput(f"{path}: expected a file, got a folder.") from None
        raise BadInput(f"{path}: expected a file that can be read ({error.strerror}). Check the path.") from None
    except (OSError, ValueError) as error:
        raise UnsafeFile(f"{path}: expected a file, got something that cannot be opened as one ({error}).") from None
    kind = os.fstat(number).st_mode
    if not S_ISREG(kind):
        os.close(number)
        if S_ISDIR(kind):
            raise BadInput(f"{path}: expected a file, got a folder.")
        raise UnsafeFile(f"{path}: expected a file, got a device or a pipe. It is not read.")
    return os.fdopen(number, "rb", buffering=0)


def read_regular(path: Path, most: int, *, links: bool = True) -> bytes:
    """Read a file that somebody handed over.

    Args:
        path: of the file.
        most: bytes that such a file may have.
        links: whether a symbolic link to a file will do.

    Raises:
        UnsafeFile: if it is larger; and what `open_regular` raises.
    """
    with open_regular(path, links=links) as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read(most + 1) if size <= most else b""
    if size > most or len(data) > most:
        raise UnsafeFile(f"{path}: expected at most {most:,} bytes, got {max(size, len(data)):,}. It is not used.")
    return data


def file_sha256(path: Path) -> str:
    """sha256 of a file, read in blocks."""
    import hashlib

    digest = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def writing(place: object) -> Iterator[None]:
    """Turn a full disk and a folder without write permission into errors that say what to do."""
    try:
        yield
    except ZooError:
        raise
    except OSError as error:
        if (named := disk_error(error, place)) is None:
            raise
        raise named from error


@contextmanager
def temporary(prefix: str) -> Iterator[Path]:
    """A folder that is gone afterwards; a place for temporary files that cannot be written is said to be one."""
    import shutil
    import tempfile

    with writing(f"temporary files in {tempfile.gettempdir()} (TMPDIR)"):
        place = tempfile.mkdtemp(prefix=prefix)
    try:
        yield Path(place)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def disk_error(error: BaseException, place: object) -> ZooError | None:
    """The error that says what to do about a full disk or a folder without write permission; None for others."""
    number = getattr(error, "errno", None)
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return DiskFull(
            f"No room left to write {place} ({error}). Free some space, or choose another folder (HF_HOME for the Hub "
            "cache). What was written so far is not used."
        )
    if number in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
        return NotWritable(
            f"Cannot write {place} ({error}). Choose a folder you may write to (HF_HOME for the Hub cache)."
        )
    return None


def tied_to_me() -> Callable[[], None] | None:
    """What a child process calls first, so that it is killed when the thread that started it ends, however that ends.

    It is made in the parent, since a forked child should not load libraries.

    Returns:
        A function without arguments, such as `subprocess.Popen` takes as `preexec_fn`; None on systems that cannot.
    """
    if sys.platform != "linux":
        return None
    import ctypes

    libc, parent = ctypes.CDLL(None), os.getpid()

    def tie() -> None:
        libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it ended before we asked
            os._exit(1)

    return tie
