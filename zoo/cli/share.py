"""`zoo push` and `zoo publish`: checkpoints to the Hub."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import BadInput
from zoo.text import aligned

if TYPE_CHECKING:
    from zoo.store import Row

__all__ = ["add_publish", "add_push", "print_rows", "run_publish", "run_push"]


def _add_visibility(parser: argparse.ArgumentParser, *, private: bool) -> None:
    group = parser.add_mutually_exclusive_group()
    default = "the default" if private else "the default is --public"
    group.add_argument(
        "--private",
        dest="private",
        action="store_true",
        default=private,
        help=f"a new repository is yours only ({default})",
    )
    group.add_argument("--public", dest="private", action="store_false", help="a new repository is everybody's")


def add_push(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of `zoo push`."""
    parser.add_argument("checkpoint", help="a Lightning .ckpt, or a folder written by zoo.save")
    parser.add_argument("repo", help="OWNER/REPO; created if it does not exist")
    _add_visibility(parser, private=True)
    parser.add_argument("--tag", help="a name for this commit, which never moves, such as v1")
    parser.add_argument("--licence", "--license", dest="licence", help="of the weights, such as mit, for the card")
    parser.add_argument("--endpoint", help="another Hub, as HF_ENDPOINT")


def run_push(options: argparse.Namespace) -> int:
    """Send one checkpoint, load it back from an empty cache, and say how others load it."""
    path = Path(options.checkpoint).expanduser()
    if not path.exists():
        raise BadInput(
            f"There is no checkpoint {options.checkpoint}: give a .ckpt file or a folder written by zoo.save. "
            "The index's own weights are published with `zoo publish`."
        )
    if len(options.repo.split("/")) != 2:
        raise BadInput(f"Expected the repository as OWNER/NAME, got {options.repo!r}.")
    from zoo import store

    about = store.push(
        path,
        options.repo,
        private=options.private,
        tag=options.tag,
        licence=options.licence,
        endpoint=options.endpoint,
    )
    print(f"repository  {about.hub.repo}" + ("  (new ones are private)" if options.private else ""))
    print(f"commit      {about.hub.revision}" + (f"  tag {options.tag}" if options.tag else ""))
    print(f"sha256      {about.sha256}  ({about.bytes or 0:,} bytes, {about.params or 0:,} parameters)")
    print("checked     downloaded into an empty cache, loaded, golden outputs reproduced")
    print(f'load it     zoo.load("hf://{about.hub.repo}@{options.tag or about.hub.revision}")')
    return 0


def add_publish(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of `zoo publish`."""
    parser.add_argument("names", nargs="*", metavar="name", help="ID (all its trained tags) or ID:TAG; default: all")
    parser.add_argument("--namespace", required=True, metavar="OWNER", help="owner of the repositories OWNER/ID-TAG")
    _add_visibility(parser, private=False)
    parser.add_argument("--dry-run", action="store_true", help="say what would be done; no request is made")
    parser.add_argument("--endpoint", help="another Hub, as HF_ENDPOINT")


def run_publish(options: argparse.Namespace) -> int:
    """Publish, pin in the index, and print one row per checkpoint; 1 if any failed."""
    from zoo import store

    rows = store.publish(
        options.names or None,
        namespace=options.namespace,
        private=options.private,
        dry_run=options.dry_run,
        endpoint=options.endpoint,
    )
    if not rows:
        print("Nothing to publish: none of these checkpoints has been trained yet.")
        return 1
    return print_rows(rows, "looked at" if options.dry_run else "handled")


def print_rows(rows: Sequence[Row], done: str) -> int:
    """Print the table of `verify` and `publish`; 1 if a row is wrong."""
    for line in aligned([(row.mark, row.name, row.where, row.why) for row in rows]):
        print(line)
    bad = sum(not row.ok for row in rows)
    none = sum(row.ok and not row.checked for row in rows)
    print(f"{len(rows) - none} {done}, {bad} wrong" + (f"; {none} without a file here" if none else ""))
    return 1 if bad else 0
