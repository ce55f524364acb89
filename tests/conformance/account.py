"""Processor seconds per entry, printed at the end of the run."""

from __future__ import annotations

import os
from collections import defaultdict
from typing import Any

import pytest

BUDGET = 20.0
"""Processor seconds that one entry may take in the default run, all its checks together, without imports, tracing."""

TOLERANCE = 3.0
"""The run fails above so many budgets: between machines the same code's processor seconds differ by more than two."""

PARTS = ("method", "weights", "export")
"""What counts for the budget, what grows with the number of checkpoints and recipes, and tracing."""


def overloaded() -> bool:
    """Whether others use this machine so much that processor seconds mean little (two threads share a core)."""
    return hasattr(os, "getloadavg") and os.getloadavg()[0] > 1.5 * (os.cpu_count() or 1)


class Account:
    """Adds up the seconds; lives in the controlling process, to which workers report."""

    def __init__(self) -> None:
        self.seconds: dict[str, dict[str, float]] = defaultdict(lambda: dict.fromkeys(PARTS, 0.0))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            for key, value in report.user_properties:
                if key == "zoo entry":
                    name, part, seconds = value  # type: ignore[misc]
                    self.seconds[name][part] += float(seconds)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        late = any(parts["method"] > TOLERANCE * BUDGET for parts in self.seconds.values())
        if late and session.exitstatus == 0 and not overloaded():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if not self.seconds:
            return
        terminalreporter.section(
            f"conformance: processor seconds per entry, at most {BUDGET:.0f} (its weights and recipes, exporting)"
        )
        for name, parts in sorted(self.seconds.items(), key=lambda pair: -pair[1]["method"]):
            late = "   TOO SLOW: make its `tiny` smaller" if parts["method"] > BUDGET else ""
            late += " (not counted: the machine is busy)" if late and overloaded() else ""
            terminalreporter.write_line(
                f"{parts['method']:6.1f} ({parts['weights']:5.1f}, {parts['export']:5.1f})  {name}{late}"
            )
