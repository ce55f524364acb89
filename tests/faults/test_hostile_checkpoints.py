"""`.ckpt` files made to harm: one reader, named errors, bounded time and memory, nothing executed."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_bombs import refused, within
from toys import hub as toys

import zoo
from zoo import errors, training
from zoo.store.checkpoint import read_checkpoint

HEAD = b"\x80\x02"
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"
FLOATS = b"ctorch\nFloatStorage\n"


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def whole(value: int) -> bytes:
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def floats(count: int, key: str = "0", kind: bytes = FLOATS) -> bytes:
    return b"(" + text("storage") + kind + text(key) + text("cpu") + whole(count) + b"tQ"


def tensor(size: tuple[int, ...], stride: tuple[int, ...], count: int = 4, offset: int = 0, **storage: Any) -> bytes:
    shape = b"(" + b"".join(map(whole, size)) + b"t(" + b"".join(map(whole, stride)) + b"t"
    return TENSOR + b"(" + floats(count, **storage) + whole(offset) + shape + b"\x89ccollections\nOrderedDict\n)RtR"


def state(value: bytes) -> bytes:
    """A checkpoint of the toy whose state dict has one entry."""
    about = text("zoo") + b"}(" + text("id") + text("toy-net") + text("format") + b"K\x01u"
    return HEAD + b"}(" + text("state_dict") + b"}" + text("body.weight") + value + b"s" + about + b"u."


def arguments(value: bytes) -> bytes:
    """A checkpoint of the toy with an odd constructor argument."""
    about = text("zoo") + b"}(" + text("id") + text("toy-net") + text("format") + b"K\x01u"
    given = text("hyper_parameters") + b"}" + text("class_names") + value + b"s"
    return HEAD + b"}(" + text("state_dict") + b"}" + given + about + b"u."


def archive(program: bytes, storages: dict[str, bytes] | None = None, **more: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("archive/data.pkl", program)
        for key, data in {"0": b"\0" * 16, **(storages or {})}.items():
            file.writestr(f"archive/data/{key}", data)
        for name, data in more.items():
            file.writestr(f"archive/{name}", data)
    return stream.getvalue()


def laughs(open_: bytes, close: bytes, levels: int = 40) -> bytes:
    """Containers that hold the one below twice: 2^levels when written out."""
    program = open_ + text("x") + close + b"q\x00"
    for level in range(levels):
        program += open_ + b"h" + bytes([level]) + b"h" + bytes([level]) + close + b"q" + bytes([level + 1])
    return program


LISTS = laughs(b"](", b"e")
TUPLES = laughs(b"(", b"t")
MANY = tensor((1000,), (1,), 1000, key="big")
LARGE = 300 << 20


def two_roots() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("archive/data.pkl", HEAD + b"}.")
        file.writestr("other/data.pkl", HEAD + b"}.")
    return stream.getvalue()


def deflated() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file, file.open("archive/data.pkl", "w") as member:
        for _ in range(LARGE >> 20):
            member.write(b"N" * (1 << 20))
    return stream.getvalue()


def overlapping() -> bytes:
    """Two hundred members that are all the same megabyte."""
    data = bytearray(archive(state(MANY), {"big": b"\0" * (1 << 20)}))
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        start = file.start_dir
        big = next(i for i in file.infolist() if i.filename == "archive/data/big")
    end = data.rindex(b"PK\x05\x06")
    entry = data[data.rindex(b"PK\x01\x02") : end]
    assert big.filename.encode() in entry
    more = b"".join(entry.replace(b"data/big", b"data/%03d" % i) for i in range(200))
    directory = data[start:end] + more
    count = 2 + 200
    tail = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, count, count, len(directory), start, 0)
    return bytes(data[:start] + directory + tail)


def patched(find: bytes, change: bytes, program: bytes | None = None) -> bytes:
    data = archive(program or state(tensor((4,), (1,))))
    assert find in data
    return data.replace(find, change)


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (open, (str(self.mark), "w"))


FILES: dict[str, Callable[[], bytes]] = {
    "a tensor of 10^12 numbers without a stride": lambda: archive(state(tensor((10**6, 10**6), (0, 0)))),
    "overlapping rows": lambda: archive(
        state(tensor((1 << 20, 1 << 20), (1, 1), 1 << 21, key="big")), {"big": bytes(1 << 23)}
    ),
    "ten thousand views of one storage": lambda: archive(
        HEAD
        + b"}("
        + text("state_dict")
        + b"}("
        + b"".join(text(str(i)) + tensor((250_000,), (1,), 260_000, i, key="big") for i in range(4000))
        + b"uu.",
        {"big": bytes(4 * 260_000)},
    ),
    "a tensor larger than its storage": lambda: archive(state(tensor((5,), (1,)))),
    "a tensor behind its storage": lambda: archive(state(tensor((4,), (1,), offset=1))),
    "a negative stride": lambda: archive(state(tensor((2, 2), (-1, 1)))),
    "a negative offset": lambda: archive(state(tensor((2,), (1,), offset=-1))),
    "a shape of terabytes": lambda: archive(state(tensor((1 << 40, 1 << 40), (1, 1)))),
    "an empty shape of terabytes": lambda: archive(state(tensor((1 << 62, 0), (1, 1)))),
    "a storage that claims more": lambda: archive(state(tensor((4,), (1,), 1 << 30))),
    "a storage that is not there": lambda: archive(state(tensor((4,), (1,), key="7"))),
    "a storage from elsewhere": lambda: archive(state(tensor((4,), (1,), key="../../../etc/passwd"))),
    "a storage of another type": lambda: archive(state(tensor((4,), (1,), kind=b"ctorch\nlerp\n"))),
    "one storage, two types": lambda: archive(
        state(b"(" + tensor((4,), (1,)) + tensor((2,), (1,), 2, kind=b"ctorch\nLongStorage\n") + b"t")
    ),
    "bytearray": lambda: archive(arguments(b"cbuiltins\nbytearray\n(" + whole(10**10) + b"tR")),
    "bytearray of Python 2": lambda: archive(arguments(b"c__builtin__\nbytearray\n(" + whole(10**10) + b"tR")),
    "a repeated text": lambda: archive(arguments(b"coperator\nmul\n(" + text("x") + whole(10**10) + b"tR")),
    "a list times a number": lambda: archive(
        arguments(b"cbuiltins\nlist\n(cbuiltins\nrange\n(" + whole(10**10) + b"tRtR")
    ),
    "a tensor made by its class": lambda: archive(arguments(b"ctorch\nTensor\n(" + whole(10**10) + b"tR")),
    "a tensor made by its storage": lambda: archive(arguments(FLOATS + b"(" + whole(10**10) + b"tR")),
    "bytes in an odd encoding": lambda: archive(arguments(b"c_codecs\nencode\n(" + text("x") + text("zlib") + b"tR")),
    "a billion laughs in lists": lambda: archive(arguments(LISTS)),
    "a billion laughs in tuples": lambda: archive(arguments(TUPLES)),
    "a billion laughs as a key": lambda: archive(arguments(b"}" + TUPLES + b"K\x01s")),
    "a billion laughs in a set": lambda: archive(arguments(b"\x8f" + TUPLES + b"\x90")),
    "a billion laughs in a set from a list": lambda: archive(arguments(b"cbuiltins\nset\n(](" + TUPLES + b"etR")),
    "a billion laughs as a key of an ordered dict": lambda: archive(
        arguments(b"ccollections\nOrderedDict\n(](" + b"(" + TUPLES + b"K\x01tetR")
    ),
    "a list in itself": lambda: archive(arguments(b"]q\x00(h\x00e")),
    "a dict in itself": lambda: archive(arguments(b"}q\x00" + text("x") + b"h\x00s")),
    "an ordered dict in itself": lambda: archive(
        arguments(b"ccollections\nOrderedDict\n)Rq\x00" + text("x") + b"h\x00s")
    ),
    "lists 100,000 deep": lambda: archive(arguments(b"](" * 100_000 + b"e" * 100_000)),
    "tuples 100,000 deep": lambda: archive(arguments(b")" + b"\x85" * 100_000)),
    "millions of sets": lambda: archive(arguments(b"(" + b"\x8f" * 5_000_000 + b"t")),
    "millions of marks": lambda: archive(arguments(b"(" * 5_000_000)),
    "millions of instructions": lambda: archive(arguments(b"N0" * 5_000_000)),
    "thirty million numbers": lambda: archive(arguments(b"](" + b"K\x01" * 15_000_000 + b"e")),
    "a pickle of 40 MB": lambda: archive(arguments(text("x" * (40 << 20)))),
    "a text longer than the file": lambda: archive(HEAD + b"X" + struct.pack("<I", 1 << 31) + b"abc"),
    "half a surrogate pair": lambda: archive(arguments(b"X\x03\0\0\0\xed\xa0\x80")),
    "a number that is called": lambda: archive(arguments(b"K\x01)R")),
    "the state of a text": lambda: archive(arguments(text("x") + b"}b")),
    "the state of a dict": lambda: archive(arguments(b"ccollections\nOrderedDict\n)R}" + text("update") + b"K\x01sb")),
    "a new object": lambda: archive(arguments(b"ccollections\nOrderedDict\n)\x81")),
    "state_dict is a number": lambda: archive(HEAD + b"}" + text("state_dict") + b"K\x05s."),
    "a list": lambda: archive(HEAD + b"]."),
    "no end": lambda: archive(HEAD + b"}"),
    "nothing": lambda: archive(b""),
    "deflated": deflated,
    "members that share their bytes": overlapping,
    "a member twice": lambda: archive(state(tensor((4,), (1,))), {}, **{"data/0": b"\0" * 16}),
    "no data.pkl": lambda: patched(b"data.pkl", b"data.pkx"),
    "two data.pkl": lambda: two_roots(),
    "big-endian": lambda: archive(state(tensor((4,), (1,))), byteorder=b"big"),
    "zip of a later version": lambda: patched(b"PK\x01\x02\x14\x03\x14\0", b"PK\x01\x02\x14\x03\xff\0"),
    "encrypted": lambda: patched(b"PK\x01\x02\x14\x03\x14\0\0\0", b"PK\x01\x02\x14\x03\x14\0\x01\0"),
    "bytes in front": lambda: b"#!/bin/sh\n" + archive(state(tensor((4,), (1,)))),
    "bytes behind": lambda: archive(state(tensor((4,), (1,)))) + b"MZ",
    "a comment": lambda: archive(state(b"N"))[:-2] + b"\x04\0note",
    "a flipped number": lambda: patched(b"\0" * 16, b"\0" * 15 + b"\1"),
    "cut off": lambda: archive(state(tensor((4,), (1,))))[:-30],
    "a legacy file": lambda: legacy({"state_dict": {}}),
    "a storage id that is text": lambda: archive(HEAD + text("x") + b"Q."),
    "a storage id that is a number": lambda: archive(HEAD + b"K\x01Q."),
}


def legacy(value: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


@pytest.fixture(autouse=True)
def toy() -> None:
    zoo.register(toys.entry())


QUICK = ("a tensor of 10^12 numbers without a stride", "bytearray", "a billion laughs in lists", "a list in itself")
CASES = [c if c in QUICK else pytest.param(c, marks=pytest.mark.slow) for c in FILES]


@pytest.mark.parametrize("tensors", [True, False])
@pytest.mark.parametrize("case", FILES)
def test_the_reader(tmp_path: Path, case: str, tensors: bool) -> None:
    path = tmp_path / "x.ckpt"
    path.write_bytes(FILES[case]())
    if not tensors and case == "a flipped number":
        assert read_checkpoint(path, tensors=False)  # of tensors that are not wanted nothing is read
        return
    with within(10), pytest.raises(errors.ZooError) as caught:
        read_checkpoint(path, tensors=tensors)
    assert len(str(caught.value)) < 700
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", CASES)
def test_by_load(tmp_path: Path, case: str) -> None:
    path = tmp_path / "x.ckpt"
    path.write_bytes(FILES[case]())
    refused(lambda: zoo.load(path))


@pytest.mark.slow
@pytest.mark.parametrize("case", FILES)
def test_by_train(tmp_path: Path, case: str) -> None:
    """The flags that take a checkpoint read it by the same reader, before Lightning does."""
    path = tmp_path / "x.ckpt"
    path.write_bytes(FILES[case]())
    for flag in ("--weights", "--ckpt_path"):
        refused(lambda flag=flag: training.run(["fit", "--zoo", "soft-rocket", flag, str(path)]))


def test_files_that_are_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.ckpt")
    (tmp_path / "zeros.ckpt").symlink_to("/dev/zero")
    (tmp_path / "itself.ckpt").symlink_to(tmp_path / "itself.ckpt")
    (tmp_path / "nowhere.ckpt").symlink_to(tmp_path / "nothing")
    (tmp_path / "folder.ckpt").mkdir()
    (tmp_path / "file").write_bytes(b"")
    for name in ("pipe", "zeros", "itself", "nowhere", "folder", "missing", "file/x"):
        path = tmp_path / f"{name}.ckpt"
        for run in (lambda p: read_checkpoint(p), lambda p: zoo.load(p), lambda p: zoo.load(str(p))):
            with within(2), pytest.raises(errors.ZooError):
                run(path)
    bomb = tmp_path / "bomb.ckpt"
    bomb.write_bytes(FILES["a billion laughs in lists"]())
    for name in ("pipe", "bomb"):
        refused(
            lambda name=name: training.run(["fit", "--zoo", "soft-rocket", "--ckpt_path", f"{tmp_path}/{name}.ckpt"])
        )


def test_everything_that_training_stores_is_read(tmp_path: Path) -> None:
    """As torch's own reader reads it, attributes of the state dict included."""
    module = toys.trained()
    shared = torch.arange(12.0).reshape(3, 4)
    held = {
        "state_dict": module.state_dict(),
        "types": [torch.zeros(2, dtype=t) for t in (torch.bool, torch.int8, torch.uint8, torch.int16, torch.bfloat16)],
        "more": [torch.zeros(3, dtype=t) for t in (torch.float16, torch.float64, torch.complex64, torch.uint16)],
        "views": [shared, shared.T, shared[1:, ::2], shared[0, 0], shared[:0], shared.expand(2, 3, 4)],
        "plain": (1, -1, 10**30, 0.5, float("inf"), True, None, "text ä", b"bytes\xff", 1 + 2j),
        "sets": [{1, "a", (1, 2)}, Counter({"x": 3}), OrderedDict(a=1), torch.Size([1, 2]), torch.float16],
        "parameter": torch.nn.Parameter(torch.ones(2)),
        (1, "key"): {"nested": {"lists": [[1], []]}},
    }
    path = tmp_path / "x.ckpt"
    torch.save(held, path)
    ours, theirs = read_checkpoint(path), torch.load(path, weights_only=True)
    same(ours, theirs)
    assert ours["state_dict"]._metadata == theirs["state_dict"]._metadata
    assert ours["views"][0].untyped_storage().data_ptr() == ours["views"][1].untyped_storage().data_ptr()
    bare = read_checkpoint(path, tensors=False)
    assert bare["plain"] == theirs["plain"]
    assert all(t.is_meta and t.shape == u.shape for t, u in zip(bare["views"], theirs["views"], strict=True))


def same(ours: Any, theirs: Any) -> None:
    assert type(ours) is type(theirs)
    if isinstance(ours, torch.Tensor):
        assert ours.dtype == theirs.dtype
        assert ours.stride() == theirs.stride()
        assert ours.requires_grad == theirs.requires_grad
        assert torch.equal(ours, theirs)
    elif isinstance(ours, dict):
        assert list(ours) == list(theirs)
        for key, value in ours.items():
            same(value, theirs[key])
    elif isinstance(ours, (list, tuple)):
        for a, b in zip(ours, theirs, strict=True):
            same(a, b)
    else:
        assert ours == theirs


def test_nothing_is_executed(tmp_path: Path) -> None:
    mark, path = tmp_path / "executed", tmp_path / "x.ckpt"
    for protocol in range(6):
        path.write_bytes(archive(pickle.dumps({"state_dict": {}, "x": Payload(mark)}, protocol=protocol)))
        with pytest.raises(errors.UnsafeFile):
            read_checkpoint(path)
    for called in (b"cos\nsystem\n", b"ctorch\nload\n", b"cbuiltins\neval\n", b"ctorch.hub\nload\n", b"ctorch\nos\n"):
        path.write_bytes(archive(arguments(called + b"(" + text(f"touch {mark}") + b"tR")))
        with pytest.raises(errors.UnsafeFile):
            read_checkpoint(path)
    assert not mark.exists()
