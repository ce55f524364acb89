"""What the pages register stays in the test that runs them."""

from __future__ import annotations

import pytest

from zoo.federated.rules.base import RULES


@pytest.fixture(autouse=True)
def rules_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.federated.rules.base.RULES", RULES.copy())
