"""CIFAR's pickles: read without running them, whatever they say."""

from __future__ import annotations

import pickle
import pickletools
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from memory import grown

from datamodules.images import ImagesDataModule
from datamodules.images.cifar_pickle import NotCifarError, read_cifar_pickle
from zoo.data_sources.conversion import _pickled
from zoo.errors import BadData

MEGABYTE = 1 << 20


def batch(count: int = 12) -> dict[str, Any]:
    rng = np.random.default_rng(3)
    return {
        "batch_label": "training batch 1 of 5",
        "labels": (np.arange(count) % 10).tolist(),
        "data": rng.integers(0, 256, (count, 3072), dtype=np.uint8),
        "filenames": [f"name_{i}.png" for i in range(count)],
        "num_vis": 3072,
        "largest": 2**40,
        "smallest": -7,
        "nothing": None,
    }


def same(found: dict[str, Any], expected: dict[str, Any]) -> bool:
    return found.keys() == expected.keys() and all(np.array_equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_what_python_3_writes(protocol: int) -> None:
    for count in (1, 12, 1500):  # lists of more than a thousand are written in parts
        content = batch(count)
        assert same(read_cifar_pickle(pickle.dumps(content, protocol=protocol)), content)


def test_what_python_2_wrote() -> None:
    """The published files: their bytes are texts of Python 2."""
    pixels = np.arange(10_000 * 3072, dtype=np.uint32).astype(np.uint8).reshape(10_000, 3072)
    labels = [3] * 10_000
    written = _pickled("training batch 1 of 5", labels, pixels.tobytes(), ["a.png"] * 10_000)
    found = read_cifar_pickle(written)
    assert found["labels"] == labels
    assert found["batch_label"] == "training batch 1 of 5"
    np.testing.assert_array_equal(found["data"], pixels)
    assert same(found, pickle.loads(written, encoding="latin1"))


def u(text: bytes) -> bytes:
    return b"U" + bytes([len(text)]) + text


DTYPE = b"cnumpy\ndtype\n"
NEW_ARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + b"K\x00\x85" + u(b"b") + b"\x87R"
PLAIN = DTYPE + u(b"u1") + b"K\x00K\x01\x87R"
PLAIN_STATE = b"(K\x03" + u(b"|") + b"NNN" + b"J\xff\xff\xff\xff" * 2 + b"K\x00tb"
# a type of eight bytes that says it holds an object, without the flag by which numpy would know
OBJECT_FIELD = (
    DTYPE + u(b"V8") + b"K\x00K\x01\x87R(K\x03" + u(b"|") + b"N(" + u(b"a") + b"t}" + u(b"a") + DTYPE + u(b"O")
    + b"K\x00K\x01\x87RK\x00\x86sJ\x08\x00\x00\x00K\x01K\x00tb"
)  # fmt: skip
ARRAY_OF_ADDRESSES = NEW_ARRAY + b"(K\x01K\x01\x85" + OBJECT_FIELD + b"\x89" + u(b"A" * 8) + b"tb"


def names(value: bytes) -> bytes:
    """A `batches.meta` with this value for the class names."""
    return b"\x80\x02}(" + u(b"label_names") + value + b"u."


def doubling_tuples(depth: int) -> bytes:
    """A tuple of the same tuple twice, and so on: some bytes that stand for 2^depth values."""
    return b")" + b"q\x01h\x01\x86" * depth


HOSTILE = {
    "an object type in a field": names(ARRAY_OF_ADDRESSES),
    "an object array": names(NEW_ARRAY + b"(K\x01K\x01\x85" + DTYPE + u(b"O8") + b"K\x00K\x01\x87R\x89]NatB"),
    "another state for a type": names(
        NEW_ARRAY + b"(K\x01K\x08\x85" + PLAIN + b"(K\x03" + u(b"|") + b"NNN" + b"K\x08" * 2 + b"K\x00tb\x89"
        + u(b"A" * 8) + b"tb"
    ),
    "more pixels than there are": names(
        NEW_ARRAY + b"(K\x01M\xff\xffM\xff\xff\x86" + PLAIN + PLAIN_STATE + b"\x89" + u(b"A") + b"tb"
    ),
    "an array twice built": names(
        NEW_ARRAY + (b"(K\x01K\x01\x85" + PLAIN + PLAIN_STATE + b"\x89" + u(b"A") + b"tb") * 2
    ),
    "a function": names(b"cos\nsystem\n" + u(b"touch executed") + b"\x85R"),
    "a function by inner names": names(b"\x8c\x08builtins\x8c\x05print\x93" + u(b"executed") + b"\x85R"),
    "a class of the zoo": names(b"czoo.errors\nBadData\n)R"),
    "a class of numpy": names(b"cnumpy\nmemmap\n" + u(b"/etc/passwd") + b"\x85R"),
    "a state for a list": names(b"]}b"),
    "a persistent id": names(b"Pname\n"),
    "an extension": names(b"\x82\x01"),
    "a buffer from outside": names(b"\x97"),
    "nested lists": names(b"]" * 50 + b"a" * 49),
    "a list in itself": names(b"]q\x01h\x01a"),
    "shared tuples": names(doubling_tuples(40)),
    "shared tuples as a key": b"\x80\x02}" + doubling_tuples(40) + b"Ns.",
    "shared tuples in a list": names(b"]" + doubling_tuples(40) + b"a"),
    "a place in memory far away": names(b"]r\xff\xff\xff\xffN"),
    "an endless number": names(b"\x8b" + struct.pack("<i", 1 << 20) + b"\x01" * (1 << 20)),
    "marks without end": b"\x80\x02" + b"(" * (3 * MEGABYTE) + b".",
    "values without end": b"\x80\x02" + b"]" * (3 * MEGABYTE) + b".",
    "the same bytes again and again": b"\x80\x02}X" + struct.pack("<i", MEGABYTE) + b"a" * MEGABYTE + b"q\x010"
    + (b"c_codecs\nencode\nh\x01U\x06latin1\x86R") * 2_000 + b".",
    "the same pixels again and again": b"\x80\x02}T" + struct.pack("<i", MEGABYTE) + b"a" * MEGABYTE + b"q\x01]("
    + b"h\x01" * 500_000 + b"e.",
    "a text of another coding": names(b"X\x02\x00\x00\x00\xff\xff"),
    "no dict": b"\x80\x02].",
    "no end": names(b"]")[:-1],
    "a text longer than the file": names(b"T\xff\xff\xff\x7f"),
    "protocol 0": pickle.dumps({"label_names": ["a"] * 10}, protocol=0),
    "nothing": b"",
}  # fmt: skip


@pytest.fixture(scope="module")
def cifar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ImagesDataModule().fake(tmp_path_factory.mktemp("cifar"), format="cifar-10")


def refuse(root: Path, content: bytes) -> None:
    (root / "cifar-10-batches-py/batches.meta").write_bytes(content)
    with pytest.raises(BadData, match=r"batches\.meta: (file|label_names): expected"):
        ImagesDataModule(root=str(root), format="cifar-10").facts()


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_pickles_are_named(case: str, cifar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No crash, no wait, nothing executed: one error that names the file."""
    monkeypatch.chdir(tmp_path)
    start = time.process_time()
    refuse(cifar, HOSTILE[case])
    assert time.process_time() - start < 10
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("case", [name for name, content in HOSTILE.items() if len(content) > MEGABYTE])
def test_hostile_pickles_take_little_memory(case: str, cifar: Path) -> None:
    """At most 64 bytes for each step of the program, of which there is a largest number."""
    assert grown(lambda: refuse(cifar, HOSTILE[case])) < 300 * MEGABYTE


def test_the_hostile_pickles_are_what_they_claim() -> None:
    """Python's own disassembler reads the ones that crash or hang an unpickler to their end."""
    for case in ("an object type in a field", "shared tuples", "shared tuples as a key", "a function"):
        assert [op.name for op, _, _ in pickletools.genops(HOSTILE[case])][-1] == "STOP"


def test_every_byte_of_a_pickle_may_be_wrong() -> None:
    """Each single damaged byte is either named or still gives plain values."""
    whole = pickle.dumps(batch(1), protocol=2)
    opcodes = [place for _, _, place in pickletools.genops(whole) if place is not None]
    rng = np.random.default_rng(0)
    for place in opcodes:
        for value in rng.integers(0, 256, 8).tolist():
            damaged = bytearray(whole)
            damaged[place] = value
            try:
                found = read_cifar_pickle(bytes(damaged))
            except NotCifarError:
                continue
            for item in found.values():
                assert isinstance(item, (int, str, list, np.ndarray, type(None)))
