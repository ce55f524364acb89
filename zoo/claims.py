"""Claims: what a paper promises, what this code measured, and running it again.

`model_cards/<id>/claims.yaml` says what is promised and which runs decide it, `results.json` beside it holds raw
values and verdicts. `zoo reproduce` runs what is missing. Runs are kept in `runs/reproduce/<key>`, where the key covers
recipe, settings, seed and the code behind them (`zoo/_claims_code.py` says which), so claims share arms and nothing
runs twice. The last epoch's weights are scored, unless the recipe chooses its checkpoint on validation data.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo._claims_judge import Comparison, Condition, Judgement, Look, judge
from zoo._claims_plan import Job, fingerprint, plan
from zoo._claims_results import after_holm, judged, read_results, write_results
from zoo._claims_schema import Arm, Branch, Claim, InvalidClaims, Premise, read_claims
from zoo._claims_stats import EXPECTATIONS, LOOKS, Interval, decide, holm, interval, student
from zoo.errors import BadInput, UnknownName, nearest
from zoo.index import Entry, index_path, resolve

__all__ = [
    "EXPECTATIONS",
    "LOOKS",
    "VERDICTS",
    "Arm",
    "Branch",
    "Claim",
    "Comparison",
    "Condition",
    "Interval",
    "InvalidClaims",
    "Judgement",
    "Look",
    "Plan",
    "Premise",
    "after_holm",
    "card_folder",
    "claims_of",
    "decide",
    "drifted",
    "holm",
    "interval",
    "judge",
    "make_plan",
    "read_results",
    "rejudge",
    "reproduce",
    "results_of",
    "student",
]

VERDICTS = ("holds", "opposite", "undecided", "premise not met", "not run")
RUNS = Path("runs") / "reproduce"


def card_folder(entry: Entry) -> Path:
    """Where an entry's card, claims and results are, or would be: beside the index file that names it."""
    source = Path(entry.source)
    return (source.parent if source.is_absolute() else index_path().parent) / "model_cards" / entry.id


def claims_of(entry: Entry) -> list[Claim]:
    """The claims of a method; none, if it has no claims.yaml.

    Raises:
        InvalidClaims: listing everything that is wrong with the file.
    """
    return read_claims(entry, card_folder(entry) / "claims.yaml")


def results_of(entry: Entry) -> dict[str, Any]:
    """The published results of a method."""
    return read_results(card_folder(entry) / "results.json")


def drifted(entry: Entry) -> list[str]:
    """Claims whose stored verdict or numbers are not what the stored raw values give; none, if all is well."""
    results, claims = results_of(entry), claims_of(entry)
    stored: dict[str, Any] = results.get("claims", {})
    known = {claim.id for claim in claims}
    problems = [
        f"{entry.id}: results.json has a claim {n!r} that claims.yaml has not" for n in stored if n not in known
    ]
    fresh = judged(entry, claims, results["runs"]) if stored else {}
    for name, about in fresh.items():
        old = {k: v for k, v in stored.get(name, {}).items() if k != "command"}
        if about != old:
            said, says = old.get("verdict"), about["verdict"]
            what = "its numbers are not those of its runs" if said == says else f"says {said}, its runs {says}"
            problems.append(f"{entry.id}: {name}: results.json {what}; run: zoo card {entry.id}")
    return problems


def rejudge(entry: Entry) -> list[Path]:
    """Compute the verdicts in results.json anew from its raw values; returns its path if that changed anything.

    Needed after an edit of claims.yaml; what was measured stays as it is.
    """
    path = card_folder(entry) / "results.json"
    if not path.is_file() or not drifted(entry):
        return []
    write_results(path, entry, claims_of(entry), results_of(entry)["runs"])
    return [path]


# Running ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """What `reproduce` will do.

    Attributes:
        entry: the method.
        claims: to be measured.
        jobs: runs, in order.
        roots: folders of the data they need.
        left_out: claims that cannot run -> why.
        quick: a smoke run.
    """

    entry: Entry
    claims: list[Claim]
    jobs: list[Job]
    roots: Mapping[str, Path] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    quick: bool = False


def make_plan(
    name: str,
    claims: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    roots: Mapping[str, str | Path] | None = None,
    *,
    quick: bool = False,
    missing: bool = False,
) -> Plan:
    """Read and check the claims of a method, and find out which runs they need.

    Args:
        name: id of the method.
        claims: ids of claims; None for all whose data are given.
        seeds: only these of their seeds.
        roots: folders of data sets by name; the environment's `ZOO_ROOT_<NAME>` are added.
        quick: smoke runs, whose results are not kept as evidence.
        missing: only claims among these whose runs are not all in results.json.

    Raises:
        UnknownName: for a claim or seed that does not exist.
        InvalidClaims: if the claims name something that does not exist.
        BadInput: if a claim that was asked for needs data that are not given.
    """
    from zoo._claims_check import check_names

    entry, _ = resolve(name)
    path = card_folder(entry) / "claims.yaml"
    known = {claim.id: claim for claim in claims_of(entry)}
    if not known:
        raise BadInput(f"{entry.id} has no claims: expected them in {path}.")
    for wanted in claims or []:
        if wanted not in known:
            raise UnknownName(
                f"{entry.id} has no claim {wanted!r}.{nearest(wanted, known)} Claims: {', '.join(known)}."
            )
    chosen = [known[c] for c in claims or known]
    if missing:
        runs = results_of(entry)["runs"]
        chosen = [claim for claim in chosen if judge(entry, claim, runs).verdict == "not run"]
    _check_seeds(chosen, seeds)
    found = _roots(roots or {}, {need for claim in chosen for need in claim.needs}, known.values())
    left_out = {c.id: _how_to_get(c, found) for c in chosen if not set(c.needs) <= set(found)}
    if claims and left_out:
        raise BadInput(f"{next(iter(left_out))} {next(iter(left_out.values()))}")
    chosen = [claim for claim in chosen if claim.id not in left_out]
    check_names(entry, chosen, str(path))
    return Plan(entry, chosen, plan(entry, chosen, seeds, quick=quick), found, left_out, quick)


def _check_seeds(claims: Sequence[Claim], seeds: Sequence[int] | None) -> None:
    known = sorted({seed for claim in claims for seed in claim.seeds})
    for seed in seeds or ():
        if seed not in known:
            raise UnknownName(f"No claim has the seed {seed}; seeds: {', '.join(map(str, known)) or 'none'}.")


def _roots(given: Mapping[str, str | Path], needed: set[str], claims: Any) -> dict[str, Path]:
    known = {need for claim in claims for need in claim.needs}
    for name in given:
        if name not in known:
            raise UnknownName(
                f"--root: no claim needs {name!r}.{nearest(name, known)} Needed: {', '.join(known) or 'none'}."
            )
    found = {}
    for name in needed:
        value = given.get(name) or os.environ.get(f"ZOO_ROOT_{name.upper().replace('-', '_')}")
        if value:
            folder = Path(value).expanduser().resolve()
            if not folder.is_dir():
                raise BadInput(f"--root {name}: expected a folder, found nothing at {folder}.")
            found[name] = folder
    return found


def _how_to_get(claim: Claim, found: Mapping[str, Path]) -> str:
    missing = next(name for name in claim.needs if name not in found)
    return f"needs the data set {missing}: give --root {missing}=DIR (`zoo data list` shows where to get data)."


def results_path(plan: Plan, folder: Path) -> Path:
    """Where evidence is written: beside the card in a checkout, else among the runs; never into an installation."""
    card = card_folder(plan.entry)
    installed = Path(__file__).parent in card.parents or "site-packages" in card.parts
    return (folder / f"{plan.entry.id}-results.json") if installed else card / "results.json"


def reproduce(
    plan: Plan, *, folder: Path = RUNS, threads: int | None = None, parallel: int = 1
) -> tuple[dict[str, Any] | None, list[str]]:
    """Do the runs of a plan, and write the results after each.

    Args:
        plan: see `make_plan`.
        folder: of the runs.
        threads: of each process; by default the machine's cores are shared among the processes.
        parallel: processes at once.

    Returns:
        The content of results.json (None for a smoke run) and one message per failed run.
    """
    from zoo._claims_run import carry_out, facts_of_machine
    from zoo._claims_steps import Place, result_of

    threads = threads or max(1, (os.cpu_count() or 1) // parallel)
    place = Place(plan.entry, folder.resolve(), plan.roots, threads)
    if plan.quick:
        return None, carry_out(place, plan.jobs, parallel=parallel)
    target = results_path(plan, place.folder)
    stored = read_results(target)
    about = facts_of_machine()
    claims = claims_of(plan.entry)

    def keep(job: Job) -> None:
        key = fingerprint(job.spec)
        known = stored["runs"].get(key)
        # a run whose result is stored keeps the versions and the commit it was made with
        stale = known is None or known.get("code") != job.code or job.measures_missing(known)
        fresh = result_of(place, job, about) if stale else None
        if fresh is not None:
            stored["runs"][key] = fresh
        write_results(target, plan.entry, claims, stored["runs"])

    failed = carry_out(place, plan.jobs, parallel=parallel, on_done=keep)
    return write_results(target, plan.entry, claims, stored["runs"]), failed
