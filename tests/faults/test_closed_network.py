"""Without any network, not even a name lookup: every bundled checkpoint loads, predicts, fine-tunes and tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_packaging import installed, wheel  # noqa: F401

SCRIPT = Path(__file__).with_name("closed_network.py")
ROOT = Path(__file__).parents[2]


def run(tmp_path: Path, tree: Path) -> list[str]:
    """Lines of the script, with zoo and datamodules from one folder; no cache, no token, nothing said to be offline."""
    dropped = ("HF_", "ZOO_", "PYTEST", "PYTHON", "HUGGING")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
    own = {"PYTHONPATH": str(tree), "HF_HOME": str(tmp_path / "hf"), "ZOO_CACHE": str(tmp_path / "zoo")}
    words = [sys.executable, str(SCRIPT), str(tmp_path)]
    done = subprocess.run(
        words, env={**kept, **own, "OMP_NUM_THREADS": "1"}, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    return done.stdout.splitlines()


@pytest.mark.slow
def test_checkout(tmp_path: Path) -> None:
    from zoo.index import entries

    lines = run(tmp_path, ROOT)
    assert {line.split()[0].partition(":")[0] for line in lines} >= {
        e.id for e in entries().values() if e.source != "register()"
    }


@pytest.mark.slow
def test_wheel(installed: Path, tmp_path: Path) -> None:  # noqa: F811
    """From the wheel alone, in an empty folder."""
    assert run(tmp_path, installed)


def test_one_without_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The quick twin, in this process: the first bundled checkpoint loads while sockets are forbidden."""
    import socket

    import zoo
    from zoo import index

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError(f"a connection was tried: {args}")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    own = [
        (e, w) for e in index.entries().values() for w in e.weights.values() if e.source != "register()" and w.sha256
    ]
    assert own, "the index pins no weights"
    entry, weights = own[0]
    assert zoo.load(f"{entry.id}:{weights.tag}").report.pinned
