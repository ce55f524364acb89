"""Formats register a toy; the index is left as it was."""

from __future__ import annotations

import pytest

from zoo import index


@pytest.fixture(autouse=True)
def own_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "_registered", dict(index._registered))
