"""Intervals and verdicts: from raw values of paired runs to holds, opposite or undecided. Plain arithmetic.

With `d_1 ... d_n` the differences between two arms that share a seed, `m` their mean and `s` their standard deviation
(with n - 1), the 95 % interval is `m +- t s / sqrt(n)`, where `t` is the 97.5 % quantile of Student's distribution with
n - 1 degrees of freedom. A claim **holds** if the whole interval lies on the promised side of its threshold, is
**opposite** if the whole interval lies on the other side, and is **undecided** otherwise.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["EXPECTATIONS", "Interval", "decide", "interval", "student"]

EXPECTATIONS = {
    "higher": "above the baseline (by more than the margin)",
    "lower": "below the baseline (by more than the margin)",
    "not-worse": "not worse than the baseline by the margin or more",
    "within": "no further from the baseline than the margin",
    "at-least": "at least the given value",
    "at-most": "at most the given value",
}


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval.

    Attributes:
        n: number of values; 0 for an exact quantity, which has no spread.
        mean: their mean.
        low: lower end; None if one value alone gives no interval.
        high: upper end, likewise.
    """

    n: int
    mean: float
    low: float | None
    high: float | None


def student(df: int, coverage: float = 0.95) -> float:
    """The t with P(|T| <= t) = coverage for Student's distribution with a whole number of degrees of freedom.

    Args:
        df: degrees of freedom, at least 1.
        coverage: above 0, below 1.
    """
    low, high = 0.0, 1.0
    while _central(high, df) < coverage:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if _central(middle, df) < coverage else (low, middle)
    return (low + high) / 2


def _central(t: float, df: int) -> float:
    """P(|T| <= t) by the finite sums for whole degrees of freedom (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(df))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = df % 2
    if df == 1:
        return 2 * angle / math.pi
    term = total = cosine if odd else 1.0
    for k in range(2 if not odd else 3, df - 1, 2):
        term *= cosine**2 * (k - 1) / k
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def interval(values: Sequence[float], *, exact: bool = False) -> Interval:
    """Mean and 95 % Student interval of values.

    Args:
        values: at least one.
        exact: they are no sample: equations, or a computation without chance.
    """
    mean = statistics.fmean(values)
    if exact:
        return Interval(0, mean, mean, mean)
    n = len(values)
    if n < 2:
        return Interval(n, mean, None, None)
    half = student(n - 1) * statistics.stdev(values) / math.sqrt(n)
    return Interval(n, mean, mean - half, mean + half)


def decide(found: Interval, expect: str, margin: float = 0.0, *, larger_is_better: bool = True) -> str:
    """`holds`, `opposite` or `undecided`.

    Args:
        found: of a difference, or for `at-least` and `at-most` of a quantity from which the bound was subtracted.
        expect: a key of `EXPECTATIONS`.
        margin: how much more is promised (`higher`, `lower`) or allowed (all others).
        larger_is_better: what `not-worse` means.
    """
    low, high = found.low, found.high
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return "undecided"
    if expect == "lower" or expect == "at-most" or (expect == "not-worse" and not larger_is_better):
        low, high = -high, -low
    if expect in ("higher", "lower"):
        return _side(low > margin, high < margin)
    if expect == "not-worse":
        return _side(low > -margin, high <= -margin)
    if expect == "within":
        return _side(-margin <= low and high <= margin, low > margin or high < -margin)
    return _side(low >= -margin, high < -margin)


def _side(holds: bool, opposite: bool) -> str:
    return "holds" if holds else "opposite" if opposite else "undecided"
