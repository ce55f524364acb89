"""Writes benchmarks/RESULTS.md from benchmarks/results/*.json.

    python benchmarks/results_table.py            # write it
    python benchmarks/results_table.py --check    # write nothing; fail if it is out of date

Benchmarks store what suits them. Each shape has one reader here, which is chosen by the keys of a file and not by its
name, and turns it into rows of the same kind. A file of an unknown shape is an error: write its reader.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS, PAGE = HERE / "results", HERE / "RESULTS.md"
EVEN = 0.05
"""Ratios within this of 1 are called even: readings of the same code differ by as much."""

Content = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        what: was measured.
        ours: value of this package, with its unit.
        against: the peer, the floor or the other way; empty for a measurement by itself.
        theirs: value of the other side; empty if only the ratio was stored.
        ratio: ours divided by theirs, of times or sizes; None for a measurement by itself.
        bar: the ratio that was to be reached, if the file states one.
        kind: `peer` can be won or lost; a `floor` is work that nothing can leave out; `own` has no other side.
        note: anything else that belongs to the row.
    """

    what: str
    ours: str = ""
    against: str = ""
    theirs: str = ""
    ratio: float | None = None
    bar: float | None = None
    kind: str = "peer"
    note: str = ""

    @property
    def outcome(self) -> str:
        """How a ratio reads; empty where there is nothing to compare with."""
        if self.ratio is None or self.kind == "own":
            return ""
        if self.kind == "floor":
            return "at the floor" if self.ratio <= 1 + EVEN else "above the floor"
        if abs(self.ratio - 1) <= EVEN:
            return "even"
        return "won" if self.ratio < 1 else "lost"


def number(value: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def ms(value: float) -> str:
    return f"{number(value)} ms"


def seconds(value: float) -> str:
    return f"{number(value)} s"


# Readers: each takes the content of a file of its shape ------------------------------------------------------------


def read_cases(content: Content) -> Iterator[Row]:
    """Named ways per case, each with its ratio to the floor of the case; our own ways start with the package's name."""
    for case, found in content["cases"].items():
        ways = found["rows"]
        ours = [name for name in ways if name.startswith("zoo ")]
        for name in ours:
            for other, theirs in ways.items():
                if other in ours:
                    continue
                mine = ways[name]
                ratio = mine["over_floor"] / theirs["over_floor"]
                kind = "floor" if re.match(r"floor|\d+ passes", other) else "peer"
                yield Row(f"{case}: {name}", ms(mine["ms"]), other, ms(theirs["ms"]), ratio, found.get("bar"), kind)


def read_pairs(content: Content) -> Iterator[Row]:
    """Rows with the times of both sides, and some with a ratio alone, whose name says of what."""
    for row in content["rows"]:
        if "ours_ms" in row:
            details = ", ".join(f"{k} {v}" if k != "layout" else v for k, v in row.items() if k in _DETAILS)
            what, against = f"{row['what']}: {details}", row.get("peer", "peer")
            yield Row(what, ms(row["ours_ms"]), against, ms(row["peer_ms"]), row["ratio"], row.get("bar"))
        else:
            what, _, against = row["what"].partition(" / ")
            yield Row(what, "", against, "", row["ratio"], row.get("bar"), "floor" if "bare" in against else "own")


_DETAILS = ("layout", "px", "batch")


def read_shapes(content: Content) -> Iterator[Row]:
    """Times per shape of the input, against one library a row; further rows hold measurements of our own."""
    for row in content["rows"]:
        what = f"{row['shape']}, {row['kernels']:,} kernels"
        if "ratio" in row:
            yield Row(what, ms(row["ours"]), row["against"], ms(row["theirs"]), row["ratio"], row.get("bar"))
            continue
        own = {k: v for k, v in row.items() if k not in ("against", "shape", "kernels")}
        yield Row(f"{what}: {row['against']}", ", ".join(f"{k} {number(v)}" for k, v in own.items()))


def read_parts(content: Content) -> Iterator[Row]:
    """Parts of a benchmark of rounds: a simulation of another library, a bare loop, aggregation, ranks."""
    parts = content["parts"]
    if ray := parts.get("ray"):
        for key, ratio in ray.items():
            if key.endswith("_over_ray"):
                yield Row(key.removesuffix("_over_ray").replace("_", " "), "", "Flower's simulation", "", ratio)
    if once := parts.get("round"):
        note = f"largest difference of a weight {once['largest_difference']:.1e}"
        loop = "a bare loop over the same batches"
        yield Row("a round", "", loop, "", once["over_bare"], once.get("bar"), "floor", note)
    for rule, found in {**parts.get("aggregate", {}), **parts.get("robust", {})}.items():
        yield Row(f"aggregation: {rule}", seconds(found["seconds"]), note=f"memory: {found['models']:.2f} models")
    if ranks := parts.get("ranks"):
        yield Row("a round on two ranks", "", "one process", "", 1 / ranks["speedup_of_two"], ranks.get("bar"), "own")


def read_steps(content: Content) -> Iterator[Row]:
    """Steps against the sum of their passes, and predictions against the bare network."""
    for network, found in content["step"].items():
        times = ms(found["step_ms"]), "the sum of its passes", ms(found["passes_ms"])
        yield Row(f"{network}: training step", *times, found["ratio"], found.get("bar"), "floor")
    for network, found in content["predict"].items():
        for kind in ("tensor", "picture"):
            mine, bare = found[f"{kind}_ms"], found["bare_ms"]
            times, note = (ms(mine), "the bare network", ms(bare)), f"{ms(found[f'{kind}_over_bare_ms'])} more"
            yield Row(f"{network}: predict a {kind}", *times, mine / bare, found.get("bar"), "floor", note)


def read_join(content: Content) -> Iterator[Row]:
    """A join against other ways, its growth, and the throughput of its inner function."""
    for row in content["peers"]:
        for key, ratio in row.items():
            if key.startswith("ours / "):
                other = key.removeprefix("ours / ")
                kinds = ("recall", "precision")
                quality = [f"{kind} {row[f'{other}, {kind}']:.4f}" for kind in kinds if f"{other}, {kind}" in row]
                note = f"its {' and '.join(quality)}" if quality else ""
                times = seconds(row["ours, s"]), other, seconds(row[f"{other}, s"])
                yield Row(f"{row['walkers']:,} tracks", *times, ratio, row.get("bar"), note=note)
    for name, table in content["growth"].items():
        for row in table["rows"]:
            note = f"{row['pairs']:,} pairs, peak {row['peak GiB']:.2f} GiB"
            yield Row(f"growth, {name}: {row['walkers']:,} tracks", seconds(row["seconds"]), note=note)
        for key, value in table.items():
            if key.startswith("slope"):
                yield Row(f"growth, {name}: {key}", number(value))
    found = content["throughput"]
    for key, value in found.items():
        if key.endswith(" s"):
            name = key.removesuffix(" s").rstrip(",")
            yield Row(f"{found['pairs']:,} pairs of {found['points']:,} points: {name}", seconds(value))


def read_scores(content: Content) -> Iterator[Row]:
    """Scores of two ways to train, in the mean over seeds, and the ratio of their errors."""
    for row in content["rows"]:
        ours, theirs = (f"{sum(row[side]) / len(row[side]):.3f}" for side in ("python", "command"))
        what = f"{row['what']}: {row['metric']} after {row['epochs']} epochs"
        yield Row(what, ours, "zoo train", theirs, row["ratio"], kind="own", note="ratio of errors: 1 - score")


Reader = Callable[[Content], Iterator[Row]]


def _rows_have(*keys: str) -> Callable[[Content], bool]:
    """Whether the first row of a file has these keys."""
    return lambda content: isinstance(content.get("rows"), list) and set(keys) <= set(content["rows"][0])


def _has(*keys: str) -> Callable[[Content], bool]:
    return lambda content: set(keys) <= set(content)


READERS: list[tuple[Callable[[Content], bool], Reader]] = [
    (_has("cases"), read_cases),
    (_rows_have("metric", "python", "command"), read_scores),
    (_rows_have("what", "ours_ms"), read_pairs),
    (_rows_have("shape", "against"), read_shapes),
    (_has("parts"), read_parts),
    (_has("step", "predict"), read_steps),
    (_has("peers", "growth"), read_join),
]
"""What the content of a shape looks like, and who reads it."""


def reader_of(content: Content, name: str) -> Reader:
    """The one reader of a file's shape.

    Raises:
        SystemExit: if none or several know it.
    """
    readers = [reader for knows, reader in READERS if knows(content)]
    if len(readers) != 1:
        raise SystemExit(
            f"{name}: expected a shape that one reader of {Path(__file__).name} knows, got {len(readers)}."
        )
    return readers[0]


# The page ---------------------------------------------------------------------------------------------------------


def facts_of(content: Content) -> str:
    """Versions and machine, as far as a file states them."""
    plain = {k: v for k, v in content.items() if isinstance(v, (str, int, float))}
    facts = {**plain, **content.get("facts", {}), **content.get("versions", {})}
    return ", ".join(f"{key} {value}" for key, value in facts.items())


def script_of(path: Path) -> Path | None:
    """The script that writes a file: of the same name, or the one that names the file."""
    own = HERE / f"{path.stem}.py"
    naming = [p for p in sorted(HERE.glob("*.py")) if path.name in p.read_text(encoding="utf-8")]
    return own if own.is_file() else next(iter(naming), None)


def section(path: Path, rows: list[Row], content: Content) -> list[str]:
    """One file of results: where it comes from, and its table."""
    lines = [f"## {path.stem}", ""]
    if (script := script_of(path)) is not None:
        about = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or ""
        lines += [f"{about.splitlines()[0]} Measured by [{script.name}]({script.name}).", ""]
    if facts := facts_of(content):
        lines += [f"{facts}.", ""]
    return [*lines, *table(rows), ""]


def table(rows: list[Row]) -> list[str]:
    """Rows as Markdown, without columns that are empty throughout."""
    columns: dict[str, list[str]] = {
        "what": [row.what for row in rows],
        "ours": [row.ours for row in rows],
        "against": [row.against for row in rows],
        "theirs": [row.theirs for row in rows],
        "ours / theirs": ["" if row.ratio is None else number(row.ratio) for row in rows],
        "bar": ["" if row.bar is None else number(row.bar) for row in rows],
        "": [row.outcome for row in rows],
        "remark": [row.note for row in rows],
    }
    kept = {name: cells for name, cells in columns.items() if any(cells)}
    lines = [f"| {' | '.join(kept)} |".replace("|  |", "| |"), "|---" * len(kept) + "|"]
    for cells in zip(*kept.values(), strict=True):
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return lines


HEAD = """# Results of the benchmarks

<!-- Written by `python benchmarks/results_table.py` from benchmarks/results; not edited by hand. -->

Ratios below 1 mean that this package is faster. Both sides ran in turns on the same machine, and a ratio is the median
of ratios of neighbouring runs where the file stores it, so it need not be the quotient of the two medians beside it.
Within {even} of 1 it is called even. A floor is work that no implementation can leave out. Single values are
orientation only: machines differ.

Against peers: {peers}. Against floors: {floors}.

"""


def page() -> str:
    """The whole page."""
    sections: list[str] = []
    outcomes: list[str] = []
    for path in sorted(RESULTS.glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        rows = list(reader_of(content, path.name)(content))
        outcomes += [row.outcome for row in rows if row.outcome]
        sections += section(path, rows, content)
    against_peers, against_floors = (
        ", ".join(f"{outcomes.count(word)} {word}" for word in words)
        for words in (("won", "even", "lost"), ("at the floor", "above the floor"))
    )
    head = HEAD.format(even=f"{EVEN:.0%}", peers=against_peers, floors=against_floors)
    return head + "\n".join(sections).rstrip("\n") + "\n"


def main() -> int:
    """Write the page, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the page is out of date")
    if not parser.parse_args().check:
        PAGE.write_text(page(), encoding="utf-8")
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != page():
        print(f"{PAGE.name} is out of date: run python benchmarks/{Path(__file__).name}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
