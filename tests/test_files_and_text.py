"""Small helpers that everything rests on: files are whole or not there, columns line up, versions are right."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

import zoo
from zoo.errors import DiskFull
from zoo.files import versions, write_whole
from zoo.text import aligned, human_bytes, human_count, table


def test_a_file_is_written_whole_and_keeps_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_whole(path, "é")
    assert path.read_bytes() == "é".encode()
    path.chmod(0o640)
    write_whole(path, b"\x00\x01")
    assert path.read_bytes() == b"\x00\x01"
    write_whole(path, lambda file: file.write(b"ab"))
    assert path.read_bytes() == b"ab"
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_the_former_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.txt"
    write_whole(path, "old")

    def broken(file: Any) -> None:
        file.write(b"half")
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        write_whole(path, broken)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda number: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        with pytest.raises(DiskFull, match=r"file\.txt"):
            write_whole(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_columns_line_up() -> None:
    assert aligned([("a", 1, "x"), ("long", 22, "")]) == ["a     1   x", "long  22"]
    assert aligned([]) == []
    assert table(("n", "name"), [("1", "one"), ("22", "")]).splitlines() == ["n   name", "--  ----", "1   one", "22"]


def test_numbers_as_people_read_them() -> None:
    counts = [human_count(n) for n in (None, 999, 1234, 5_600_000, 7_890_000_000)]
    assert counts == ["-", "999", "1.23 k", "5.6 M", "7.89 G"]
    assert [human_bytes(n) for n in (None, 12, 6_000, 1_500_000)] == ["-", "12 B", "6 kB", "1.5 MB"]


def test_versions_are_those_installed() -> None:
    import torch

    found = versions("torch", "no-such-package-anywhere")
    assert list(found) == ["zoo", "python", "torch"]
    assert found["zoo"] == zoo.__version__
    assert found["torch"].split("+")[0] == str(torch.__version__).split("+")[0]


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
@pytest.mark.parametrize("before", [False, True])
def test_a_private_file_is_never_readable_for_others(tmp_path: Path, before: bool) -> None:
    path, modes = tmp_path / "key", list[int]()

    def content(file: Any) -> None:
        modes.append(stat.S_IMODE(os.fstat(file.fileno()).st_mode))
        file.write(b"secret")

    umask = os.umask(0)
    try:
        if before:
            path.write_bytes(b"former")  # readable for all
        write_whole(path, content, private=True)
        write_whole(tmp_path / "open", content)
    finally:
        os.umask(umask)
    assert modes == [0o600, 0o666]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes() == b"secret"
