"""Constructor arguments that a stranger wrote: what they may cost, and that nothing they name is contacted."""

from __future__ import annotations

import json
import logging
import multiprocessing
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_server import LoopbackHub
from huggingface_hub import constants
from memory import grown
from toys import hub as toys

import zoo
from zoo import errors, index, training
from zoo.base.arguments import parameters_of
from zoo.base.image_classifier import ImageClassifier
from zoo.base.other_network import OtherNetworks
from zoo.index import Entry, entries
from zoo.nn.classifiers import create_classifier
from zoo.nn.timm_models import create_timm
from zoo.store import memory
from zoo.training.arguments import resumable

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork and limits of memory")

MEGABYTE = 1 << 20
PINNED = partial(toys.weights, file="toy-net-small.safetensors", sha256="0" * 64, bytes=1)
ADDRESSES = ("hf-hub:attacker/repo", "hf_hub:attacker/repo", "local-dir:/etc", "hf://attacker/x", "https://a.invalid/x")


class Student(OtherNetworks, ImageClassifier):
    """A classifier of any network, with a teacher."""

    references = ("teacher",)

    def __init__(
        self,
        num_classes: int = 3,
        class_names: list[str] | None = None,
        channels: int = 1,
        img_size: int = 16,
        network: str = "resnet10-w2",
        pretrained: bool = False,
        teacher: str | None = None,
        lr: float = 0.1,
    ) -> None:
        super().__init__()

    def training_step(self, batch: dict[str, Any], batch_idx: int = 0) -> torch.Tensor:
        return self(batch["image"]).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=float(self.hparams["lr"]))


@pytest.fixture(autouse=True)
def own_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "_registered", {})
    data = "datamodules.images:ImagesDataModule"
    zoo.register(toys.entry(name="toy-student", cls=Student, data=data))
    zoo.register(toys.entry())


@pytest.fixture
def contacts(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names that were looked up in the network, which is allowed as far as the Hub's client knows."""
    tried: list[str] = []

    def refuse(*args: Any, **options: Any) -> Any:
        tried.append(str(args))
        raise OSError(101, "no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield tried
    assert tried == []


@pytest.fixture
def student(tmp_path: Path) -> Path:
    return zoo.save(Student(), tmp_path / "student")


def changed(folder: Path, **init: Any) -> Path:
    """A saved folder with other constructor arguments in its config."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["init"] |= init
    path.write_text(json.dumps(config))
    return folder


def checkpoint(folder: Path, **init: Any) -> Path:
    """A Lightning checkpoint with these arguments."""
    module = Student()
    content = {
        "state_dict": module.state_dict(),
        "hyper_parameters": {**module.init_args, **init},
        "pytorch-lightning_version": "2.6.6",
        "zoo": {"id": "toy-student", "format": 1},
    }
    torch.save(content, folder / "handed.ckpt")
    return folder / "handed.ckpt"


def says(run: Callable[[], Any], error: Any, match: str) -> Callable[[], None]:
    def refused() -> None:
        with pytest.raises(error, match=match):
            run()

    return refused


GREEDY = {
    "a gigantic network of timm": {"network": "timm/vit_gigantic_patch14_224"},
    "a wide network": {"network": "resnet10-w3000"},
    "a deep network": {"network": "cifar-resnet200000"},
    "another deep network": {"network": "wrn600004-1"},
    "wide and deep": {"network": "wrn604-64"},
    "pictures of gigabytes": {"img_size": 100_000},
    "pictures of exabytes": {"img_size": 10**9},
    "pictures beyond 63 bits": {"img_size": 9 * 10**18},
    "channels": {"channels": 10**8},
    "classes": {"num_classes": 10**9},
}
WAYS: dict[str, Callable[[Path], Any]] = {
    "load": zoo.load,
    "without weights": lambda folder: zoo.load(folder, weights=False),
    "with other classes": lambda folder: zoo.load(folder, num_classes=5),
    "train": lambda folder: training.run(["fit", "--zoo", "toy-student", "--weights", str(folder)]),
    "save": lambda folder: zoo.save(folder, folder.parent / "again"),
}


@pytest.mark.parametrize(
    ("case", "way"), [*((case, "load") for case in GREEDY), *(("a wide network", way) for way in WAYS if way != "load")]
)
def test_a_small_file_cannot_ask_for_much(
    student: Path, case: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    changed(student, **GREEDY[case])
    named = "far more than its weights explain|expected a number from"  # of this file, or of no network at all
    refused = says(lambda: WAYS[way](student), (errors.UnsafeFile, errors.InvalidConfig), named)
    assert grown(refused) < 1000 * MEGABYTE


@pytest.mark.parametrize("flag", ["--weights", "--ckpt_path"])
def test_a_checkpoint_cannot_either(tmp_path: Path, flag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    handed = checkpoint(tmp_path, network="resnet10-w3000")
    words = ["fit", "--zoo", "toy-student", flag, str(handed), "--trainer.fast_dev_run", "true"]
    assert grown(says(lambda: training.run(words), errors.UnsafeFile, "far more than its weights")) < 1000 * MEGABYTE
    assert grown(says(lambda: zoo.load(handed), errors.UnsafeFile, "far more than its weights")) < 1000 * MEGABYTE


def test_a_repository_cannot_either(student: Path, hub: LoopbackHub) -> None:
    changed(student, network="resnet10-w3000", teacher="hf://attacker/x")
    hub.add("owner/greedy", {path.name: path.read_bytes() for path in student.iterdir()})
    for weights in (True, False):
        with pytest.raises(errors.UnsafeFile, match="far more than its weights explain"):
            zoo.load("hf://owner/greedy", endpoint=hub.url, weights=weights)
    assert not [request for request in hub.requests if "attacker" in str(request)]


def test_what_the_user_asks_for_has_no_bound(student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_SLACK", MEGABYTE)
    assert zoo.load(student, weights=False, network="resnet10-w64").network.linear.in_features == 8 * 64
    assert zoo.load(student, num_classes=100_000).network.linear.out_features == 100_000
    zoo.register(toys.with_weights(toys.entry(), PINNED(init={"width": 1_000_000})), replace=True)
    assert zoo.load("toy-net:small", weights=False).body.out_features == 1_000_000
    with pytest.raises(errors.UnsafeFile, match="far more than its weights explain"):
        zoo.load(changed(zoo.save(toys.trained(), tmp_path / "own"), rows=1_000_000))
    assert zoo.save(toys.trained(rows=1_000_000), tmp_path / "large").is_dir()


def test_judging_draws_no_random_numbers(student: Path) -> None:
    torch.manual_seed(3)
    zoo.load(student, num_classes=5)
    after = torch.rand(2)
    torch.manual_seed(3)
    Student(num_classes=5)
    assert torch.equal(torch.rand(2), after)


# Addresses ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ADDRESSES)
def test_no_address_in_a_config_is_contacted(
    student: Path, address: str, contacts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for network in (address, f"timm/{address}"):
        changed(student, network=network)
        for way, run in WAYS.items():
            with pytest.raises((errors.UnsafeFile, errors.UnknownName)) as caught:
                run(student)
            assert address[:2] in str(caught.value), way
    with pytest.raises(errors.UnknownName, match="timm has no model"):
        create_classifier(f"timm/{address}", 3)
    with pytest.raises(errors.UnknownName, match="timm has no model"):
        create_timm(address, pretrained=False)


@pytest.mark.parametrize("where", [*ADDRESSES, "/etc/passwd", "teacher.ckpt", "../x", 5])
def test_another_network_is_the_users_choice(
    student: Path, where: Any, contacts: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    changed(student, teacher=where)
    with caplog.at_level(logging.WARNING, "zoo"):
        module = zoo.load(student)
    assert module.hparams["teacher"] is None
    assert module.init_args["teacher"] is None
    assert f"its teacher {str(where)!r} is not used" in caplog.text
    assert zoo.load(student, teacher="my/own.ckpt").hparams["teacher"] == "my/own.ckpt"
    with pytest.raises(errors.InvalidConfig, match="name one, as in"):
        module.other("teacher")


def test_a_network_of_the_index_stays(student: Path) -> None:
    zoo.register(toys.with_weights(toys.entry(), PINNED()), replace=True)
    assert zoo.load(changed(student, teacher="toy-net:small")).hparams["teacher"] == "toy-net:small"


def test_pretrained_weights_of_strangers_are_not_fetched(
    student: Path, contacts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    changed(student, pretrained=True, network="timm/resnet10t")
    assert zoo.load(student, weights=False).hparams["pretrained"] is False
    for run in (zoo.load, WAYS["train"]):
        with pytest.raises(errors.KeyMismatch):
            run(student)


def test_training_takes_no_teacher_from_a_file(
    tmp_path: Path, contacts: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    handed = checkpoint(tmp_path, teacher="hf://attacker/x")
    words = ["fit", "--zoo", "toy-student", "--trainer.fast_dev_run", "true", "--data.batch_size", "4"]
    assert training.main([*words, "--weights", str(handed)]) == 2
    assert "name one, as in --model.teacher" in capsys.readouterr().err
    assert training.main([*words, "--ckpt_path", str(handed)]) == 2
    assert "add --model.teacher hf://attacker/x" in capsys.readouterr().err


def test_own_runs_resume_with_the_network_that_they_had(tmp_path: Path) -> None:
    handed = checkpoint(tmp_path, teacher="hf://attacker/x")
    entry, saved = index.info("toy-student"), {**Student().init_args, "teacher": "hf://attacker/x"}
    flags = {**Student().init_args, "teacher": None}
    assert resumable(handed, saved, flags, entry, runs=tmp_path) == saved
    with pytest.raises(errors.InvalidConfig, match=r"add --model\.teacher hf://attacker/x"):
        resumable(handed, saved, flags, entry, runs=tmp_path / "runs")
    assert resumable(handed, saved, saved, entry, runs=tmp_path / "runs") == saved


@pytest.mark.parametrize(
    "init",
    [
        {"lr": float("inf")},
        {"img_size": 10**18 * 10},
        {"img_size": 10**400},
        {"class_names": {"a": 1, "b": 2, "c": 3}},
        {"class_names": ["a", {"b": 1}, "c"]},
        {"class_names": "abc"},
        {"network": "lenet5" + "-gn" * 20_000},
        {"network": ["lenet5"]},
        {"channels": -1},
    ],
    ids=lambda init: str(init)[:40],
)
def test_odd_values_are_named(student: Path, init: dict[str, Any]) -> None:
    text = json.dumps(json.loads((student / "config.json").read_text()) | {"init": {**Student().init_args, **init}})
    (student / "config.json").write_text(text.replace("Infinity", "1e999"))
    with pytest.raises((errors.InvalidConfig, errors.BadInput)):
        zoo.load(student)


# Every method ---------------------------------------------------------------------------------------------------------


def variants(entry: Entry) -> Iterator[dict[str, Any]]:
    """Each argument of a method, as a stranger might set it."""
    for name, parameter in parameters_of(entry.model_class()).items():
        kind = str(parameter.annotation)
        if "int" in kind:
            yield from ({name: 10**9}, {name: 20_000})
        if "str" in kind and "list" not in kind:
            yield from ({name: address} for address in ADDRESSES[:4])
        if name.startswith("pretrained"):
            yield {name: True}


def attack(entry: Entry, folder: Path, queue: Any) -> None:
    """Load every variant in this process, which may not become large nor look up a name."""
    tried: list[str] = []

    def refuse(*args: Any, **options: Any) -> Any:
        tried.append(str(args))
        raise OSError(101, "no network in this test")

    def late(*args: Any) -> None:
        raise TimeoutError

    assert parent_process() is not None, "what follows stays so for the rest of the process"
    socket.getaddrinfo = refuse
    socket.socket.connect = refuse  # type: ignore[method-assign]
    constants.HF_HUB_OFFLINE = False
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 1500 * MEGABYTE,) * 2)
    signal.signal(signal.SIGALRM, late)
    good, wrong = (folder / "config.json").read_text(), []
    for init in variants(entry):
        queue.put(f"died at {init}")
        (folder / "config.json").write_text(good)
        changed(folder, **init)
        signal.alarm(30)
        try:
            zoo.load(folder, weights=20_000 in init.values())
        except errors.ZooError as error:
            if isinstance(error.__cause__, MemoryError) or "can't allocate memory" in str(error):
                wrong.append(f"{init}: {error}")
        except BaseException as error:
            wrong.append(f"{init}: {type(error).__name__} {str(error)[:200]}")
        finally:
            signal.alarm(0)
    queue.put([*wrong, *(f"looked up {name}" for name in tried)])
    queue.close()


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("entry", [e for e in entries().values() if e.source != "register()"], ids=lambda e: e.id)
def test_every_method(entry: Entry, tmp_path: Path) -> None:
    folder = zoo.save(entry.model_class()(**entry.tiny.get("model", {})), tmp_path / "saved")
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    process = context.Process(target=attack, args=(entry, folder, queue))
    process.start()
    said: Any = "never began"
    while process.is_alive() or not queue.empty():
        said = queue.get() if not queue.empty() else said
        process.join(0.001)
    assert said == []
