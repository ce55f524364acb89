"""kill -9 at random moments, and several at once: a plain load works afterwards, with the right bytes only."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import shutil
import threading
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from fault_tools import FORK, OWNER, REPO, Scene, in_child, no_foreign_bytes
from hub_server import LoopbackHub
from tally import ROUNDS, after, after_requests, counted, seconds

import zoo
from zoo import errors, index

pytestmark = pytest.mark.skipif(not FORK, reason="needs fork")
Record = Callable[..., None]


@pytest.fixture
def scene(tmp_path: Path, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(tmp_path, hub, monkeypatch, width=600)


def hashes(scene: Scene) -> set[str]:
    """Names of everything a cache may hold: sha256 of large files, and of the small ones."""
    return {sha256(data).hexdigest() for data in scene.files.values()}


@ROUNDS
@pytest.mark.parametrize("name", ["toy-net", f"hf://{REPO}"])
def test_killed_load(scene: Scene, home: Path, rounds: int, name: str, record_property: Record) -> None:
    rng = random.Random(rounds)
    scene.on_hub()
    scene.hub.fault("slow", "model.safetensors")
    load = lambda: zoo.load(name, endpoint=scene.hub.url)  # noqa: E731
    with counted("load" if name == "toy-net" else "load hf://", rounds, record_property) as tally:
        for number in tally.rounds():
            tally.kill(load, after_requests(scene.hub, rng, 4))
            tally.unlocked(home)
            with tally.whole():
                assert no_foreign_bytes(home, hashes(scene))
            if number % 2:  # every other time the remains of the killed one are built upon
                shutil.rmtree(home, ignore_errors=True)
        with tally.whole():
            assert scene.right(load())
            assert scene.right(zoo.load("toy-net", endpoint=scene.hub.url, offline=True))


@ROUNDS
def test_killed_pull(scene: Scene, home: Path, rounds: int, record_property: Record) -> None:
    rng = random.Random(100 + rounds)
    scene.on_hub()
    scene.hub.fault("slow", "model.safetensors")
    pull = lambda: zoo.pull("toy-net", endpoint=scene.hub.url)  # noqa: E731
    with counted("pull", rounds, record_property) as tally:
        for _ in tally.rounds():
            tally.kill(pull, after_requests(scene.hub, rng, 2))
            tally.unlocked(home)
            with tally.whole():
                assert no_foreign_bytes(home, hashes(scene))
                assert scene.right(zoo.load("toy-net", endpoint=scene.hub.url))
            shutil.rmtree(home, ignore_errors=True)
    assert pull().read_bytes() == scene.model


@ROUNDS
def test_killed_push(scene: Scene, rounds: int, record_property: Record) -> None:
    """On the Hub there is either nothing or everything."""
    rng = random.Random(200 + rounds)
    options: dict[str, Any] = {"endpoint": scene.hub.url, "token": OWNER, "tag": "v1"}
    with counted("push", rounds, record_property) as tally:
        for number in tally.rounds():
            repo = f"owner/mine-{number}"
            push = lambda r=repo: zoo.push(scene.folder, r, **options)  # noqa: E731
            tally.kill(push, after_requests(scene.hub, rng, 12))
            with tally.whole():
                with contextlib.suppress(errors.RepositoryNotFound):
                    assert scene.right(zoo.load(f"hf://{repo}", endpoint=scene.hub.url, token=OWNER))
                about = push()
                assert about.sha256 == sha256(scene.model).hexdigest()
                assert scene.hub.state.repos[repo].tags["v1"] == about.hub.revision
                assert scene.right(zoo.load(f"hf://{repo}@v1", endpoint=scene.hub.url, token=OWNER))


@ROUNDS
def test_killed_publish(scene: Scene, home: Path, rounds: int, record_property: Record) -> None:
    """The index is whole at any moment; repeating goes on where it stopped, and nothing is sent twice."""
    rng = random.Random(300 + rounds)
    path = scene.in_checkout()
    unpinned = path.read_text()
    publish = lambda: zoo.publish(namespace="owner", endpoint=scene.hub.url, token=OWNER)  # noqa: E731
    with counted("publish", rounds, record_property) as tally:
        for _ in tally.rounds():
            path.write_text(unpinned)
            scene.hub.state.repos.clear()
            scene.hub.state.blobs.clear()
            tally.kill(publish, after_requests(scene.hub, rng, 12))
            with tally.whole():
                index.refresh()
                assert scene.right(zoo.load("toy-net"))
                sent = scene.hub.count("POST", "/commit/")
                committed = any(len(r.history) > 1 for r in scene.hub.state.repos.values())
                rows = publish()
                assert [r.ok for r in rows] == [True], rows
                assert not committed or scene.hub.count("POST", "/commit/") == sent
                assert scene.right(zoo.load("toy-net", source="hub", endpoint=scene.hub.url))
            shutil.rmtree(home, ignore_errors=True)
    assert "# by publish" in path.read_text()


@ROUNDS
def test_killed_save(scene: Scene, rounds: int, record_property: Record) -> None:
    """A folder holds the old weights or the new ones, each with the config that belongs to them."""
    rng = random.Random(400 + rounds)
    target = scene.path / "target"
    zoo.save(scene.module, target)
    other = zoo.load(scene.folder)
    other.head.bias.data += 1
    longest = seconds(lambda: zoo.save(other, scene.path / "timed"))
    with counted("save", rounds, record_property) as tally:
        for number in tally.rounds():
            module = other if number % 2 else scene.module
            tally.kill(lambda m=module: zoo.save(m, target), after(rng.random() * longest))
            with tally.whole():
                if target.exists():  # between the two renames of a replacement there is a moment without a folder
                    found = zoo.load(target)
                    assert scene.right(found) or torch.equal(found.head.bias, other.head.bias)
                assert zoo.save(scene.module, target).is_dir()
    assert scene.right(zoo.load(target))


# Company ----------------------------------------------------------------------------------------------------------


def _load(name: str, url: str, queue: Any, options: dict[str, Any]) -> None:
    try:
        queue.put(float(zoo.load(name, endpoint=url, **options).state_dict()["body.weight"].double().sum()))
    except BaseException as error:
        queue.put(repr(error))


@pytest.mark.parametrize("count", [2, pytest.param(8, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["toy-net", f"hf://{REPO}"])
def test_processes_at_once(scene: Scene, home: Path, count: int, name: str) -> None:
    scene.on_hub()
    scene.hub.fault("slow", "model.safetensors")
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    children = [context.Process(target=_load, args=(name, scene.hub.url, queue, {})) for _ in range(count)]
    for child in children:
        child.start()
    found = [queue.get(timeout=180) for _ in children]
    for child in children:
        child.join(180)
    assert found == [float(scene.module.state_dict()["body.weight"].double().sum())] * count
    assert no_foreign_bytes(home, hashes(scene))


@pytest.mark.parametrize("count", [8])
def test_threads_at_once(scene: Scene, count: int) -> None:
    scene.on_hub()
    scene.hub.fault("slow", "model.safetensors")
    loaded: list[Any] = []

    def run() -> None:
        loaded.append(zoo.load("toy-net", endpoint=scene.hub.url))

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(180)
    assert len(loaded) == count
    assert all(scene.right(module) for module in loaded)


def test_one_is_killed_while_others_load(scene: Scene, home: Path) -> None:
    """The lock of a killed process does not outlive it."""
    scene.on_hub()
    slow = scene.hub.fault("slow", "model.safetensors")
    process = in_child(lambda: zoo.load("toy-net", endpoint=scene.hub.url))
    while not any(p.name.endswith(".incomplete") for p in home.rglob("*")):
        assert process.is_alive()
        threading.Event().wait(0.001)
    os.kill(process.pid, 9)
    process.join()
    slow.times = 0
    assert scene.right(zoo.load("toy-net", endpoint=scene.hub.url))
