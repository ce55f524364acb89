"""Sequential looks, p-values, Holm's procedure, and premises: what decides a claim, and how often that errs."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest
from toys.claims import PAIR, make_entry, runs_with, write_claims

from zoo import claims, index
from zoo.claims import stats as _claims_stats
from zoo.claims.judging import judge, judge_seeds
from zoo.claims.planning import fingerprint, jobs_of, plan, spec_of
from zoo.claims.results import after_holm, judged, summary


@pytest.fixture
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> index.Entry:
    return make_entry(tmp_path, monkeypatch)


def growing(seeds: int) -> str:
    return PAIR.replace("seeds: [0, 1, 2]", f"seeds: {seeds}")


# How often a rule errs --------------------------------------------------------------------------------------------

TRIALS = 3000
NOISE = 3 * math.sqrt(0.05 * 0.95 / TRIALS)
"""Three standard deviations of a share of 5 % among so many trials."""


def share_decided(claim: claims.Claim, looks: tuple[int, ...], coverage: float) -> float:
    """Share of experiments without any effect in which some look gives a verdict."""
    draw = random.Random(0)
    wrong = 0
    for _ in range(TRIALS):
        runs: dict[tuple[str, int | None], dict[str, Any]] = {}
        for seed in range(looks[-1]):
            common = draw.gauss(0, 1)  # paired runs share the luck of their seed
            runs["ours", seed] = {"metrics": {claim.metric: common + draw.gauss(0, 1)}}
            runs["baseline", seed] = {"metrics": {claim.metric: common + draw.gauss(0, 1)}}
        verdicts = (judge_seeds(claim, range(n), runs, coverage).verdict for n in looks)
        wrong += any(verdict != "undecided" for verdict in verdicts)
    return wrong / TRIALS


@pytest.mark.parametrize(("seeds", "number"), [(3, 1), (6, 2), (12, 3), (20, 4)])
def test_all_looks_together_err_in_at_most_five_per_cent(entry: index.Entry, seeds: int, number: int) -> None:
    (claim,) = write_claims(entry, growing(seeds))
    assert len(claim.looks) == number
    share = share_decided(claim, claim.looks, _claims_stats.coverage_of(number))
    assert share <= 0.05 + (NOISE if number == 1 else 0)  # one look errs in just 5 %
    assert share > 0.02  # nor is the rule so strict that it never decides


@pytest.mark.parametrize(("seeds", "least"), [(6, 0.07), (20, 0.09)])
def test_a_rule_that_ignores_its_looks_errs_more_often(entry: index.Entry, seeds: int, least: float) -> None:
    (claim,) = write_claims(entry, growing(seeds))
    assert share_decided(claim, claim.looks, 0.95) > least > 0.05 + NOISE


def test_looks_are_capped_at_the_number() -> None:
    assert {n: _claims_stats.looks_up_to(n) for n in (2, 3, 4, 12, 15, 20)} == {
        2: (2,), 3: (3,), 4: (3, 4), 12: (3, 6, 12), 15: (3, 6, 12, 15), 20: (3, 6, 12, 20),
    }  # fmt: skip


# Looks of a claim -------------------------------------------------------------------------------------------------


def test_the_first_look_that_decides_is_the_verdict_whatever_came_later(entry: index.Entry) -> None:
    (claim,) = write_claims(entry, growing(12))
    ours = [0.5, 0.9, 0.1, 0.601, 0.602, 0.603] + [0.1] * 6  # decided at neither 3 nor 6 alone
    ours[:6] = [0.601, 0.602, 0.603, 0.0, 1.0, 0.3]
    found = judge(entry, claim, runs_with(entry, claim, {"ours": ours, "baseline": [0.4] * 12}))
    assert (found.verdict, found.look) == ("holds", claims.Look(1, 3, 3, 1 - 0.05 / 3))
    assert list(found.values["ours"]) == ["0", "1", "2"]
    assert found.next_seeds == 0
    half = claims.student(2, 1 - 0.05 / 3) * 0.001 / math.sqrt(3)
    assert found.comparisons[0].observed.half_width == pytest.approx(half)


def test_an_undecided_look_is_followed_by_the_next(entry: index.Entry) -> None:
    (claim,) = write_claims(entry, growing(12))
    baseline = [0.0] * 12
    early = judge(entry, claim, runs_with(entry, claim, {"ours": [0.1, 0.2, -0.1, 0.4], "baseline": baseline}))
    assert (early.verdict, early.next_seeds) == ("undecided", 6)
    assert early.look is not None
    assert early.look.seeds == 3  # the fourth pair is not looked at before its time
    ours = [0.1, 0.2, -0.1, 0.101, 0.102, 0.2, *([0.15] * 6)]
    late = judge(entry, claim, runs_with(entry, claim, {"ours": ours, "baseline": baseline}))
    assert late.look is not None
    assert (late.verdict, late.look.number, late.look.seeds) == ("holds", 3, 12)
    none = judge(entry, claim, runs_with(entry, claim, {"ours": [0.1, 0.2], "baseline": baseline}))
    assert (none.verdict, none.reason) == ("not run", "5 of 6 runs are there")
    whole = judge(entry, claim, runs_with(entry, claim, {"ours": [0.1, -0.1] * 6, "baseline": baseline}))
    assert (whole.verdict, whole.next_seeds) == ("undecided", 0)


def test_what_the_looks_cost_is_in_the_level(entry: index.Entry) -> None:
    values = {"ours": [0.53, 0.57, 0.6], "baseline": [0.4, 0.4, 0.4]}
    (fixed,) = write_claims(entry, PAIR)
    once = judge(entry, fixed, runs_with(entry, fixed, values))
    (claim,) = write_claims(entry, growing(6))
    found = judge(entry, claim, runs_with(entry, claim, values))
    assert once.level is not None
    assert found.level == pytest.approx(2 * once.level)
    assert once.verdict == "holds"


def test_a_list_of_seeds_is_one_look(entry: index.Entry) -> None:
    (claim,) = write_claims(entry, PAIR)
    assert (claim.looks, claim.planned) == ((), (3,))
    about = summary(claim, judge(entry, claim, runs_with(entry, claim, {"ours": [1, 2, 3], "baseline": [0, 0, 0]})))
    assert "look" not in about


def test_asked_for_seeds_are_judged_alone(entry: index.Entry) -> None:
    (claim,) = write_claims(entry, PAIR)
    runs = runs_with(entry, claim, {"ours": [0.5, 0.51], "baseline": [0.4, 0.41]})
    assert judge(entry, claim, runs).verdict == "not run"
    found = judge(entry, claim, runs, seeds=[0, 1])
    assert found.verdict == "holds"
    assert found.comparisons[0].observed.n == 2


# What could have been seen ----------------------------------------------------------------------------------------


def test_an_undecided_claim_says_what_it_could_have_seen(entry: index.Entry) -> None:
    (claim,) = write_claims(entry, PAIR)
    differences = [0.1, -0.2, 0.15]
    values: dict[str, list[float | None]] = {"ours": [0.5 + d for d in differences], "baseline": [0.5, 0.5, 0.5]}
    found = judge(entry, claim, runs_with(entry, claim, values))
    half = found.detectable
    assert half is not None
    assert half == pytest.approx(4.302652729911275 * 0.189296945 / math.sqrt(3), rel=1e-6)
    assert summary(claim, found)["detectable"] == pytest.approx(half)
    mean = sum(differences) / 3
    for factor, verdict in ((0.999, "undecided"), (1.001, "holds")):
        shifted = [0.5 + d - mean + factor * half for d in differences]
        again = judge(entry, claim, runs_with(entry, claim, {**values, "ours": shifted}))
        assert again.verdict == verdict
    assert again.detectable is None


# Several claims ---------------------------------------------------------------------------------------------------


def test_p_values_are_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    values = [0.3, 0.1, 0.25, -0.05, 0.2]
    found = claims.interval(values)
    assert _claims_stats.p_value(found, "holds", "higher") == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    above = stats.ttest_1samp(values, -0.5, alternative="greater").pvalue
    below = stats.ttest_1samp(values, 0.5, alternative="less").pvalue
    assert _claims_stats.p_value(found, "holds", "within", 0.5) == pytest.approx(2 * max(above, below))
    less = stats.ttest_1samp(values, 0.4, alternative="less").pvalue
    assert _claims_stats.p_value(found, "opposite", "higher", 0.4) == pytest.approx(2 * less)


@pytest.mark.parametrize("expect", list(claims.EXPECTATIONS))
def test_p_values_agree_with_verdicts(expect: str) -> None:
    draw = random.Random(1)
    seen = set()
    for _ in range(400):
        centre = draw.uniform(-1, 1)
        found = claims.interval([draw.gauss(centre, 0.3) for _ in range(draw.randint(2, 8))])
        options: dict[str, Any] = {"margin": draw.choice([0, 0.3, 1]), "larger_is_better": draw.random() < 0.5}
        verdict = claims.decide(found, expect, **options)
        seen.add(verdict)
        for outcome in ("holds", "opposite"):
            assert (_claims_stats.p_value(found, outcome, expect, **options) <= 0.05) == (verdict == outcome)
    assert seen == {"holds", "opposite", "undecided"}


def test_p_values_without_spread() -> None:
    same = claims.interval([0.25, 0.25, 0.25])
    assert _claims_stats.p_value(same, "holds", "higher") == 0
    assert _claims_stats.p_value(same, "holds", "higher", 0.25) == 1  # not above it
    assert _claims_stats.p_value(same, "opposite", "higher") == 1


def test_holms_procedure() -> None:
    levels = {"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}
    assert claims.holm(levels) == pytest.approx({"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06})
    assert claims.holm({"a": 0.7, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert claims.holm({}) == {}


def test_holm_counts_the_claims_of_a_card_that_depend_on_chance(entry: index.Entry) -> None:
    rates = {"sure": "0.75", "weak": "0.375", "broken": "0.875", "absent": "0.625"}
    text = "".join(PAIR.replace("0.5", rate).replace("fast-wins", name) for name, rate in rates.items())
    exact = "- {id: exact, promise: It fits., arms: {ours: {study: fit}}, metric: error, expect: at-most, value: 1}\n"
    found = {claim.id: claim for claim in write_claims(entry, PAIR + text + exact)}
    given: dict[str, list[float | None]] = {
        "fast-wins": [0.43, 0.45, 0.47],
        "sure": [0.9, 0.91, 0.92],
        "weak": [0.4, 0.5, 0.3],
        "broken": [0.9, None, 0.92],
    }
    runs: dict[str, Any] = {}
    for name, ours in given.items():
        runs |= runs_with(entry, found[name], {"ours": ours, "baseline": [0.4, 0.4, 0.4]})
    runs[fingerprint(spec_of(entry, found["exact"].arms["ours"], None))] = {"metrics": {"error": 0.5}}
    about = judged(entry, list(found.values()), runs)
    assert {name: (one["verdict"], after_holm(one)) for name, one in about.items()} == {
        "fast-wins": ("holds", "undecided"),
        "sure": ("holds", "holds"),
        "weak": ("undecided", "undecided"),
        "broken": ("premise not met", None),
        "absent": ("not run", None),
        "exact": ("holds", None),
    }
    assert about["sure"]["p_holm"] == pytest.approx(3 * about["sure"]["p"], abs=3e-6)  # three depend on chance
    assert about["fast-wins"]["p_holm"] == pytest.approx(2 * about["fast-wins"]["p"], abs=2e-6)


def test_an_opposite_of_one_among_several_pays_for_their_number(entry: index.Entry) -> None:
    text = PAIR.replace("  metric:", "    other: {recipe: ten-s, role: baseline}\n  metric:")
    (claim,) = write_claims(entry, text)
    values: dict[str, list[float | None]] = {"ours": [0.5, 0.5, 0.5], "baseline": [0.4, 0.4, 0.41]}
    found = judge(entry, claim, runs_with(entry, claim, {**values, "other": [0.6, 0.61, 0.59]}))
    assert found.verdict == "opposite"
    alone = _claims_stats.p_value(claims.interval([-0.1, -0.11, -0.09]), "opposite", "higher")
    assert found.level == pytest.approx(2 * alone)


# Premises ---------------------------------------------------------------------------------------------------------


PREMISE = PAIR + "  premise: [{arm: baseline, metric: val/acc, at-least: 0.8, says: the baseline is as published}]\n"


def with_metric(entry: index.Entry, claim: claims.Claim, name: str, values: dict[str, list[Any]]) -> dict[str, Any]:
    runs = runs_with(entry, claim, {"ours": [0.5, 0.7, 0.6], "baseline": [0.4, 0.59, 0.51]})
    for arm, given in values.items():
        for seed, value in zip(claim.seeds, given, strict=True):
            runs[fingerprint(spec_of(entry, claim.arms[arm], seed))]["metrics"][name] = value
    return runs


def test_one_run_of_published_weights_serves_a_premise_for_all_seeds(entry: index.Entry) -> None:
    baseline = "    baseline: {recipe: ten-n, set: {model.lr: 0.25}}\n"
    text = PAIR.replace(baseline, f"{baseline}    teacher: {{study: score, role: shown, once: true}}\n")
    (claim,) = write_claims(
        entry, text + "  premise: [{arm: teacher, above: baseline, by: 0.2, says: the teacher knows more}]\n"
    )
    specs = [spec for (arm, _), spec in jobs_of(entry, claim).items() if arm == "teacher"]
    assert len(specs) == 3
    assert specs == 3 * [{"study": "score", "set": {}, "seed": None}]
    given = {"ours": [0.5, 0.7, 0.6], "baseline": [0.4, 0.59, 0.51]}
    assert judge(entry, claim, runs_with(entry, claim, {**given, "teacher": 3 * [0.75]})).verdict == "holds"
    found = judge(entry, claim, runs_with(entry, claim, {**given, "teacher": 3 * [0.65]}))
    assert found.verdict == "premise not met"


def test_where_a_premise_fails_nothing_was_tested(entry: index.Entry) -> None:
    (claim,) = write_claims(entry, PREMISE)
    found = judge(entry, claim, with_metric(entry, claim, "val/acc", {"baseline": [0.9, 0.8, 0.7]}))
    assert (found.verdict, found.premises[0].met) == ("holds", True)
    found = judge(entry, claim, with_metric(entry, claim, "val/acc", {"baseline": [0.9, 0.8, 0.67]}))
    assert found.verdict == "premise not met"
    assert found.reason == "the baseline is as published: val/acc 0.79, wanted at least 0.8"
    assert found.comparisons[0].verdict == "premise not met"
    assert found.level is None
    about = summary(claim, found)
    assert about["premises"] == [
        {
            "says": "the baseline is as published",
            "metric": "val/acc",
            "measured": 0.79,
            "wanted": "at least 0.8",
            "met": False,
        }
    ]
    without = judge(entry, claim, with_metric(entry, claim, "val/acc", {}))
    assert without.verdict == "premise not met"
    assert "no finite value" in without.reason


@pytest.mark.parametrize(
    ("condition", "met"),
    [
        ("at-least: 0.5", True),
        ("at-least: 0.51", False),
        ("above: 0.5", False),
        ("at-most: 0.5", True),
        ("below: 0.5", False),
        ("below: 0.51", True),
        ("above: 0.1, each: true", True),
        ("above: 0.2, each: true", False),
        ("below: 0.8, each: true", False),
        ("above: baseline", True),
        ("above: baseline, by: 0.1", True),
        ("above: baseline, by: 0.25", False),
        ("below: baseline", False),
        ("above: baseline, each: true", False),
    ],
)
def test_kinds_of_premises(entry: index.Entry, condition: str, met: bool) -> None:
    text = PAIR + f"  premise: [{{arm: ours, metric: val/acc, {condition}, says: so}}]\n"
    (claim,) = write_claims(entry, text)
    values = {"ours": [0.5, 0.2, 0.8], "baseline": [0.25, 0.25, 0.25]}
    found = judge(entry, claim, with_metric(entry, claim, "val/acc", values))
    assert (found.premises[0].met, found.verdict) == (met, "holds" if met else "premise not met")


def test_the_metric_of_a_premise_is_measured(entry: index.Entry) -> None:
    (claim,) = write_claims(entry, PREMISE)
    measured = {job.label: job.measures for job in plan(entry, [claim], seeds=[0])}
    assert measured == {"fast-wins: ours, seed 0": ("test",), "fast-wins: baseline, seed 0": ("test", "validate")}
    (plain,) = write_claims(entry, PAIR + "  premise: [{arm: ours, above: baseline, says: so}]\n")
    assert plain.premise[0].metric == "test/acc"


@pytest.mark.parametrize(
    ("metrics", "reason"),
    [
        ({"test/acc": None}, "ours, seed 1 diverged: no finite test/acc"),
        ({"train/loss": None}, "ours, seed 1 diverged: no finite train/loss"),
        ({"diverged": 2.0}, "ours, seed 1 diverged"),
        ({"train/diverged": 1.0}, "ours, seed 1 diverged"),
    ],
)
def test_an_arm_that_diverged_tests_nothing(entry: index.Entry, metrics: dict[str, Any], reason: str) -> None:
    (claim,) = write_claims(entry, PAIR)
    runs = runs_with(entry, claim, {"ours": [0.5, 0.7, 0.6], "baseline": [0.4, 0.59, 0.51]})
    run = runs[fingerprint(spec_of(entry, claim.arms["ours"], 1))]
    run["metrics"] |= {"train/loss": 0.5, "diverged": 0.0}
    assert judge(entry, claim, runs).verdict == "holds"
    run["metrics"] |= metrics
    found = judge(entry, claim, runs)
    assert (found.verdict, found.reason) == ("premise not met", reason)


def test_an_arm_that_is_only_shown_may_diverge(entry: index.Entry) -> None:
    (claim,) = write_claims(entry, PAIR.replace("  metric:", "    seen: {recipe: ten-s}\n  metric:"))
    values: dict[str, list[float | None]] = {"ours": [0.5, 0.7, 0.6], "baseline": [0.4, 0.59, 0.51]}
    found = judge(entry, claim, runs_with(entry, claim, {**values, "seen": [0.1, None, 0.1]}))
    assert (found.verdict, found.values["seen"]["1"]) == ("holds", None)


def test_a_run_without_the_metric_is_no_result(entry: index.Entry) -> None:
    (claim,) = write_claims(entry, PAIR)
    runs = runs_with(entry, claim, {"ours": [0.5, 0.7, 0.6], "baseline": [0.4, 0.59, 0.51]})
    del runs[fingerprint(spec_of(entry, claim.arms["ours"], 1))]["metrics"]["test/acc"]
    found = judge(entry, claim, runs)
    assert (found.verdict, found.reason) == ("not run", "no test/acc in the run of ours, seed 1")


def test_a_failed_premise_ends_the_looks(entry: index.Entry) -> None:
    (claim,) = write_claims(entry, growing(6) + "  premise: [{arm: ours, at-least: 0.9, says: it learns}]\n")
    runs = runs_with(entry, claim, {"ours": [0.5, 0.6, 0.4, 2, 2, 2], "baseline": [0.5, 0.4, 0.6, 0, 0, 0]})
    found = judge(entry, claim, runs)
    assert (found.verdict, found.next_seeds) == ("premise not met", 0)
    assert found.look is not None
    assert found.look.seeds == 3
