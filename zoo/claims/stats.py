"""Intervals, verdicts and error levels: from values of paired runs to holds, opposite or undecided. Plain arithmetic.

With `d_1 ... d_n` the differences between two arms that share a seed, `m` their mean and `s` their standard deviation
(with n - 1), the interval is `m +- t s / sqrt(n)`, where `t` is the `1 - a/2` quantile of Student's distribution with
n - 1 degrees of freedom and `a` the error level, 5 % for one look. A claim **holds** if the whole interval lies on the
promised side of its threshold, is **opposite** if the whole interval lies on the other side, and is **undecided**
otherwise.

*Looks.* Seeds may be added until the interval decides, at `K` looks that are fixed beforehand. Each look has
`a = 5 % / K`. Whatever the looks have in common, the chance that any of them errs is at most the sum of theirs
(Bonferroni), so all looks together err in at most 5 %.

*Several claims.* The p-value of a verdict is the smallest level at which the interval would still give it, times the
number of looks; Holm's procedure says which verdicts of a card stand at 5 % for all of them together.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

__all__ = ["ALPHA", "EXPECTATIONS", "LOOKS", "Interval", "coverage_of", "decide", "holm", "interval", "looks_up_to"]
__all__ += ["p_value", "student"]

ALPHA = 0.05
"""Chance of a wrong verdict that a claim may have, over all of its looks."""

LOOKS = (3, 6, 12, 20)
"""Numbers of seeds after which a claim that adds seeds is judged."""

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
    """A mean with its interval.

    Attributes:
        n: number of values; 0 for an exact quantity, which has no spread.
        mean: their mean.
        low: lower end; None if one value alone gives no interval.
        high: upper end; None like the lower one.
        error: standard error of the mean, `s / sqrt(n)`; 0 for an exact quantity.
    """

    n: int
    mean: float
    low: float | None
    high: float | None
    error: float = 0.0

    @property
    def half_width(self) -> float | None:
        """How far the mean must lie beyond a threshold to decide: the smallest effect these runs could have seen."""
        return None if self.high is None or self.low is None else (self.high - self.low) / 2


def looks_up_to(seeds: int) -> tuple[int, ...]:
    """Numbers of seeds at the looks of a claim that may use at most so many: 3, 6, 12, 20, the last one capped.

    Args:
        seeds: from 2 to the last look.
    """
    return (*(look for look in LOOKS if look < seeds), seeds)


def coverage_of(looks: int) -> float:
    """Coverage of the interval at each of so many looks: `1 - 5 % / looks`."""
    return 1 - ALPHA / looks


@lru_cache(maxsize=1024)
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


def interval(values: Sequence[float], *, exact: bool = False, coverage: float = 0.95) -> Interval:
    """Mean and Student interval of values.

    Args:
        values: at least one.
        exact: they are no sample: equations, or a computation without chance.
        coverage: of the interval.
    """
    mean = statistics.fmean(values)
    if exact:
        return Interval(0, mean, mean, mean)
    n = len(values)
    if n < 2:
        return Interval(n, mean, None, None)
    spread = statistics.stdev(values)
    half = student(n - 1, coverage) * spread / math.sqrt(n)
    return Interval(n, mean, mean - half, mean + half, spread / math.sqrt(n))


def decide(observed: Interval, expect: str, margin: float = 0.0, *, larger_is_better: bool = True) -> str:
    """`holds`, `opposite` or `undecided`.

    Args:
        observed: of a difference, or for `at-least` and `at-most` of a quantity from which the bound was subtracted.
        expect: a key of `EXPECTATIONS`.
        margin: how much more is promised (`higher`, `lower`) or allowed (all others).
        larger_is_better: what `not-worse` means.
    """
    low, high = observed.low, observed.high
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


def p_value(
    observed: Interval, verdict: str, expect: str, margin: float = 0.0, *, larger_is_better: bool = True
) -> float:
    """The smallest error level at which the interval around this mean would still give this verdict.

    At most 5 % exactly where `decide` gives that verdict from a 95 % interval. For `higher` without a margin it is the
    two-sided p-value of Student's paired test; for `within` and `holds` twice the larger of two one-sided ones.

    Args:
        observed: of at least two values.
        verdict: holds or opposite.
        expect: as for `decide`.
        margin: as for `decide`.
        larger_is_better: as for `decide`.
    """

    def gives(half: float) -> bool:
        around = Interval(observed.n, observed.mean, observed.mean - half, observed.mean + half)
        return decide(around, expect, margin, larger_is_better=larger_is_better) == verdict

    if not math.isfinite(observed.mean) or not math.isfinite(observed.error) or not gives(0.0):
        return 1.0
    if observed.error == 0:
        return 0.0
    low, high = 0.0, 2 * (abs(observed.mean) + margin)  # no threshold is further away than that
    for _ in range(60):  # to the last digit
        middle = (low + high) / 2
        low, high = (middle, high) if gives(middle) else (low, middle)
    return 1 - _central(low / observed.error, observed.n - 1)


def holm(levels: Mapping[str, float]) -> dict[str, float]:
    """Holm's adjusted p-values: a verdict stands among all the others where its own is at most 5 %.

    The smallest of m is multiplied by m, the next one by m - 1 and so on, and none is below an earlier one. Right
    however the claims depend on each other, so claims may share runs.

    Args:
        levels: claim -> p-value.
    """
    adjusted: dict[str, float] = {}
    worst = 0.0
    for place, (name, level) in enumerate(sorted(levels.items(), key=lambda item: item[1])):
        worst = max(worst, min(1.0, (len(levels) - place) * level))
        adjusted[name] = worst
    return adjusted
