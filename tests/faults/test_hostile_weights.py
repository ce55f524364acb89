"""Files of weights that somebody names, `.pt` and `.pth` of any version: errors, memory, and nothing is executed."""

from __future__ import annotations

import io
import struct
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_bombs import refused, within
from test_hostile_checkpoints import FILES, legacy, same

from zoo import errors
from zoo.methods.alpha_iou_yolo.network import load_backbone
from zoo.nn.classifiers import create_classifier, load_classifier_weights
from zoo.store.checkpoint import read_torch_file

STATE = {"weight": torch.arange(3.0), "bias": torch.ones(2, 2).half()}


def changed(before: bytes, after: bytes) -> bytes:
    """A file as torch wrote it before version 1.6, with other bytes at one place."""
    data = legacy(STATE)
    assert before in data
    return data.replace(before, after, 1)


LEGACY: dict[str, Callable[[], bytes]] = {
    "a storage that claims more": lambda: changed(b"cpuq\x06K\x03N", b"cpuq\x06J\xff\xff\xff\x7fN"),
    "a shape of gigabytes": lambda: changed(b"K\x03\x85", b"J\xff\xff\xff\x7f\x85"),
    "a shape that repeats one number": lambda: changed(
        b"K\x03\x85q\x08K\x01\x85", b"J\xff\xff\xff\x7f\x85q\x08K\x00\x85"
    ),
    "more numbers than the file has": lambda: changed(struct.pack("<q", 3) + b"\0" * 4, struct.pack("<q", 1 << 60)),
    "fewer than none": lambda: changed(struct.pack("<q", 3) + b"\0" * 4, struct.pack("<q", -3) + b"\0" * 4),
    "a view of a storage": lambda: changed(b"K\x03Nt", b"K\x03)t"),
    "big-endian": lambda: changed(b"endianq\x02\x88", b"endianq\x02\x89"),
    "a call": lambda: changed(b"torch._utils\n_rebuild_tensor_v2", b"posix\nsystem"),
    "a key that no tensor has": lambda: legacy(STATE)[::-1].replace(b"q\x0e", b"q\x0f", 1)[::-1].replace(b"]", b"]N0"),
    "no tensors": lambda: legacy({"epoch": 3}),
    "a list": lambda: legacy([torch.ones(3)]),
    "cut off in a storage": lambda: legacy(STATE)[:-1],
    "cut off in the program": lambda: legacy(STATE)[:200],
    "cut off at once": lambda: legacy(STATE)[:25],
}


@pytest.fixture
def network() -> torch.nn.Module:
    return create_classifier("resnet10-w7", 10, 1)


@pytest.mark.parametrize("suffix", [".pt", ".pth"])
@pytest.mark.parametrize("case", [*FILES, *(f"legacy: {name}" for name in LEGACY)])
def test_the_reader(tmp_path: Path, network: torch.nn.Module, case: str, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(LEGACY[case.removeprefix("legacy: ")]() if case.startswith("legacy: ") else FILES[case]())
    for load in (load_classifier_weights, load_backbone):
        with within(10), pytest.raises(errors.ZooError) as caught:
            load(network, str(path))
        assert len(str(caught.value)) < 700
        assert str(path) in str(caught.value)


BOMBS = ("a tensor of 10^12 numbers without a stride", "a billion laughs in lists", "deflated")


@pytest.mark.parametrize("case", [*BOMBS, *(f"legacy: {name}" for name in list(LEGACY)[:4])])
def test_memory(tmp_path: Path, network: torch.nn.Module, case: str) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(LEGACY[case.removeprefix("legacy: ")]() if case.startswith("legacy: ") else FILES[case]())
    refused(lambda: load_classifier_weights(network, path))


@pytest.mark.parametrize("modern", [True, False])
def test_files_are_read_as_torch_reads_them(tmp_path: Path, modern: bool) -> None:
    shared = torch.arange(12.0).reshape(3, 4)
    held: dict[str, Any] = {
        "net": create_classifier("resnet10-w7", 10, 1).state_dict(),
        "types": [torch.ones(2, dtype=t) for t in (torch.bool, torch.uint8, torch.int64, torch.float16, torch.float64)],
        "views": [shared, shared.T, shared[1:, ::2], shared[0, 0], shared[:0]],
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "optimizer": {"state": {0: {"step": 3}}, "param_groups": [{"lr": 0.1, "betas": (0.9, 0.99), "params": [0]}]},
        "acc": 93.5,
        "ordered": OrderedDict(a=1),
    }
    stream = io.BytesIO()
    torch.save(held, stream, _use_new_zipfile_serialization=modern)
    path = tmp_path / "x.pth"
    path.write_bytes(stream.getvalue())
    ours, theirs = read_torch_file(path), torch.load(path, weights_only=True)
    same(ours, theirs)
    assert ours["net"]._metadata == theirs["net"]._metadata
    assert ours["views"][0].untyped_storage().data_ptr() == ours["views"][1].untyped_storage().data_ptr()
    network = create_classifier("resnet10-w7", 10, 1)
    load_classifier_weights(network, path)
    assert all(torch.equal(value, held["net"][key]) for key, value in network.state_dict().items())
