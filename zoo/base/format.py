"""The version of what a `.ckpt` and a `config.json` hold, stated once for those who write and those who read."""

from __future__ import annotations

from typing import Any

from zoo.errors import FormatTooNew

__all__ = ["FORMAT", "check_format"]

FORMAT = 1


def check_format(version: Any, where: object) -> None:
    """Refuse a file of a later format; anything else than a number is for the file's own checks.

    Raises:
        FormatTooNew: if a newer zoo wrote it.
    """
    if isinstance(version, int) and version > FORMAT:
        raise FormatTooNew(
            f"{where}: written in format {version}, this zoo reads up to {FORMAT}. Update: "
            "pip install -U lightning-method-zoo"
        )
