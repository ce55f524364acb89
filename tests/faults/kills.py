"""Kill every long command at random moments, and count what that does.

    python tests/faults/kills.py            sixteen kills of each command; writes kills.json and docs/reliability.md

The counts are those of tests/faults/test_kill.py and test_kill_commands.py in their full mode.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FILES = ("test_kill.py", "test_kill_commands.py")
KINDS = ("lost", "orphans", "locks")


class Recorder:
    """Collects what the tests have counted."""

    def __init__(self) -> None:
        self.counts: dict[str, dict[str, Any]] = {}
        self.broken: list[str] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Take the counts of a test, which has them whether it passed or not."""
        counts = dict(report.user_properties).get("kills")
        if counts is not None and report.when == "call":
            self.counts[counts["command"]] = {key: counts[key] for key in ("tries", "killed", *KINDS)}
        if report.failed and (counts is None or not any(counts[kind] for kind in KINDS)):
            self.broken.append(report.nodeid)


def main() -> int:
    """See the module; 1 if anything was lost or left behind."""
    import matrix
    import pytest

    recorder = Recorder()
    words = ["-q", "-m", "slow or not slow", "-k", "test_killed and full", *(str(HERE / name) for name in FILES)]
    pytest.main(words, plugins=[recorder])
    matrix.KILLS.write_text(json.dumps(dict(sorted(recorder.counts.items())), indent=1) + "\n", encoding="utf-8")
    matrix.write_page()
    print(matrix.kills_table(recorder.counts), *recorder.broken, sep="\n")
    return 1 if recorder.broken or any(c[kind] for c in recorder.counts.values() for kind in KINDS) else 0


if __name__ == "__main__":
    sys.exit(main())
