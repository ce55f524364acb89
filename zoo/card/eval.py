"""`.eval_results/<tag>.yaml`: the measured numbers of a checkpoint as the Hub reads them from its repository.

The format (https://huggingface.co/docs/hub/eval-results) names data sets by their id on the Hub, so there is a file for
weights whose `trained_on` says it (`hub: owner/name`); numbers on other data stand in the card's model-index. `task_id`
is the name of the metric, so that no number enters a leaderboard of another one.
"""

from __future__ import annotations

from typing import Any

import yaml

from zoo.index import Entry, Weights

__all__ = ["FOLDER", "eval_results"]

FOLDER = ".eval_results"


def eval_results(entry: Entry) -> dict[str, str]:
    """File name -> text, for each trained tag whose data set the Hub knows.

    Args:
        entry: the method.
    """
    files = {}
    for tag, weights in entry.weights.items():
        if weights.sha256 is None or not weights.metrics or not weights.trained_on.get("hub"):
            continue
        results = [_result(f"{entry.id}:{tag}", weights, key, value) for key, value in weights.metrics.items()]
        files[f"{tag}.yaml"] = yaml.safe_dump(results, sort_keys=False, allow_unicode=True, width=120)
    return files


def _result(name: str, weights: Weights, key: str, value: float) -> dict[str, Any]:
    split, _, metric = key.partition("/")
    scored = weights.trained_on.get("scored_on") or (f"split {split}" if split else "")
    made: dict[str, Any] = {
        "dataset": {"id": weights.trained_on["hub"], "task_id": (metric or key).replace("/", "_")},
        "value": value,
    }
    if weights.hub.repo is not None:
        made["source"] = {"url": f"https://huggingface.co/{weights.hub.repo}", "name": "Model card"}
    made["notes"] = f"{key} of {name}" + (f", {scored}" if scored else "")
    return made
