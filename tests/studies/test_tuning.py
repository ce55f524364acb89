"""Searches for hyper-parameters: the best value follows from the runs, and the published choices from the files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from zoo import claims, index
from zoo.studies import import_beside, tuning

OURS = [name for name, e in index.entries().items() if Path(e.source) == index.index_path()]
TUNED = [name for name in OURS if (claims.card_folder(index.entries()[name]) / "tuning.json").is_file()]


def test_a_value_that_diverges_somewhere_is_not_chosen() -> None:
    """Its mean is the best; where every value diverges somewhere, the best mean is all that is left."""
    scores = {"a": {1: (0.9, 0.1), 2: (0.4, 0.3)}, "b": {1: (0.5, 0.1), 2: (0.2, 0.1)}}
    runs = [
        tuning.tuning_run(who, "lr", value, str(n), [last])
        for who, values in scores.items()
        for value, lasts in values.items()
        for n, last in enumerate(lasts)
    ]
    assert {who: about["best"] for who, about in tuning.best_values(runs, 0.15).items()} == {"a": 2, "b": 1}
    assert {who: about["best"] for who, about in tuning.best_values(runs).items()} == {"a": 1, "b": 1}


def test_the_best_value_has_the_highest_mean_over_the_partitions() -> None:
    runs = [
        tuning.tuning_run("moon", "mu", value, partition, [0.0] * 5 + [score] * 5)
        for value, partition, score in ((0.1, "a", 0.9), (0.1, "b", 0.1), (1.0, "a", 0.6), (1.0, "b", 0.6))
    ]
    best = tuning.best_values(runs)
    assert best["moon"]["best"] == 1.0
    assert best["moon"]["scores"] == pytest.approx({"0.1": 0.5, "1.0": 0.6})


def test_a_search_is_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def runs() -> Iterator[dict[str, Any]]:
        yield tuning.tuning_run("fedavg", "lr", 0.1, "iid", [0.5, 0.7])

    out = tmp_path / "tuning.json"
    monkeypatch.setattr("sys.argv", ["tuning", "--out", str(out)])
    monkeypatch.setattr("torch.set_num_threads", lambda count: None)
    tuning.main("toy-net", 7, runs, None)
    content = json.loads(out.read_text())
    assert content["seed"] == 7
    assert content["chosen"]["fedavg"] == {"best": 0.1, "scores": {"0.1": 0.6}}


def test_methods_that_were_tuned_have_their_search_beside_them() -> None:
    assert TUNED
    assert [name for name in OURS if import_beside(name, "tuning") is not None] == TUNED


@pytest.mark.parametrize("name", TUNED)
def test_published_choices_follow_from_the_published_runs(name: str) -> None:
    content = json.loads((claims.card_folder(index.entries()[name]) / "tuning.json").read_text())
    assert tuning.best_values(content["runs"], content.get("least", 0.0)) == content["chosen"]
    module: Any = import_beside(name, "tuning")
    assert content["seed"] == module.SEED
    searched = {who: set(values) for who, (_, values) in module.KNOBS.items()}
    run: dict[str, set[float]] = {}
    for row in content["runs"]:
        run.setdefault(row["who"], set()).add(row["value"])
    assert run == searched
    # no claim was run with the seed of the search
    entry = index.entries()[name]
    assert all(module.SEED not in (claim.seeds or ()) for claim in claims.claims_of(entry))
