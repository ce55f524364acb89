"""What the licences of weights allow, and one line about those that restrict their use."""

from __future__ import annotations

import logging
import re

from zoo.text import printable

__all__ = ["forget", "is_permissive", "notice"]

_log = logging.getLogger("zoo")
_told: set[str] = set()

# Licences that allow any use, with attribution at most. Anything else, or none, gets the notice.
_PERMISSIVE = {
    "0bsd", "afl-3.0", "apache-2.0", "artistic-2.0", "blueoak-1.0.0", "bsd-2-clause", "bsd-3-clause", "bsl-1.0",
    "cc-by-2.0", "cc-by-3.0", "cc-by-4.0", "cc0-1.0", "cdla-permissive-2.0", "expat", "isc", "mit", "mit-0", "ms-pl",
    "odc-by", "ofl-1.1", "pddl", "public domain", "python-2.0", "unlicense", "wtfpl", "zlib",
}  # fmt: skip


def is_permissive(licence: str | None) -> bool:
    """Whether a licence allows any use, attribution aside. Several joined by "and", "," or "+" must all do so."""
    text = re.sub(r"\([^)]*\)", " ", (licence or "").lower())
    parts = [part.strip() for part in re.split(r",|;|\+|&|\band\b", text) if part.strip()]
    return bool(parts) and all(part.removesuffix(" license").strip() in _PERMISSIVE for part in parts)


def notice(name: str, licence: str | None, data: str | None = None) -> None:
    """Say once per process which licence restricts weights; a log line, because nothing is wrong.

    Args:
        name: of the weights, as the user gave it.
        licence: of the weights; None or empty: not stated.
        data: licence of the data they were trained on.
    """
    if is_permissive(licence) or name in _told:
        return
    _told.add(name)
    stated = f"have the licence {licence}" if licence else "come without a licence"
    also = f" (trained on data under {data})" if data else ""
    message = printable(f"The weights of {name} {stated}{also}: check that it allows what you do with them.")
    _log.warning("%s", message)


def forget() -> None:
    """Tell everything once more."""
    _told.clear()
