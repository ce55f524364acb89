"""The examples of docs/federated.md, as they stand there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import seed_everything
from toys.learners import ToyClients, trainer_of
from toys.rules import cohort, context, network

from zoo.federated.images import FederatedClassifier
from zoo.federated.learner import LOCAL_ARGUMENTS
from zoo.federated.rules import RULES, create_rule


def example(checkout: Path, word: str) -> str:
    """The only Python block of the page that holds a word."""
    page = (checkout / "docs" / "federated.md").read_text(encoding="utf-8")
    (block,) = [code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if word in code]
    return str(block)


class Rows(ToyClients):
    """Rows of sixteen numbers with one of four labels."""

    def __init__(self) -> None:
        super().__init__(clients=3)
        self.rows = [torch.randn(8, 16, generator=torch.Generator().manual_seed(client)) for client in range(3)]

    def client_loader(self, client: int, round: int, epochs: int = 1) -> Any:
        return [{"row": self.rows[client], "label": self.rows[client][:, :4].argmax(1)}] * epochs


def test_examples_import_public_modules_only(checkout: Path) -> None:
    page = (checkout / "docs" / "federated.md").read_text(encoding="utf-8")
    imports = [line for line in page.splitlines() if re.match(r"(from|import) (zoo|datamodules)", line)]
    assert len(imports) >= 5
    assert not [line for line in imports if re.search(r"[. ]_", line)]


def test_own_method(checkout: Path, tmp_path: Path) -> None:
    made: dict[str, Any] = {}
    exec(compile(example(checkout, "class MySwarm"), "docs/federated.md", "exec"), made)
    seed_everything(0, verbose=False)
    learner = made["MySwarm"]()
    start = learner.global_state()
    trainer_of(tmp_path, max_epochs=2, limit_val_batches=0).fit(learner, Rows())
    end = learner.global_state()
    assert not torch.equal(start["weight"], end["weight"])
    assert torch.equal(start["bias"], end["bias"]), "the bias stays with the clients"
    kept = [state["local"]["bias"] for _, state in sorted(learner.client_states.items())]
    assert len(kept) == 3
    assert not torch.equal(kept[0], kept[1])
    assert all("optimizer" in state for state in learner.client_states.values()), "persistent"
    # a change is at most 1 long, and so is each coordinate of the median
    assert float((end["weight"] - start["weight"]).abs().max()) <= 2.0


def test_own_classifier(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    seed_everything(0, verbose=False)
    made: dict[str, Any] = {}
    exec(compile(example(checkout, "class SmoothSwarm"), "docs/federated.md", "exec"), made)
    exec(compile(example(checkout, "learner = SmoothSwarm"), "docs/federated.md", "exec"), made)
    learner, data = made["learner"], made["data"]
    assert made["result"]["name"] in data.facts()["class_names"]
    assert float(made["trainer"].callback_metrics["val/accuracy"]) > 0.3, "six rounds beat guessing"
    assert learner.rule.name == "trimmed-mean"
    assert learner.client.mu == 0.01
    batch = next(iter(data.client_loader(client=0, round=0)))
    loss, features = learner.local_step(learner.network, batch)
    plain, _ = super(made["SmoothSwarm"], learner).local_step(learner.network, batch)
    assert features is None
    assert float(loss) != pytest.approx(float(plain)), "labels are smoothed"


def test_arguments_and_methods_of_classifiers_are_all_listed(checkout: Path) -> None:
    """The tables of the page name what the base class reads and what a subclass may override."""
    page = (checkout / "docs" / "federated.md").read_text(encoding="utf-8")
    section = page.partition("### Classifiers of images")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    named = set(re.findall(r"`(\w+)`", " ".join(row.split("|")[1] for row in rows)))
    own = {name for name in vars(FederatedClassifier) if name.startswith("make_")} | {"make_network", "local_step"}
    assert {*LOCAL_ARGUMENTS, *own, "transforms", "client_processes", "network", "class_names"} <= named
    assert all(hasattr(FederatedClassifier, name) for name in named if name.startswith("make_"))


def test_own_rule(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.federated.rules.base.RULES", RULES.copy())
    exec(compile(example(checkout, "class Latest"), "docs/federated.md", "exec"), {})
    start = network()
    updates = cohort(start)
    new, _, _ = create_rule("latest")(start, updates, context(), {})
    assert torch.equal(new["head.weight"], updates[-1].state["head.weight"])
