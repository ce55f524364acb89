"""The contract of aggregation rules: a test class of any rule derives from `RuleContract` and has a fixture `rule`."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from toys.rules import cohort, context, network, rounds, trained

from zoo.errors import BadInput
from zoo.federated.rules import ClientUpdate, Rule, StateDict


def bits(state: StateDict) -> dict[str, bytes]:
    return {key: value.numpy().tobytes() for key, value in state.items()}


def floats(state: StateDict) -> list[str]:
    return [key for key, value in state.items() if value.is_floating_point()]


class RuleContract:
    """What every rule keeps, whatever it computes."""

    def test_arguments_and_random_state_stay_as_they_were(self, rule: Rule) -> None:
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

    def test_the_order_of_arrival_does_not_matter(self, rule: Rule) -> None:
        start = network()
        updates = cohort(start)
        one, _, _ = rule(start, updates, context(), {})
        other, _, _ = rule(start, updates[5:] + updates[:5][::-1], context(), {})
        assert bits(one) == bits(other)

    def test_another_numbering_of_clients_matters_only_where_declared(self, rule: Rule) -> None:
        start = network(dtype=torch.float64)
        updates = cohort(start)
        one, _, _ = rule(start, updates, context(), {})
        turned = [replace(u, client_id=(u.client_id + 5) % 12) for u in updates]
        other, _, _ = rule(start, turned, context(), {})
        equal = all(torch.allclose(one[key], other[key], rtol=1e-12, atol=1e-12) for key in floats(start))
        assert equal is not rule.order_sensitive

    def test_entries_are_combined_over_those_who_sent_them(self, rule: Rule) -> None:
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
        if rule.couples_blocks or rule.draws:
            return  # drawn numbers depend on the layout
        alone, _, _ = rule(
            {"head.weight": start["head.weight"]},
            [replace(u, state={"head.weight": u.state["head.weight"]}) for u in updates if u.client_id in few],
            context(), {},
        )  # fmt: skip
        assert torch.allclose(new["head.weight"], alone["head.weight"], rtol=1e-6, atol=1e-7)

    def test_integers_take_the_maximum(self, rule: Rule) -> None:
        start = network()
        new, _, _ = rule(start, cohort(start), context(), {})
        assert new["norm.num_batches_tracked"].dtype == torch.int64
        assert new["norm.num_batches_tracked"].shape == ()
        assert new["norm.num_batches_tracked"] == 5 + 12
        flags, masks = {"w": torch.zeros(2), "mask": torch.tensor([True, False, False])}, torch.eye(3, dtype=torch.bool)
        updates = [ClientUpdate(i, 1, {"w": torch.full((2,), float(i)), "mask": masks[i % 2]}) for i in range(12)]
        assert rule(flags, updates, context(), {})[0]["mask"].tolist() == [True, True, False]

    def test_equal_updates_return_that_update(self, rule: Rule) -> None:
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

    def test_no_change_is_no_change(self, rule: Rule) -> None:
        start = network()
        updates = [ClientUpdate(client, 3, {k: v.clone() for k, v in start.items()}) for client in range(12)]
        new, _, metrics = rule(start, updates, context(), {})
        assert all(torch.allclose(new[key], start[key], rtol=1e-6, atol=1e-7) for key in start)
        assert all(math.isfinite(value) for value in metrics.values())

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_types_are_kept_and_sums_are_float64(self, rule: Rule, dtype: torch.dtype) -> None:
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

    def test_state_is_flat_and_loads_without_pickles(self, rule: Rule, tmp_path: Any) -> None:
        start = network()
        two, state, _ = rounds(rule, start, 2)
        assert all(isinstance(v, (torch.Tensor, int, float)) and isinstance(k, str) for k, v in state.items())
        torch.save(state, tmp_path / "state.pt")
        again = torch.load(tmp_path / "state.pt", weights_only=True)
        updates = cohort(two, seed=3)
        one, other = (rule(two, updates, context(2), s)[0] for s in (state, again))
        assert bits(one) == bits(other) == bits(rounds(rule, start, 3)[0])

    def test_one_tensor_is_enough(self, rule: Rule) -> None:
        start = {"w": torch.zeros(5)}
        updates = [ClientUpdate(i, i + 1, {"w": torch.arange(5.0) * (i + 1)}) for i in range(12)]
        new, _, metrics = rule(start, updates, context(), {})
        assert list(new) == ["w"]
        assert new["w"].isfinite().all()
        assert metrics["clients"] == 12
        assert all(isinstance(v, float) for v in metrics.values())

    def test_long_entries_are_cut_and_put_together_again(self, rule: Rule, monkeypatch: pytest.MonkeyPatch) -> None:
        start = network()
        whole, state, _ = rounds(rule, start, 2)
        monkeypatch.setattr("zoo.federated.rules.cohort.CHUNK", 7)
        cut, other, _ = rounds(rule, start, 2)
        if rule.draws:
            assert set(state) == set(other)  # numbers are drawn per chunk
            return
        for key in floats(start):
            assert torch.allclose(whole[key], cut[key], rtol=1e-6, atol=1e-7), key

    def test_empty_entries_and_layouts_are_no_trouble(self, rule: Rule) -> None:
        start = {"w": torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0)), "none": torch.zeros(0, 3)}
        sent = [(start["w"] + 0.1 * i).to(memory_format=torch.channels_last) for i in range(12)]
        updates = [ClientUpdate(i, 2, {"w": w, "none": torch.zeros(0, 3)}) for i, w in enumerate(sent)]
        new, _, _ = rule(start, updates, context(), {})
        plain = [replace(u, state={k: v.contiguous() for k, v in u.state.items()}) for u in updates]
        assert bits(new) == bits(rule(start, plain, context(), {})[0])
        assert new["none"].shape == (0, 3)

    def test_nobody_answered(self, rule: Rule) -> None:
        start = network()
        _, state, _ = rounds(rule, start, 1)
        new, later, metrics = rule(start, [], context(1), state)
        assert bits(new) == bits(start)
        assert later == state
        assert metrics == {"clients": 0, "examples": 0, "dropped": 0}

    def test_a_broken_update_is_named(self, rule: Rule) -> None:
        start, before = network(), bits(network())
        updates = cohort(start)
        updates[4].state["head.weight"][1, 2] = math.nan
        with pytest.raises(BadInput, match=r"client 4 is not finite: 'head.weight'.*non_finite='drop'"):
            rule(start, updates, context(), {})
        assert bits(start) == before

    def test_a_broken_update_is_dropped_where_asked(self, rule: Rule) -> None:
        start = network()
        updates = cohort(start)
        healthy = [u for u in updates if u.client_id != 4]
        updates[4].state["head.weight"][1, 2] = math.inf
        rule.non_finite = "drop"
        new, _, metrics = rule(start, updates, context(), {})
        assert metrics["dropped"] == metrics["dropped/4"] == 1
        assert metrics["clients"] == 11
        assert bits(new) == bits(rule(start, healthy, context(), {})[0])
