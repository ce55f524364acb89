"""`zoo reproduce` and `zoo card`: measuring what is promised, and writing it down."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.claims.compare import side_by_side
from zoo.claims.results import after_holm
from zoo.claims.stats import coverage_of
from zoo.cli.place import checkout, project_of, say_where
from zoo.errors import BadInput

if TYPE_CHECKING:
    from zoo.claims import Claim, Plan, Report

__all__ = ["add_card", "add_reproduce", "run_card", "run_reproduce"]


def add_reproduce(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of `zoo reproduce`."""
    parser.add_argument("name", help="id of a method")
    parser.add_argument("--claim", action="append", metavar="ID", help="only this claim; may be given several times")
    parser.add_argument("--seeds", type=int, nargs="+", metavar="N", help="only these of its seeds, as one look")
    parser.add_argument(
        "--looks", type=_positive, metavar="N", help="at most so many looks; seeds are added between them"
    )
    parser.add_argument("--root", action="append", default=[], metavar="NAME=DIR", help="folder of a data set it needs")
    parser.add_argument("--missing", action="store_true", help="only claims without a verdict, or with looks left")
    parser.add_argument("--quick", action="store_true", help="smoke run in minutes; its numbers are never kept")
    parser.add_argument(
        "--recheck", action="store_true", help="repeat one run of each kind that other code has made; equal digits?"
    )
    parser.add_argument("--dry-run", action="store_true", help="only show the plan and its cost")
    parser.add_argument("--jobs", type=_positive, default=1, metavar="N", help="runs at once (1)")
    parser.add_argument("--threads", type=_positive, metavar="N", help="threads of each run (cores / jobs)")
    parser.add_argument(
        "--folder", default="runs/reproduce", metavar="DIR", help="where runs are kept (runs/reproduce)"
    )
    parser.add_argument(
        "--fresh", action="store_true", help="in a checkout: keep the results apart from model_cards, as in a package"
    )
    parser.add_argument("--out", metavar="DIR", help="the same, and write the results there instead of --folder")


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def run_reproduce(options: argparse.Namespace) -> int:
    """Show the plan, carry it out, and print this machine's verdicts beside the published ones; 1 if a run failed."""
    from zoo import claims, index

    entry = index.resolve(options.name)[0]
    if not (options.quick or options.fresh or options.out or options.dry_run or claims.is_installed(entry)):
        say_where(entry, None, "keep your own results apart with --out DIR")
    roots = dict(_root(text) for text in options.root)
    kind = {"quick": options.quick, "missing": options.missing, "looks": options.looks}
    plan = claims.make_plan(options.name, options.claim, options.seeds, roots, **kind)
    folder = Path(options.folder)
    if options.recheck:
        return _recheck(plan, folder, options)
    print("\n".join(_describe(plan, folder, options.jobs)), flush=True)
    if options.dry_run:
        return 0
    apart: dict[str, Any] = {"fresh": options.fresh, "out": Path(options.out) if options.out else None}
    try:
        report = claims.reproduce(plan, folder=folder, threads=options.threads, parallel=options.jobs, **apart)
    except KeyboardInterrupt:
        print("stopped; finished runs are kept, and the same command continues", file=sys.stderr)
        return 130
    for message in report.failed:
        print(f"error: {message}", file=sys.stderr)
    if report.results is None:
        failed = f", {len(report.failed)} failed" if report.failed else ", everything works"
        print(f"smoke run: nothing was recorded{failed}")
        return 1 if report.failed else 0
    print("\n".join(_verdicts(plan, report)))
    print(f"written to {report.path}")
    return 1 if report.failed else 0


def _recheck(plan: Plan, folder: Path, options: argparse.Namespace) -> int:
    """Say which stored runs the code of today confirms; 1 if one of the repeated runs gave other digits or failed."""
    from zoo.claims import is_installed, results_of, results_path
    from zoo.claims.confirming import groups_of, recheck
    from zoo.claims.steps import Place

    entry = plan.entry
    if is_installed(entry) or options.fresh or options.out or options.quick:
        raise BadInput(
            "--recheck marks the results beside a card: run it in a checkout, without --fresh, --out, --quick."
        )
    path = results_path(plan, folder)
    if options.dry_run:
        groups = groups_of(entry, plan.claims, plan.jobs, results_of(entry)["runs"])
    else:
        place = Place(entry, folder.resolve(), plan.roots, options.threads or 1)
        groups = recheck(entry, plan.claims, plan.jobs, path, place)
    for group in groups:
        about = f"{group.name}: {len(group.runs)} runs by code {group.was}"
        if options.dry_run:
            print(f"would repeat   {about}: {group.job.label}")
        elif group.failed:
            print(f"FAILED         {about}: {group.failed}")
        elif group.differs:
            key, (stored, again) = next(iter(group.differs.items()))
            print(f"differs        {about}: {group.job.label}: {key} {_short(stored)}, now {_short(again)}")
        else:
            print(f"equal digits   {about}, confirmed by {group.job.label}")
    if not groups:
        print("nothing to repeat: today's code has made or confirmed all stored runs of these claims")
    elif not options.dry_run and not all(group.failed or group.differs for group in groups):
        print(f"written to {path}")
    return int(not options.dry_run and any(group.failed or group.differs for group in groups))


def _short(value: object) -> str:
    return f"{value:.9g}" if isinstance(value, float) else "a curve" if isinstance(value, list) else str(value)


def _root(text: str) -> tuple[str, str]:
    name, equals, folder = text.partition("=")
    if not equals or not name or not folder:
        raise BadInput(f"--root expects NAME=DIR, got {text!r}.")
    return name, folder


def _describe(plan: Plan, folder: Path, jobs: int) -> list[str]:
    """The plan and what it costs: at least, up to the first look, and at most."""
    from zoo.claims.run import is_done
    from zoo.claims.steps import Place

    place = Place(plan.entry, folder.resolve(), plan.roots)
    done = {job.key: is_done(place, job) for job in plan.jobs}
    looks: dict[str, int] = {}
    for number in range(plan.rounds, 0, -1):
        looks |= dict.fromkeys((job.key for job in plan.jobs_at(number)), number)
    most = sum(job.minutes for job in plan.jobs if not done[job.key])
    least = sum(job.minutes for job in plan.jobs if not done[job.key] and looks.get(job.key, 1) == 1)
    lines = [f"{plan.entry.id}: {len(plan.claims)} claims, {len(plan.jobs)} runs, {sum(done.values())} of them done"]
    for claim in plan.claims:
        lines.append(f"  claim {claim.id}: {claim.promise}")
        if claim.looks and plan.rounds > 1:
            lines.append("    " + _looks(claim))
    lines += [f"  left out: {name} {why}" for name, why in plan.left_out.items()]
    for job in plan.jobs:
        cost = "done" if done[job.key] else f"{job.minutes:.1f} min" if job.minutes else "-"
        look = looks.get(job.key, 1)
        lines.append(f"  {cost:>9}  {job.label}" + (f"  (look {look})" if look > 1 else ""))
    text = f"{most:.0f}" if least == most else f"{least:.0f} to {most:.0f}"
    lines.append(f"about {text} minutes of computing" + (f", {jobs} at a time" if jobs > 1 else ""))
    return lines


def _looks(claim: Claim) -> str:
    """When it is judged, and what it has cost by then."""
    share = (claim.minutes or 0) / len(claim.seeds)
    costs = [f"{look} seeds ({look * share:.0f} min)" if claim.minutes else f"{look} seeds" for look in claim.looks]
    return f"judged after {', '.join(costs)}; each interval is one of {100 * coverage_of(len(claim.looks)):.2f} %"


def _verdicts(plan: Plan, report: Report) -> list[str]:
    """What this machine's runs say by themselves, beside what was published; the file, where it says another thing."""
    lines = [""]
    for claim in plan.claims:
        fresh, published = report.fresh[claim.id], report.published.get(claim.id)
        lines.append(f"{fresh['verdict']:<15}  {claim.id}{_details(fresh)}")
        for condition in fresh.get("premises", []):
            met = "met" if condition["met"] else "NOT MET"
            measured = "no finite value" if condition["measured"] is None else f"{condition['measured']:.4g}"
            lines.append(f"    premise {met}: {condition['says']} ({condition['metric']} {measured})")
        for here, there, how in side_by_side(published, fresh):
            alone = here["against"] == "value"  # differences from a number are shown as what was measured
            shift = (claim.value or 0.0) if alone else 0.0
            beside = f"; published {_interval(there, shift, signed=not alone)}; {how}" if there else ""
            name = claim.metric if alone else here["against"]
            lines.append(f"    {name}: {_interval(here, shift, signed=not alone)}{beside}")
        said = [] if published is None or published["verdict"] == "not run" else [f"published: {_said(published)}"]
        stored = (report.results or {}).get("claims", {}).get(claim.id)
        if stored is not None and (stored["verdict"] != fresh["verdict"] or not (report.apart or said)):
            said.append(f"{Path(report.path or '').name}: {_said(stored)}")
        lines += [f"    {line}" for line in said]
    return lines


def _interval(about: dict[str, Any], shift: float, *, signed: bool) -> str:
    mean = f"{about['mean'] + shift:{'+' if signed else ''}.4g}"
    if about["low"] is None or about["n"] == 0:
        return mean
    return f"{mean} [{about['low'] + shift:.4g}, {about['high'] + shift:.4g}]"


def _said(about: dict[str, Any]) -> str:
    return f"{about['verdict']}{_details(about)}"


def _details(about: dict[str, Any]) -> str:
    """Why, at which look, what could have been seen, and what is left of it after Holm."""
    parts = [about["reason"]] if about.get("reason") else []
    if look := about.get("look"):
        parts.append(f"look {look['number']} of {look['of']}, {look['seeds']} seeds")
    if about.get("next_seeds"):
        parts.append(f"the next look is at {about['next_seeds']} seeds")
    if about.get("detectable") is not None:
        parts.append(f"could have seen {about['detectable']:.4g}")
    if (stands := after_holm(about)) is not None and stands != about["verdict"]:
        parts.append(f"{stands} after Holm")
    return f"  ({'; '.join(parts)})" if parts else ""


def add_card(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of `zoo card`."""
    parser.add_argument("name", nargs="?", help="id of a method")
    parser.add_argument("--all", action="store_true", help="every method, and the table in README.md")
    parser.add_argument("--check", action="store_true", help="write nothing; say what is out of date")
    parser.add_argument("--dir", metavar="DIR", help="root of the checkout or package, to write there from elsewhere")
    parser.add_argument("--images", action="store_true", help="also redraw the pictures and curves")
    parser.add_argument("--classes", action="store_true", help="also score the default weights for each class")


def run_card(options: argparse.Namespace) -> int:
    """Write or check cards; 1 if a check failed."""
    from zoo import card, index

    if options.name is None and not options.all:
        raise BadInput("Which method? As in: zoo card NAME, or zoo card --all")
    if (options.images or options.classes) and options.check:
        raise BadInput("--images and --classes write, --check writes nothing: give one of them.")
    known = index.entries()
    names = [n for n in known if card.has_card(known[n])] if options.all else [index.resolve(options.name)[0].id]
    if not options.check:
        if options.all:  # those of other packages are written from inside of these
            names = [name for name in names if project_of(known[name]) == checkout()]
        for name in names[:1]:
            say_where(known[name], options.dir, "name it with --dir")
    if options.images:
        for name in names:
            for path in card.draw(known[name]):
                print(f"drawn     {path}")
    if options.classes:
        for name in names:
            print(f"scored    {card.measure(known[name])}")
    problems: list[object] = []
    for name in names:
        problems += card.check(known[name]) if options.check else card.write(known[name])
    if options.all:
        problems += card.check_readme() if options.check else card.write_readme()
    for problem in problems:
        print(f"{'WRONG   ' if options.check else 'written '}  {problem}")
    print(f"{len(names)} cards, {len(problems)} {'out of date' if options.check else 'changed'}")
    return 1 if options.check and problems else 0
