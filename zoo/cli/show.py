"""`zoo list` and `zoo info`: the index as text or JSON. No torch here."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from zoo import index
from zoo.index import Entry, Weights
from zoo.text import aligned, human_bytes, human_count, table

__all__ = ["add_info", "add_list", "run_info", "run_list"]


def add_list(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of `zoo list`."""
    pattern = "part of a name, or a wildcard (in quotes) over ids, aliases and id:tag"
    parser.add_argument("pattern", nargs="?", default="*", help=pattern)
    parser.add_argument("--task", help="such as object-detection")
    parser.add_argument("--licence", "--license", dest="licence", help="wildcard over the licences of the weights")
    parser.add_argument("--pretrained", action="store_true", default=None, help="only methods with weights")
    parser.add_argument("--paper", help="part of the paper's title, authors, venue or number")
    parser.add_argument("--year", type=int, help="of the paper")
    parser.add_argument("--can", action="append", help="capability, such as onnx; may be given several times")
    parser.add_argument("--json", action="store_true", help="machine-readable")


def run_list(options: argparse.Namespace) -> int:
    """Print the methods that match."""
    names = index.list_models(
        options.pattern,
        task=options.task,
        licence=options.licence,
        pretrained=options.pretrained,
        paper=options.paper,
        year=options.year,
        can=options.can,
    )
    known = index.entries()
    if options.json:
        print(json.dumps([_facts(known[name]) for name in names], indent=2, ensure_ascii=False))
        return 0
    if not names:
        print("No method matches. `zoo list` without filters shows all.")
        return 1
    rows = [_row(known[name]) for name in names]
    print(table(("name", "task", "tags", "params", "size", "headline", "licence"), rows))
    print(f"\n{len(names)} method{'s' if len(names) != 1 else ''}; `zoo info NAME` tells more.")
    return 0


def _facts(entry: Entry) -> dict[str, Any]:
    facts = asdict(entry)
    facts.pop("source")
    return facts


def _row(entry: Entry) -> tuple[str, ...]:
    """One line of the table; sizes and numbers are those of the default tag."""
    default = entry.weights.get(entry.default or "")
    ready = [tag for tag, w in entry.weights.items() if w.sha256]
    tags = [entry.default] if entry.default in ready else []
    tags += [tag for tag in ready if tag not in tags]
    shown = ", ".join(str(t) for t in tags[:3]) + (f" +{len(tags) - 3}" if len(tags) > 3 else "")
    if default is None:
        return entry.id, entry.task, shown or "-", "-", "-", "-", entry.licence
    return (
        entry.id,
        entry.task,
        shown or "-",
        human_count(default.params),
        human_bytes(default.bytes),
        _headline(default.metrics),
        default.licence,
    )


def _headline(metrics: Mapping[str, float]) -> str:
    for key, value in metrics.items():
        return f"{key} {value:.4g}"
    return "-"


def add_info(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of `zoo info`."""
    parser.add_argument("name", help="NAME, NAME:TAG or an alias")
    parser.add_argument("--json", action="store_true", help="machine-readable")


def run_info(options: argparse.Namespace) -> int:
    """Print an entry; with a tag, that checkpoint only."""
    entry, tag = index.resolve(options.name)
    one = ":" in options.name
    if options.json:
        facts = _facts(entry.tag(tag)) | {"tag": tag}
        if one and tag:
            facts["weights"] = {tag: facts["weights"][tag]}
        print(json.dumps(facts, indent=2, ensure_ascii=False))
        return 0
    print("\n".join(_describe(entry, tag, one)))
    return 0


def _describe(entry: Entry, tag: str | None, one: bool) -> list[str]:
    view = entry.tag(tag)
    lines = [f"{entry.id}" + (f":{tag}" if one else ""), entry.summary, ""]
    fields: list[tuple[str, Any]] = [("task", view.task), ("learns", view.learns), ("can", ", ".join(view.can) or "-")]
    fields.append(("predicts", ", ".join(index.TASKS[view.task].results)))
    fields += [(f"paper {key}" if key != "title" else "paper", value) for key, value in entry.paper.items()]
    fields += [("code licence", entry.licence), ("model", view.model), ("data module", view.data)]
    if entry.aliases:
        fields.append(("aliases", ", ".join(f"{a} -> {t}" for a, t in entry.aliases.items())))
    lines += aligned(fields)
    for name, weights in entry.weights.items():
        if not one or name == tag:
            lines += ["", f"weights {entry.id}:{name}" + ("  (default)" if name == entry.default else "")]
            lines += [f"  {line}" for line in aligned(_weights(entry, weights))]
    return [*lines, "", *_how_to(entry, tag)]


def _weights(entry: Entry, weights: Weights) -> list[tuple[str, Any]]:
    recipe = index.recipe_path(entry, weights.tag)
    data = weights.trained_on
    rows: list[tuple[str, Any]] = [("weights licence", weights.licence)]
    if data:
        rows.append(("trained on", data.get("data", "-")))
        rows.append(("data licence", data.get("licence", "-")))
        rows += [(f"data {k}", v) for k, v in data.items() if k not in ("data", "licence")]
    if weights.sha256 is None:
        rows.append(("status", "not trained yet; the recipe makes them"))
    else:
        where = [f"bundled {weights.file}"] if weights.file else []
        where += [f"hf://{weights.hub.repo}@{weights.hub.revision}"] if weights.hub.repo else []
        rows += [("parameters", human_count(weights.params)), ("size", human_bytes(weights.bytes))]
        rows += [("sha256", weights.sha256), ("where", ", ".join(where))]
    rows += [(key, f"{value:.4g}") for key, value in weights.metrics.items()]
    rows.append(("init", json.dumps(weights.init, ensure_ascii=False)))
    if recipe.is_file():
        rows.append(("recipe", recipe))
    return rows


def _how_to(entry: Entry, tag: str | None) -> list[str]:
    name = f"{entry.id}:{tag}" if tag and tag != entry.default else entry.id
    ready = tag is not None and entry.weights[tag].sha256 is not None
    lines = ["how to"]
    if ready:
        lines += [f'  load     model = zoo.load("{name}")', f"  predict  zoo predict {name} INPUT --out results"]
    else:
        lines.append(f'  build    model = zoo.load("{name}", weights=False)')
    lines.append(f"  train    zoo train {name} --data.root DIR" + (f" --weights {name}" if ready else ""))
    lines.append(f"  data     zoo data fake {entry.id} DIR      # a miniature of the folder it reads")
    return lines
