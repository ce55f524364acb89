"""Memory of refused files as the operating system counts it, and no warning of our own in ordinary use."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fault_tools import OWNER, Scene
from hub_server import LoopbackHub
from memory import grown
from safetensors.torch import save as to_bytes
from toys import hub as toys

import zoo
import zoo.index
import zoo.store
from zoo import errors

MEGABYTE = 1 << 20
SIZE = 8 * MEGABYTE  # of the good file, and of the hostile ones where they can be that large
ROOT = Path(__file__).parents[2]


def header(content: bytes, data: bytes = b"", *, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(content) if length is None else length) + content + data


def spec(name: str, shape: list[int], end: int) -> bytes:
    return json.dumps({name: {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}}).encode()


def good() -> bytes:
    return to_bytes({"a": torch.ones(SIZE // 4)})


HOSTILE: dict[str, Callable[[], bytes]] = {
    "header of exabytes": lambda: header(b"{}", length=1 << 62),
    "header of the largest size": lambda: header(b"{" + b" " * (8 * MEGABYTE - 2) + b"}", b"\0" * SIZE),
    "a million objects": lambda: header(b'{"a":[' + b"{}," * (SIZE // 3) + b"{}]}"),
    "a million numbers": lambda: header(b'{"a":[' + b"1," * (SIZE // 2) + b"1]}"),
    "deep lists": lambda: header(b'{"a":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}"),
    "one long key": lambda: header(b'{"' + b"k" * (7 * MEGABYTE) + b'":{}}'),
    "a tensor of terabytes": lambda: header(spec("a", [1 << 40], 4), b"\0" * 4),
    "a tensor of terabytes in no bytes": lambda: header(spec("a", [1 << 40, 0], 0)),
    "NaN at the end": lambda: to_bytes({"a": torch.cat([torch.ones(SIZE // 4 - 1), torch.tensor([float("nan")])])}),
    "cut off": lambda: good()[:-3],
    "pickle": lambda: b"\x80\x05" + b"\0" * SIZE,
}


QUICK = ("a million objects", "one long key", "NaN at the end")


@pytest.mark.parametrize("case", [c if c in QUICK else pytest.param(c, marks=pytest.mark.slow) for c in HOSTILE])
def test_hostile_weights(tmp_path: Path, case: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(good())
    usual = grown(lambda: zoo.store.read_state(path))
    data = HOSTILE[case]()
    path.write_bytes(data)

    def read() -> None:
        if case == "a tensor of terabytes in no bytes":  # odd, but an honest empty tensor
            zoo.store.read_state(path)
            return
        with pytest.raises(errors.ZooError):
            zoo.store.read_state(path)

    del data
    assert grown(read) < usual + 50 * MEGABYTE


def test_hostile_configs(tmp_path: Path) -> None:
    """Init values that ask for terabytes, and a config of many small parts."""
    zoo.register(toys.entry())
    folder = zoo.save(toys.trained(), tmp_path / "saved")
    usual = grown(lambda: zoo.load(folder))
    config = json.loads((folder / "config.json").read_text())
    texts = [
        json.dumps({**config, "init": {**config["init"], "width": 10**9}}),
        json.dumps({**config, "init": {**config["init"], "rows": 10**12}}),
        json.dumps({**config, "facts": {"x": [[]] * 300_000}}),
        json.dumps({**config, "facts": {"x": "y" * (20 * MEGABYTE)}}),
    ]
    for text in texts:
        (folder / "config.json").write_text(text)

        def load() -> None:
            with pytest.raises(errors.ZooError):
                zoo.load(folder)

        assert grown(load) < usual + 50 * MEGABYTE


@pytest.mark.slow
def test_hostile_index_file(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    for text in ("\n".join(lines), "[" * 1_000_000, "x: [" + "1," * 1_500_000 + "]", "a" * (20 * MEGABYTE)):

        def load(text: str = text) -> None:
            with pytest.raises(errors.UnsafeFile):
                zoo.index.load_yaml(text)

        assert grown(load) < 50 * MEGABYTE


# Warnings ---------------------------------------------------------------------------------------------------------


def test_ordinary_use_warns_of_nothing(hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(tmp_path, hub, monkeypatch)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scene.on_hub()
        module = zoo.load("toy-net", endpoint=hub.url)
        zoo.load("toy-net", endpoint=hub.url, num_classes=5)
        zoo.load(zoo.save(module, tmp_path / "again", half=True))
        zoo.push(module, "owner/mine", endpoint=hub.url, token=OWNER, tag="v1", licence="mit")
        zoo.load("hf://owner/mine@v1", endpoint=hub.url, token=OWNER)
        zoo.verify("toy-net", remote=True, endpoint=hub.url)
        scene.in_checkout()
        assert zoo.publish(namespace="owner", endpoint=hub.url, token=OWNER)[0].ok
    ours = [w for w in caught if is_ours(w)]
    assert not ours, [f"{w.filename}:{w.lineno}: {w.message}" for w in ours]


def is_ours(warning: Any) -> bool:
    """Raised in our files, or a file or socket that we left open."""
    file = Path(warning.filename)
    # an environment may lie inside the checkout
    return (file.is_relative_to(ROOT) and "site-packages" not in file.parts) or issubclass(
        warning.category, ResourceWarning
    )


def test_listing_with_warnings_as_errors() -> None:
    for words in (["list"], ["info", "--help"], ["data", "list"], ["verify", "--help"]):
        run = [sys.executable, "-W", "error", "-m", "zoo", *words]
        done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        assert not done.stderr


@pytest.mark.slow
def test_loading_with_warnings_as_errors(tmp_path: Path) -> None:
    """The whole interpreter under `-W error`; only what other packages warn of while they are imported is let pass."""
    code = (
        "import warnings\n"
        "with warnings.catch_warnings():\n"
        "    warnings.simplefilter('ignore')\n"
        "    import torch, lightning, torchvision, torchmetrics, timm, huggingface_hub\n"
        "import zoo, datamodules\n"
        "from zoo import index\n"
        "names = [f'{e.id}:{t}' for e in index.entries().values() for t, w in e.weights.items()\n"
        "         if w.sha256 and index.bundled_path(w, e).is_file()]\n"
        "for name in names:\n"
        "    model = zoo.load(name)\n"
        "    zoo.load(zoo.save(model, f'saved/{name}'.replace(':', '-')))\n"
        "for entry in index.entries().values():\n"
        "    zoo.datamodule(entry.id).facts()\n"
        "print(zoo.verify()[0])\n"
    )
    kept = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HOME": str(tmp_path / "hf"), "ZOO_CACHE": str(tmp_path / "zoo")}
    run = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(run, cwd=tmp_path, env=kept, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
