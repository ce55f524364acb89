"""`results.json`: raw values of every run, and what they say about each claim. Written whole or not at all.

    {"format": 1, "zoo": id,
     "claims": {id: {"verdict", "reason", "comparisons", "values", "minutes", "command"}},
     "runs": {fingerprint: {"spec", "metrics", "curves", "epochs", "minutes", "code", "commit", "versions", ...}}}

The claims' part is computed from the runs' part; nothing in the file is written by hand. Each claim and each run is
one line, in a fixed order, so that a new run shows in a diff as one line.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo._claims_plan import fingerprint, jobs_of
from zoo._claims_schema import Claim, InvalidClaims
from zoo._claims_stats import Interval, decide, interval
from zoo.errors import FormatTooNew
from zoo.index import Entry

__all__ = ["Comparison", "Judgement", "judge", "read_results", "round_values", "summary", "write_results"]

FORMAT = 1


@dataclass(frozen=True)
class Comparison:
    """One quantity that decides a claim.

    Attributes:
        against: name of the other arm; `value` where the arm is compared with a number, `contrast` for a contrast.
        differences: seed -> value; an exact claim has one under `exact`.
        found: their mean and interval.
        verdict: holds, opposite or undecided.
    """

    against: str
    differences: dict[str, float]
    found: Interval
    verdict: str


@dataclass(frozen=True)
class Judgement:
    """What the runs say about a claim.

    Attributes:
        verdict: holds, opposite, undecided or not run.
        reason: why it was not run, or why nothing can be decided.
        comparisons: all must hold; one that is opposite makes the claim opposite.
        values: arm -> seed -> value of the metric.
        minutes: of all its runs.
    """

    verdict: str
    reason: str = ""
    comparisons: list[Comparison] = field(default_factory=list)
    values: dict[str, dict[str, float | None]] = field(default_factory=dict)
    minutes: float = 0.0


def read_results(path: Path) -> dict[str, Any]:
    """The results of a method; an absent file has none.

    Raises:
        InvalidClaims: if it is no results file.
        FormatTooNew: if a newer zoo wrote it.
    """
    if not path.is_file():
        return {"format": FORMAT, "runs": {}, "claims": {}}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidClaims(f"{path}: not valid JSON ({error}). Restore the file from version control.") from None
    if not isinstance(found, dict) or not isinstance(found.get("runs"), dict):
        raise InvalidClaims(f"{path}: expected runs and claims. Restore the file from version control.")
    if found.get("format", 0) > FORMAT:
        raise FormatTooNew(f"{path}: written by a newer zoo (format {found['format']}). Update: pip install -U zoo.")
    return found


def write_results(path: Path, entry: Entry, claims: Iterable[Claim], runs: Mapping[str, Any]) -> dict[str, Any]:
    """Judge the claims, write the file atomically, and return what it holds."""
    judged = {claim.id: summary(claim, judge(entry, claim, runs)) for claim in claims}
    claims_text = {
        cid: {**found, "command": f"zoo reproduce {entry.id} --claim {cid}"} for cid, found in judged.items()
    }
    content = {"format": FORMAT, "zoo": entry.id, "claims": claims_text, "runs": dict(sorted(runs.items()))}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(results_text(content))
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    return content


def results_text(content: Mapping[str, Any]) -> str:
    """The text of a results file: valid JSON, one claim or run a line."""

    def dumped(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)

    parts = []
    for key, value in content.items():
        if key in ("claims", "runs"):
            lines = ",\n".join(f"  {dumped(name)}: {dumped(item)}" for name, item in value.items())
            parts.append(f" {dumped(key)}: {{\n{lines}\n }}" if lines else f" {dumped(key)}: {{}}")
        else:
            parts.append(f" {dumped(key)}: {dumped(value)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def round_values(value: Any) -> Any:
    """Numbers with nine significant digits (what a float32 holds), None where they are not finite."""
    if isinstance(value, float):
        return float(f"{value:.9g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: round_values(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [round_values(v) for v in value]
    return value


def value_of(claim: Claim, run: Mapping[str, Any]) -> float | None:
    """The claim's metric in one run: the final value, or that on the curve at a share of the epochs."""
    if claim.at is None:
        found = run.get("metrics", {}).get(claim.metric)
        return None if found is None else float(found)
    until = claim.at * float(run.get("epochs") or 0)
    points = [y for x, y in run.get("curves", {}).get(claim.metric, []) if x <= until + 1e-9 and y is not None]
    return float(points[-1]) if points else None


def judge(entry: Entry, claim: Claim, runs: Mapping[str, Any]) -> Judgement:
    """Decide one claim from raw runs.

    Args:
        entry: its method.
        claim: the claim.
        runs: fingerprint of a spec -> run.

    Returns:
        The judgement; `not run` unless every arm has every seed.
    """
    specs = {place: fingerprint(spec) for place, spec in jobs_of(entry, claim).items()}
    values: dict[str, dict[str, float | None]] = {name: {} for name in claim.arms}
    for (arm, seed), key in specs.items():
        if key in runs:
            values[arm]["exact" if seed is None else str(seed)] = value_of(claim, runs[key])
    minutes = sum(float(runs[key].get("minutes") or 0) for key in {k for k in specs.values() if k in runs})
    done = sum(key in runs for key in specs.values())
    if done < len(specs):
        reason = f"{done} of {len(specs)} runs are there" if done else claim.reason or _why_not(claim)
        return Judgement("not run", reason, [], values, minutes)
    missing = [f"{arm}, seed {s}" for arm, by_seed in values.items() for s, v in by_seed.items() if v is None]
    if missing and _decides(claim, missing):
        return Judgement("undecided", f"no finite {claim.metric} in {missing[0]}", [], values, minutes)
    comparisons = [_compare(claim, against, found) for against, found in _differences(claim, values).items()]
    verdicts = [c.verdict for c in comparisons]
    verdict = "opposite" if "opposite" in verdicts else "holds" if set(verdicts) == {"holds"} else "undecided"
    reason = "one seed gives no interval" if comparisons[0].found.n == 1 else ""
    return Judgement(verdict, reason, comparisons, values, minutes)


def _why_not(claim: Claim) -> str:
    data = f", needs the data set {', '.join(claim.needs)}" if claim.needs else ""
    return f"planned: about {claim.minutes:g} minutes of computing{data}" if claim.minutes else "not run yet" + data


def _decides(claim: Claim, missing: list[str]) -> bool:
    deciding = set(claim.contrast) or {arm.name for arm in claim.of_role("ours", "baseline", "control")}
    return any(text.rpartition(", seed ")[0] in deciding for text in missing)


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


def _compare(claim: Claim, against: str, differences: dict[str, float]) -> Comparison:
    found = interval(list(differences.values()), exact=claim.exact)
    verdict = decide(found, claim.expect, claim.margin, larger_is_better=claim.better == "higher")
    return Comparison(against, differences, found, verdict)


def summary(claim: Claim, judged: Judgement) -> dict[str, Any]:
    """A judgement as plain values."""
    comparisons = [
        {
            "against": c.against,
            "differences": c.differences,
            "n": c.found.n,
            "mean": c.found.mean,
            "low": c.found.low,
            "high": c.found.high,
            "verdict": c.verdict,
        }
        for c in judged.comparisons
    ]
    found = {"verdict": judged.verdict, "reason": judged.reason, "metric": claim.metric, "expect": claim.expect}
    rest = {"comparisons": comparisons, "values": judged.values, "minutes": round(judged.minutes, 2)}
    rounded: dict[str, Any] = round_values({**found, **rest})
    return rounded
