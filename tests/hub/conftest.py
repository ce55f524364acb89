"""Fixtures of the Hub tests: the loopback server, and a client that has never seen anything and gives up at once."""

from __future__ import annotations

import os
import sys
import tempfile
import time
import types
from collections.abc import Iterator
from pathlib import Path

# the client reads these when it is imported
_HOME = tempfile.mkdtemp(prefix="zoo-hub-tests-")
os.environ.update(
    HF_HUB_DISABLE_XET="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    HF_HUB_ETAG_TIMEOUT="1",
    HF_HUB_DOWNLOAD_TIMEOUT="1",
)
os.environ.setdefault("HF_HOME", _HOME)
sys.path.insert(0, str(Path(__file__).parent))

import pytest  # noqa: E402
from hub_server import LoopbackHub  # noqa: E402

from zoo import index  # noqa: E402


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty Hub cache, no token, no patience."""
    from huggingface_hub import close_session, constants, file_download
    from huggingface_hub.utils import _http

    folder = tmp_path / "hf"
    monkeypatch.setenv("HF_HOME", str(folder))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(folder / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    for name in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):
        monkeypatch.setattr(constants, name, 1)
    # its retries wait up to 8 s each
    clock = types.SimpleNamespace(**{k: getattr(time, k) for k in dir(time) if not k.startswith("_")})
    clock.sleep = lambda seconds: None
    for module in (_http, file_download):
        if hasattr(module, "time"):
            monkeypatch.setattr(module, "time", clock)
    yield folder
    close_session()


@pytest.fixture
def hub(home: Path) -> Iterator[LoopbackHub]:
    server = LoopbackHub()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def own_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    monkeypatch.setattr(index, "_registered", {})
