"""Small files that used to ask for minutes or gigabytes: all refused in seconds, in bounded memory."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from memory import grown
from toys import hub as toys

import zoo
from zoo import errors
from zoo.store import read_state

MEGABYTE = 1 << 20


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """A budget of this process's time; far above what is needed, far below what it once took."""
    start = time.process_time()
    yield
    taken = time.process_time() - start
    assert taken < seconds, f"took {taken:.1f} s"


def refused(run: Callable[[], Any], *, seconds: float = 10, megabytes: int = 300) -> None:
    """A run ends with a named error, in time, without growing; in a process of its own."""

    def child() -> None:
        with within(seconds), pytest.raises(errors.ZooError):
            run()

    assert grown(child) < megabytes * MEGABYTE


def safetensors(head: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(head)) + head + data


# Headers of safetensors -------------------------------------------------------------------------------------------


def many(count: int, entry: str = '"{i}":""', *, twice: bool = False) -> bytes:
    pairs = [entry.format(i=f"{i:06d}") for i in range(count)]
    return ",".join([*pairs, *pairs[-1:] * twice]).encode()


TENSOR = '"{i}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'

HEADERS: dict[str, Callable[[], bytes]] = {
    "390,000 entries of metadata, the last one twice": lambda: b'{"__metadata__":{' + many(390_000, twice=True) + b"}}",
    "390,000 entries of metadata": lambda: b'{"__metadata__":{' + many(390_000) + b"}}",
    "2,000 entries of metadata": lambda: b'{"__metadata__":{' + many(2_000) + b"}}",
    "megabytes of metadata": lambda: b'{"__metadata__":{"a":"' + b"x" * (7 * MEGABYTE) + b'"}}',
    "metadata twice": lambda: b'{"__metadata__":{"a":"b"},"__metadata__":{"a":"b"}}',
    "19,000 tensors, the last one twice": lambda: b"{" + many(19_000, TENSOR, twice=True) + b"}",
    "30,000 tensors": lambda: b"{" + many(30_000, TENSOR) + b"}",
    "a name of a megabyte": lambda: (
        b'{"' + b"k" * MEGABYTE + TENSOR[5:].replace("{{", "{").replace("}}", "}").encode() + b"}"
    ),
    "half a surrogate pair": lambda: b'{"a\\ud800":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}',
    "half a pair in metadata": lambda: b'{"__metadata__":{"a":"\\ud800"}}',
}


@pytest.mark.parametrize("case", HEADERS)
def test_headers(tmp_path: Path, case: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors(HEADERS[case]()))
    refused(lambda: read_state(path), seconds=5)
    with pytest.raises(errors.UnsafeFile) as caught:
        read_state(path)
    assert len(str(caught.value)) < 600


def test_metadata_as_others_write_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    head = {
        "__metadata__": {"format": "pt", "note": "ä" * 1000},
        "a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
    }
    path.write_bytes(safetensors(json.dumps(head).encode(), b"x"))
    assert set(read_state(path)[0]) == {"a"}


@pytest.mark.parametrize("where", ["config.json", "model.safetensors", "golden.safetensors"])
def test_every_reader_of_a_folder(tmp_path: Path, where: str) -> None:
    """The same header wherever such a file is read: by load, by push, as golden outputs."""
    zoo.register(toys.entry())
    folder = zoo.save(toys.trained(), tmp_path / "saved")
    (folder / where).write_bytes(safetensors(HEADERS["390,000 entries of metadata, the last one twice"]()))
    refused(lambda: zoo.push(folder, "owner/mine", endpoint="http://127.0.0.1:9"))
