"""Operations of the fault matrix in processes of their own, and small disks to fill."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_server import LoopbackHub
from toys import hub as toys

import zoo
from zoo import index

OWNER = "token-of-owner"
REPO = "owner/toy"
FORK = "fork" in multiprocessing.get_all_start_methods()

INDEX = """\
# kept by publish
toy-net:
  model: toys.hub:ToyNet
  data: toys.hub:ToyData
  task: image-classification
  summary: A toy.
  paper: {{title: On Toys, year: 2020}}
  licence: Apache-2.0
  default: small
  weights:
    small:
      init: {{width: {width}, num_classes: 3, class_names: [a, b, c]}}
      file: toy-net-small.safetensors
      sha256: "{sha256}"
      bytes: {bytes}
      params: 50
      hub: {{repo: null, revision: null}}  # by publish
      licence: Apache-2.0
      trained_on: {{data: nothing, licence: CC0-1.0}}
"""


class Scene:
    """A toy with weights of some size, saved, on the Hub and in an index file."""

    def __init__(self, tmp_path: Path, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, width: int = 4) -> None:
        self.hub, self.path, self.width = hub, tmp_path, width
        zoo.register(toys.entry())
        self.module = toys.trained(width=width)
        self.folder = zoo.save(self.module, tmp_path / "saved")
        self.files = {p.name: p.read_bytes() for p in self.folder.iterdir()}
        self.model = self.files["model.safetensors"]
        self.monkeypatch = monkeypatch

    def on_hub(self) -> str:
        """Pin the toy at a commit of the Hub; nothing is bundled."""
        commit = self.hub.add(REPO, self.files)
        about = toys.published(REPO, commit, sha256(self.model).hexdigest(), len(self.model))
        about = toys.dataclasses.replace(about, init={**about.init, "width": self.width})
        zoo.register(toys.with_weights(toys.entry(self.path / "index.yaml"), about), replace=True)
        return commit

    def in_checkout(self) -> Path:
        """An index file with the bundled toy, ready to be published."""
        place = self.path / "checkout"
        (place / "bundled").mkdir(parents=True)
        (place / "bundled" / "toy-net-small.safetensors").write_bytes(self.model)
        path = place / "checkpoints.yaml"
        path.write_text(
            INDEX.format(width=self.width, sha256=sha256(self.model).hexdigest(), bytes=len(self.model)),
            encoding="utf-8",
        )
        self.monkeypatch.setattr(index, "_registered", {})
        self.monkeypatch.setattr(index, "index_path", lambda: path)
        self.monkeypatch.setattr(index, "_beside", lambda entry: place)
        self.monkeypatch.setattr(index, "_cache", None)
        return path

    def right(self, module: torch.nn.Module) -> bool:
        """Whether a module holds exactly the toy's weights."""
        ours, theirs = self.module.state_dict(), module.state_dict()
        return all(torch.equal(v, theirs[k]) for k, v in ours.items() if not k.startswith("teacher"))


def in_child(run: Callable[[], Any]) -> Any:
    """Start a function in a forked process; its Hub client has no connections of ours."""
    context = multiprocessing.get_context("fork")

    def quiet() -> None:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        # Asking for a GPU in the parent counts as having started CUDA, after which Lightning forks no ranks from a
        # forked process. These tests use none.
        torch.cuda._is_in_bad_fork = lambda: False
        run()

    process = context.Process(target=quiet)
    process.start()
    return process


def no_foreign_bytes(folder: Path, good: set[str]) -> bool:
    """Whether every finished file below a Hub cache is one of the good ones."""
    blobs = [p for p in folder.rglob("blobs/*") if p.is_file() and not p.name.endswith((".incomplete", ".lock"))]
    return all(sha256(p.read_bytes()).hexdigest() in good for p in blobs)


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[Callable[[str], None]]:
    """A folder with little room; yields a function that remounts it: "size=16m", "ro" or "rw".

    A file system of its own where mounting is allowed. Elsewhere a limit on the size of files stands for the full disk
    (the system then refuses a write in the middle, as a full disk does), and folder modes for the read-only one.
    """
    place.mkdir(parents=True, exist_ok=True)
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    may = shutil.which("mount") is not None and not os.environ.get("ZOO_TEST_NO_MOUNT")
    if may and subprocess.run(words, check=False, capture_output=True).returncode == 0:
        try:
            yield lambda options: subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True) and None
        finally:
            subprocess.run(["umount", "-l", str(place)], check=False)
    else:
        with _limited(place, size) as change:
            yield change


@contextmanager
def _limited(place: Path, size: str) -> Iterator[Callable[[str], None]]:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def change(options: str) -> None:
        if options in ("ro", "rw"):
            if os.geteuid() == 0:
                pytest.skip("mounting is not allowed here, and modes do not hold root back")
            for folder in [place, *(p for p in place.rglob("*") if p.is_dir())]:
                folder.chmod(0o555 if options == "ro" else 0o755)
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    resource.setrlimit(resource.RLIMIT_FSIZE, (int(size[:-1]) << {"k": 10, "m": 20}[size[-1]], before[1]))
    try:
        yield change
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
