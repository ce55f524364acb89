"""What raw runs say about one claim: its comparisons, its premises, at which look it was decided, and how surely."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from zoo.claims.planning import fingerprint, jobs_of, seeds_of
from zoo.claims.schema import Claim, Premise
from zoo.claims.stats import Interval, coverage_of, decide, interval, p_value
from zoo.index import Entry

__all__ = ["Comparison", "Condition", "Judgement", "Look", "judge", "value_of"]

Runs = Mapping[tuple[str, int | None], Mapping[str, Any]]
"""(arm, seed) -> what a run left."""


@dataclass(frozen=True)
class Comparison:
    """One quantity that decides a claim.

    Attributes:
        against: name of the other arm; `value` where the arm is compared with a number, `contrast` for a contrast.
        differences: seed -> value; an exact claim has one under `exact`.
        observed: their mean and interval.
        verdict: holds, opposite or undecided; `premise not met` where nothing was tested.
        bound: what the mean is compared with, beside the margin.
    """

    against: str
    differences: dict[str, float]
    observed: Interval
    verdict: str
    bound: float = 0.0

    @property
    def beyond(self) -> Interval:
        """The interval of what the bound was subtracted from."""
        low, high = (None if end is None else end - self.bound for end in (self.observed.low, self.observed.high))
        return replace(self.observed, mean=self.observed.mean - self.bound, low=low, high=high)

    @property
    def detectable(self) -> float | None:
        """The smallest effect that an undecided comparison could have seen: the half-width of its interval."""
        return self.observed.half_width if self.verdict == "undecided" else None


@dataclass(frozen=True)
class Condition:
    """A premise, measured.

    Attributes:
        says: the premise in words.
        metric: what was measured.
        measured: mean over the runs, or the run furthest from the condition where each must meet it; None without a
            finite value.
        wanted: what it was to be, such as `at least 0.8`.
        met: whether it is so.
    """

    says: str
    metric: str
    measured: float | None
    wanted: str
    met: bool


@dataclass(frozen=True)
class Look:
    """At which of its looks a claim was judged.

    Attributes:
        number: from 1.
        of: how many there may be.
        seeds: behind the verdict.
        coverage: of the interval, so that all looks together err in at most 5 %.
    """

    number: int
    of: int
    seeds: int
    coverage: float


@dataclass(frozen=True)
class Judgement:
    """What the runs say about a claim.

    Attributes:
        verdict: holds, opposite, undecided, premise not met or not run.
        reason: why it was not run, or why nothing can be decided.
        comparisons: all must hold; one that is opposite makes the claim opposite.
        values: arm -> seed -> value of the metric.
        minutes: of all its runs.
        premises: what was presupposed, measured.
        look: of a claim that adds seeds until it is decided.
        level: p-value over all looks so far; None where chance plays no part or nothing was tested.
        next_seeds: seeds at the next look; 0 if there is none, or the claim is decided.
    """

    verdict: str
    reason: str = ""
    comparisons: list[Comparison] = field(default_factory=list)
    values: dict[str, dict[str, float | None]] = field(default_factory=dict)
    minutes: float = 0.0
    premises: list[Condition] = field(default_factory=list)
    look: Look | None = None
    level: float | None = None
    next_seeds: int = 0

    @property
    def detectable(self) -> float | None:
        """The smallest effect that an undecided claim could have seen in every comparison that is undecided."""
        if self.verdict != "undecided":
            return None
        return max((c.detectable for c in self.comparisons if c.detectable is not None), default=None)


def judge(entry: Entry, claim: Claim, runs: Mapping[str, Any], seeds: Sequence[int] | None = None) -> Judgement:
    """Decide one claim from raw runs.

    A claim that adds seeds is judged at the first look that decides it, whatever was run beyond that look.

    Args:
        entry: its method.
        claim: the claim.
        runs: fingerprint of a spec -> run.
        seeds: only these of its seeds, as one look.

    Returns:
        The judgement; `not run` unless every arm has every seed of the first look.
    """
    chosen = seeds_of(claim, seeds)
    keys = {place: fingerprint(spec) for place, spec in jobs_of(entry, claim, seeds).items()}
    kept = {place: runs[key] for place, key in keys.items() if key in runs}
    looks = claim.planned if seeds is None and not claim.exact else (len(chosen),)
    minutes = sum(float(runs[key].get("minutes") or 0) for key in {keys[place] for place in kept})
    complete = [n for n in looks if n and all((arm, seed) in kept for arm in claim.arms for seed in chosen[:n])]
    if not complete:
        wanted = len(claim.arms) * looks[0]
        done = sum(seed in chosen[: looks[0]] for _, seed in kept)
        reason = f"{done} of {wanted} runs are there" if done else claim.reason or _why_not(claim)
        return Judgement("not run", reason, [], _values(claim, chosen, kept), minutes)
    planned = len(claim.planned) or 1
    level = 1.0
    judged = Judgement("not run")
    for number, n in enumerate(complete, 1):
        judged = judge_seeds(claim, chosen[:n], kept, coverage_of(planned))
        level = min(level, planned * (1.0 if judged.level is None else judged.level))
        look = Look(number, len(looks), n, coverage_of(planned)) if claim.looks else None
        judged = replace(judged, minutes=minutes, look=look, level=None if judged.level is None else level)
        if judged.verdict != "undecided":
            return judged
    ahead = looks[len(complete)] if len(complete) < len(looks) else 0
    return replace(judged, next_seeds=ahead)


def judge_seeds(claim: Claim, seeds: Sequence[int | None], runs: Runs, coverage: float = 0.95) -> Judgement:
    """Decide a claim at one look.

    Args:
        claim: the claim.
        seeds: that are judged; every arm has a run of each.
        runs: at least these.
        coverage: of the intervals.
    """
    values = _values(claim, seeds, runs)
    absent = [_label(arm, s) for arm in claim.arms for s in seeds if value_of(claim, runs[arm, s]) is None]
    if absent and _decides(claim, absent):
        return Judgement("not run", f"no {claim.metric} in the run of {absent[0]}", [], values)
    premises = [_condition(p, [runs[p.arm, s] for s in seeds], _others(p, seeds, runs)) for p in claim.premise]
    broken = _diverged(claim, seeds, runs) or next((_failure(c) for c in premises if not c.met), "")
    finite = all(v is not None for arm in _deciding(claim) for v in values[arm].values())
    differences = _differences(claim, values) if finite else {}
    comparisons = [_compare(claim, against, by_seed, coverage) for against, by_seed in differences.items()]
    if broken:
        comparisons = [replace(c, verdict="premise not met") for c in comparisons]
        return Judgement("premise not met", broken, comparisons, values, premises=premises)
    verdicts = [c.verdict for c in comparisons]
    verdict = "opposite" if "opposite" in verdicts else "holds" if set(verdicts) == {"holds"} else "undecided"
    reason = "one seed gives no interval" if comparisons[0].observed.n == 1 else ""
    level = _level(claim, comparisons, verdict)
    return Judgement(verdict, reason, comparisons, values, premises=premises, level=level)


def _why_not(claim: Claim) -> str:
    data = f", needs the data set {', '.join(claim.needs)}" if claim.needs else ""
    return f"planned: about {claim.minutes:g} minutes of computing{data}" if claim.minutes else "not run yet" + data


# Values -----------------------------------------------------------------------------------------------------------


def value_of(claim: Claim, run: Mapping[str, Any]) -> float | None:
    """The claim's metric in one run: the final value, or that on the curve at a share of the epochs.

    Returns:
        NaN where the value was not finite, None where there is none.
    """
    if claim.at is None:
        return _metric(run, claim.metric)
    until = claim.at * float(run.get("epochs") or 0)
    points = [y for x, y in run.get("curves", {}).get(claim.metric, []) if x <= until + 1e-9]
    return None if not points else math.nan if points[-1] is None else float(points[-1])


def _metric(run: Mapping[str, Any], name: str) -> float | None:
    metrics = run.get("metrics", {})
    if name not in metrics:
        return None
    return math.nan if metrics[name] is None else float(metrics[name])


def _values(claim: Claim, seeds: Sequence[int | None], runs: Runs) -> dict[str, dict[str, float | None]]:
    """Values by arm and seed, None where they are not finite or absent."""
    values: dict[str, dict[str, float | None]] = {arm: {} for arm in claim.arms}
    for arm in claim.arms:
        for seed in seeds:
            if (arm, seed) in runs:
                value = value_of(claim, runs[arm, seed])
                values[arm][_name(seed)] = value if value is not None and math.isfinite(value) else None
    return values


def _name(seed: int | None) -> str:
    return "exact" if seed is None else str(seed)


def _label(arm: str, seed: int | None) -> str:
    return arm if seed is None else f"{arm}, seed {seed}"


def _deciding(claim: Claim) -> set[str]:
    return set(claim.contrast) or {arm.name for arm in claim.of_role("ours", "baseline", "control")}


def _decides(claim: Claim, labels: Sequence[str]) -> bool:
    return any(label.partition(", seed ")[0] in _deciding(claim) for label in labels)


# Premises ---------------------------------------------------------------------------------------------------------


def _diverged(claim: Claim, seeds: Sequence[int | None], runs: Runs) -> str:
    """Which run of an arm that matters has diverged, and how that shows; empty if none has.

    A run says so by a loss or a value of this claim that is not finite, or by a metric `diverged` above 0.
    """
    arms = _deciding(claim) | {name for p in claim.premise for name in (p.arm, p.other) if name}
    for arm in (name for name in claim.arms if name in arms):
        for seed in seeds:
            run = runs[arm, seed]
            value = value_of(claim, run) if arm in _deciding(claim) else None
            if value is not None and not math.isfinite(value):
                return f"{_label(arm, seed)} diverged: no finite {claim.metric}"
            for name, number in run.get("metrics", {}).items():
                last = name.rpartition("/")[2]
                if last == "loss" and number is None:
                    return f"{_label(arm, seed)} diverged: no finite {name}"
                if last == "diverged" and (number is None or number > 0):
                    return f"{_label(arm, seed)} diverged"
    return ""


def _others(premise: Premise, seeds: Sequence[int | None], runs: Runs) -> list[Mapping[str, Any]]:
    return [runs[premise.other, seed] for seed in seeds] if premise.other else []


def _condition(premise: Premise, runs: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> Condition:
    """Measure a premise: the mean over the runs decides, or each run."""
    low = premise.relation in ("at-least", "above")
    word = premise.relation.replace("-", " ")
    values = [_metric(run, premise.metric) for run in runs]
    if premise.other:
        theirs = [_metric(run, premise.metric) for run in others]
        values = [None if a is None or b is None else a - b for a, b in zip(values, theirs, strict=True)]
        bound = premise.by if low else -premise.by
        word += f" {premise.other}" + (f" by {premise.by:g}" if premise.by else "")
    else:
        bound = float(premise.bound)
        word += f" {bound:g}"
    word += " in each run" if premise.each and len(values) > 1 else ""
    given = [value for value in values if value is not None and math.isfinite(value)]
    if len(given) < len(values):
        return Condition(premise.says, premise.metric, None, word, met=False)
    measured = (min(given) if low else max(given)) if premise.each else sum(given) / len(given)
    room = measured - bound if low else bound - measured
    met = room > 0 if premise.relation in ("above", "below") else room >= 0
    return Condition(premise.says, premise.metric, measured, word, met)


def _failure(condition: Condition) -> str:
    measured = "no finite value" if condition.measured is None else f"{condition.measured:.4g}"
    return f"{condition.says}: {condition.metric} {measured}, wanted {condition.wanted}"


# Comparisons ------------------------------------------------------------------------------------------------------


def _differences(claim: Claim, values: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Values per seed of each quantity that decides."""
    if claim.contrast:
        places = values[next(iter(claim.contrast))]
        return {"contrast": {s: sum(f * values[a][s] for a, f in claim.contrast.items()) for s in places}}
    (ours,) = claim.of_role("ours")
    mine = values[ours.name]
    others = claim.of_role("baseline", "control")
    if claim.expect in ("at-least", "at-most") or not others:
        bound = claim.value or 0.0
        return {"value": {s: v - bound for s, v in mine.items()}}
    return {arm.name: {s: v - values[arm.name][s] for s, v in mine.items()} for arm in others}


def _compare(claim: Claim, against: str, differences: dict[str, float], coverage: float) -> Comparison:
    observed = interval(list(differences.values()), exact=claim.exact, coverage=coverage)
    # differences from a number are shown; a contrast is shown as it is, and compared with the number here
    bound = claim.value or 0.0 if claim.contrast and claim.expect in ("at-least", "at-most", "within") else 0.0
    made = Comparison(against, differences, observed, "undecided", bound)
    verdict = decide(made.beyond, claim.expect, claim.margin, larger_is_better=claim.better == "higher")
    return replace(made, verdict=verdict)


def _level(claim: Claim, comparisons: Sequence[Comparison], verdict: str) -> float | None:
    """p-value at one look.

    To hold, every comparison must hold, so the least sure one counts. One comparison is enough to be opposite, so the
    surest one counts, times their number.
    """
    if any(c.observed.n < 2 for c in comparisons):
        return None

    def of(outcome: str) -> list[float]:
        better = claim.better == "higher"
        return [p_value(c.beyond, outcome, claim.expect, claim.margin, larger_is_better=better) for c in comparisons]

    levels = {"holds": max(of("holds")), "opposite": min(1.0, len(comparisons) * min(of("opposite")))}
    return levels[verdict] if verdict in levels else min(levels.values())
