"""`zoo reproduce` and `zoo card`: measuring what is promised, and writing it down."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import BadInput

if TYPE_CHECKING:
    from zoo.claims import Plan

__all__ = ["add_card", "add_reproduce", "run_card", "run_reproduce"]


def add_reproduce(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of `zoo reproduce`."""
    parser.add_argument("name", help="id of a method")
    parser.add_argument("--claim", action="append", metavar="ID", help="only this claim; may be given several times")
    parser.add_argument("--seeds", type=int, nargs="+", metavar="N", help="only these of its seeds")
    parser.add_argument("--root", action="append", default=[], metavar="NAME=DIR", help="folder of a data set it needs")
    parser.add_argument("--missing", action="store_true", help="only claims whose runs are not all in results.json")
    parser.add_argument("--quick", action="store_true", help="smoke run in minutes; its numbers are never kept")
    parser.add_argument("--dry-run", action="store_true", help="only show the plan and its cost")
    parser.add_argument("--jobs", type=_positive, default=1, metavar="N", help="runs at once (1)")
    parser.add_argument("--threads", type=_positive, metavar="N", help="threads of each run (cores / jobs)")
    parser.add_argument(
        "--folder", default="runs/reproduce", metavar="DIR", help="where runs are kept (runs/reproduce)"
    )


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def run_reproduce(options: argparse.Namespace) -> int:
    """Show the plan, carry it out, and print the verdicts; 1 if a run failed."""
    from zoo import claims

    roots = dict(_root(text) for text in options.root)
    kind = {"quick": options.quick, "missing": options.missing}
    plan = claims.make_plan(options.name, options.claim, options.seeds, roots, **kind)
    folder = Path(options.folder)
    print("\n".join(_describe(plan, folder, options.jobs)), flush=True)
    if options.dry_run:
        return 0
    before = claims.results_of(plan.entry).get("claims", {})
    try:
        results, failed = claims.reproduce(plan, folder=folder, threads=options.threads, parallel=options.jobs)
    except KeyboardInterrupt:
        print("stopped; finished runs are kept, and the same command goes on from there", file=sys.stderr)
        return 130
    for message in failed:
        print(f"error: {message}", file=sys.stderr)
    if results is None:
        print("smoke run: nothing was recorded" + (f", {len(failed)} failed" if failed else ", everything works"))
        return 1 if failed else 0
    print("\n".join(_verdicts(plan, results["claims"], before)))
    print(f"written to {claims.results_path(plan, folder.resolve())}")
    return 1 if failed else 0


def _root(text: str) -> tuple[str, str]:
    name, equals, folder = text.partition("=")
    if not equals or not name or not folder:
        raise BadInput(f"--root expects NAME=DIR, got {text!r}.")
    return name, folder


def _describe(plan: Plan, folder: Path, jobs: int) -> list[str]:
    """The plan and what it costs."""
    from zoo._claims_run import is_done
    from zoo._claims_steps import Place

    place = Place(plan.entry, folder.resolve(), plan.roots)
    done = {job.key: is_done(place, job) for job in plan.jobs}
    left = sum(job.minutes for job in plan.jobs if not done[job.key])
    lines = [f"{plan.entry.id}: {len(plan.claims)} claims, {len(plan.jobs)} runs, {sum(done.values())} of them done"]
    lines += [f"  claim {c.id}: {c.promise}" for c in plan.claims]
    lines += [f"  left out: {name} {why}" for name, why in plan.left_out.items()]
    for job in plan.jobs:
        cost = "done" if done[job.key] else f"{job.minutes:.1f} min" if job.minutes else "-"
        lines.append(f"  {cost:>9}  {job.label}")
    lines.append(f"about {left:.0f} minutes of computing" + (f", {jobs} at a time" if jobs > 1 else ""))
    return lines


def _verdicts(plan: Plan, found: dict[str, Any], before: dict[str, Any]) -> list[str]:
    """One line per claim; what was published, where that differs."""
    lines = [""]
    for claim in plan.claims:
        now = found[claim.id]
        text = f"{now['verdict']:<9}  {claim.id}"
        for c in now["comparisons"]:
            spread = "" if c["low"] is None or c["n"] == 0 else f" [{c['low']:.4g}, {c['high']:.4g}]"
            text += f"  {c['against']}: {c['mean']:+.4g}{spread}"
        text += f"  ({now['reason']})" if now["reason"] else ""
        old = before.get(claim.id, {}).get("verdict", "not run")
        text += f"  before: {old}" if old not in ("not run", now["verdict"]) else ""
        lines.append(text)
    return lines


def add_card(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of `zoo card`."""
    parser.add_argument("name", nargs="?", help="id of a method")
    parser.add_argument("--all", action="store_true", help="every method, and the table in README.md")
    parser.add_argument("--check", action="store_true", help="write nothing; say what is out of date")
    parser.add_argument("--images", action="store_true", help="also draw the pictures and curves anew")


def run_card(options: argparse.Namespace) -> int:
    """Write or check cards; 1 if a check found something."""
    from zoo import card, index

    if options.name is None and not options.all:
        raise BadInput("Which method? As in: zoo card NAME, or zoo card --all")
    if options.images and options.check:
        raise BadInput("--images draws, --check writes nothing: give one of them.")
    known = index.entries()
    names = [n for n in known if card.has_card(known[n])] if options.all else [index.resolve(options.name)[0].id]
    if options.images:
        for name in names:
            for path in card.draw(known[name]):
                print(f"drawn     {path}")
    problems: list[object] = []
    for name in names:
        problems += card.check(known[name]) if options.check else card.write(known[name])
    if options.all:
        problems += card.check_readme() if options.check else card.write_readme()
    for problem in problems:
        print(f"{'WRONG   ' if options.check else 'written '}  {problem}")
    print(f"{len(names)} cards, {len(problems)} {'out of date' if options.check else 'changed'}")
    return 1 if options.check and problems else 0
