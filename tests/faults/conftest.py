"""The fault tests use the loopback Hub of tests/hub."""

from __future__ import annotations

import sys
from pathlib import Path

for _folder in (Path(__file__).parent, Path(__file__).parents[1] / "hub"):
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))

from hub.conftest import home, hub, own_index  # noqa: E402, F401
