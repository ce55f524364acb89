"""Files made to harm: all refused by a named error, nothing executed, memory bounded."""

from __future__ import annotations

import io
import json
import pickle
import struct
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save as to_bytes

sys.path.insert(0, str(Path(__file__).parents[1] / "hub"))

from toys import cli as cli_toys
from toys import hub as toys

import zoo
from zoo import errors, index, training
from zoo.index import load_yaml
from zoo.store import read_state
from zoo.training.checkpoints import last_of

MEGABYTE = 1 << 20


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (open, (str(self.mark), "w"))


@pytest.fixture(autouse=True)
def own_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "_registered", {})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    zoo.register(toys.entry())
    return zoo.save(toys.trained(), tmp_path / "saved")


def header(content: Any, data: bytes = b"", *, length: int | None = None) -> bytes:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(begin: int = 0, end: int = 4, shape: Any = (1,), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


GOOD = to_bytes({"a": torch.ones(2), "b": torch.zeros(3, dtype=torch.int64)})

HOSTILE: dict[str, tuple[bytes, type[Exception]]] = {
    "empty": (b"", errors.TruncatedFile),
    "five bytes": (b"\x01\0\0\0\0", errors.TruncatedFile),
    "header longer than the file": (header({"a": tensor()}, b"\0" * 4, length=10_000), errors.TruncatedFile),
    "header of exabytes": (header({"a": tensor()}, length=1 << 62), errors.UnsafeFile),
    "header too short": (header({"a": tensor()}, b"\0" * 4, length=9), errors.UnsafeFile),
    "data cut off": (GOOD[:-3], errors.TruncatedFile),
    "data behind the end": (GOOD + b"MZ", errors.UnsafeFile),
    "not JSON": (header(b"{'a': 1}"), errors.UnsafeFile),
    "not UTF-8": (header(b'{"\xff": 1}'), errors.UnsafeFile),
    "a list": (header(b"[1, 2, 3]"), errors.UnsafeFile),
    "the same key twice": (
        header(
            b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
            b"x",
        ),
        errors.UnsafeFile,
    ),
    "a key twice in a tensor": (
        header(b'{"a":{"dtype":"U8","shape":[1],"shape":[9],"data_offsets":[0,1]}}', b"x"),
        errors.UnsafeFile,
    ),
    "overlapping tensors": (header({"a": tensor(0, 4), "b": tensor(2, 6)}, b"\0" * 6), errors.UnsafeFile),
    "the same bytes twice": (header({"a": tensor(0, 4), "b": tensor(0, 4)}, b"\0" * 4), errors.UnsafeFile),
    "a hole": (header({"a": tensor(0, 4), "b": tensor(8, 12)}, b"\0" * 12), errors.UnsafeFile),
    "offsets out of the file": (header({"a": tensor(0, 400, [100])}, b"\0" * 4), errors.TruncatedFile),
    "offsets backwards": (header({"a": tensor(4, 0)}, b"\0" * 4), errors.UnsafeFile),
    "negative offsets": (header({"a": tensor(-4, 0)}, b"\0" * 4), errors.UnsafeFile),
    "negative shape": (header({"a": tensor(0, 4, [-1])}, b"\0" * 4), errors.UnsafeFile),
    "shape and bytes disagree": (header({"a": tensor(0, 4, [1 << 40])}, b"\0" * 4), errors.UnsafeFile),
    "shape overflows": (header({"a": tensor(0, 4, [1 << 32, 1 << 32, 4])}, b"\0" * 4), errors.UnsafeFile),
    "shape beyond 64 bits": (header({"a": tensor(0, 4, [1 << 70, 0])}, b"\0" * 4), errors.UnsafeFile),
    "empty and beyond 63 bits": (header({"a": tensor(0, 0, [1 << 63, 0])}), errors.UnsafeFile),
    "shape of floats": (header({"a": tensor(0, 4, [1.0])}, b"\0" * 4), errors.UnsafeFile),
    "shape of booleans": (header({"a": tensor(0, 4, [True])}, b"\0" * 4), errors.UnsafeFile),
    "a hundred dimensions": (header({"a": tensor(0, 4, [1] * 100)}, b"\0" * 4), errors.UnsafeFile),
    "unknown dtype": (header({"a": tensor(0, 4, dtype="O")}, b"\0" * 4), errors.UnsafeFile),
    "dtype is a list": (header({"a": tensor(0, 4, dtype=["F32"])}, b"\0" * 4), errors.UnsafeFile),
    "extra field": (header({"a": tensor() | {"code": "x"}}, b"\0" * 4), errors.UnsafeFile),
    "a tensor is a number": (header({"a": 3}), errors.UnsafeFile),
    "metadata of objects": (header({"__metadata__": {"a": {"b": 1}}}), errors.UnsafeFile),
    "metadata is a list": (header({"__metadata__": [1]}), errors.UnsafeFile),
    "NaN in the header": (
        header(b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,4]}}', b"\0" * 4),
        errors.UnsafeFile,
    ),
    "a number of many digits": (header(b'{"a":' + b"9" * 100_000 + b"}"), errors.UnsafeFile),
    "deep nesting": (header(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), errors.UnsafeFile),
    "NaN weights": (to_bytes({"a": torch.tensor([1.0, float("nan")])}), errors.UnsafeFile),
    "infinite weights": (to_bytes({"a": torch.tensor([1.0, float("-inf")]).half()}), errors.UnsafeFile),
    "opposite infinities": (to_bytes({"a": torch.tensor([float("inf"), float("-inf")])}), errors.UnsafeFile),
    "web page": (b"<!DOCTYPE html><html>Log in</html>", errors.UnsafeFile),
    "git-lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", errors.UnsafeFile),
    "gzip": (b"\x1f\x8b" + b"\0" * 50, errors.UnsafeFile),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_safetensors(tmp_path: Path, case: str) -> None:
    data, error = HOSTILE[case]
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(error, match=r"model\.safetensors: expected") as caught:
        read_state(path)
    assert type(caught.value) is error
    assert len(str(caught.value)) < 600


def test_good_files_still_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(GOOD)
    state, digest = read_state(path, sha256=sha256(GOOD).hexdigest())
    assert digest == sha256(GOOD).hexdigest()
    assert set(state) == {"a", "b"}
    everything = {str(d): torch.zeros(2, 0, 3, dtype=d) for d in (torch.bool, torch.float64, torch.bfloat16)}
    everything |= {"scalar": torch.tensor(3.0), "wide": torch.full((4,), 3e38), "half": torch.full((2,), 6e4).half()}
    path.write_bytes(to_bytes(everything, metadata={"format": "pt"}))
    assert read_state(path)[0].keys() == everything.keys()


def pickles(mark: Path) -> dict[str, bytes]:
    archive = io.BytesIO()
    torch.save({"state_dict": Payload(mark)}, archive)
    legacy = io.BytesIO()
    torch.save({"state_dict": Payload(mark)}, legacy, _use_new_zipfile_serialization=False)
    plain = [pickle.dumps(Payload(mark), protocol=p) for p in range(6)]
    return {"zip": archive.getvalue(), "legacy": legacy.getvalue(), **{f"protocol {p}": d for p, d in enumerate(plain)}}


def test_pickle_renamed_to_safetensors(tmp_path: Path, folder: Path) -> None:
    mark = tmp_path / "executed"
    for name, data in pickles(mark).items():
        (folder / "model.safetensors").write_bytes(data)
        config = json.loads((folder / "config.json").read_text())
        config["sha256"]["model.safetensors"] = sha256(data).hexdigest()
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises((errors.UnsafeFile, errors.TruncatedFile)) as caught:
            zoo.load(folder)
        if name in ("zip", "protocol 2", "protocol 5"):
            assert "pickle" in str(caught.value)
    assert not mark.exists()


def test_crafted_checkpoints(tmp_path: Path, folder: Path) -> None:
    mark = tmp_path / "executed"
    path = tmp_path / "last.ckpt"
    for data in pickles(mark).values():
        path.write_bytes(data)
        with pytest.raises(errors.UnsafeFile):
            zoo.load(path)
    assert not mark.exists()
    good = io.BytesIO()
    torch.save({"state_dict": {}, "zoo": {"id": "os:system", "format": 1}, "hyper_parameters": {}}, good)
    path.write_bytes(good.getvalue())
    with pytest.raises(errors.UnsafeFile, match="class"):
        zoo.load(path)
    path.write_bytes(good.getvalue()[:-50])
    with pytest.raises((errors.UnsafeFile, errors.CorruptFile)):
        zoo.load(path)
    path.write_bytes(b"")
    with pytest.raises(errors.UnsafeFile):
        zoo.load(path)


def test_compressed_checkpoint_is_a_bomb(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "last.ckpt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
        archive.writestr("archive/data/0", b"\0" * (64 * MEGABYTE))
    with pytest.raises(errors.UnsafeFile, match="compressed"):
        zoo.load(path)


@pytest.mark.parametrize("flag", ["--weights", "--ckpt_path"])
def test_training_refuses_bombs_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    """Starting from a checkpoint and resuming it read it in the same way."""
    monkeypatch.chdir(tmp_path)
    cli_toys.register(tmp_path)
    fit = ["fit", "--zoo", "toy-net"]
    kept = last_of(training.run([*fit, "--trainer.max_epochs", "1"]).trainer)
    assert kept is not None
    last = Path(kept.last_model_path)
    with zipfile.ZipFile(last) as plain, zipfile.ZipFile("packed.ckpt", "w", zipfile.ZIP_DEFLATED) as archive:
        for member in plain.infolist():
            archive.writestr(member.filename, plain.read(member))
    assert training.main([*fit, flag, "packed.ckpt"]) == 2
    assert "compressed parts" in capsys.readouterr().err
    assert training.run([*fit, flag, str(last), "--trainer.max_epochs", "2"]).trainer.current_epoch == 2


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda c: c.update(zoo="os:system"), errors.UnsafeFile),
        (lambda c: c.update(zoo="subprocess.Popen"), errors.UnsafeFile),
        (lambda c: c.update(zoo="../../toy-net"), errors.UnsafeFile),
        (lambda c: c.update(class_path="os.system"), errors.InvalidConfig),
        (lambda c: c.update(_target_="os.system"), errors.InvalidConfig),
        (lambda c: c.update(auto_map={"AutoModel": "evil.Model"}), errors.InvalidConfig),
        (lambda c: c["init"].update(__class__="os.system"), errors.InvalidConfig),
        (lambda c: c["init"].update(self=1), errors.InvalidConfig),
        (lambda c: c["init"].update(width=10**9), errors.UnsafeFile),
        (lambda c: c["init"].update(width=10**18), errors.UnsafeFile),
        (lambda c: c["init"].update(width={"class_path": "os.system"}), errors.InvalidConfig),
        (lambda c: c["sha256"].update({"model.safetensors": 3}), errors.InvalidConfig),
        (lambda c: c.update(format="1"), errors.InvalidConfig),
        (lambda c: c.update(format=True), errors.InvalidConfig),
    ],
)
def test_hostile_configs(folder: Path, change: Callable[[dict[str, Any]], None], error: type[Exception]) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(error) as caught:
        zoo.load(folder)
    assert type(caught.value) is error


@pytest.mark.parametrize(
    "text",
    [
        '{"zoo": "toy-net", "zoo": "toy-net"}',
        '{"zoo": "toy-net", "init": {"width": NaN}}',
        "[" * 10_000,
        '{"a":' * 9_000,
        "{} trailing",
        "",
        "\x00",
        '{"zoo": "toy-net", "x": ' + "9" * 10_000 + "}",
    ],
    ids=["twice", "NaN", "deep lists", "deep objects", "trailing", "empty", "zero byte", "digits"],
)
def test_hostile_config_text(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(errors.InvalidConfig, match=r"config\.json"):
        zoo.load(folder)


def bomb() -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        bomb(),
        "a: &a [*a]",
        "[" * 100_000,
        "\n".join("  " * i + "a:" for i in range(200)),
        "a: &a 1\nx: [" + ", ".join(["*a"] * 2000) + "]",
        "x" * (5 * MEGABYTE),
        "a: !!python/object/apply:os.system [touch /tmp/executed]",
        "a: !!python/name:os.system",
        "a: !Custom {b: 1}",
    ],
    ids=["laughs", "itself", "deep lists", "deep mappings", "aliases", "huge", "apply", "name", "tag"],
)
def test_hostile_yaml(text: str) -> None:
    with pytest.raises(errors.UnsafeFile):
        load_yaml(text)


def test_names_that_leave_their_folder(tmp_path: Path) -> None:
    for name in ("hf://../x", "hf://owner/..", "hf://owner/repo@../../x", "hf://owner/a--b", "hf://o/r@a b"):
        with pytest.raises(errors.BadInput):
            zoo.load(name)
    for file in ("../evil.safetensors", "/evil.safetensors", "toy-net-small.safetensors/../x.safetensors"):
        with pytest.raises(errors.InvalidIndex, match="file"):
            toys.with_weights(toys.entry(), toys.weights(file=file, sha256="0" * 64, bytes=1))


def peak(run: Callable[[], Any]) -> int:
    """Largest Python memory of a run that is refused. Tensors are made only after everything was checked."""
    tracemalloc.start()
    try:
        with pytest.raises(errors.ZooError):
            run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "filler",
    [b"{}", b"[]", b"1", b'""'],
    ids=["objects", "lists", "numbers", "text"],
)
def test_memory_stays_bounded(tmp_path: Path, folder: Path, filler: bytes) -> None:
    text = b'{"a":[' + b",".join([filler] * (700_000 // (len(filler) + 1))) + b"]}"
    path = tmp_path / "model.safetensors"
    path.write_bytes(header(text))
    assert peak(lambda: read_state(path)) < len(text) * 3 + 50 * MEGABYTE
    (folder / "config.json").write_bytes(text)
    assert peak(lambda: zoo.load(folder)) < 50 * MEGABYTE


def test_memory_of_yaml_stays_bounded() -> None:
    assert peak(lambda: load_yaml("[" + "1," * 250_000 + "]")) < 50 * MEGABYTE


def test_file_that_changes_between_check_and_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes that were hashed are the bytes that are parsed."""
    import safetensors.torch

    path = tmp_path / "model.safetensors"
    path.write_bytes(GOOD)
    real = safetensors.torch.load

    def swap(data: bytes) -> Any:
        path.write_bytes(to_bytes({"a": torch.full((2,), 666.0), "b": torch.zeros(3, dtype=torch.int64)}))
        return real(data)

    monkeypatch.setattr(safetensors.torch, "load", swap)
    state, _ = read_state(path, sha256=sha256(GOOD).hexdigest())
    assert torch.equal(state["a"], torch.ones(2))


def test_large_files_are_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.store import tensors as _store_tensors

    monkeypatch.setattr(_store_tensors, "_IN_MEMORY", 10)
    path = tmp_path / "model.safetensors"
    path.write_bytes(GOOD)
    state, digest = read_state(path, sha256=sha256(GOOD).hexdigest())
    assert digest == sha256(GOOD).hexdigest()
    assert torch.equal(state["a"], torch.ones(2))
    with pytest.raises(errors.CorruptFile):
        read_state(path, sha256="0" * 64)
    path.write_bytes(GOOD[:-3])
    with pytest.raises(errors.TruncatedFile):
        read_state(path)


def test_unpickler_is_never_reached(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def poisoned(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("an unpickler was reached")

    for module, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(module, name, poisoned)
    assert zoo.load(folder)
