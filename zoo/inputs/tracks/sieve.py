"""What becomes of rows and files that cannot be used: an error that names them, or a count of what was left out."""

from __future__ import annotations

from zoo.errors import BadInput

__all__ = ["COUNTED", "POLICIES", "Sieve"]

POLICIES = ("raise", "skip")

COUNTED = ("unsorted", "duplicates", "too_short", "broken_rows", "broken_files", "empty_files")
"""What reading does to tracks, each a count."""


class Sieve:
    """Notes broken rows and files.

    Args:
        on_error: "raise" names what is broken, "skip" leaves it out and counts it.
    """

    def __init__(self, on_error: str = "raise") -> None:
        self.skip = on_error == "skip"
        self.counts = dict.fromkeys(COUNTED, 0)
        self.problems: list[str] = []

    def rows(self, where: str, expected: str, got: str, count: int = 1) -> None:
        """Note rows that cannot be used.

        Raises:
            BadInput: if they are not to be skipped.
        """
        if not self.skip:
            raise BadInput(f"{where}: expected {expected}, got {got}.")
        self.counts["broken_rows"] += count

    def file(self, problem: str) -> None:
        """Note a file that cannot be used."""
        if self.skip:
            self.counts["broken_files"] += 1
        else:
            self.problems.append(problem)
