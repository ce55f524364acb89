"""The contract of aggregation rules, over every rule there is."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from federated.rule_toys import cohort, context, network, rounds, trained

from zoo.errors import BadInput, KeyMismatch, ShapeMismatch, UnknownName
from zoo.federated.rules import LOCAL, RULES, ClientUpdate, Rule, StateDict, create_rule, register_rule

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in sorted(RULES)},
    "fedavg, uniform": ("fedavg", {"weighting": "uniform"}),
    "fedadam of Flower": ("fedadam", {"variant": "flower"}),
    "multi-krum by samples": ("multi-krum", {"weighting": "examples", "select": 4}),
    "bulyan, once": ("bulyan", {"selection": "once"}),
    "trimmed share": ("trimmed-mean", {"trim": 0.2}),
    "ewwa, log per client": ("ewwa", {"normaliser": "log"}),
    "ewwa, log per entry": ("ewwa", {"normaliser": "log", "minimum": "entry", "optimiser": "yogi"}),
    "ewwa, magnitude and prior": ("ewwa", {"sign": "magnitude", "prior": "examples", "optimiser": "adagrad"}),
    "random shares of log": ("random-shares", {"normaliser": "log", "minimum": "entry"}),
}


@pytest.fixture(params=VARIANTS, ids=list(VARIANTS))
def rule(request: pytest.FixtureRequest) -> Rule:
    name, options = VARIANTS[request.param]
    return create_rule(name, **options)


def bits(state: StateDict) -> dict[str, bytes]:
    return {key: value.numpy().tobytes() for key, value in state.items()}


def floats(state: StateDict) -> list[str]:
    return [key for key, value in state.items() if value.is_floating_point()]


def test_arguments_and_random_state_stay_as_they_were(rule: Rule) -> None:
    start = network()
    _, state, _ = rounds(rule, start, 1)
    updates, kept = cohort(start, seed=2), {k: v for k, v in state.items() if isinstance(v, torch.Tensor)}
    before = [bits(start), [bits(u.state) for u in updates], bits(kept), torch.get_rng_state().numpy().tobytes()]
    keys = set(state)
    new, later, _ = rule(start, updates, context(1), state)
    after = [bits(start), [bits(u.state) for u in updates], bits(kept), torch.get_rng_state().numpy().tobytes()]
    assert before == after
    assert set(state) == keys
    results = [*new.values(), *(v for v in later.values() if isinstance(v, torch.Tensor))]
    arguments = [*start.values(), *(v for u in updates for v in u.state.values()), *kept.values()]
    untouched = {v.data_ptr() for v in kept.values()}  # state of clients that were away may be handed on
    taken = {v.data_ptr() for v in arguments} - untouched
    assert not taken & {v.data_ptr() for v in results}
    assert len({v.data_ptr() for v in new.values()}) == len(new)


def test_the_order_of_arrival_does_not_matter(rule: Rule) -> None:
    start = network()
    updates = cohort(start)
    one, _, _ = rule(start, updates, context(), {})
    other, _, _ = rule(start, updates[5:] + updates[:5][::-1], context(), {})
    assert bits(one) == bits(other)


def test_another_numbering_of_clients_matters_only_where_declared(rule: Rule) -> None:
    if rule.__class__.__name__ == "EWWA" and getattr(rule, "shares", "") == "random":
        pytest.skip("drawn shares belong to numbers of clients")
    start = network(dtype=torch.float64)
    updates = cohort(start)
    one, _, _ = rule(start, updates, context(), {})
    turned = [replace(u, client_id=(u.client_id + 5) % 12) for u in updates]
    other, _, _ = rule(start, turned, context(), {})
    equal = all(torch.allclose(one[key], other[key], rtol=1e-12, atol=1e-12) for key in floats(start))
    assert equal is not rule.order_sensitive


def test_entries_are_combined_over_those_who_sent_them(rule: Rule) -> None:
    start = network()
    few = {2, 3, 5, 6, 7, 8, 10}  # seven: enough for every rule with one Byzantine client
    updates = cohort(start)
    for update in updates:
        del update.state["scale"]
        if update.client_id not in few:
            del update.state["head.weight"]
    new, _, _ = rule(start, updates, context(), {})
    assert list(new) == list(start)
    assert torch.equal(new["scale"], start["scale"])
    assert new["scale"].data_ptr() != start["scale"].data_ptr()
    if "EWWA" in type(rule).__name__ and getattr(rule, "minimum", "") == "global" and rule.normaliser == "log":
        return  # its minimum over all entries couples them
    if type(rule).__name__ == "NormClip" or getattr(rule, "shares", "") == "random":
        return  # the norm goes over all that a client sent; drawn shares depend on the layout
    alone, _, _ = rule(
        {"head.weight": start["head.weight"]},
        [replace(u, state={"head.weight": u.state["head.weight"]}) for u in updates if u.client_id in few],
        context(), {},
    )  # fmt: skip
    assert torch.allclose(new["head.weight"], alone["head.weight"], rtol=1e-6, atol=1e-7)


def test_integers_take_the_maximum(rule: Rule) -> None:
    start = network()
    new, _, _ = rule(start, cohort(start), context(), {})
    assert new["norm.num_batches_tracked"].dtype == torch.int64
    assert new["norm.num_batches_tracked"].shape == ()
    assert new["norm.num_batches_tracked"] == 5 + 12
    flags, masks = {"w": torch.zeros(2), "mask": torch.tensor([True, False, False])}, torch.eye(3, dtype=torch.bool)
    updates = [ClientUpdate(i, 1, {"w": torch.full((2,), float(i)), "mask": masks[i % 2]}) for i in range(12)]
    assert rule(flags, updates, context(), {})[0]["mask"].tolist() == [True, True, False]


def test_equal_updates_return_that_update(rule: Rule) -> None:
    start = network()
    sent = trained(start, 3)
    updates = [replace(sent, client_id=client) for client in range(12)]
    new, _, _ = rule(start, updates, context(), {})
    one = rule.idempotent
    for key in floats(start):
        wanted = sent.state[key] if one else rule(start, [sent], context(), {})[0][key]
        assert torch.allclose(new[key], wanted, rtol=1e-6, atol=1e-7), key
        if type(rule).__name__ in ("Krum", "MultiKrum", "Median", "Bulyan") and rule.idempotent:
            assert torch.equal(new[key], wanted) or type(rule).__name__ in ("MultiKrum", "Bulyan"), key


def test_no_change_is_no_change(rule: Rule) -> None:
    start = network()
    updates = [ClientUpdate(client, 3, {k: v.clone() for k, v in start.items()}) for client in range(12)]
    new, _, metrics = rule(start, updates, context(), {})
    assert all(torch.allclose(new[key], start[key], rtol=1e-6, atol=1e-7) for key in start)
    assert all(math.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_types_are_kept_and_sums_are_float64(rule: Rule, dtype: torch.dtype) -> None:
    start = network(dtype=dtype)
    new, _, _ = rule(start, cohort(start), context(), {})
    assert {key: value.dtype for key, value in new.items()} == {key: value.dtype for key, value in start.items()}
    assert {key: value.shape for key, value in new.items()} == {key: value.shape for key, value in start.items()}
    if rule.linear:
        shares = rule.weights(cohort(start), context(), {})
        for key in floats(start):
            exact = sum(p * u.state[key].double() for p, u in zip(shares, cohort(start), strict=True))
            assert torch.equal(new[key], exact.to(dtype)) or dtype == torch.float64
            assert torch.allclose(new[key].double(), exact, rtol=1e-15) or dtype != torch.float64


def test_state_is_flat_and_loads_without_pickles(rule: Rule, tmp_path: Any) -> None:
    start = network()
    two, state, _ = rounds(rule, start, 2)
    assert all(isinstance(v, (torch.Tensor, int, float)) and isinstance(k, str) for k, v in state.items())
    torch.save(state, tmp_path / "state.pt")
    again = torch.load(tmp_path / "state.pt", weights_only=True)
    updates = cohort(two, seed=3)
    one, other = (rule(two, updates, context(2), s)[0] for s in (state, again))
    assert bits(one) == bits(other) == bits(rounds(rule, start, 3)[0])


def test_one_tensor_is_enough(rule: Rule) -> None:
    start = {"w": torch.zeros(5)}
    updates = [ClientUpdate(i, i + 1, {"w": torch.arange(5.0) * (i + 1)}) for i in range(12)]
    new, _, metrics = rule(start, updates, context(), {})
    assert list(new) == ["w"]
    assert new["w"].isfinite().all()
    assert metrics["clients"] == 12
    assert all(isinstance(v, float) for v in metrics.values())


def test_long_entries_are_cut_and_put_together_again(rule: Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    start = network()
    whole, state, _ = rounds(rule, start, 2)
    monkeypatch.setattr("zoo.federated._rules_cohort.CHUNK", 7)
    cut, other, _ = rounds(rule, start, 2)
    if getattr(rule, "shares", "") == "random":
        assert set(state) == set(other)  # numbers are drawn per chunk
        return
    for key in floats(start):
        assert torch.allclose(whole[key], cut[key], rtol=1e-6, atol=1e-7), key


def test_empty_entries_and_layouts_are_no_trouble(rule: Rule) -> None:
    start = {"w": torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0)), "none": torch.zeros(0, 3)}
    sent = [(start["w"] + 0.1 * i).to(memory_format=torch.channels_last) for i in range(12)]
    updates = [ClientUpdate(i, 2, {"w": w, "none": torch.zeros(0, 3)}) for i, w in enumerate(sent)]
    new, _, _ = rule(start, updates, context(), {})
    plain = [replace(u, state={k: v.contiguous() for k, v in u.state.items()}) for u in updates]
    assert bits(new) == bits(rule(start, plain, context(), {})[0])
    assert new["none"].shape == (0, 3)


# Broken rounds --------------------------------------------------------------------------------------------------------


def test_nobody_answered(rule: Rule) -> None:
    start = network()
    _, state, _ = rounds(rule, start, 1)
    new, later, metrics = rule(start, [], context(1), state)
    assert bits(new) == bits(start)
    assert later == state
    assert metrics == {"clients": 0, "examples": 0, "dropped": 0}


def test_a_broken_update_is_named(rule: Rule) -> None:
    start, before = network(), bits(network())
    updates = cohort(start)
    updates[4].state["head.weight"][1, 2] = math.nan
    with pytest.raises(BadInput, match=r"client 4 is not finite: 'head.weight'.*non_finite='drop'"):
        rule(start, updates, context(), {})
    assert bits(start) == before


def test_a_broken_update_is_dropped_where_asked(rule: Rule) -> None:
    start = network()
    updates = cohort(start)
    healthy = [u for u in updates if u.client_id != 4]
    updates[4].state["head.weight"][1, 2] = math.inf
    rule.non_finite = "drop"
    new, _, metrics = rule(start, updates, context(), {})
    assert metrics["dropped"] == metrics["dropped/4"] == 1
    assert metrics["clients"] == 11
    assert bits(new) == bits(rule(start, healthy, context(), {})[0])


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
    with pytest.raises(BadInput, match=r"'ewwa-official' has no option 'normalizer'. Did you mean 'normaliser'"):
        create_rule("ewwa-official", normalizer="log")
    assert "byzantine=2" in repr(create_rule("multi-krum", byzantine=2, non_finite="drop"))
    with pytest.raises(BadInput, match="a rule 'krum' already"):
        register_rule("krum")(Rule)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fedavg", {"weighting": "loss"}, "weighting must be one of 'examples', 'uniform'"),
        ("fedavg", {"non_finite": "ignore"}, "non_finite must be"),
        ("fedadam", {"eta": 0}, "eta must be a number above 0"),
        ("fedadam", {"beta2": 1.0}, "beta2 must be at least 0 and less than 1"),
        ("krum", {"byzantine": -1}, "byzantine must be a whole number of at least 0"),
        ("krum", {"neighbours": 0}, "neighbours must be a whole number of at least 1"),
        ("trimmed-mean", {"trim": 0.5}, "trim must be a number of clients, or a share"),
        ("trimmed-mean", {"trim": True}, "trim must be a whole number"),
        ("norm-clip", {"max_norm": 0.0}, "max_norm must be a number above 0"),
        ("ewwa", {"optimiser": "sgd"}, "optimiser must be one of 'adam', 'adagrad', 'yogi'"),
        ("geometric-median", {"smoothing": 0}, "smoothing must be a number above 0"),
    ],
)
def test_bad_options(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        create_rule(name, **options)


def test_third_parties_register_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.federated._rules_base.RULES", RULES.copy())

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
