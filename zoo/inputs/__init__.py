"""From what users hand over (images, series, tracks) to arrays."""

from __future__ import annotations

__all__ = ["UnreadableError", "swollen"]

_FLOOR = 64 << 20
_FACTOR = 32


def swollen(size: int) -> int:
    """Bytes that a compressed file of `size` bytes may hold: far more than data do, far less than a bomb."""
    return max(_FLOOR, _FACTOR * size)


class UnreadableError(Exception):
    """A file that cannot be used; the caller, who knows what it was for, turns it into an error for users.

    Attributes:
        expected: what it should have been.
        got: what it is.
    """

    def __init__(self, expected: str, got: str) -> None:
        super().__init__(f"expected {expected}, got {got}")
        self.expected, self.got = expected, got
