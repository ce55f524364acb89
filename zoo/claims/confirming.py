"""Whether the code of today still gives the stored numbers: one run of each kind is repeated, digit by digit.

The hash of `zoo/claims/code.py` changes with every edit behind a method, also with those that change no number; hours
of computing need not be repeated for them. Stored runs are grouped by recipe or study, by their options other than
numbers (which choose other branches of the code) and by the code that made them, and the cheapest run of each group is
done again. If all its metrics and curves are equal to the last stored digit, the
runs of its group are marked:

    "confirmed": {"code": hash of today's code, "by": fingerprint of the repeated run, "commit": ..., "versions": ...}

A marked run keeps the code, versions and commit that made it. Equal digits need the same versions and the same kind of
processor; where they differ, that is said, and only a whole measurement by `zoo reproduce` brings a claim up to date.
Claims about time (`timed: true`) are never confirmed: their numbers are measured again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from zoo.claims.planning import Job, fingerprint, is_current, jobs_of
from zoo.claims.results import read_results, write_results
from zoo.claims.run import carry_out, facts_of_machine
from zoo.claims.schema import Claim, read_claims
from zoo.claims.steps import Place, result_of
from zoo.index import Entry

__all__ = ["Group", "confirm", "differences", "groups_of", "recheck", "repeat"]


@dataclass(frozen=True)
class Group:
    """Stored runs of one kind that the same earlier code has made.

    Attributes:
        name: recipe or study; several groups may have the same.
        was: hash of the code that made them.
        code: hash of the code as it is now.
        runs: their fingerprints.
        job: the one that is repeated.
        differs: metric or curve -> stored value and repeated value; only filled in after the repetition.
        failed: why it could not be repeated.
    """

    name: str
    was: str
    code: str
    runs: tuple[str, ...]
    job: Job
    differs: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    failed: str = ""


def groups_of(entry: Entry, claims: Sequence[Claim], jobs: Sequence[Job], runs: Mapping[str, Any]) -> list[Group]:
    """Stored runs that the code of today has neither made nor confirmed, and which of them to repeat.

    Args:
        entry: the method.
        claims: what the runs are for; runs of timed claims are left out.
        jobs: the runs of these claims.
        runs: fingerprint of a spec -> stored run.
    """
    timed = {fingerprint(spec) for claim in claims if claim.timed for spec in jobs_of(entry, claim).values()}
    kinds: dict[tuple[str, str, str, str], list[Job]] = {}
    for job in jobs:
        run = runs.get(fingerprint(job.spec))
        if run is None or fingerprint(job.spec) in timed or is_current(run, job.code) or job.measures_missing(run):
            continue
        name = job.spec.get("recipe") or job.spec["study"]
        kinds.setdefault((name, _options(job.spec), run["code"], job.code), []).append(job)
    groups = []
    for (name, _, was, code), members in kinds.items():
        keys = tuple(fingerprint(job.spec) for job in members)
        cheapest = min(members, key=lambda job: float(runs[fingerprint(job.spec)].get("minutes") or 0))
        groups.append(Group(name, was, code, keys, cheapest))
    return groups


def _options(spec: Mapping[str, Any]) -> str:
    """What a run sets, without its seed and without plain numbers."""
    start = _options(spec["start"]) if "start" in spec else ""
    chosen = {k: v for k, v in spec["set"].items() if isinstance(v, bool) or not isinstance(v, (int, float))}
    return fingerprint({"set": chosen, "start": start})


def repeat(
    place: Place, groups: Sequence[Group], jobs: Sequence[Job], runs: Mapping[str, Any], aside: Collection[str] = ()
) -> list[Group]:
    """Do the chosen runs again, with as many threads as they had, and compare them with what is stored.

    Args:
        place: shared settings.
        groups: see `groups_of`.
        jobs: all runs of the claims, among them those that the chosen ones start from.
        runs: fingerprint of a spec -> stored run.
        aside: metrics that are times, and never equal.

    Returns:
        The groups, with what differs.
    """
    known, about, done = {job.key: job for job in jobs}, facts_of_machine(), []
    for threads in sorted({int(runs[g.runs[0]].get("threads") or place.threads) for g in groups}):
        mine = [g for g in groups if int(runs[g.runs[0]].get("threads") or place.threads) == threads]
        there = Place(place.entry, place.folder, place.roots, threads)
        wanted: dict[str, Job] = {}
        for group in mine:
            wanted |= _with_needs(group.job, known)
        failed = carry_out(there, list(wanted.values()))
        for group in mine:
            again = result_of(there, group.job, about)
            stored = runs[fingerprint(group.job.spec)]
            if again is None:
                why = next((text for text in failed if group.job.label in text), "a run it needs has failed")
                done.append(replace(group, failed=why))
            else:
                differs = differences(stored, again)
                done.append(replace(group, differs={k: v for k, v in differs.items() if k not in aside}))
    return done


def _with_needs(job: Job, known: Mapping[str, Job]) -> dict[str, Job]:
    """A run after those it needs."""
    ordered: dict[str, Job] = {}
    for key in job.needs:
        ordered |= _with_needs(known[key], known)
    return ordered | {job.key: job}


def differences(stored: Mapping[str, Any], again: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Metrics and curves that are not equal to the last stored digit, or on one side only.

    Args:
        stored: a run in results.json.
        again: the same, repeated.
    """
    differs: dict[str, tuple[Any, Any]] = {}
    for part in ("metrics", "curves"):
        one, other = stored.get(part, {}), again.get(part, {})
        for key in sorted({*one, *other}):
            if one.get(key) != other.get(key) and not (_is_none(one.get(key)) and _is_none(other.get(key))):
                differs[key] = (one.get(key), other.get(key))
    return differs


def _is_none(stored: Any) -> bool:
    """Whether a value says that there was nothing to measure: absent, or COCO's mark -1, which was stored once."""
    if isinstance(stored, list):
        return all(_is_none(point[1]) for point in stored)
    return stored is None or stored == -1.0


def confirm(groups: Sequence[Group], runs: dict[str, Any]) -> int:
    """Mark the runs of those groups whose repetition gave equal digits; returns how many.

    Args:
        groups: after `repeat`.
        runs: fingerprint of a spec -> stored run; the marks are written into these.
    """
    about, count = facts_of_machine(), 0
    for group in groups:
        if group.differs or group.failed:
            continue
        for key in group.runs:
            mark = {"code": group.code, "by": fingerprint(group.job.spec)}
            runs[key] = {**runs[key], "confirmed": {**mark, "commit": about["commit"], "versions": about["versions"]}}
            count += 1
    return count


def recheck(entry: Entry, claims: Sequence[Claim], jobs: Sequence[Job], path: Path, place: Place) -> list[Group]:
    """All of it: choose, repeat, compare, mark and write.

    Args:
        entry: the method.
        claims: whose runs to look at.
        jobs: the runs of these claims.
        path: of the results file.
        place: shared settings.
    """
    runs = read_results(path)["runs"]
    times = {claim.metric for claim in claims if claim.timed}
    groups = repeat(place, groups_of(entry, claims, jobs, runs), jobs, runs, times)
    if confirm(groups, runs):
        write_results(path, entry, read_claims(entry, path.parent / "claims.yaml"), runs)
    return groups
