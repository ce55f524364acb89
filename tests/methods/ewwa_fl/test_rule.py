"""The rule of EWWA-FL: three rounds by hand, shares, sign bias, clients that miss rounds, the control, its name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from federated import rank_rules
from federated.rule_contract import RuleContract
from toys.rules import cohort, context, network, rounds

from zoo.errors import BadInput
from zoo.federated.rules import ClientUpdate, RoundContext, Rule, StateDict, create_rule

ORACLE = json.loads((Path(__file__).parent / "oracles" / "ewwa_fl.json").read_text())
MODES: list[dict[str, Any]] = [
    {"normaliser": normaliser, "moments": moments, "sign": sign}
    for normaliser in ("softmax", "log")
    for moments in ("per-client", "shared")
    for sign in ("signed", "magnitude")
]


OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "log per client": ("ewwa", {"normaliser": "log"}),
    "log per entry": ("ewwa", {"normaliser": "log", "minimum": "entry", "optimiser": "yogi"}),
    "magnitude and prior": ("ewwa", {"sign": "magnitude", "prior": "examples", "optimiser": "adagrad"}),
    "random shares of log": ("random-shares", {"normaliser": "log", "minimum": "entry"}),
}


@pytest.fixture(params=MODES, ids=["-".join(mode.values()) for mode in MODES])
def mode(request: pytest.FixtureRequest) -> dict[str, Any]:
    return request.param


def doubles(values: dict[str, list[float]]) -> StateDict:
    return {key: torch.tensor(value, dtype=torch.float64) for key, value in values.items()}


def updates_of(states: list[StateDict]) -> list[ClientUpdate]:
    return [ClientUpdate(client, 1, state) for client, state in enumerate(states)]


@pytest.mark.parametrize("optimiser", ["adam", "adagrad", "yogi"])
@pytest.mark.parametrize("preset", ["paper", "official"])
def test_three_rounds_by_hand(preset: str, optimiser: str) -> None:
    name = "ewwa-official" if preset == "official" else f"ewwa-{optimiser}"
    rule = create_rule(name, optimiser=optimiser)
    w: StateDict = doubles(ORACLE["start"])
    state: dict[str, Any] = {}
    for t, changes in enumerate(ORACLE["changes"]):
        sent = [{key: w[key] + value for key, value in doubles(change).items()} for change in changes]
        w, state, _ = rule(w, updates_of(sent), context(t, 3), state)
        for key, value in doubles(ORACLE["models"][f"{preset}-{optimiser}"][t]).items():
            assert torch.allclose(w[key], value, rtol=1e-12, atol=1e-13), (t, key)


def test_results_lie_between_the_clients(mode: dict[str, Any]) -> None:
    rule = create_rule("ewwa", **mode)
    w, state = network(dtype=torch.float64), {}
    for t in range(3):
        updates = cohort(w, range(5), seed=t + 1)
        new, state, metrics = rule(w, updates, context(t), state)
        for key in (key for key, value in w.items() if value.is_floating_point()):
            sent = torch.stack([u.state[key] for u in updates])
            assert (new[key] >= sent.amin(0) - 1e-12).all()
            assert (new[key] <= sent.amax(0) + 1e-12).all()
            shares = [metrics[f"share/{client}/{key}"] for client in range(5)]
            assert sum(shares) == pytest.approx(1, abs=1e-9)
            assert all(0 < share < 1 for share in shares)
            assert 0 < metrics[f"spread/{key}"] < 0.4
        w = new


def test_one_client_is_returned_as_it_is(mode: dict[str, Any]) -> None:
    w = network()
    update = cohort(w, [4])[0]
    new, _, _ = create_rule("ewwa", **mode)(w, [update], context(), {})
    assert all(torch.equal(new[key], update.state[key]) for key in w if w[key].is_floating_point())


def test_first_round_of_adam_sees_only_signs() -> None:
    # u = g / (|g| + eps'), so that shares are those of +1 and -1
    w = {"w": torch.zeros(4, dtype=torch.float64)}
    sent = [torch.tensor([-0.3, 0.2, 0.0, -1.0]), torch.tensor([0.1, 0.01, 0.0, -2.0])]
    new, _, metrics = create_rule("ewwa-adam")(w, updates_of([{"w": s.double()} for s in sent]), context(), {})
    low = 1 / (1 + torch.e**2)  # of who raised the weight, against who lowered it
    wanted = torch.tensor([-0.3 * (1 - low) + 0.1 * low, 0.105, 0.0, -1.5], dtype=torch.float64)
    assert torch.allclose(new["w"], wanted, atol=1e-5)
    assert metrics["share/0/w"] == pytest.approx((1 - low + 3 * 0.5) / 4, abs=1e-5)


@pytest.mark.parametrize("normaliser", ["softmax", "log"])
def test_signed_shares_pull_below_the_mean(normaliser: str) -> None:
    made = torch.Generator().manual_seed(3)
    half = torch.randn(3, 20_000, generator=made, dtype=torch.float64) * 0.1
    w = {"w": torch.zeros(40_000, dtype=torch.float64)}
    sent = torch.cat([half, -half], 1)  # symmetric
    found = {}
    for sign in ("signed", "magnitude"):
        rule = create_rule("ewwa", normaliser=normaliser, sign=sign)
        state: dict[str, Any] = {}
        new: StateDict = w
        for t in range(2):
            new, state, _ = rule(w, updates_of([{"w": row} for row in sent.roll(t, 0)]), context(t, 3), state)
        found[sign] = float((new["w"] - sent.mean(0)).mean())
    assert found["signed"] < -1e-3
    assert abs(found["magnitude"]) < 1e-12


def test_elements_that_nobody_moved_are_shared_equally() -> None:
    rule = create_rule("ewwa", normaliser="log", prior="uniform")
    w = {"w": torch.tensor([1.0, 1.0], dtype=torch.float64)}
    state: dict[str, Any] = {}
    for t, noise in enumerate((0.0, 3e-13)):
        sent = [{"w": w["w"] + torch.tensor([noise * (i - 1), 0.1 * (i + 1)])} for i in range(3)]
        new, state, metrics = rule(w, updates_of(sent), context(t, 3), state)
        assert float(new["w"][0]) == pytest.approx(1, abs=1e-12)
    assert state["m/0/w"][0] == state["v/0/w"][0] == 0
    # with noise counted, one element would say +1 and another -1
    alone, _, _ = create_rule("ewwa", noise=0.0)(
        {"w": w["w"][:1]}, updates_of([{"w": s["w"][:1]} for s in sent]), context(), {}
    )
    assert metrics["share/0/w"] != pytest.approx(1 / 3, abs=1e-3)  # the second element moved
    assert alone["w"].isfinite().all()


def test_numbers_of_samples_weigh_where_asked() -> None:
    w = {"w": torch.zeros(3, dtype=torch.float64)}
    sent = updates_of([{"w": torch.full((3,), float(i), dtype=torch.float64)} for i in (1, 2)])
    sent = [replace(u, num_examples=(1, 3)[u.client_id]) for u in sent]
    new, _, _ = create_rule("ewwa", prior="examples")(w, sent, context(0, 2), {})
    assert torch.allclose(new["w"], torch.full((3,), 1.75, dtype=torch.float64), atol=1e-6)  # all signs are equal


def test_a_missed_round_counts_as_one_without_change() -> None:
    start = network(dtype=torch.float64)
    for optimiser in ("adam", "adagrad", "yogi"):
        away, here = ({}, {})
        rule = create_rule("ewwa", optimiser=optimiser, reset_after=0)
        for t in range(4):
            updates = cohort(start, range(3), seed=t + 1)
            still = [u if u.client_id or t not in (1, 2) else replace(u, state=start) for u in updates]
            present = [u for u in updates if u.client_id or t not in (1, 2)]
            one, here, _ = rule(start, still, context(t, 3), here)
            other, away, _ = rule(start, present, context(t, 3), away)
        assert all(torch.allclose(one[key].double(), other[key].double(), rtol=1e-12) for key in start)
        assert away["steps/0"] == here["steps/0"] == 4
        assert all(torch.allclose(away[f"{m}/0/scale"], here[f"{m}/0/scale"], rtol=1e-12) for m in "mv")


def test_who_was_away_too_long_starts_anew() -> None:
    start = network(dtype=torch.float64)

    def last(first_round: bool, gap: int, **options: Any) -> tuple[StateDict, dict[str, Any]]:
        rule, state = create_rule("ewwa", **options), {}
        if first_round:
            _, state, _ = rule(start, cohort(start, range(3), seed=1), context(0, 3), state)
        for t in range(1, gap + 1):
            _, state, _ = rule(start, cohort(start, (1, 2), seed=t + 1), context(t, 3), state)
        new, state, _ = rule(start, cohort(start, range(3), seed=99), context(gap + 1, 3), state)
        return {k: v for k, v in state.items() if isinstance(v, torch.Tensor)} | new, state

    fresh, _ = last(True, 3, reset_after=3)
    never, _ = last(False, 3, reset_after=3)
    assert all(torch.equal(fresh[f"{m}/0/scale"], never[f"{m}/0/scale"]) for m in "mv")
    kept, state = last(True, 2, reset_after=3)
    assert state["steps/0"] == 4
    assert not torch.equal(kept["m/0/scale"], last(False, 2, reset_after=3)[0]["m/0/scale"])
    unaged, state = last(True, 2, reset_after=3, missed="keep")
    assert state["steps/0"] == 2
    assert not torch.equal(unaged["m/0/scale"], kept["m/0/scale"])


def test_a_minimum_per_entry_spares_the_others() -> None:
    made = torch.Generator().manual_seed(0)
    start = {key: torch.zeros(50, dtype=torch.float64) for key in ("calm", "wild")}
    sent = [{k: 0.1 * torch.randn(50, generator=made, dtype=torch.float64) for k in start} for _ in range(3)]
    # late in a run, after much change of the one entry and none of the other: |u| is about 0.01 and 3
    state: dict[str, Any] = {
        f"{name}/{i}": value for i in range(3) for name, value in (("steps", 5000), ("seen", 4999))
    }
    state |= {f"v/{i}/calm": torch.ones(50, dtype=torch.float64) for i in range(3)}
    spreads = {}
    for minimum in ("global", "entry"):
        rule = create_rule("ewwa", normaliser="log", minimum=minimum)
        spreads[minimum] = rule(start, updates_of(sent), context(5000, 3), state)[2]
    assert spreads["global"]["spread/calm"] < 0.005
    assert spreads["entry"]["spread/calm"] > 0.05
    assert spreads["global"]["spread/wild"] == pytest.approx(spreads["entry"]["spread/wild"], rel=1e-9)


@pytest.mark.parametrize("options", [{}, {"normaliser": "log"}, {"optimiser": "yogi"}])
def test_random_shares_spread_like_computed_ones(options: dict[str, Any]) -> None:
    made = torch.Generator().manual_seed(1)
    start = {"w": torch.zeros(30_000, dtype=torch.float64), "b": torch.zeros(5_000, dtype=torch.float64)}
    both = {name: (create_rule(name, **options), {}) for name in ("ewwa", "random-shares")}
    for t in range(3):
        sent = updates_of(
            [{k: 0.1 * torch.randn(v.shape, generator=made, dtype=v.dtype) for k, v in start.items()} for _ in range(4)]
        )
        metrics = {}
        for name, (rule, state) in both.items():
            new, state, metrics[name] = rule(start, sent, context(t, 4), state)
            both[name] = (rule, state)
        for key in start:
            assert metrics["random-shares"][f"spread/{key}"] == pytest.approx(
                metrics["ewwa"][f"spread/{key}"], rel=0.05
            )
            assert metrics["random-shares"][f"share/2/{key}"] == pytest.approx(0.25, abs=0.01)
    sent_stack = torch.stack([u.state["w"] for u in sent])
    assert (new["w"] <= sent_stack.amax(0) + 1e-12).all()
    assert (new["w"] >= sent_stack.amin(0) - 1e-12).all()


def test_random_shares_depend_on_seed_and_round_only() -> None:
    start = network()
    rule, updates = create_rule("random-shares"), cohort(start)

    def draw(seed: int, round: int) -> torch.Tensor:
        return rule(start, updates, RoundContext(round, seed, tuple(range(12)), 12), {})[0]["conv.weight"]

    assert torch.equal(draw(1, 0), draw(1, 0))
    assert not torch.equal(draw(1, 0), draw(2, 0))
    assert not torch.equal(draw(1, 0), draw(1, 1))


def test_shares_approach_equality_as_moments_grow() -> None:
    # the rule's own behaviour: in the first round, where u is +1 or -1, the deviation is 0.229 with three clients
    _, _, metrics = rounds(create_rule("ewwa-adam"), network(), 30, clients=range(3))
    spreads = [found["spread/conv.weight"] for found in metrics]
    assert spreads[0] == pytest.approx(0.229, abs=0.03)
    assert max(spreads[-3:]) < 0.1


class TestOptions(RuleContract):
    """The contract of rules, for options that change the way of computing; the defaults are tested with all rules."""

    @pytest.fixture(params=OPTIONS, ids=list(OPTIONS))
    def rule(self, request: pytest.FixtureRequest) -> Rule:
        name, options = OPTIONS[request.param]
        return create_rule(name, **options)


def test_ranks_agree_with_one_process(tmp_path: Path) -> None:
    """What all ranks must agree on: the least step of an entry, the spread of shares, drawn numbers."""
    alone = {key: rank_rules.three_rounds(*variant, range(12)) for key, variant in OPTIONS.items()}
    first, second = rank_rules.run(2, OPTIONS, tmp_path)
    for key, wanted in alone.items():
        for entry, value in wanted["model"].items():
            assert torch.allclose(first[key]["model"][entry], value, rtol=1e-6, atol=1e-6), (key, entry)
            assert torch.equal(first[key]["model"][entry], second[key]["model"][entry])
        assert first[key]["state"].keys() == wanted["state"].keys()
        for name, value in wanted["state"].items():
            assert torch.allclose(torch.as_tensor(first[key]["state"][name]), torch.as_tensor(value), 1e-5, 1e-6)
        for ours, theirs in zip(first[key]["metrics"], wanted["metrics"], strict=True):
            assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-6), key


# The name -------------------------------------------------------------------------------------------------------------

FRESH = """
import os, sys, traceback

def way(code):
    assert not [name for name in sys.modules if "ewwa" in name or name == "zoo"], "this process is fresh"
    names = {}
    exec(code, names)
    rule = names["rule"]
    assert type(rule).__name__ == "EWWA" and rule.normaliser == "log" and rule.moments == "shared", rule

if __name__ == "__main__":
    import lightning, torch, torchmetrics  # what takes long, once for all
    failed = []
    for name, code in WAYS.items():
        child = os.fork()
        if child == 0:
            try:
                way(code)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            failed.append(name)
    sys.exit(f"not {failed}" if failed else 0)
"""
BY_NAME = """
from zoo.federated.rules import create_rule, RULES, rule_names
import sys
assert 'ewwa-official' in rule_names() and 'ewwa-official' not in RULES
assert not [name for name in sys.modules if 'ewwa' in name], 'listing imports nothing'
rule = create_rule('ewwa-official')
"""
BY_JOB = """
from zoo.federated.flower import Job
learner, _ = Job('uav-swarm-fl', {'rule': 'ewwa-official'}, {'num_clients': 2}).build()
rule = learner.rule
"""
SPAWNED = """
import multiprocessing
from zoo.federated.rules import create_rule
with multiprocessing.get_context('spawn').Pool(1) as pool:
    rule = pool.apply(create_rule, ('ewwa-official',))
"""
NAMED: dict[str, str] = {
    "by a rule's name": BY_NAME,
    "by the configuration of another method": (
        "import zoo\nrule = zoo.load('uav-swarm-fl', weights=False, rule='ewwa-official').rule"
    ),
    "by a job that arrives at a client": BY_JOB,
    "in a spawned process": SPAWNED,
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_the_name_is_enough_in_a_fresh_process(tmp_path: Path) -> None:
    """Whoever names the rule gets it, although nothing but the method's own module registers it."""
    ways = dict(NAMED)
    if sys.version_info < (3, 11):  # the extra federated needs 3.11
        del ways["by a job that arrives at a client"]
    script = tmp_path / "named.py"
    script.write_text(f"WAYS = {ways!r}\n{FRESH}")
    found = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


def test_options_are_checked() -> None:
    with pytest.raises(BadInput, match=r"'ewwa-official' has no option 'normalizer'. Did you mean 'normaliser'"):
        create_rule("ewwa-official", normalizer="log")
    with pytest.raises(BadInput, match="optimiser: expected one of adam, adagrad, yogi; got 'sgd'"):
        create_rule("ewwa", optimiser="sgd")
