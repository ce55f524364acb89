"""A reader's own measurement beside the published one: which numbers are equal, within the spread, or apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["RELATIONS", "relation", "side_by_side"]

RELATIONS = ("equal", "intervals overlap", "intervals apart", "differs", "not published")
"""What a measured quantity may be to the published one. `differs` is said of exact quantities, which have no spread."""


def relation(published: Mapping[str, Any] | None, fresh: Mapping[str, Any]) -> str:
    """Compare one quantity of a claim, as results.json holds it.

    Args:
        published: of the same name; None if there is none.
        fresh: measured here.

    Returns:
        One of `RELATIONS`; `equal` if every seed measured here has the published value to the last stored digit.
    """
    if published is None:
        return "not published"
    theirs = published["differences"]
    if fresh["differences"] and all(theirs.get(seed) == value for seed, value in fresh["differences"].items()):
        return "equal"
    if fresh["n"] == 0:
        return "differs"
    (low, high), (other_low, other_high) = _ends(fresh), _ends(published)
    return "intervals overlap" if low <= other_high and other_low <= high else "intervals apart"


def _ends(about: Mapping[str, Any]) -> tuple[float, float]:
    """Ends of the interval; the value itself where one seed alone gives none."""
    if about["low"] is None or about["high"] is None:
        return float(about["mean"]), float(about["mean"])
    return float(about["low"]), float(about["high"])


def side_by_side(
    published: Mapping[str, Any] | None, fresh: Mapping[str, Any]
) -> list[tuple[dict[str, Any], dict[str, Any] | None, str]]:
    """Every quantity of a claim: as measured here, as published if it was, and how the two relate.

    Args:
        published: the claim in the published results; None if it is not there.
        fresh: the claim by the runs made here.
    """
    known = {c["against"]: c for c in (published or {}).get("comparisons", [])}
    return [(c, known.get(c["against"]), relation(known.get(c["against"]), c)) for c in fresh["comparisons"]]
