"""What every test gets: no network by accident, caches of its own, and the toys in the index."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

for key, value in {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_ETAG_TIMEOUT": "1",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}.items():
    os.environ.setdefault(key, value)


@pytest.fixture(scope="session", autouse=True)
def own_caches(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Rendered data and Hub files go to folders of this run; workers of one run share them."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    os.environ["ZOO_CACHE"] = str(shared / "zoo-cache")
    os.environ["HF_HOME"] = str(shared / "hf-home")


@pytest.fixture(scope="session", autouse=True)
def forks_may_train() -> None:
    """The first backward pass comes before any export: exports register devices, for which autograd starts threads.

    A process with such threads cannot fork ranks that train, so results would depend on the order of the tests.
    """
    import torch

    torch.ones((), requires_grad=True).backward()


@pytest.fixture(scope="session")
def checkout() -> Path:
    """Root folder of the repository."""
    return Path(__file__).parents[1]


def pytest_configure(config: pytest.Config) -> None:
    """Register the account here: a conftest below is only loaded once collection has begun."""
    pytest.register_assert_rewrite("federated.rule_contract")
    from conformance.account import Account

    config.pluginmanager.register(Account(), "zoo-account")
