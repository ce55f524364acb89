"""Claims: their file, the statistics, the plan, and what raw runs say about them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toys.claims import BRANCHED, PAIR, make_entry, runs_with, write_claims

from zoo import claims, index
from zoo.claims import code as _claims_code
from zoo.claims import planning as _claims_plan
from zoo.claims.confirming import differences
from zoo.claims.judging import judge
from zoo.claims.results import read_results, round_values, write_results
from zoo.errors import BadInput, FormatTooNew, UnknownName
from zoo.index import recipes


@pytest.fixture
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> index.Entry:
    return make_entry(tmp_path, monkeypatch)


# Statistics -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coverage", [0.5, 0.95, 0.999])
def test_students_quantile_is_scipys(coverage: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    for df in (*range(1, 31), 57, 100, 999):
        assert claims.student(df, coverage) == pytest.approx(stats.t.ppf(0.5 + coverage / 2, df), rel=1e-9)


def test_students_quantile_in_the_tables() -> None:
    assert [round(claims.student(df), 4) for df in (1, 2, 4, 9)] == [12.7062, 4.3027, 2.7764, 2.2622]


def test_interval_is_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    values = [0.1, 0.4, 0.25, 0.3]
    low, high = stats.t.interval(0.95, 3, loc=0.2625, scale=stats.sem(values))
    found = claims.interval(values)
    assert (found.n, found.low, found.high) == (4, pytest.approx(low), pytest.approx(high))


def test_intervals_without_spread() -> None:
    assert claims.interval([0.5]).low is None
    assert claims.interval([0.5], exact=True) == claims.Interval(0, 0.5, 0.5, 0.5)
    assert claims.interval([0.25, 0.25, 0.25]) == claims.Interval(3, 0.25, 0.25, 0.25)


@pytest.mark.parametrize(
    ("low", "high", "expect", "margin", "verdict"),
    [
        (0.1, 0.3, "higher", 0, "holds"),
        (-0.1, 0.3, "higher", 0, "undecided"),
        (-0.3, -0.1, "higher", 0, "opposite"),
        (0.1, 0.3, "higher", 0.2, "undecided"),
        (0.0, 0.1, "higher", 0.2, "opposite"),
        (0.0, 0.0, "higher", 0, "undecided"),
        (-0.3, -0.1, "lower", 0, "holds"),
        (0.1, 0.3, "lower", 0, "opposite"),
        (-0.3, -0.1, "lower", 0.1, "undecided"),
        (-0.05, 0.3, "not-worse", 0.1, "holds"),
        (-0.15, 0.3, "not-worse", 0.1, "undecided"),
        (-0.3, -0.15, "not-worse", 0.1, "opposite"),
        (-0.05, 0.1, "within", 0.1, "holds"),
        (-0.05, 0.2, "within", 0.1, "undecided"),
        (0.15, 0.2, "within", 0.1, "opposite"),
        (0.0, 0.1, "at-least", 0, "holds"),
        (-0.1, 0.1, "at-least", 0, "undecided"),
        (-0.2, -0.1, "at-least", 0, "opposite"),
        (0.0, 0.0, "at-most", 0, "holds"),
        (0.1, 0.2, "at-most", 0, "opposite"),
        (float("nan"), 0.2, "higher", 0, "undecided"),
        (None, None, "higher", 0, "undecided"),
    ],
)
def test_verdicts(low: float | None, high: float | None, expect: str, margin: float, verdict: str) -> None:
    assert claims.decide(claims.Interval(3, 0.0, low, high), expect, margin) == verdict


def test_not_worse_where_less_is_better() -> None:
    found = claims.Interval(3, 0.2, 0.15, 0.3)
    assert claims.decide(found, "not-worse", 0.1) == "holds"
    assert claims.decide(found, "not-worse", 0.1, larger_is_better=False) == "opposite"


# The file ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("recipe: ten-n, set: {model.lr: 0.5}", "recipe: ten-m", r"fast-wins.arms.ours.recipe.*'ten-m'.*'ten-n'"),
        ("set: {model.lr: 0.5}}", "once: true}", r"ours.once: expected a study with role: shown"),
        ("expect: higher", "expect: hihger", r"expect.*'hihger'.*'higher'"),
        ("expect: higher", "expect: within", r"margin: within needs one"),
        ("expect: higher", "expect: at-least", r"value: at-least needs the number"),
        ("metric: test/acc", "metirc: test/acc", r"unknown key 'metirc'.*'metric'"),
        ("seeds: [0, 1, 2]", "seeds: [0, 0]", r"seeds: expected a list of different whole numbers"),
        ("seeds: [0, 1, 2]", "seeds: []", r"seeds: training depends on chance"),
        ("seeds: [0, 1, 2]", "seeds: 1", r"seeds: expected a list .* or one from 2 to 20"),
        ("seeds: [0, 1, 2]", "seeds: 21", r"seeds: expected a list .* or one from 2 to 20"),
        ("seeds: [0, 1, 2]", "seeds: true", r"seeds: expected a list .* or one from 2 to 20"),
        ("seeds: [0, 1, 2]", "seeds: [-1]", r"seeds: expected"),
        ("baseline:", "other:", r"higher needs an arm called baseline"),
        ("ours:", "mine:", r"expected one arm called ours"),
        ("model.lr: 0.5", "optimizer.lr: 0.5", r"'optimizer.lr' is no setting"),
        ("model.lr: 0.5", "data.root: $cats", r"'cats'"),
        ("recipe: ten-n, set: {model.lr: 0.5}", "set: {}", r"either a recipe or a study"),
        ("id: fast-wins", "id: Fast Wins", r"id: expected a kebab-case name"),
        ("minutes: 6", "minutes: 6\n  at: 2", r"at: expected a share"),
        ("minutes: 6", "minutes: 6\n  contrast: {ours: 1, bseline: -1}", r"'bseline'.*'baseline'"),
        ("minutes: 6", "judge: [aeon]", r"fast-wins.judge: expected the name of the code"),
        ("minutes: 6", "premise: []", r"fast-wins.premise: expected a list of conditions"),
        ("minutes: 6", "premise: {arm: ours}", r"fast-wins.premise: expected a list of conditions"),
        ("minutes: 6", "premise: [{arm: ours, says: a}]", r"premise\[1\]: expected one of at-least, at-most.*got none"),
        ("minutes: 6", "premise: [{arm: ours, at-least: 1}]", r"premise\[1\]: the key 'says' is missing"),
        ("minutes: 6", "premise: [{arm: our, at-least: 1, says: a}]", r"premise\[1\].arm.*'our'.*'ours'"),
        (
            "minutes: 6",
            "premise: [{arm: ours, at-lest: 1, says: a}]",
            r"premise\[1\]: unknown key 'at-lest'.*at-least",
        ),
        ("minutes: 6", "premise: [{arm: ours, above: basline, says: a}]", r"premise\[1\].above.*'basline'.*'baseline'"),
        ("minutes: 6", "premise: [{arm: ours, above: ours, says: a}]", r"premise\[1\].above: 'ours' would be compared"),
        ("minutes: 6", "premise: [{arm: ours, above: 1, by: 1, says: a}]", r"premise\[1\].by: only between two arms"),
        ("minutes: 6", "premise: [{arm: ours, above: 1, below: 2, says: a}]", r"premise\[1\]: expected one of"),
        (
            "minutes: 6",
            "premise: [{arm: ours, at-most: baseline, says: a}]",
            r"premise\[1\].at-most: expected a num",
        ),
    ],
)
def test_a_broken_file_is_told_with_the_nearest_name(entry: index.Entry, old: str, new: str, message: str) -> None:
    with pytest.raises(claims.InvalidClaims, match=message):
        write_claims(entry, PAIR.replace(old, new, 1))


def test_all_problems_are_told_at_once(entry: index.Entry) -> None:
    text = PAIR.replace("expect: higher", "expect: more").replace("metric: test/acc", "metric: 3")
    with pytest.raises(claims.InvalidClaims, match=r"2 problems"):
        write_claims(entry, text)
    with pytest.raises(claims.InvalidClaims, match="used twice"):
        write_claims(entry, PAIR + PAIR)
    with pytest.raises(claims.InvalidClaims, match="expected a list of claims"):
        write_claims(entry, "fast-wins: {}")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("model.lr: 0.5", "model.rl: 0.5", r"ToyNet has no argument 'rl'.*'model.lr'"),
        ("model.lr: 0.5", "data.lenght: 9", r"ToyData has no argument 'lenght'.*'data.length'"),
        ("model.lr: 0.5", "trainer.max_epoch: 9", r"Trainer has no argument 'max_epoch'.*'trainer.max_epochs'"),
        ("model.lr: 0.5", "model.lr: fast", r"model.lr: expected another type, got 'fast'"),
        ("model.lr: 0.5", "trainer.max_epochs: [1]", r"trainer.max_epochs: expected another type"),
        ("model.lr: 0.5", "data.seed: 9", r"data.seed is taken"),
        ("model.lr: 0.5", "weights: toy-net:ten-m", r"ten-m"),
        ("test/acc", "test/loos", r"logs no 'test/loos'.*'test/loss'"),
        ("test/acc", "acc", r"expected test/NAME or val/NAME, got 'acc'.*'test/acc'"),
        ("minutes: 6", "minutes: 6\n  at: 0.5", r"has no curve; with at: use val/acc"),
        (
            "minutes: 6",
            "premise: [{arm: baseline, metric: test/ac, at-least: 1, says: it learns}]",
            r"premise\[1\].metric: ToyNet logs no 'test/ac'.*'test/acc'",
        ),
        ("recipe: ten-n, set: {model.lr: 0.5}", "study: race", r"no study 'race'"),
    ],
)
def test_names_that_do_not_exist_are_refused_before_anything_trains(
    entry: index.Entry, old: str, new: str, message: str
) -> None:
    write_claims(entry, PAIR.replace(old, new, 1))
    with pytest.raises(claims.InvalidClaims, match=message):
        claims.make_plan("toy-net")


def test_right_names_pass(entry: index.Entry) -> None:
    write_claims(entry, PAIR.replace("test/acc", "val/acc/cat").replace("model.lr: 0.5", "weights: null"))
    assert len(claims.make_plan("toy-net").jobs) == 6


def test_unknown_claims_seeds_and_data_are_refused(entry: index.Entry, tmp_path: Path) -> None:
    needy = PAIR.replace("model.lr: 0.5", "data.root: $cats").replace("fast-wins", "needy") + "  needs: [cats]\n"
    write_claims(entry, PAIR + needy)
    with pytest.raises(UnknownName, match=r"'fast-win'.*'fast-wins'"):
        claims.make_plan("toy-net", ["fast-win"])
    with pytest.raises(UnknownName, match="seed 7"):
        claims.make_plan("toy-net", seeds=[7])
    with pytest.raises(UnknownName, match=r"'cat'.*'cats'"):
        claims.make_plan("toy-net", roots={"cat": "."})
    with pytest.raises(BadInput, match="--root cats=DIR"):
        claims.make_plan("toy-net", ["needy"])
    with pytest.raises(BadInput, match="there is nothing at"):
        claims.make_plan("toy-net", roots={"cats": tmp_path / "none"})
    assert list(claims.make_plan("toy-net").left_out) == ["needy"]
    assert claims.make_plan("toy-net", roots={"cats": tmp_path}).left_out == {}


def test_data_given_by_the_environment(entry: index.Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_claims(entry, PAIR.replace("model.lr: 0.5", "data.root: $my-cats") + "  needs: [my-cats]\n")
    monkeypatch.setenv("ZOO_ROOT_MY_CATS", str(tmp_path))
    plan = claims.make_plan("toy-net", ["fast-wins"])
    assert plan.roots == {"my-cats": tmp_path.resolve()}
    assert all(str(tmp_path) not in json.dumps(job.spec) for job in plan.jobs)  # no path of a machine in the results


def test_only_what_is_missing(entry: index.Entry) -> None:
    again = PAIR.replace("fast-wins", "again").replace("0.25", "0.125")
    found = write_claims(entry, PAIR + again)
    assert [c.id for c in claims.make_plan("toy-net", missing=True).claims] == ["fast-wins", "again"]
    runs = runs_with(entry, found[0], {"ours": [0.5, 0.7, 0.6], "baseline": [0.4, 0.59, 0.51]})
    write_results(claims.card_folder(entry) / "results.json", entry, found, runs)
    assert [c.id for c in claims.make_plan("toy-net", missing=True).claims] == ["again"]
    assert claims.make_plan("toy-net", ["fast-wins"], missing=True).jobs == []
    assert len(claims.make_plan("toy-net").claims) == 2


# The plan ---------------------------------------------------------------------------------------------------------


def test_arms_are_shared_between_claims_and_starts_between_arms(entry: index.Entry) -> None:
    second = PAIR.replace("fast-wins", "again").replace("test/acc", "val/acc").replace("0.25", "0.125")
    found = _claims_plan.plan(entry, write_claims(entry, PAIR + second + BRANCHED))
    assert len(found) == 9 + 6  # three arms, three seeds; two branches and a start, two seeds
    shared = [job for job in found if job.measures == ("test", "validate")]
    assert len(shared) == 3
    places = {job.key: i for i, job in enumerate(found)}
    for i, job in enumerate(found):
        assert all(places[key] < i for key in job.needs)
        assert ("start" in job.spec) == bool(job.needs)
    assert all(job.spec["start"]["set"] == {"data.length": 9, "trainer.max_epochs": 1} for job in found if job.needs)


def test_stages_without_weights_come_first(entry: index.Entry, tmp_path: Path) -> None:
    recipe = tmp_path / "recipes" / "toy-net" / "ten-n.yaml"
    recipe.write_text(recipe.read_text() + "after: [ten-s]\n")
    found = _claims_plan.plan(entry, write_claims(entry, PAIR))
    assert len(found) == 7
    assert found[0].spec["recipe"] == "ten-s"
    assert found[0].seed == 3  # that of its recipe
    assert all(job.stages == {"ten-s": found[0].key} for job in found[1:])


def test_a_key_covers_recipe_settings_seed_and_code_but_no_texts(
    entry: index.Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keys() -> set[str]:
        return {job.key for job in _claims_plan.plan(entry, claims.claims_of(entry))}

    write_claims(entry, PAIR)
    first = keys()
    assert len(first) == 6
    recipe = tmp_path / "recipes" / "toy-net" / "ten-n.yaml"
    text = recipe.read_text()
    recipe.write_text(text.replace("for the tests", "another text") + "# a remark\n")
    assert keys() == first
    recipe.write_text(text.replace("5e-2", "6e-2"))
    assert not keys() & first
    recipe.write_text(text)
    monkeypatch.setattr(_claims_plan, "code_hash", lambda modules: "other")
    assert not keys() & first


def test_a_recipe_is_parsed_once_until_its_file_changes(
    entry: index.Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[Path] = []
    read = recipes.read_sections
    monkeypatch.setattr(recipes, "read_sections", lambda path, where: parsed.append(path) or read(path, where))
    recipe = tmp_path / "recipes" / "toy-net" / "ten-n.yaml"
    recipe.write_text(recipe.read_text() + "# not in any cache yet\n")
    found = write_claims(entry, PAIR)
    before = _claims_plan.jobs_of(entry, found[0])
    _claims_plan.plan(entry, found)
    assert parsed == [recipe]
    recipe.write_text(recipe.read_text().replace("5e-2", "6e-2"))  # as long as before
    assert _claims_plan.jobs_of(entry, found[0]) != before
    assert parsed == [recipe, recipe]


def test_the_code_hash_ignores_texts_and_sees_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "hashed_toy"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "net.py").write_text('"""Text."""\nfrom . import part\nimport json\nx = part.y\n')
    (package / "part.py").write_text(
        "def f():\n    '''Doc.'''\n    from hashed_toy import late\n    return 1\n\ny = f()\n"
    )
    (package / "late.py").write_text("z = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert set(_claims_code.modules_behind(["hashed_toy.net"])) == {"hashed_toy.net", "hashed_toy.part", "hashed_toy"}
    first = _claims_code.code_hash(["hashed_toy.net"])
    (package / "part.py").write_text("# why\ndef f():\n    from hashed_toy import late\n\n    return 1\n\n\ny = f()\n")
    (package / "late.py").write_text("z = 2\n")
    assert _claims_code.code_hash(["hashed_toy.net"]) == first
    (package / "part.py").write_text("def f():\n    return 2\n\ny = f()\n")
    assert _claims_code.code_hash(["hashed_toy.net"]) != first


def hash_of_package(folder: Path, files: dict[str, str], start: str) -> str:
    """Hash of the code behind a module of a package that is written to a folder of its own."""
    for name, text in files.items():
        path = folder / "moved_toy" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    code = (
        f"import sys; sys.path.insert(0, {str(folder)!r}); from zoo.claims.code import code_hash; "
        f"print(code_hash([{start!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_code_hash_is_independent_of_where_code_lies_and_of_what_draws(tmp_path: Path) -> None:
    net = "import json\n{}\n\ndef f():\n    return y + json.loads('1')\n"
    part = "{}y = 1\n"
    flat = {
        "__init__.py": "",
        "net.py": net.format("from moved_toy._part import y\nfrom moved_toy import _part_draw"),
        "_part.py": part.format("__all__ = ['y']\n"),
        "_part_draw.py": "COLOUR = 1\n",
    }
    deep = {
        "__init__.py": "",
        "methods/__init__.py": "",
        "methods/net/__init__.py": "from moved_toy.methods.net.module import f\n__all__ = ['f']\n",
        "methods/net/module.py": net.format("from .part import y\nfrom . import picture, pictures, tuning"),
        "methods/net/part.py": part.format("from __future__ import annotations\n"),
        "methods/net/picture.py": "COLOUR = 2\n",
        "methods/net/pictures.py": "COLOUR = 3\n",
        "methods/net/tuning.py": "KNOBS = (1, 2)\n",
    }
    first = hash_of_package(tmp_path / "flat", flat, "moved_toy.net")
    assert hash_of_package(tmp_path / "deep", deep, "moved_toy.methods.net") == first
    deep["methods/net/part.py"] = part.format("import math\n")  # a foreign import decides what a name means
    assert hash_of_package(tmp_path / "foreign", deep, "moved_toy.methods.net") != first
    deep["methods/net/part.py"] = "y = 2\n"
    assert hash_of_package(tmp_path / "other", deep, "moved_toy.methods.net") != first


def test_the_code_of_a_method_includes_what_its_numbers_depend_on() -> None:
    view = next(iter(e for e in index.entries().values() if Path(e.source) == index.index_path()))
    found = _claims_code.modules_behind([view.model.partition(":")[0], view.data.partition(":")[0]])
    assert {"zoo.base", "datamodules.base", view.model.partition(":")[0]} <= set(found)
    assert not {"zoo.cli", "zoo.store", "zoo.claims", "zoo.errors"} & set(found)


# Results ----------------------------------------------------------------------------------------------------------


def test_paired_differences_decide(entry: index.Entry) -> None:
    (claim,) = write_claims(entry, PAIR)
    found = judge(entry, claim, runs_with(entry, claim, {"ours": [0.5, 0.7, 0.6], "baseline": [0.4, 0.59, 0.51]}))
    assert found.verdict == "holds"
    assert found.comparisons[0].differences == pytest.approx({"0": 0.1, "1": 0.11, "2": 0.09})
    assert found.comparisons[0].observed == claims.interval([0.5 - 0.4, 0.7 - 0.59, 0.6 - 0.51])
    other = judge(entry, claim, runs_with(entry, claim, {"ours": [0.5, 0.7, 0.6], "baseline": [0.4, 0.8, 0.5]}))
    assert other.verdict == "undecided"


def test_a_control_must_be_beaten_too(entry: index.Entry) -> None:
    text = PAIR.replace(
        "  metric:", "    control: {recipe: ten-s}\n    seen: {recipe: ten-s, set: {model.lr: 9}}\n  metric:"
    )
    (claim,) = write_claims(entry, text)
    values = {"ours": [0.5, 0.7], "baseline": [0.4, 0.6], "control": [0.3, 0.5], "seen": [0.9, 0.9]}
    claim = claims.Claim(**{**vars(claim), "seeds": (0, 1)})
    assert judge(entry, claim, runs_with(entry, claim, values)).verdict == "holds"
    values["control"] = [0.9, 1.1]
    assert judge(entry, claim, runs_with(entry, claim, values)).verdict == "opposite"


def test_no_verdict_before_all_runs_are_there(entry: index.Entry) -> None:
    (claim,) = write_claims(entry, PAIR)
    partial_runs = runs_with(entry, claim, {"ours": [0.5, 0.7, 0.6], "baseline": [0.4, 0.5]})
    found = judge(entry, claim, partial_runs)
    assert (found.verdict, found.reason) == ("not run", "5 of 6 runs are there")
    assert "about 6 minutes" in judge(entry, claim, {}).reason


def test_numbers_are_stored_with_nine_digits_and_without_those_that_json_lacks() -> None:
    assert round_values({"a": [float("nan"), float("inf"), 1 / 3]}) == {"a": [None, None, 0.333333333]}


def test_contrast(entry: index.Entry) -> None:
    text = (
        PAIR.replace("ours:", "a:")
        .replace("baseline:", "b:")
        .replace("  metric:", "  contrast: {a: 2, b: -1}\n  metric:")
    )
    (claim,) = write_claims(entry, text)
    found = judge(entry, claim, runs_with(entry, claim, {"a": [1, 2, 3], "b": [1, 1, 1]}))
    assert found.comparisons[0].differences == {"0": 1, "1": 3, "2": 5}


def test_a_contrast_is_compared_with_the_value_it_is_promised_to_reach(entry: index.Entry) -> None:
    text = PAIR.replace("expect: higher", "contrast: {ours: 1, baseline: -1}\n  expect: at-least\n  value: 2")
    (claim,) = write_claims(entry, text)
    found = judge(entry, claim, runs_with(entry, claim, {"ours": [2.1, 2.2, 2.3], "baseline": [1, 1, 1]}))
    assert found.comparisons[0].observed.mean == pytest.approx(1.2)  # shown as it is
    assert found.verdict == "opposite"  # 1.2 is surely above 0, but below 2
    found = judge(entry, claim, runs_with(entry, claim, {"ours": [3.1, 3.2, 3.3], "baseline": [1, 1, 1]}))
    assert found.verdict == "undecided"


def test_a_value_on_the_curve(entry: index.Entry) -> None:
    (claim,) = write_claims(entry, PAIR.replace("test/acc", "val/acc") + "  at: 0.5\n")
    runs = runs_with(entry, claim, {"ours": [0, 0, 0], "baseline": [0, 0, 0]})
    for run in runs.values():
        run |= {"epochs": 10, "curves": {"val/acc": [[2, 0.1], [4, 0.2], [6, 0.3]]}}
    assert judge(entry, claim, runs).values["ours"] == {"0": 0.2, "1": 0.2, "2": 0.2}
    assert _claims_plan.measures_of(claim) == []
    for run in runs.values():
        run["curves"]["val/acc"][1][1] = None  # not finite any more, then finite by chance
    assert judge(entry, claim, runs).verdict == "premise not met"


def test_exact_claims_need_no_seeds(entry: index.Entry) -> None:
    (claim,) = write_claims(
        entry,
        "- {id: exact, promise: It fits., arms: {ours: {study: fit}}, metric: error, expect: at-most, value: 0.001}\n",
    )
    (key,) = (_claims_plan.fingerprint(spec) for spec in _claims_plan.jobs_of(entry, claim).values())
    assert judge(entry, claim, {key: {"metrics": {"error": 0.001}}}).verdict == "holds"
    assert judge(entry, claim, {key: {"metrics": {"error": 0.002}}}).verdict == "opposite"


def test_a_changed_recipe_voids_its_results(entry: index.Entry, tmp_path: Path) -> None:
    (claim,) = write_claims(entry, PAIR)
    runs = runs_with(entry, claim, {"ours": [1, 1, 1], "baseline": [0, 0, 0]})
    assert judge(entry, claim, runs).verdict == "holds"
    recipe = tmp_path / "recipes" / "toy-net" / "ten-n.yaml"
    recipe.write_text(recipe.read_text().replace("5e-2", "6e-2"))
    assert judge(entry, claim, runs).verdict == "not run"


def test_results_are_whole_or_absent_and_drift_is_seen(entry: index.Entry) -> None:
    found = write_claims(entry, PAIR)
    path = claims.card_folder(entry) / "results.json"
    runs = runs_with(entry, found[0], {"ours": [0.5, 0.7, 0.6], "baseline": [0.4, 0.59, 0.51]})
    write_results(path, entry, found, runs)
    assert {file.name for file in path.parent.iterdir()} == {"claims.yaml", "results.json"}
    assert claims.drifted(entry) == []
    assert claims.rejudge(entry) == []
    path.write_text(path.read_text().replace('"holds"', '"opposite"', 1))
    assert "says opposite, its runs holds" in claims.drifted(entry)[0]
    assert claims.rejudge(entry) == [path]
    path.write_text(path.read_text().replace('"mean": ', '"mean": 1', 1))
    assert "its numbers are not those of its runs; run: zoo card toy-net" in claims.drifted(entry)[0]
    assert claims.rejudge(entry) == [path]
    assert claims.drifted(entry) == []
    path.write_text("{")
    with pytest.raises(claims.InvalidClaims, match="not valid JSON"):
        read_results(path)
    path.write_text('{"format": 99, "runs": {}}')
    with pytest.raises(FormatTooNew):
        read_results(path)


def test_a_results_file_has_one_run_a_line(entry: index.Entry) -> None:
    claims_of_toy = write_claims(entry, PAIR)
    path = claims.card_folder(entry) / "results.json"
    runs = runs_with(entry, claims_of_toy[0], {"ours": [0.5, 0.7, 0.6], "baseline": [0.4, 0.59, 0.51]})
    content = write_results(path, entry, claims_of_toy, dict(reversed(runs.items())))
    lines = path.read_text().splitlines()
    for name, item in {**content["claims"], **content["runs"]}.items():
        (line,) = (line for line in lines if line.startswith(f'  "{name}": '))
        assert json.loads("{" + line.rstrip(",") + "}") == {name: item}
    assert json.loads(path.read_text()) == content
    assert list(content["runs"]) == sorted(runs)  # whatever the order they came in
    path.write_text(json.dumps(content, indent=1))  # as earlier versions wrote it
    assert read_results(path) == content


# What the repository publishes ------------------------------------------------------------------------------------


def test_published_verdicts_follow_from_the_raw_values() -> None:
    ours = [e for e in index.entries().values() if Path(e.source) == index.index_path()]
    started = time.process_time()
    problems = [problem for entry in ours for problem in claims.drifted(entry)]
    assert problems == []
    assert time.process_time() - started < 2 * max(1, len(ours) / 30)


def test_a_mark_for_nothing_equals_nothing() -> None:
    """Runs that stored COCO's -1 are confirmed by ones that leave such a score out."""
    before = {"metrics": {"map": 0.5, "large": -1.0}, "curves": {"large": [[1, -1.0], [2, -1.0]]}}
    assert differences(before, {"metrics": {"map": 0.5}}) == {}
    assert differences(before, {"metrics": {"map": -1.0}}) == {"map": (0.5, -1.0)}
    assert differences({"metrics": {"map": 0.5}}, {"metrics": {}}) == {"map": (0.5, None)}
