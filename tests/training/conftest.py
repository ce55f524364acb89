"""What the tests of training share: an empty folder with the toy method in the index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from toys import cli as cli_toys

from zoo import index


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An empty folder and the toy in the index."""
    monkeypatch.chdir(tmp_path)
    cli_toys.register(tmp_path)
    yield tmp_path
    index._registered.pop("toy-net", None)
