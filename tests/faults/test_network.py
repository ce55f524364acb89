"""What the network does wrong, at each step of pull, push and publish: a named error, and repeating it works."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fault_tools import OWNER, REPO, Scene
from hub_server import LoopbackHub

import zoo
from zoo import errors

FAULTS: dict[str, tuple[Any, tuple[type[Exception], ...]]] = {
    "corrupt": ("corrupt", (errors.CorruptFile,)),
    "truncate": ("truncate", (errors.NetworkUnavailable, errors.TruncatedFile)),
    "reset": ("reset", (errors.NetworkUnavailable, errors.TruncatedFile)),
    "401": (401, (errors.Unauthorized,)),
    "403": (403, (errors.GatedRepository,)),
    "404": (404, (errors.RepositoryNotFound,)),
    "429": (429, (errors.NetworkUnavailable,)),
    "503": (503, (errors.NetworkUnavailable,)),
    "stall": ("stall", (errors.NetworkUnavailable,)),
}
REFUSALS = [503, *(pytest.param(kind, marks=pytest.mark.slow) for kind in (401, 429))]
UNCHECKED = ["corrupt", *(pytest.param(k, marks=pytest.mark.slow) for k in ("truncate", "reset", "stall", 404, 403))]
_SLOW = [pytest.param(part, marks=pytest.mark.slow) for part in ("/repos/create", "/preupload/", "/info/lfs/", "/tag/")]
WRITES = ["/lfs/", "/commit/", *_SLOW]


@pytest.fixture
def scene(tmp_path: Path, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> Scene:
    from huggingface_hub import constants

    for name in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):
        monkeypatch.setattr(constants, name, 0.2)
    return Scene(tmp_path, hub, monkeypatch)


@pytest.mark.filterwarnings("ignore:.*Trying the next source")
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", ["toy-net", pytest.param(f"hf://{REPO}", marks=pytest.mark.slow)])
def test_pull(scene: Scene, fault: str, name: str) -> None:
    scene.on_hub()
    kind, expected = FAULTS[fault]
    part = "/lfs/" if fault == "stall" else "model.safetensors" if isinstance(kind, str) else REPO
    switch = scene.hub.fault(kind, part, seconds=0.5)
    with pytest.raises(expected):
        zoo.pull(name, endpoint=scene.hub.url)
    switch.times = 0
    assert zoo.pull(name, endpoint=scene.hub.url).read_bytes() == scene.model
    assert scene.right(zoo.load("toy-net", endpoint=scene.hub.url))


@pytest.mark.parametrize("kind", [429, 503])
@pytest.mark.parametrize("name", ["toy-net", f"hf://{REPO}"])
def test_pull_from_a_busy_hub(scene: Scene, kind: int, name: str) -> None:
    """It is asked again after what Retry-After says; the user sees nothing of it."""
    scene.on_hub()
    switch = scene.hub.fault(kind, "resolve", method="HEAD", times=1)
    assert zoo.pull(name, endpoint=scene.hub.url).read_bytes() == scene.model
    assert switch.times == 0


def test_slow_link(scene: Scene) -> None:
    scene.on_hub()
    scene.hub.fault("slow", "safetensors")
    zoo.push(scene.folder, "owner/mine", endpoint=scene.hub.url, token=OWNER)
    assert scene.right(zoo.load("hf://owner/mine", endpoint=scene.hub.url, token=OWNER))
    assert scene.right(zoo.load("toy-net", endpoint=scene.hub.url))


@pytest.mark.parametrize("part", WRITES)
@pytest.mark.parametrize("kind", REFUSALS)
def test_push_refused_at_each_step(scene: Scene, part: str, kind: int) -> None:
    method = "PUT" if part == "/lfs/" else "POST"
    options: dict[str, Any] = {"endpoint": scene.hub.url, "token": OWNER, "tag": "v1"}
    switch = scene.hub.fault(kind, part, method=method)
    with pytest.raises((errors.NetworkUnavailable, errors.Unauthorized)):
        zoo.push(scene.folder, "owner/mine", **options)
    switch.times = 0
    about = zoo.push(scene.folder, "owner/mine", **options)
    repo = scene.hub.state.repos["owner/mine"]
    assert repo.tags == {"v1": about.hub.revision}
    assert len(repo.history) == 2
    assert scene.right(zoo.load("hf://owner/mine@v1", endpoint=scene.hub.url, token=OWNER))


@pytest.mark.parametrize("kind", UNCHECKED)
def test_push_that_cannot_be_checked(scene: Scene, kind: Any) -> None:
    """What was sent is only called pushed once it came back whole."""
    switch = scene.hub.fault(kind, "model.safetensors", method="GET", seconds=0.5)
    with pytest.raises(errors.ZooError):
        zoo.push(scene.folder, "owner/mine", endpoint=scene.hub.url, token=OWNER)
    switch.times = 0
    zoo.push(scene.folder, "owner/mine", endpoint=scene.hub.url, token=OWNER)
    assert len(scene.hub.state.repos["owner/mine"].history) == 2


def test_push_meets_another_commit(scene: Scene) -> None:
    zoo.push(scene.folder, "owner/mine", endpoint=scene.hub.url, token=OWNER)
    scene.hub.race("owner/mine")
    other = zoo.load(scene.folder)
    other.head.bias.data += 1
    with pytest.raises(errors.RepositoryChanged):
        zoo.push(other, "owner/mine", endpoint=scene.hub.url, token=OWNER)
    assert scene.right(zoo.load("hf://owner/mine", endpoint=scene.hub.url, token=OWNER))


@pytest.mark.parametrize("part", WRITES)
@pytest.mark.parametrize("kind", REFUSALS)
def test_publish_refused_at_each_step(scene: Scene, part: str, kind: int) -> None:
    path = scene.in_checkout()
    text = path.read_text()
    method = "PUT" if part == "/lfs/" else "POST"
    switch = scene.hub.fault(kind, part, method=method)
    rows = zoo.publish(namespace="owner", endpoint=scene.hub.url, token=OWNER)
    assert [r.ok for r in rows] == [False]
    assert path.read_text() == text
    switch.times = 0
    rows = zoo.publish(namespace="owner", endpoint=scene.hub.url, token=OWNER)
    assert [r.ok for r in rows] == [True], rows
    repo = scene.hub.state.repos["owner/toy-net-small"]
    assert len(repo.history) == 2
    assert list(repo.tags.values()) == [repo.branches["main"]]
    assert scene.right(zoo.load("toy-net", source="hub", endpoint=scene.hub.url))


@pytest.mark.parametrize("kind", UNCHECKED)
def test_publish_that_cannot_be_checked(scene: Scene, kind: Any) -> None:
    path = scene.in_checkout()
    text = path.read_text()
    switch = scene.hub.fault(kind, "model.safetensors", method="GET", seconds=0.5)
    for _ in range(2):  # it is on the Hub already the second time, and still not believed
        assert not zoo.publish(namespace="owner", endpoint=scene.hub.url, token=OWNER)[0].ok
        assert path.read_text() == text
    switch.times = 0
    assert zoo.publish(namespace="owner", endpoint=scene.hub.url, token=OWNER)[0].ok


def test_publish_meets_another_commit(scene: Scene) -> None:
    path = scene.in_checkout()
    zoo.publish(namespace="owner", endpoint=scene.hub.url, token=OWNER)
    pinned = path.read_text()
    scene.hub.add("owner/toy-net-small", {"notes.txt": b"somebody else's"})
    rows = zoo.publish(namespace="owner", endpoint=scene.hub.url, token=OWNER)
    assert rows[0].ok
    assert path.read_text() == pinned


def test_moved_tag_and_rewritten_branch(scene: Scene, tmp_path: Path) -> None:
    """A pin is a commit and a hash: neither a moved tag nor another commit on the branch changes what is pulled."""
    commit = scene.on_hub()
    scene.hub.move_tag(REPO, "v1", commit)
    other = zoo.load(scene.folder)
    other.head.bias.data += 1
    second = zoo.save(other, tmp_path / "other")
    newer = scene.hub.add(REPO, {p.name: p.read_bytes() for p in second.iterdir()})
    scene.hub.move_tag(REPO, "v1", newer)
    assert zoo.pull("toy-net", endpoint=scene.hub.url).read_bytes() == scene.model
    assert (
        zoo.pull(f"hf://{REPO}@v1", endpoint=scene.hub.url).read_bytes() == (second / "model.safetensors").read_bytes()
    )


def test_offline_mode(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is asked, and every operation that would have to says that offline mode is on."""
    from huggingface_hub import constants

    scene.on_hub()
    zoo.load("toy-net", endpoint=scene.hub.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    scene.hub.requests.clear()
    assert zoo.pull("toy-net", endpoint=scene.hub.url).read_bytes() == scene.model
    with pytest.raises(errors.NetworkUnavailable, match="offline"):
        zoo.pull("hf://owner/other", endpoint=scene.hub.url)
    with pytest.raises(errors.NetworkUnavailable, match="offline"):
        zoo.push(scene.folder, "owner/mine", endpoint=scene.hub.url, token=OWNER)
    path = scene.in_checkout()
    rows = zoo.publish(namespace="owner", endpoint=scene.hub.url, token=OWNER)
    assert not rows[0].ok
    assert "offline" in rows[0].why
    assert "repo: null" in path.read_text()
    assert not scene.hub.requests


def test_server_gone(scene: Scene, home: Path) -> None:
    scene.on_hub()
    zoo.load("toy-net", endpoint=scene.hub.url)
    scene.hub.stop()
    assert scene.right(zoo.load("toy-net", endpoint=scene.hub.url))
    with pytest.raises(errors.NetworkUnavailable):
        zoo.push(scene.folder, "owner/mine", endpoint=scene.hub.url, token=OWNER)
    path = scene.in_checkout()
    assert not zoo.publish(namespace="owner", endpoint=scene.hub.url, token=OWNER)[0].ok
    assert "repo: null" in path.read_text()
    assert scene.right(zoo.load("toy-net"))
