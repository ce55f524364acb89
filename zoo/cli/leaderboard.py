"""`zoo leaderboard`: checkpoints side by side, measured again, and yours between them."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.cli.evaluate import number
from zoo.cli.evidence import _positive
from zoo.cli.place import checkout, is_inside
from zoo.errors import BadInput

if TYPE_CHECKING:
    from zoo.robustness.board import BoardRow, Subject

__all__ = ["add_leaderboard", "run_leaderboard"]

_FOLDER = "runs/leaderboards/robustness"


def add_leaderboard(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of `zoo leaderboard`."""
    parser.add_argument("board", choices=("robustness",), help="which one")
    parser.add_argument(
        "--measure", action="append", default=[], metavar="NAME[:TAG]", help="measure what this row lacks; repeatable"
    )
    parser.add_argument("--missing", action="store_true", help="measure every row of the zoo that lacks something")
    parser.add_argument(
        "--own", action="append", default=[], metavar="PATH", help="enter a .ckpt, a saved folder or hf://owner/repo"
    )
    parser.add_argument("--again", action="store_true", help="from the beginning, and compare with the row there was")
    parser.add_argument("--n", type=_positive, default=1000, help="test pictures, drawn by seed 0 (1000)")
    parser.add_argument("--autoattack", type=_count, metavar="N", help="AutoAttack on the first N of them only (all)")
    parser.add_argument("--eps", help="radius, 0.1 or 8/255 (that of the training)")
    parser.add_argument("--data", metavar="NAME", help="with --own: the test pictures of this method")
    parser.add_argument("--root", metavar="DIR", help="folder of the data, for what is not embedded")
    parser.add_argument("--folder", default=_FOLDER, metavar="DIR", help=f"where your rows are kept ({_FOLDER})")
    parser.add_argument("--apart", action="store_true", help="in a checkout: keep --measure in --folder, too")
    parser.add_argument("--batch-size", type=_positive, default=128, help="pictures attacked at once (128)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (auto: a GPU if there is one)")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be measured, and its cost")
    parser.add_argument("--write", action="store_true", help="write the page of the documentation (from a checkout)")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON instead of tables")


def _count(text: str) -> int:
    return 0 if text == "0" else _positive(text)


def run_leaderboard(options: argparse.Namespace) -> int:
    """Measure what is asked for, then show the board."""
    if options.data and not options.own:
        raise BadInput("--data says whose test pictures --own is measured on: give --own PATH, too.")
    if options.missing and (options.measure or options.own):
        raise BadInput("--missing measures every row of the zoo: leave out --measure and --own.")
    from zoo.robustness import board
    from zoo.robustness.board.row import home

    folder = Path(options.folder).expanduser()
    root = checkout()
    inside = root is not None and is_inside(root)
    if options.write and not inside:
        raise BadInput("--write writes docs/leaderboards: call it from inside a checkout of the zoo.")
    apart = options.apart or not inside
    names = board.candidates() if options.missing else options.measure
    for name in names:
        _measure(name, folder if apart else home(), folder, options)
    for name in options.own:
        _measure(name, folder, folder, options, own=True)
    if options.write or (names and not apart and not options.dry_run):
        from zoo.files import write_whole

        target = home().with_suffix(".md")
        write_whole(target, board.page(board.published()))
        print(f"written to {target}", file=sys.stderr)
    if not options.dry_run:
        _show([*board.published(), *board.rows_in(folder)], options)
    return 0


def _measure(name: str, target: Path, folder: Path, options: argparse.Namespace, *, own: bool = False) -> None:
    """Measure one row, and say how it compares with the one there was."""
    from zoo.claims.run import facts_of_machine
    from zoo.cli.devices import device_of
    from zoo.robustness import board
    from zoo.robustness.board.row import read_row

    eps = None if options.eps is None else number(options.eps, "--eps")
    device = device_of(options.device)
    subject = board.subject_of(name, eps, options.root, options.data)
    subject.own = own or target == folder
    path = board.place_of(target, subject.name, "linf", subject.eps)
    before = read_row(path) if options.again and path.is_file() else None
    work = path if before is None else folder / f"again-{path.name}.part"
    if options.dry_run:
        print(_plan(subject, options))
        return
    row = board.measure(
        subject, work, options.n, whole=options.autoattack, batch_size=options.batch_size,
        device=device, made=facts_of_machine(), tell=lambda line: print(line, file=sys.stderr),
    )  # fmt: skip
    if before is not None:
        print("\n".join(_compared(before, row)))
        path.unlink()
        row.save(path)
        work.unlink()


def _plan(subject: Subject, options: argparse.Namespace) -> str:
    from zoo.robustness.adaptive import adaptive_attacks
    from zoo.robustness.board.measuring import cost, macs_of

    macs = macs_of(subject)
    if macs is None:
        return f"{subject.name}: its operations are unknown"
    operations, minutes = cost(macs, options.n, options.autoattack, len(adaptive_attacks(subject.model)))
    return (
        f"{subject.name}: eps {subject.eps:.4g}, {options.n} pictures, {macs / 1e6:.1f} M multiply-adds each: about "
        f"{operations / 1e12:.0f} TFLOP, {minutes:.0f} minutes of one core"
    )


def _compared(before: BoardRow, row: BoardRow) -> list[str]:
    """The row there was, beside the one just measured, on the pictures that both have seen."""
    lines = [f"{row.name}: published {before.worst:.1%}, now {row.worst:.1%}"]
    for name, now in row.attacks.items():
        if (was := before.attacks.get(name)) is not None:
            both = min(was.seen, now.seen)
            differ = sum(a != b for a, b in zip(was.flags, now.flags, strict=False))
            lines.append(f"  {name}: {differ} of {both} verdicts differ")
    return lines


def _show(rows: list[BoardRow], options: argparse.Namespace) -> None:
    from zoo.robustness import board

    if options.json:
        derived = [{**asdict(row), "worst": row.worst, "interval": row.interval} for row in rows]
        print(json.dumps(derived, indent=2, ensure_ascii=False))
    elif rows:
        print(board.shown(rows))
    else:
        print("The board has no row yet: zoo leaderboard robustness --measure NAME[:TAG]")
