"""Full and read-only disks, real ones where mounting is allowed, and machines without a home."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from fault_tools import OWNER, REPO, Scene, small_disk
from hub_server import LoopbackHub
from toys import hub as toys

import zoo
from zoo import errors

WIDE = 20_000  # half a megabyte of weights


@pytest.fixture
def scene(tmp_path: Path, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(tmp_path, hub, monkeypatch, width=WIDE)


def use_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))


@pytest.mark.parametrize("name", ["toy-net", f"hf://{REPO}"])
@pytest.mark.filterwarnings("ignore:.*[Nn]ot enough free disk space")
def test_load_on_a_full_disk(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    scene.on_hub()
    with small_disk(tmp_path / "disk", "256k") as remount:
        use_cache(tmp_path / "disk", monkeypatch)
        with pytest.raises(errors.DiskFull, match="HF_HOME"):
            zoo.load(name, endpoint=scene.hub.url)
        remount("size=16m")
        assert scene.right(zoo.load(name, endpoint=scene.hub.url))


@pytest.mark.filterwarnings("ignore:.*[Nn]ot enough free disk space")
def test_pull_on_a_full_disk(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.on_hub()
    with small_disk(tmp_path / "disk", "256k") as remount:
        use_cache(tmp_path / "disk", monkeypatch)
        with pytest.raises(errors.DiskFull):
            zoo.pull("toy-net", endpoint=scene.hub.url)
        remount("size=16m")
        assert zoo.pull("toy-net", endpoint=scene.hub.url).read_bytes() == scene.model


def test_save_on_a_full_disk(scene: Scene, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "256k") as remount:
        with pytest.raises(errors.DiskFull):
            zoo.save(scene.module, tmp_path / "disk" / "mine")
        assert list((tmp_path / "disk").iterdir()) == []
        remount("size=16m")
        assert scene.right(zoo.load(zoo.save(scene.module, tmp_path / "disk" / "mine")))


def test_push_on_a_full_disk(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with small_disk(tmp_path / "disk", "256k") as remount:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "disk"))
        with pytest.raises(errors.DiskFull):
            zoo.push(scene.module, "owner/mine", endpoint=scene.hub.url, token=OWNER)
        assert "owner/mine" not in scene.hub.state.repos
        remount("size=16m")
        zoo.push(scene.module, "owner/mine", endpoint=scene.hub.url, token=OWNER)
    assert scene.right(zoo.load("hf://owner/mine", endpoint=scene.hub.url, token=OWNER))


def test_publish_on_a_full_disk(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = scene.in_checkout()
    text = path.read_text()
    with small_disk(tmp_path / "disk", "256k") as remount:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "disk"))
        rows = zoo.publish(namespace="owner", endpoint=scene.hub.url, token=OWNER)
        assert not rows[0].ok
        assert "No room left" in rows[0].why
        assert path.read_text() == text
        remount("size=16m")
        rows = zoo.publish(namespace="owner", endpoint=scene.hub.url, token=OWNER)
        assert rows[0].ok, rows


def test_index_on_a_full_disk_keeps_its_text(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new text is written beside the old one: a full disk must not empty the index."""
    path = scene.in_checkout()
    text = path.read_text()

    def refuse(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        rows = zoo.publish(namespace="owner", endpoint=scene.hub.url, token=OWNER)
    assert "No room left" in rows[0].why
    assert path.read_text() == text
    assert zoo.publish(namespace="owner", endpoint=scene.hub.url, token=OWNER)[0].ok


@pytest.mark.parametrize("name", ["toy-net", f"hf://{REPO}"])
def test_read_only_cache(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """What is there loads; what is not there says that the cache cannot be written."""
    commit = scene.on_hub()
    with small_disk(tmp_path / "disk", "16m") as remount:
        use_cache(tmp_path / "disk", monkeypatch)
        remount("ro")
        with pytest.raises(errors.NotWritable, match="HF_HOME"):
            zoo.load(name, endpoint=scene.hub.url)
        remount("rw")
        zoo.load(name, endpoint=scene.hub.url)
        remount("ro")
        name = name if name == "toy-net" else f"{name}@{commit}"
        scene.hub.requests.clear()
        assert scene.right(zoo.load(name, endpoint=scene.hub.url))
        assert not scene.hub.requests


def test_read_only_targets(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = scene.in_checkout()
    with small_disk(tmp_path / "disk", "16m") as remount:
        remount("ro")
        with pytest.raises(errors.NotWritable):
            zoo.save(scene.module, tmp_path / "disk" / "mine")
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "disk"))
        with pytest.raises(errors.NotWritable):
            zoo.push(scene.module, "owner/mine", endpoint=scene.hub.url, token=OWNER)
        rows = zoo.publish(namespace="owner", endpoint=scene.hub.url, token=OWNER)
        assert not rows[0].ok
        assert "Cannot write" in rows[0].why
    assert path.read_text().count("repo: null") == 1


@pytest.mark.parametrize("name", ["toy-net", f"hf://{REPO}"])
def test_no_home(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The cache would lie below a file: nobody, not even root, can make it."""
    scene.on_hub()
    (tmp_path / "file").write_text("")
    use_cache(tmp_path / "file" / "home", monkeypatch)
    with pytest.raises(errors.NotWritable, match="HF_HOME"):
        zoo.load(name, endpoint=scene.hub.url)


@pytest.mark.slow
def test_no_home_in_a_process_of_its_own(tmp_path: Path) -> None:
    """Bundled and saved weights, listing and the embedded data need no home directory at all."""
    (tmp_path / "file").write_text("")
    code = (
        "import sys, zoo; sys.path.insert(0, sys.argv[1]); from toys import hub as toys; zoo.register(toys.entry());"
        "folder = zoo.save(toys.trained(), sys.argv[2]); zoo.load(folder); print(zoo.list_models())"
    )
    home = str(tmp_path / "file" / "home")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "ZOO_", "XDG_", "PYTEST"))}
    words = [sys.executable, "-c", code, str(Path(__file__).parents[1]), str(tmp_path / "saved")]
    done = subprocess.run(
        words,
        env={**kept, "HOME": home, "PYTHONPATH": str(Path(__file__).parents[2])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o027])
def test_saved_folders_have_the_users_permissions(tmp_path: Path, mask: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process's own mask is not touched: another thread may be writing a file that must stay private."""
    before = os.umask(mask)
    change = os.umask
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("the mask was changed"))
    try:
        zoo.register(toys.entry(), replace=True)
        folder = zoo.save(toys.trained(), tmp_path / "saved")
    finally:
        change(before)
    assert folder.stat().st_mode & 0o777 == 0o777 & ~mask
    assert (folder / "config.json").stat().st_mode & 0o777 == 0o666 & ~mask
    assert [p.name for p in tmp_path.iterdir()] == ["saved"]
