"""The contract of aggregation rules, over every rule there is."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from federated.rule_contract import RuleContract
from toys.rules import cohort, context, network

from zoo import index
from zoo.errors import BadInput, InvalidIndex, KeyMismatch, ShapeMismatch, UnknownName
from zoo.federated.rules import LOCAL, RULES, ClientUpdate, Rule, create_rule, register_rule, rule_names

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in rule_names()},
    "fedavg, uniform": ("fedavg", {"weighting": "uniform"}),
    "fedadam of Flower": ("fedadam", {"variant": "flower"}),
    "multi-krum by samples": ("multi-krum", {"weighting": "examples", "select": 4}),
    "bulyan, once": ("bulyan", {"selection": "once"}),
    "trimmed share": ("trimmed-mean", {"trim": 0.2}),
}


class TestEveryRule(RuleContract):
    """Also those that methods of the index bring."""

    @pytest.fixture(params=VARIANTS, ids=list(VARIANTS))
    def rule(self, request: pytest.FixtureRequest) -> Rule:
        name, options = VARIANTS[request.param]
        return create_rule(name, **options)


# Broken rounds --------------------------------------------------------------------------------------------------------


def test_a_large_but_finite_update_is_none_to_drop() -> None:
    start = {"w": torch.zeros(3, dtype=torch.float64)}
    updates = [ClientUpdate(i, 1, {"w": torch.full((3,), 1.7e308, dtype=torch.float64)}) for i in range(2)]
    new, _, metrics = create_rule("fedavg")(start, updates, context(), {})
    assert metrics["dropped"] == 0
    assert torch.allclose(new["w"], updates[0].state["w"])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"num_examples": 0}, BadInput, "client 3 says num_examples=0; a client without data"),
        ({"num_examples": 2.5}, BadInput, "client 3 says num_examples=2.5"),
        ({"client_id": -1}, BadInput, "client_id must be a whole number from 0, got -1"),
        ({"client_id": "3"}, BadInput, "client_id must be a whole number from 0, got '3'"),
        ({"client_id": 5}, BadInput, "Client 5 sent more than one update"),
        ({"state": {"conv.weight": torch.zeros(4, 2, 3)}}, ShapeMismatch, "client 3: 'conv.weight' has shape"),
        ({"state": {"other": torch.zeros(1)}}, KeyMismatch, "client 3 holds 'other', which the global model lacks"),
        ({"state": {"a": torch.zeros(1), "b": torch.zeros(1)}}, KeyMismatch, "'a' and 1 more entries"),
        ({"state": {"conv.bias": torch.zeros(4, dtype=torch.int64)}}, BadInput, "'conv.bias' is torch.int64"),
        ({"state": {"conv.bias": torch.zeros(4, device="meta")}}, BadInput, "'conv.bias' is on meta"),
        ({"state": {"conv.bias": torch.zeros(4, dtype=torch.complex64)}}, BadInput, "'conv.bias' is torch.complex64"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_an_update_is_said(change: dict[str, Any], error: type[Exception], message: str) -> None:
    start = network()
    updates = [replace(u, **change) if u.client_id == 3 else u for u in cohort(start)]
    with pytest.raises(error, match=message):
        create_rule("fedavg")(start, updates, context(), {})


@pytest.mark.parametrize(
    ("name", "options", "clients", "message"),
    [
        ("krum", {"byzantine": 2}, 6, r"at least 7 clients per round \(2f \+ 3, f = byzantine = 2\), and 6 sent"),
        ("krum", {"byzantine": 0, "neighbours": 3}, 3, "krum needs at least 4 clients"),
        ("multi-krum", {"byzantine": 1}, 4, "multi-krum needs at least 5 clients"),
        ("multi-krum", {"select": 9}, 6, "multi-krum needs at least 9 clients"),
        ("bulyan", {"byzantine": 2}, 10, "bulyan needs at least 11 clients"),
        ("trimmed-mean", {"trim": 3}, 6, "trimmed-mean leaves out 3 clients on each side, and only 6"),
    ],
)  # fmt: skip
def test_too_few_clients_for_a_rule(name: str, options: dict[str, Any], clients: int, message: str) -> None:
    start = network()
    rule = create_rule(name, **options)
    with pytest.raises(BadInput, match=message):
        rule(start, cohort(start, range(clients)), context(), {})
    rule(start, cohort(start, range(clients + (1 if clients != 6 or name != "multi-krum" else 3))), context(), {})


# The registry ---------------------------------------------------------------------------------------------------------


def test_names_and_options() -> None:
    with pytest.raises(UnknownName, match=r"There is no rule 'fedavgs'. Did you mean 'fedavg'"):
        create_rule("fedavgs")
    with pytest.raises(BadInput, match=r"'multi-krum' has no option 'byzantin'. Did you mean 'byzantine'"):
        create_rule("multi-krum", byzantin=1)
    assert "byzantine=2" in repr(create_rule("multi-krum", byzantine=2, non_finite="drop"))
    with pytest.raises(BadInput, match="a rule 'krum' already"):
        register_rule("krum")(Rule)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fedavg", {"weighting": "loss"}, "weighting: expected one of examples, uniform; got 'loss'"),
        ("fedavg", {"non_finite": "ignore"}, "non_finite must be"),
        ("fedadam", {"eta": 0}, "eta must be a number above 0"),
        ("fedadam", {"beta2": 1.0}, "beta2 must be at least 0 and less than 1"),
        ("krum", {"byzantine": -1}, "byzantine must be a whole number of at least 0"),
        ("krum", {"neighbours": 0}, "neighbours must be a whole number of at least 1"),
        ("trimmed-mean", {"trim": 0.5}, "trim must be a number of clients, or a share"),
        ("trimmed-mean", {"trim": True}, "trim must be a whole number"),
        ("norm-clip", {"max_norm": 0.0}, "max_norm must be a number above 0"),
        ("geometric-median", {"smoothing": 0}, "smoothing must be a number above 0"),
    ],
)
def test_bad_options(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        create_rule(name, **options)


def test_third_parties_register_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.federated.rules.base.RULES", RULES.copy())

    class Latest(Rule):
        name = "latest"

        def __init__(self, *, twice: bool = False, **options: Any) -> None:
            super().__init__(**options)

        def combine(self, global_sd: Any, cohort: Any, ctx: Any, state: Any) -> Any:
            block = cohort.blocks[0]
            return cohort.by_columns(global_sd, block, lambda rows, chunk: rows[-1]), {}

    register_rule("latest")(Latest)
    start = network()
    new, _, _ = create_rule("latest", non_finite="drop")(start, cohort(start), context(), {}, LOCAL)
    assert torch.equal(new["head.weight"], cohort(start)[-1].state["head.weight"])


def test_the_index_lists_what_methods_register() -> None:
    """In fresh processes: importing every method adds exactly the names that the index lists to the registries."""
    code = """
from zoo.federated.clients import CLIENTS, TRANSFORMS
from zoo.federated.rules import RULES
from zoo.index.registers import registered_names
from zoo.index import entries

tables = {"rules": RULES, "clients": CLIENTS, "transforms": TRANSFORMS}
before = {key: set(table) for key, table in tables.items()}
for entry in entries().values():
    entry.model_class()
for key, table in tables.items():
    assert set(table) - before[key] == set(registered_names(key)), (key, set(table) - before[key])
    assert not before[key] & set(registered_names(key)), f"{key} of the engine"
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_name_that_its_method_does_not_register(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "_registered", dict(index._registered))
    found = next(iter(index.entries().values()))
    index.register(replace(found, id="liar", aliases={}, weights={}, default=None, registers={"rules": ["absent"]}))
    assert "absent" in rule_names()
    with pytest.raises(InvalidIndex, match=r"liar: registers.rules lists 'absent', but importing"):
        create_rule("absent")
