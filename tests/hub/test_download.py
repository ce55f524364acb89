"""Loading from the Hub with the real client: pins, access, faults of the network and of the cache."""

from __future__ import annotations

import errno
import multiprocessing
import os
import threading
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_server import LoopbackHub
from toys import hub as toys

import zoo
from zoo import errors
from zoo.store import load_into

REPO = "owner/toy"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    zoo.register(toys.entry())
    return zoo.save(toys.trained(), tmp_path / "saved")


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def publish(hub: LoopbackHub, folder: Path, tmp_path: Path, *, bundle: bool = False, **options: Any) -> str:
    """Put the saved toy on the Hub and pin it in the index; returns the commit."""
    files = contents(folder)
    commit = hub.add(REPO, files, **options)
    model = files["model.safetensors"]
    name = "toy-net-small.safetensors"
    if bundle:
        (tmp_path / "bundled").mkdir()
        (tmp_path / "bundled" / name).write_bytes(model)
    about = toys.published(REPO, commit, sha256(model).hexdigest(), len(model), file=name)
    zoo.register(toys.with_weights(toys.entry(tmp_path / "index.yaml"), about), replace=True)
    return commit


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    theirs = b.state_dict()
    return all(torch.equal(v, theirs[k]) for k, v in a.state_dict().items() if not k.startswith("teacher"))


def cached_blob(home: Path, name: str = "model.safetensors") -> Path:
    return next((home / "hub").rglob(f"snapshots/*/{name}")).resolve()


def test_pinned_load_then_no_requests(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    commit = publish(hub, folder, tmp_path)
    first = zoo.load("toy-net", endpoint=hub.url)
    assert same(first, toys.trained())
    assert not first.training
    assert first.report.pinned
    assert first.report.source == f"hub: {REPO}@{commit}"
    assert not hub.authorized_elsewhere
    hub.requests.clear()
    again = zoo.load("toy-net", endpoint=hub.url)
    assert again.report.source.startswith("cache")
    assert same(first, again)
    assert not hub.requests


def test_bundled_before_hub_and_forced_sources(hub: LoopbackHub, folder: Path, tmp_path: Path, home: Path) -> None:
    publish(hub, folder, tmp_path, bundle=True)
    assert zoo.load("toy-net", endpoint=hub.url).report.source.startswith("bundled")
    assert not hub.requests
    assert zoo.load("toy-net", source="hub", endpoint=hub.url).report.source.startswith("hub")
    assert zoo.load("toy-net", endpoint=hub.url).report.source.startswith("cache")
    assert zoo.load("toy-net", source="bundled", endpoint=hub.url).report.source.startswith("bundled")
    assert zoo.pull("toy-net", endpoint=hub.url).is_file()


def test_address_by_branch_tag_and_commit(hub: LoopbackHub, folder: Path) -> None:
    commit = hub.add(REPO, contents(folder))
    hub.move_tag(REPO, "v1", commit)
    for revision in ("", "@main", "@v1", f"@{commit}"):
        module = zoo.load(f"hf://{REPO}{revision}", endpoint=hub.url)
        assert same(module, toys.trained())
        assert not module.report.pinned
        assert module.report.name == f"hf://{REPO}@{commit}"
        assert "unpinned" in str(module.report)
    hub.requests.clear()
    zoo.load(f"hf://{REPO}@{commit}", endpoint=hub.url)
    assert not hub.requests


def test_moved_tag_is_followed_as_one_commit(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    first = hub.add(REPO, contents(folder))
    hub.move_tag(REPO, "v1", first)
    zoo.load(f"hf://{REPO}@v1", endpoint=hub.url)
    other = zoo.save(toys.trained(7), tmp_path / "other")
    second = hub.add(REPO, contents(other))
    hub.move_tag(REPO, "v1", second)
    assert same(zoo.load(f"hf://{REPO}@v1", endpoint=hub.url), toys.trained(7))
    assert same(zoo.load(f"hf://{REPO}@{first}", endpoint=hub.url), toys.trained())


def test_moved_tag_cannot_change_pinned_weights(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    publish(hub, folder, tmp_path)
    hub.add(REPO, contents(zoo.save(toys.trained(7), tmp_path / "other")))
    assert same(zoo.load("toy-net", endpoint=hub.url), toys.trained())


def test_another_revision_is_unpinned(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    publish(hub, folder, tmp_path)
    hub.add(REPO, contents(zoo.save(toys.trained(7), tmp_path / "other")))
    module = zoo.load("toy-net", revision="main", endpoint=hub.url)
    assert same(module, toys.trained(7))
    assert not module.report.pinned


def test_private(hub: LoopbackHub, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(hub, folder, tmp_path, private=True)
    with pytest.raises(errors.Unauthorized, match="token"):
        zoo.load("toy-net", endpoint=hub.url)
    with pytest.raises(errors.Unauthorized, match="401"):
        zoo.load("toy-net", endpoint=hub.url, token="wrong")
    with pytest.raises(errors.RepositoryNotFound):
        zoo.load(f"hf://{REPO}", endpoint=hub.url, token="token-of-other")
    assert zoo.load("toy-net", endpoint=hub.url, token="token-of-owner").report.pinned
    monkeypatch.setenv("HF_TOKEN", "token-of-owner")
    assert zoo.load(f"hf://{REPO}", endpoint=hub.url)
    assert not hub.authorized_elsewhere


def test_gated(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    publish(hub, folder, tmp_path, gated=True)
    for name in ("toy-net", f"hf://{REPO}"):
        with pytest.raises(errors.GatedRepository, match="conditions"):
            zoo.load(name, endpoint=hub.url, token="token-of-other")
    hub.state.accepted.add(("other", REPO))
    assert zoo.load("toy-net", endpoint=hub.url, token="token-of-other").report.pinned


def test_missing_repository_revision_and_file(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    token = "token-of-other"
    with pytest.raises(errors.RepositoryNotFound, match="owner/nothing"):
        zoo.load("hf://owner/nothing", endpoint=hub.url, token=token)
    with pytest.raises(errors.Unauthorized):
        zoo.load("hf://owner/nothing", endpoint=hub.url)
    hub.add(REPO, {"README.md": b"nothing else"})
    with pytest.raises(errors.RevisionNotFound, match="v9"):
        zoo.load(f"hf://{REPO}@v9", endpoint=hub.url)
    with pytest.raises(errors.RepositoryNotFound, match=r"config\.json"):
        zoo.load(f"hf://{REPO}", endpoint=hub.url)
    gone = toys.published(REPO, "0" * 40, "0" * 64, 10)
    zoo.register(toys.with_weights(toys.entry(), gone), replace=True)
    with pytest.raises(errors.RevisionNotFound):
        zoo.load("toy-net", endpoint=hub.url)


def test_offline(hub: LoopbackHub, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = publish(hub, folder, tmp_path)
    for name in ("toy-net", f"hf://{REPO}"):
        with pytest.raises(errors.NetworkUnavailable, match="cache"):
            zoo.load(name, endpoint=hub.url, offline=True)
    assert not hub.requests
    zoo.load("toy-net", endpoint=hub.url)
    zoo.load(f"hf://{REPO}", endpoint=hub.url)
    hub.requests.clear()
    for name in ("toy-net", f"hf://{REPO}", f"hf://{REPO}@{commit}"):
        assert same(zoo.load(name, endpoint=hub.url, offline=True), toys.trained())
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert zoo.load(f"hf://{REPO}", endpoint=hub.url).report.name == f"hf://{REPO}@{commit}"
    assert not hub.requests


@pytest.mark.filterwarnings("ignore:.*Trying the next source")
@pytest.mark.parametrize("redirect", [True, False])
def test_corrupt_download_of_the_same_size(hub: LoopbackHub, folder: Path, tmp_path: Path, redirect: bool) -> None:
    hub.redirect = redirect
    publish(hub, folder, tmp_path)
    fault = hub.fault("corrupt", "model.safetensors")
    for name in ("toy-net", f"hf://{REPO}"):
        with pytest.raises(errors.CorruptFile, match=r"sha256|lists"):
            zoo.load(name, endpoint=hub.url)
    fault.times = 0
    for name in ("toy-net", f"hf://{REPO}"):
        assert same(zoo.load(name, endpoint=hub.url), toys.trained())


def test_corrupt_once_is_repaired(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    publish(hub, folder, tmp_path)
    hub.fault("corrupt", "model.safetensors", times=1)
    assert same(zoo.load("toy-net", endpoint=hub.url), toys.trained())
    hub.fault("corrupt", "config.json", times=1)
    assert same(zoo.load(f"hf://{REPO}", endpoint=hub.url), toys.trained())


@pytest.mark.parametrize("kind", ["truncate", "reset"])
def test_broken_transfer(hub: LoopbackHub, folder: Path, tmp_path: Path, kind: str) -> None:
    publish(hub, folder, tmp_path)
    fault = hub.fault(kind, "model.safetensors")
    with pytest.raises((errors.NetworkUnavailable, errors.TruncatedFile)):
        zoo.load("toy-net", endpoint=hub.url)
    fault.times = 1
    assert same(zoo.load("toy-net", endpoint=hub.url), toys.trained())


@pytest.mark.filterwarnings("ignore:.*Trying the next source")
def test_altered_cache(hub: LoopbackHub, folder: Path, tmp_path: Path, home: Path) -> None:
    address = f"hf://{REPO}@{publish(hub, folder, tmp_path)}"
    zoo.load(address, endpoint=hub.url)
    blob = cached_blob(home)
    good = blob.read_bytes()
    blob.chmod(0o644)
    for bad, error in ((good[:-1] + b"\x01", errors.CorruptFile), (good[: len(good) // 2], errors.TruncatedFile)):
        blob.write_bytes(bad)
        with pytest.raises(error):
            zoo.load("toy-net", endpoint=hub.url, offline=True)
        with pytest.raises(errors.CorruptFile):
            zoo.load(address, endpoint=hub.url, offline=True)
        assert not zoo.verify("toy-net")[0].ok
        with pytest.warns(RuntimeWarning, match="next source"):
            assert same(zoo.load("toy-net", endpoint=hub.url), toys.trained())
        assert blob.read_bytes() == good
        assert zoo.verify("toy-net")[0].ok


def test_altered_cache_falls_back_to_the_bundled_file(
    hub: LoopbackHub, folder: Path, tmp_path: Path, home: Path
) -> None:
    publish(hub, folder, tmp_path, bundle=True)
    zoo.pull("toy-net", endpoint=hub.url)
    cached_blob(home).write_bytes(b"nonsense")
    with pytest.warns(RuntimeWarning, match="next source"):
        assert zoo.load("toy-net", endpoint=hub.url, offline=True).report.source.startswith("bundled")


def test_server_gone(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    publish(hub, folder, tmp_path)
    zoo.load("toy-net", endpoint=hub.url)
    zoo.load(f"hf://{REPO}", endpoint=hub.url)
    hub.stop()
    assert zoo.load("toy-net", endpoint=hub.url).report.pinned
    assert same(zoo.load(f"hf://{REPO}", endpoint=hub.url), toys.trained())
    with pytest.raises(errors.NetworkUnavailable, match="HF_ENDPOINT"):
        zoo.load("hf://owner/another", endpoint=hub.url)


def test_server_gone_names_what_loads(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    publish(hub, folder, tmp_path, bundle=True)
    far = toys.published("owner/far", "1" * 40, "1" * 64, 10, tag="large")
    zoo.register(toys.with_weights(zoo.info("toy-net"), far), replace=True)
    hub.stop()
    with pytest.raises(errors.NetworkUnavailable, match="toy-net:small"):
        zoo.load("toy-net:large", endpoint=hub.url)


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        (401, errors.Unauthorized, "401"),
        (403, errors.GatedRepository, "gated"),
        (404, errors.RepositoryNotFound, "no such repository"),
        (429, errors.NetworkUnavailable, "429"),
        (503, errors.NetworkUnavailable, "503"),
    ],
)
@pytest.mark.parametrize("name", ["toy-net", f"hf://{REPO}"])
def test_refusals(
    hub: LoopbackHub, folder: Path, tmp_path: Path, kind: int, error: type[Exception], message: str, name: str
) -> None:
    publish(hub, folder, tmp_path)
    fault = hub.fault(kind, REPO)
    with pytest.raises(error, match=message):
        zoo.load(name, endpoint=hub.url)
    fault.times = 0
    assert zoo.load(name, endpoint=hub.url)


def test_busy_server_is_asked_again(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    publish(hub, folder, tmp_path)
    hub.fault(429, "resolve", method="HEAD", times=1)
    assert zoo.load("toy-net", endpoint=hub.url).report.pinned


def test_stalled_server(hub: LoopbackHub, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.1)
    publish(hub, folder, tmp_path)
    fault = hub.fault("stall", "/lfs/", seconds=0.4)
    with pytest.raises(errors.NetworkUnavailable):
        zoo.load("toy-net", endpoint=hub.url)
    fault.times = 0
    assert zoo.load("toy-net", endpoint=hub.url).report.pinned


def test_slow_link(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    publish(hub, folder, tmp_path)
    hub.fault("slow", "model.safetensors")
    assert zoo.load("toy-net", endpoint=hub.url).report.pinned


def test_wrong_config_of_the_same_commit(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    files = contents(folder)
    other = contents(zoo.save(toys.trained(7), tmp_path / "other"))
    hub.add(REPO, {**files, "model.safetensors": other["model.safetensors"]})
    with pytest.raises(errors.CorruptFile, match="belong"):
        zoo.load(f"hf://{REPO}", endpoint=hub.url)


def test_remote_verify(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    publish(hub, folder, tmp_path, bundle=True)
    rows = zoo.verify(remote=True, endpoint=hub.url)
    assert [(r.where, r.ok) for r in rows if r.name == "toy-net:small"] == [("bundled", True), ("hub", True)]
    hub.state.repos.clear()
    assert [r.ok for r in zoo.verify("toy-net", remote=True, endpoint=hub.url)] == [True, False]


def test_load_into(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    publish(hub, folder, tmp_path)
    module = toys.ToyNet(num_classes=5).train()
    report = load_into(module, f"hf://{REPO}", endpoint=hub.url)
    assert report.reinitialised == ["head.weight", "head.bias"]
    assert module.training
    assert module.parent == report.name


@pytest.mark.parametrize(
    ("number", "error"), [(errno.ENOSPC, errors.DiskFull), (errno.EROFS, errors.NotWritable)], ids=["full", "read-only"]
)
def test_disk(
    hub: LoopbackHub,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    error: type[Exception],
) -> None:
    from huggingface_hub import file_download

    publish(hub, folder, tmp_path)

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(file_download, "http_get", refuse)
        with pytest.raises(error, match="HF_HOME"):
            zoo.load("toy-net", endpoint=hub.url)
    assert zoo.load("toy-net", endpoint=hub.url).report.pinned


def test_two_threads_at_once(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    publish(hub, folder, tmp_path)
    hub.fault("slow", "model.safetensors")
    loaded: list[Any] = []
    threads = [threading.Thread(target=lambda: loaded.append(zoo.load("toy-net", endpoint=hub.url))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loaded) == 2
    assert all(same(m, toys.trained()) for m in loaded)


def _load_in_child(url: str, queue: Any) -> None:
    module = zoo.load("toy-net", endpoint=url)
    queue.put(float(module.state_dict()["body.weight"].sum()))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_two_processes_at_once(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    publish(hub, folder, tmp_path)
    hub.fault("slow", "model.safetensors")
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    children = [context.Process(target=_load_in_child, args=(hub.url, queue)) for _ in range(2)]
    for child in children:
        child.start()
    sums = [queue.get(timeout=30) for _ in children]
    for child in children:
        child.join(30)
    assert sums == [float(toys.trained().state_dict()["body.weight"].sum())] * 2


def test_a_cache_without_symbolic_links(
    hub: LoopbackHub, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows, on a stick, or in an image: copies stand where links to blobs named by their hash would."""
    from huggingface_hub import constants

    hub.add(REPO, contents(folder))
    zoo.load(f"hf://{REPO}", endpoint=hub.url)
    snapshots = [p for p in Path(constants.HF_HUB_CACHE).rglob("*") if p.is_symlink()]
    assert snapshots
    for path in snapshots:
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data)
    for _ in range(2):
        assert same(zoo.load(f"hf://{REPO}", endpoint=hub.url), toys.trained())
    assert same(zoo.load(f"hf://{REPO}", endpoint=hub.url, offline=True), toys.trained())
    (model,) = [path for path in snapshots if path.name == "model.safetensors"]
    model.write_bytes(model.read_bytes()[:-1] + b"x")
    with pytest.raises(errors.CorruptFile, match="was changed or damaged"):
        zoo.load(f"hf://{REPO}", endpoint=hub.url, offline=True)


@pytest.mark.parametrize("address", ["hf://owner/_name", "hf://_owner/name_", "hf://o/n.a-m_e"])
def test_addresses_that_the_hub_allows(address: str) -> None:
    from zoo.store.hub import parse_address

    assert parse_address(address) == (address.removeprefix("hf://"), None)
    for wrong in ("hf://owner/-name", "hf://owner/.name", "hf://owner/na--me", "hf://owner/name."):
        with pytest.raises(errors.BadInput):
            parse_address(wrong)
