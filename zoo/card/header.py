"""The YAML header of a card, as the Hub reads it: licence, task, tags, and the measured numbers as a model-index."""

from __future__ import annotations

import re
from typing import Any

import yaml

from zoo.index import TASKS, Entry

__all__ = ["header"]


def header(entry: Entry) -> list[str]:
    """Lines from `---` to `---`."""
    view = entry.tag()
    default = entry.weights.get(entry.default or "")
    fields: dict[str, Any] = {"library_name": "lightning-method-zoo"}
    licence = (default.licence if default else "") or entry.licence
    fields["license"] = licence.lower()
    if (tag := TASKS[view.task].hub) is not None:
        fields["pipeline_tag"] = tag
    fields["tags"] = list(dict.fromkeys([entry.id, view.task, "pytorch-lightning", *_arxiv(entry)]))
    datasets = [w.trained_on["hub"] for w in entry.weights.values() if w.sha256 and "hub" in w.trained_on]
    fields |= {"datasets": sorted(set(datasets))} if datasets else {}
    if results := _results(entry):
        fields["model-index"] = [{"name": entry.id, "results": results}]
    text = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=120)
    return ["---", *text.rstrip().split("\n"), "---"]


def _arxiv(entry: Entry) -> list[str]:
    return [f"arxiv:{entry.paper['arxiv']}"] if "arxiv" in entry.paper else []


def _results(entry: Entry) -> list[dict[str, Any]]:
    """One result per trained tag; splits are those of the logged keys."""
    rows = []
    for tag, weights in entry.weights.items():
        if weights.sha256 is None or not weights.metrics:
            continue
        name = str(weights.trained_on.get("data", tag))
        data = {"type": re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-"), "name": name}
        splits = {key.partition("/")[0] for key in weights.metrics}
        if len(splits) == 1:
            data["split"] = splits.pop()
        metrics = [
            {"type": key.partition("/")[2].replace("/", "_") or key, "value": value, "name": f"{key} ({tag})"}
            for key, value in weights.metrics.items()
        ]
        rows.append({"task": {"type": entry.tag(tag).task}, "dataset": data, "metrics": metrics})
    return rows
