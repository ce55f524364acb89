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
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from zoo.claims.judging import Comparison, Judgement, judge
from zoo.claims.schema import Claim, InvalidClaims
from zoo.claims.stats import ALPHA, holm
from zoo.errors import FormatTooNew
from zoo.files import write_whole
from zoo.index import Entry

__all__ = ["after_holm", "judged", "read_results", "results_text", "round_values", "summary", "write_results"]

FORMAT = 1


def read_results(path: Path) -> dict[str, Any]:
    """The results of a method; an absent file has none.

    Raises:
        InvalidClaims: if it is no results file.
        FormatTooNew: if a newer zoo wrote it.
    """
    if not path.is_file():
        return {"format": FORMAT, "runs": {}, "claims": {}}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InvalidClaims(f"{path}: not valid JSON ({error}). Restore the file from version control.") from None
    known = isinstance(content, dict) and isinstance(content.get("format", 0), int)
    if not known or not isinstance(content.get("runs"), dict):
        raise InvalidClaims(f"{path}: expected runs and claims. Restore the file from version control.")
    if content.get("format", 0) > FORMAT:
        raise FormatTooNew(f"{path}: written by a newer zoo (format {content['format']}). Update: pip install -U zoo.")
    return content


def write_results(path: Path, entry: Entry, claims: Iterable[Claim], runs: Mapping[str, Any]) -> dict[str, Any]:
    """Judge the claims, write the file atomically, and return what it holds."""
    outcomes = judged(entry, claims, runs)
    claims_text = {
        cid: {**about, "command": f"zoo reproduce {entry.id} --claim {cid}"} for cid, about in outcomes.items()
    }
    content = {"format": FORMAT, "zoo": entry.id, "claims": claims_text, "runs": dict(sorted(runs.items()))}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, results_text(content))
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


def judged(entry: Entry, claims: Iterable[Claim], runs: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What the runs say about all claims of a card, as plain values, with the p-values that Holm's procedure adjusts.

    Args:
        entry: the method.
        claims: all of its claims, since the adjustment depends on how many there are.
        runs: fingerprint of a spec -> run.
    """
    summaries = {claim.id: summary(claim, judge(entry, claim, runs)) for claim in claims}
    adjusted = holm({name: about["p"] for name, about in summaries.items() if "p" in about})
    for name, level in adjusted.items():
        summaries[name]["p_holm"] = round(level, 6)
    return summaries


def after_holm(about: Mapping[str, Any]) -> str | None:
    """The verdict of a claim at 5 % for all claims of its card together; None where no chance plays a part."""
    if about.get("p_holm") is None:
        return None
    return str(about["verdict"]) if about["p_holm"] <= ALPHA else "undecided"


def summary(claim: Claim, judged: Judgement) -> dict[str, Any]:
    """A judgement as plain values."""
    plain: dict[str, Any] = {"verdict": judged.verdict, "reason": judged.reason}
    plain |= {"metric": claim.metric, "expect": claim.expect}
    plain["comparisons"] = [_comparison(c) for c in judged.comparisons]
    plain |= {"values": judged.values, "minutes": round(judged.minutes, 2)}
    plain |= {"detectable": judged.detectable} if judged.detectable is not None else {}
    plain |= {"premises": [asdict(condition) for condition in judged.premises]} if judged.premises else {}
    plain |= {"look": asdict(judged.look)} if judged.look else {}
    plain |= {"next_seeds": judged.next_seeds} if judged.next_seeds else {}
    # digits beyond these depend on the machine's mathematics, and say nothing
    plain |= {"p": round(judged.level, 6)} if judged.level is not None else {}
    rounded: dict[str, Any] = round_values(plain)
    return rounded


def _comparison(c: Comparison) -> dict[str, Any]:
    ends = {key: getattr(c.observed, key) for key in ("n", "mean", "low", "high")}
    seen = {"detectable": c.detectable} if c.detectable is not None else {}
    return {"against": c.against, "differences": c.differences, **ends, "verdict": c.verdict, **seen}
