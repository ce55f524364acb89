"""`python -m zoo` is the command `zoo`."""

from __future__ import annotations

from zoo.cli import console

if __name__ == "__main__":
    console()
