"""Reports of the weights of a method, as `robustness.json` of its card: one command for all methods."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from zoo.files import write_whole
from zoo.index import index_path
from zoo.nn.attacks import Model
from zoo.robustness.evaluate import evaluate_robustness
from zoo.robustness.report import RobustnessReport
from zoo.store import datamodule, load

__all__ = ["Attacks", "main", "reports_of", "rows"]

Attacks = Callable[[Any], Mapping[str, "str | Callable[..., Any]"]]
"""model -> attacks as `evaluate_robustness` takes them, for attacks that a method needs besides the standard ones."""


AT = " at eps "
"""Between a tag and another radius than its own, in the name of a report."""


def place_of(method: str) -> Path:
    """The file of a method."""
    return index_path().parent / "model_cards" / method / "robustness.json"


def reports_of(method: str) -> dict[str, Any]:
    """Stored reports of a method by tag; empty if there are none."""
    path = place_of(method)
    known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["reports"] if path.is_file() else {}
    return known


def measure(
    method: str,
    texts: Sequence[str],
    order: Sequence[str],
    n: int,
    attacks: str | Sequence[str] | Attacks,
    root: str | None = None,
    surrogates: Sequence[Model | str] = (),
    eps: float | None = None,
) -> None:
    """Evaluate weights, and store each report as soon as it is there.

    Args:
        method: id.
        texts: bundled weights (TAG), or a file with weights of that kind (TAG=PATH).
        order: tags, in the order of the file.
        n: test pictures, drawn by seed 0.
        attacks: for `evaluate_robustness`, or a function of the model that returns them.
        root: folder of the data; None for the embedded ones.
        surrogates: names of models for the transfer attack of the battery.
        eps: radius; None: that which the weights were trained with. Reports at other radii stand beside that one.
    """
    for text in texts:
        tag, _, path = text.partition("=")
        model: Any = load(path or f"{method}:{tag}")
        data = datamodule(f"{method}:{tag}", **({} if root is None else {"root": root}))
        own = float(model.hparams["eps"])
        radius = model.hparams["eps"] = own if eps is None else eps  # attacks of a method look there
        chosen: Any = attacks(model) if callable(attacks) else attacks
        report = evaluate_robustness(model, data, radius, n, chosen, surrogates=surrogates)
        print(report, end="\n\n", flush=True)
        name = tag if radius == own else f"{tag}{AT}{radius:g}"
        _store(method, name, report, getattr(model.report, "sha256", None), order)


def _store(method: str, name: str, report: RobustnessReport, sha256: str | None, order: Sequence[str]) -> None:
    known = reports_of(method)  # read after the computation: another process may have added a report
    known[name] = {**report.to_dict(), "model": f"{method}:{name.partition(AT)[0]}", "sha256": sha256}
    listed = [(order.index(text.partition(AT)[0]), text) for text in known if text.partition(AT)[0] in order]
    content = {
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "reports": {text: known[text] for _, text in sorted(listed)},
    }
    write_whole(place_of(method), json.dumps(content, indent=2) + "\n")


def rows(method: str, columns: Mapping[str, Sequence[str]]) -> list[str]:
    """Stored reports as a table of Markdown.

    Args:
        method: id.
        columns: heading -> names of the attacks whose worst result stands there (each alone, not cumulative).
    """
    head = ["weights", "pictures", "clean", *columns, "worst case (95 % interval)", "signs of masking"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for tag, report in reports_of(method).items():
        alone = {row["attack"]: row["accuracy"] for row in report["rows"]}
        cells = [f"`{tag}`", str(report["n"]), f"{report['clean']:.1%}"]
        for names in columns.values():
            there = [alone[name] for name in names if name in alone]
            cells.append(f"{min(there):.1%}" if there else "not run")
        low, high = report["worst_interval"]
        ran = sum(check["ok"] is not None for check in report["checks"])
        cells.append(f"{report['worst']:.1%} ({low:.1%} to {high:.1%})")
        cells.append(", ".join(report["suspicious"]) or f"none in {ran} checks")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main(
    method: str,
    about: str | None,
    tags: Sequence[str],
    columns: Mapping[str, Sequence[str]],
    attacks: str | Attacks = "standard",
    usual: Sequence[str] | None = None,
) -> None:
    """The command line of a method's reports: `evaluate` and `table`.

    Args:
        method: id.
        about: for `--help`.
        tags: known tags, in the order of the table.
        columns: of the table, as in `rows`.
        attacks: unless `--attacks` names others.
        usual: tags that are evaluated unless `--tags` names others; None: all.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["evaluate", "table"])
    parser.add_argument("--tags", nargs="+", default=list(usual or tags), metavar="TAG[=PATH]", help=", ".join(tags))
    parser.add_argument("--root", help="folder of the data, for what is not embedded")
    parser.add_argument("--n", type=int, default=300, help="test pictures (300)")
    parser.add_argument("--eps", type=float, help="radius (that which the weights were trained with)")
    parser.add_argument("--attacks", nargs="+", help="as zoo.evaluate_robustness takes them")
    options = parser.parse_args()
    if options.what == "table":
        print("\n".join(rows(method, columns)))
        return
    unknown = [text for text in options.tags if text.partition("=")[0] not in tags]
    if unknown:
        parser.error(f"--tags: expected {', '.join(tags)}; got {', '.join(unknown)}")
    measure(method, options.tags, tags, options.n, options.attacks or attacks, options.root, eps=options.eps)
