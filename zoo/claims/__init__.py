"""Claims: what a paper promises, what this code measured, and running it again.

`model_cards/<id>/claims.yaml` says what is promised and which runs decide it, `results.json` beside it holds raw
values and verdicts. `zoo reproduce` runs what is missing. Runs are kept in `runs/reproduce/<key>`, where the key covers
recipe, settings, seed and the code behind them (`zoo/claims/code.py` says which), so claims share arms and nothing
runs twice. The last epoch's weights are scored, unless the recipe chooses its checkpoint on validation data.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.claims.judging import Comparison, Condition, Judgement, Look, judge
from zoo.claims.planning import Job, fingerprint, is_current, plan
from zoo.claims.results import after_holm, judged, read_results, summary, write_results
from zoo.claims.schema import Arm, Branch, Claim, InvalidClaims, Premise, read_claims
from zoo.claims.stats import EXPECTATIONS, LOOKS, Interval, decide, holm, interval, student
from zoo.errors import BadInput, UnknownName, nearest
from zoo.files import PACKAGE
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
    "Report",
    "after_holm",
    "card_folder",
    "claims_of",
    "decide",
    "drifted",
    "holm",
    "interval",
    "is_installed",
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
    """Recompute the verdicts in results.json from its raw values; returns its path if that changed anything.

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
        jobs: runs, in order; a claim that adds seeds may need fewer.
        roots: folders of the data they need.
        left_out: claims that cannot run -> why.
        quick: a smoke run.
        seeds: only these of the claims' seeds, judged as one look.
        looks: at most so many looks.
    """

    entry: Entry
    claims: list[Claim]
    jobs: list[Job]
    roots: Mapping[str, Path] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    quick: bool = False
    seeds: Sequence[int] | None = None
    looks: int | None = None

    @property
    def rounds(self) -> int:
        """How often it may have to be judged before it is decided."""
        most = max((len(claim.looks) for claim in self.claims), default=0) or 1
        return 1 if self.quick or self.seeds is not None else min(most, self.looks or most)

    def jobs_at(self, number: int, claims: Sequence[Claim] | None = None) -> list[Job]:
        """Runs up to a look.

        Args:
            number: of the look, from 1.
            claims: those that are not decided yet; None for all.
        """
        chosen = self.claims if claims is None else claims
        return plan(self.entry, chosen, self.seeds, quick=self.quick, look=number)


def make_plan(
    name: str,
    claims: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    roots: Mapping[str, str | Path] | None = None,
    *,
    quick: bool = False,
    missing: bool = False,
    looks: int | None = None,
) -> Plan:
    """Read and check the claims of a method, and find out which runs they need.

    Args:
        name: id of the method.
        claims: ids of claims; None for all whose data are given.
        seeds: only these of their seeds.
        roots: folders of data sets by name; the environment's `ZOO_ROOT_<NAME>` are added.
        quick: smoke runs, whose results are not kept as evidence.
        missing: only claims among these that results.json leaves without a verdict, or with looks that are left.
        looks: at most so many looks of claims that add seeds.

    Raises:
        UnknownName: for a claim or seed that does not exist.
        InvalidClaims: if the claims name something that does not exist.
        BadInput: if a claim that was asked for needs data that are not given, or seeds and looks are both given.
    """
    from zoo.claims.check import check_names

    if seeds is not None and looks is not None:
        raise BadInput("--seeds names the runs, --looks limits how many there are: give one of them.")
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
        chosen = [claim for claim in chosen if _is_open(judge(entry, claim, runs))]
    _check_seeds(chosen, seeds)
    folders = _roots(roots or {}, {need for claim in chosen for need in claim.needs}, known.values())
    left_out = {c.id: _how_to_get(c, folders) for c in chosen if not set(c.needs) <= set(folders)}
    if claims and left_out:
        raise BadInput(f"{next(iter(left_out))} {next(iter(left_out.values()))}")
    chosen = [claim for claim in chosen if claim.id not in left_out]
    check_names(entry, chosen, str(path))
    jobs = plan(entry, chosen, seeds, quick=quick, look=looks)
    return Plan(entry, chosen, jobs, folders, left_out, quick, seeds, looks)


def _is_open(judgement: Judgement) -> bool:
    return judgement.verdict == "not run" or judgement.next_seeds > 0


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
    folders = {}
    for name in needed:
        value = given.get(name) or os.environ.get(f"ZOO_ROOT_{name.upper().replace('-', '_')}")
        if value:
            folder = Path(value).expanduser().resolve()
            if not folder.is_dir():
                raise BadInput(f"--root {name}: expected a folder, but there is nothing at {folder}.")
            folders[name] = folder
    return folders


def _how_to_get(claim: Claim, folders: Mapping[str, Path]) -> str:
    missing = next(name for name in claim.needs if name not in folders)
    return f"needs the data set {missing}: give --root {missing}=DIR (`zoo data list` shows where to get data)."


def is_installed(entry: Entry) -> bool:
    """Whether a method's published evidence is part of an installation, which nothing writes into."""
    card = card_folder(entry)
    return PACKAGE in card.resolve().parents or "site-packages" in card.parts


def results_path(plan: Plan, folder: Path, *, fresh: bool = False) -> Path:
    """Where evidence is written: beside the card in a checkout; a reader's own is kept apart, among the runs.

    Args:
        plan: see `make_plan`.
        folder: for a reader's own results.
        fresh: they are a reader's own, also in a checkout.
    """
    apart = fresh or is_installed(plan.entry)
    return folder / f"{plan.entry.id}-results.json" if apart else card_folder(plan.entry) / "results.json"


@dataclass(frozen=True)
class Report:
    """What `reproduce` did.

    Attributes:
        failed: one message per failed run.
        published: claim -> what results.json beside the card said before.
        fresh: claim -> what the runs of this folder say by themselves.
        results: content of the results file; None for a smoke run.
        path: of that file.
        apart: whether it is a reader's own.
    """

    failed: list[str]
    published: dict[str, dict[str, Any]] = field(default_factory=dict)
    fresh: dict[str, dict[str, Any]] = field(default_factory=dict)
    results: dict[str, Any] | None = None
    path: Path | None = None
    apart: bool = False


class _Evidence:
    """Keeps the runs of a plan as they end, and says which claims they leave undecided."""

    def __init__(self, plan: Plan, place: Any, path: Path, *, fresh: bool) -> None:
        from zoo.claims.run import facts_of_machine

        self.plan, self.place, self.path, self.fresh = plan, place, path, fresh
        self.about = facts_of_machine()
        self.claims = claims_of(plan.entry)
        self.stored: dict[str, Any] = read_results(path)
        self.content = self.stored
        self.own: dict[str, Any] = {}
        self.done: set[str] = set()
        for job in plan.jobs if fresh else ():  # what other code has measured is no part of this measurement
            known = self.stored["runs"].get(fingerprint(job.spec))
            if known is not None and known.get("code") != job.code:
                del self.stored["runs"][fingerprint(job.spec)]

    def keep(self, job: Job) -> None:
        """Record a run that has ended."""
        from zoo.claims.steps import result_of

        key = fingerprint(job.spec)
        self.done.add(job.key)
        run = result_of(self.place, job, self.about)
        if run is not None:
            self.own[key] = run
            known = self.stored["runs"].get(key)
            stale = known is None or not is_current(known, job.code) or job.measures_missing(known)
            # a result that stands keeps the versions and the commit it was made with
            if stale or (self.fresh and known["metrics"] != run["metrics"]):
                self.stored["runs"][key] = run
        self.write()

    def write(self) -> None:
        """Judge all claims and write the file."""
        self.content = write_results(self.path, self.plan.entry, self.claims, self.stored["runs"])

    def undecided(self, claims: Sequence[Claim]) -> list[Claim]:
        """Those that have a look left: by a reader's own runs, or by what is published from here."""
        runs = self.own if self.fresh else self.stored["runs"]
        return [claim for claim in claims if judge(self.plan.entry, claim, runs).next_seeds]

    def alone(self) -> dict[str, dict[str, Any]]:
        """What the runs of this folder say by themselves."""
        entry, seeds = self.plan.entry, self.plan.seeds
        return {claim.id: summary(claim, judge(entry, claim, self.own, seeds)) for claim in self.plan.claims}


def reproduce(
    plan: Plan,
    *,
    folder: Path = RUNS,
    threads: int | None = None,
    parallel: int = 1,
    fresh: bool = False,
    out: Path | None = None,
) -> Report:
    """Do the runs of a plan look by look, until its claims are decided, and write the results after each run.

    A reader's runs are judged by themselves and compared with the published ones, which they never replace: in an
    installation always, in a checkout with `fresh` or `out`. Otherwise the results beside the card are brought up to
    date.

    Args:
        plan: see `make_plan`.
        folder: of the runs.
        threads: of each process; by default the machine's cores are shared among the processes.
        parallel: processes at once.
        fresh: keep the results apart from the published ones.
        out: folder for the results that are kept apart; that of the runs, if None.
    """
    from zoo.claims.run import carry_out
    from zoo.claims.steps import Place

    threads = threads or max(1, (os.cpu_count() or 1) // parallel)
    place = Place(plan.entry, folder.resolve(), plan.roots, threads)
    if plan.quick:
        return Report(carry_out(place, plan.jobs, parallel=parallel))
    fresh = fresh or out is not None or is_installed(plan.entry)
    path = results_path(plan, (out or place.folder).resolve(), fresh=fresh)
    published = results_of(plan.entry).get("claims", {})
    evidence = _Evidence(plan, place, path, fresh=fresh)
    claims, failed, broken = list(plan.claims), list[str](), set[str]()
    for number in range(1, plan.rounds + 1):
        jobs = [job for job in plan.jobs_at(number, claims) if job.key not in evidence.done | broken]
        if number > 1 and jobs:
            print(f"look {number}: {', '.join(claim.id for claim in claims)} not decided yet", flush=True)
        failed += carry_out(place, jobs, parallel=parallel, on_done=evidence.keep, done=evidence.done, broken=broken)
        broken |= {job.key for job in jobs} - evidence.done
        claims = evidence.undecided(claims)
    evidence.write()
    return Report(failed, published, evidence.alone(), evidence.content, path, fresh)
