"""Processor seconds per entry, in units that do not depend on the machine, printed at the end of the run."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest

BUDGET = 20.0
"""Seconds that one entry may take in the default run, all its checks together, without imports and tracing."""

TOYS = 11.2
"""Processor seconds of all toys together on the machine whose seconds these are: two cores of an AMD EPYC (Zen 4).

The toys go through the same checks as every entry, in the same run and under the same load. So what they take here
tells how fast this machine is at just this work, and a budget in their units means the same everywhere.
"""

TOLERANCE = 1.25
"""The run fails above so many budgets: two readings of the same code on the same machine differed by a quarter."""

PARTS = ("method", "weights", "export")
"""What counts for the budget, what grows with the number of checkpoints and recipes, and tracing."""


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

    def speed(self) -> float | None:
        """Seconds of the reference machine per second of this one; None where not all toys were checked."""
        from toys import TOYS as ENTRIES

        spent = [self.seconds[toy.id]["method"] for toy in ENTRIES if toy.id in self.seconds]
        return TOYS / sum(spent) if len(spent) == len(ENTRIES) and all(spent) else None

    def too_slow(self) -> list[str]:
        """Entries beyond the tolerance; none where the speed is not known, as in a run of some tests only."""
        speed = self.speed() or 0.0
        return [name for name, parts in self.seconds.items() if parts["method"] * speed > TOLERANCE * BUDGET]

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.too_slow() and session.exitstatus == 0:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if not self.seconds:
            return
        speed = self.speed()
        unit = f"; times {speed:.2f}, this machine's speed" if speed else "; not judged without all toys"
        terminalreporter.section(
            f"conformance: seconds per entry, at most {BUDGET:.0f} (its weights and recipes, exporting){unit}"
        )
        slow = self.too_slow()
        for name, parts in sorted(self.seconds.items(), key=lambda pair: -pair[1]["method"]):
            method, weights, export = (parts[part] * (speed or 1.0) for part in PARTS)
            late = "   TOO SLOW: make its `tiny` smaller" if name in slow else ""
            late = late or ("   over budget, within the tolerance" if speed and method > BUDGET else "")
            terminalreporter.write_line(f"{method:6.1f} ({weights:5.1f}, {export:5.1f})  {name}{late}")
