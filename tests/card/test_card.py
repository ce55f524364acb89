"""Cards: regenerated from the same source they equal what is in the repository, and their code runs."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from toys import cli as cli_toys

from zoo import card, claims, cli, index
from zoo.card import text as _card_text
from zoo.card.eval import eval_results
from zoo.card.plots import curve_key, curves_of, draw_claims, draw_curves
from zoo.claims import planning as _claims_plan
from zoo.claims.results import write_results
from zoo.claims.stats import coverage_of, looks_up_to
from zoo.errors import MissingExtra

OURS = [name for name, e in index.entries().items() if Path(e.source) == index.index_path()]
CLAIMS = """\
- id: fast-wins
  promise: A higher rate is better | by far.
  paper: {value: "+1", source: table 2}
  arms:
    ours: {recipe: ten-n, set: {model.lr: 0.5}}
    baseline: {recipe: ten-n, set: {model.lr: 0.25}}
  metric: test/acc
  expect: higher
  seeds: [0, 1]
- id: not-yet
  promise: Later.
  arms: {ours: {study: fit}}
  metric: error
  expect: at-most
  value: 0.1
  reason: needs a GPU
"""


@pytest.fixture
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> index.Entry:
    monkeypatch.setattr(index, "_registered", dict(index._registered))
    made = cli_toys.register(tmp_path)
    folder = claims.card_folder(made)
    folder.mkdir(parents=True)
    (folder / "claims.yaml").write_text(CLAIMS)
    return made


def with_results(entry: index.Entry, *, curves: bool = False) -> dict[str, Any]:
    found = claims.claims_of(entry)
    runs = {}
    for (arm, seed), spec in _claims_plan.jobs_of(entry, found[0]).items():
        value = (0.5 if arm == "ours" else 0.25) + (seed or 0) / 100
        run = {"spec": spec, "metrics": {"test/acc": value}, "minutes": 1.0}
        run |= {"curves": {"val/acc": [[1, 0.0], [2, value / 2], [3, value]]}} if curves else {}
        runs[_claims_plan.fingerprint(spec)] = run
    return write_results(claims.card_folder(entry) / "results.json", entry, found, runs)


def tables(text: str) -> list[list[dict[str, str]]]:
    """The Markdown tables of a text: rows as a mapping from heading to cell."""
    found: list[list[dict[str, str]]] = []
    heads: list[str] = []
    for line in [*text.splitlines(), ""]:
        cells = [c.strip().replace("\\|", "|") for c in re.split(r"(?<!\\)\|", line.strip())[1:-1]]
        if not cells:
            heads = []
        elif not heads:
            heads = cells
            found.append([])
        elif set("".join(cells)) != {"-"}:
            found[-1].append(dict(zip(heads, cells, strict=True)))
    return found


def claim_row(entry: index.Entry, promise: str) -> dict[str, str]:
    """The row of the claims table that holds a promise."""
    (row,) = [r for t in tables(card.render(entry)) for r in t if r.get("promise", "").startswith(promise)]
    return row


def readme(entry: index.Entry) -> Path:
    return claims.card_folder(entry) / "README.md"


# What the repository holds ----------------------------------------------------------------------------------------


def test_no_card_has_drifted_and_the_check_is_quick() -> None:
    started = time.process_time()
    problems = [problem for name in OURS for problem in card.check(index.entries()[name])]
    assert problems + card.check_readme() == []
    assert time.process_time() - started < 10


@pytest.mark.parametrize("name", OURS)
def test_the_usage_block_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = card.render(index.entries()[name])
    (code,) = re.findall(r"## Use\n\n```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Image.effect_noise((200, 120), 40).convert("RGB").save("picture.jpg")
    exec(compile(code, f"{name} card", "exec"), {})


@pytest.mark.parametrize("name", OURS)
def test_the_header_is_what_the_hub_reads(name: str) -> None:
    from huggingface_hub import ModelCard

    entry = index.entries()[name]
    found = ModelCard(card.render(entry), ignore_metadata_errors=False)
    data = found.data
    assert data.license
    assert data.library_name == "lightning-method-zoo"
    assert entry.id in data.tags
    measured = {(tag, k): v for tag, w in entry.weights.items() if w.sha256 for k, v in w.metrics.items()}
    results = data.eval_results or []
    assert sorted(r.metric_value for r in results) == sorted(measured.values())
    assert all(r.task_type and r.dataset_name and r.dataset_type for r in results)


@pytest.mark.parametrize("name", OURS)
def test_pictures_of_a_card_exist(name: str) -> None:
    folder = claims.card_folder(index.entries()[name])
    for link in re.findall(r"\]\(([^)]*)\)", card.render(index.entries()[name])):
        if "://" not in link:
            assert (folder / link).is_file(), link


# How cards are made -----------------------------------------------------------------------------------------------


def test_hand_written_parts_survive(entry: index.Entry) -> None:
    with_results(entry)
    assert card.write(entry) == [readme(entry)]
    assert "is not written yet" in card.check(entry)[0]
    text = readme(entry).read_text()
    for name, hint in card.BLOCKS.items():
        text = text.replace(f"*To be written:* {hint}", f"My words on {name}.\n\n- with a list")
    readme(entry).write_text(text)
    assert card.check(entry) == []
    assert card.write(entry) == []
    readme(entry).write_text(text.replace("A linear classifier.", "The best classifier."))
    assert "out of date" in card.check(entry)[0]
    card.write(entry)
    assert readme(entry).read_text() == text
    assert _card_text.hand_written(text)["limits"] == "My words on limits.\n\n- with a list"


def test_claims_are_shown_with_their_numbers(entry: index.Entry) -> None:
    before = claim_row(entry, "A higher rate")
    assert before["promise"] == "A higher rate is better | by far."
    assert (before["the paper"], before["measured"], before["after Holm"]) == ("+1", "-", "-")
    assert "not run yet" in before["verdict"]
    with_results(entry)
    row = claim_row(entry, "A higher rate")
    assert row["verdict"] == "**holds**"
    for part in ("+0.25", "test/acc", "[0.25, 0.25]", "2 seeds"):
        assert part in row["measured"]
    assert row["wanted"] == "higher"
    assert row["after Holm"].startswith("holds")
    later = claim_row(entry, "Later")
    assert "**not run**" in later["verdict"]
    assert "needs a GPU" in later["verdict"]
    assert later["wanted"] == "at most 0.1"
    text = card.render(entry)
    (values,) = [t for t in tables(text) if t and "arm" in t[0]]
    assert values[0] == {"arm": "ours", "seed 0": "0.5", "seed 1": "0.51", "mean": "0.505"}
    assert "### not-yet" not in text


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        ("expect: higher", "expect: higher\n  margin: 0.1", "higher by more than 0.1"),
        ("expect: higher", "expect: within\n  margin: 0.02", "within 0.02"),
        ("expect: higher", "expect: not-worse\n  margin: 0.02\n  better: lower", "not higher by 0.02 or more"),
        ("expect: at-most", "expect: within\n  margin: 0.02", "within 0.02 of 0.1"),
    ],
)
def test_the_margin_that_decides_is_printed(entry: index.Entry, old: str, new: str, wanted: str) -> None:
    (claims.card_folder(entry) / "claims.yaml").write_text(CLAIMS.replace(old, new, 1))
    assert wanted in {row["wanted"] for t in tables(card.render(entry)) for row in t if "wanted" in row}


def test_scores_of_each_class_are_shown_while_they_are_of_these_weights(entry: index.Entry) -> None:
    assert "classes.json" not in card.render(entry)
    scores = {
        "tag": "ten-n",
        "sha256": None,
        "score": "test/acc",
        "samples": 1200,
        "classes": {"cat": 0.9, "dog": 0.25},
    }
    path = claims.card_folder(entry) / "classes.json"
    path.write_text(json.dumps(scores))
    assert [{"class": "dog", "score": "0.250"}, {"class": "cat", "score": "0.900"}] in tables(card.render(entry))
    assert "1,200 test samples" in card.render(entry)
    card.write(entry)
    assert not [p for p in card.check(entry) if "classes.json" in p]
    path.write_text(json.dumps(scores | {"sha256": "0" * 64}))
    assert any("--classes" in p for p in card.check(entry))


SCORED = [n for n in OURS if (claims.card_folder(index.entries()[n]) / "classes.json").is_file()]


@pytest.mark.parametrize("name", SCORED)
def test_scores_of_each_class_agree_with_the_headline(name: str) -> None:
    entry = index.entries()[name]
    found = json.loads((claims.card_folder(entry) / "classes.json").read_text())
    metrics = entry.weights[found["tag"]].metrics
    mean = sum(found["classes"].values()) / len(found["classes"])
    wanted = metrics.get("test/accuracy", next(iter(metrics.values())))
    assert mean == pytest.approx(wanted, abs=0.005), "classes are of about equal size"


def test_classes_are_scored_by_a_command(entry: index.Entry, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["card", "toy-net", "--classes"]) == 2
    assert "no default weights" in capsys.readouterr().err
    assert cli.main(["card", "toy-net", "--classes", "--check"]) == 2


def test_what_else_belongs_to_a_verdict_is_shown(entry: index.Entry) -> None:
    text = CLAIMS.replace("seeds: [0, 1]", "seeds: 6\n  judge: aeon").replace(
        "  metric: test/acc",
        "  premise: [{arm: baseline, at-least: 0.4, says: the baseline learns}]\n  metric: test/acc",
        1,
    )
    (claims.card_folder(entry) / "claims.yaml").write_text(text)
    claim = claims.claims_of(entry)[0]

    def shown(ours: list[float], baseline: list[float]) -> dict[str, str]:
        runs = {}
        for (arm, seed), spec in _claims_plan.jobs_of(entry, claim).items():
            values = ours if arm == "ours" else baseline
            if (seed or 0) < len(values):
                runs[_claims_plan.fingerprint(spec)] = {"spec": spec, "metrics": {"test/acc": values[seed or 0]}}
        write_results(claims.card_folder(entry) / "results.json", entry, claims.claims_of(entry), runs)
        return claim_row(entry, "A higher rate")

    row = shown([0.6, 0.4, 0.7], [0.5, 0.5, 0.5])
    half = claims.student(2, 0.975) * 0.152752523 / 3**0.5
    assert "**undecided**" in row["verdict"]
    assert "look 1 of 2, 3 seeds" in row["verdict"]
    assert f"could have seen {half:.4g}" in row["verdict"]
    assert "aeon" in row["measured"]
    row = shown([0.6, 0.4, 0.7], [0.3, 0.4, 0.35])
    assert "**premise not met**" in row["verdict"]
    assert "the baseline learns: test/acc 0.35, wanted at least 0.4" in row["verdict"]
    assert row["after Holm"] == "-"
    assert "Premise **not met**: the baseline learns" in card.render(entry)
    (methods,) = card.readme_table([entry])[2:-1]
    assert "1 premise not met" in methods


def test_a_card_says_which_code_made_its_runs(entry: index.Entry) -> None:
    runs: dict[str, Any] = {str(i): {"commit": "aaa" if i < 2 else "bbb"} for i in range(5)}
    runs["0"]["confirmed"] = {"commit": "ccc"}
    (line, _) = _card_text._made_by(entry, {"runs": runs})
    assert line.startswith(
        "5 runs, by the code of bbb (3), aaa (2); 1 of them confirmed digit by digit by that of ccc."
    )
    assert f"zoo reproduce {entry.id} --recheck --dry-run" in line
    assert _card_text._made_by(entry, {"runs": {}}) == []


def test_where_the_rule_of_verdicts_stands(entry: index.Entry) -> None:
    text = card.render(entry)
    assert "](../../docs/claims.md)" in text
    assert "Student" not in text  # it stands there once, not on every card
    rule = (index.index_path().parent / "docs" / "claims.md").read_text(encoding="utf-8")
    assert set(claims.VERDICTS) <= {word for word in claims.VERDICTS if f"**{word}**" in rule}
    assert all(f"`{name}`" in rule for name in claims.EXPECTATIONS)
    assert f"{100 * 0.95:.0f} %" in rule
    for number in (4, 7, 13):  # the table of looks says what the code does
        assert f"{100 * coverage_of(len(looks_up_to(number))):.4g} %" in rule


def test_long_lists_of_recipes_are_folded(entry: index.Entry) -> None:
    def made(count: int) -> str:
        recipes = {f"more-{i}": replace(entry.weights["ten-s"], tag=f"more-{i}") for i in range(count)}
        return card.render(replace(entry, weights={**entry.weights, **recipes}))

    short, long = made(1), made(9)
    assert "<details>" not in short
    folded = re.findall(r"<details>\n<summary>(.*?)</summary>\n\n(.*?)\n\n</details>", long, re.DOTALL)
    assert len(folded) == 2
    assert "`more-8`" in folded[0][1]
    commands = [row["command"] for row in tables(folded[1][1])[0]]
    assert "`zoo train toy-net:more-8`" in commands
    assert "`zoo train toy-net:ten-n`" not in commands  # the default recipe is in sight
    assert "`zoo train toy-net:ten-n`" in long


def test_an_edited_verdict_is_found_and_corrected(entry: index.Entry) -> None:
    with_results(entry)
    card.write(entry)
    path = claims.card_folder(entry) / "results.json"
    path.write_text(path.read_text().replace('"holds"', '"opposite"'))
    assert any("results.json says opposite" in problem for problem in card.check(entry))
    assert set(card.write(entry)) <= {path, readme(entry)}
    assert json.loads(path.read_text())["claims"]["fast-wins"]["verdict"] == "holds"


def test_header_of_trained_weights(entry: index.Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from huggingface_hub import ModelCard

    weights = replace(
        entry.weights["ten-n"],
        sha256="0" * 64,
        bytes=1000,
        params=10,
        file="toy-net-ten-n.safetensors",
        metrics={"val/acc": 0.5, "val/map/cat": 0.25},
        trained_on={"data": "Ten Cats (2)", "licence": "CC0-1.0", "hub": "owner/cats"},
    )
    made = replace(entry, weights={**entry.weights, "ten-n": weights})
    data = ModelCard(card.render(made)).data
    assert data.datasets == ["owner/cats"]
    assert data.license == "cc0-1.0"
    assert [(r.dataset_type, r.dataset_split, r.metric_type) for r in data.eval_results] == [
        ("ten-cats-2", "val", "acc"),
        ("ten-cats-2", "val", "map_cat"),
    ]
    assert 'zoo.load("toy-net")' in card.render(made)
    assert 'zoo.load("toy-net", weights=False)' in card.render(entry)


def trained(entry: index.Entry, **about: Any) -> index.Entry:
    """The toy with published numbers."""
    given: dict[str, Any] = {
        "sha256": "0" * 64,
        "file": "toy-net-ten-n.safetensors",
        "bytes": 1000,
        "params": 10,
        "metrics": {"test/acc": 0.5, "test/map/cat": 0.25},
        "trained_on": {"data": "Cats", "licence": "MIT", "hub": "owner/cats", "scored_on": "half of the test pictures"},
    }
    weights = replace(entry.weights["ten-n"], **{**given, **about})
    return replace(entry, weights={**entry.weights, "ten-n": weights})


def test_the_hub_reads_the_evaluation_results(entry: index.Entry) -> None:
    hub = pytest.importorskip("huggingface_hub")
    made = trained(entry, hub=index.Pin("owner/toy-net-ten-n", "1" * 40))
    files = eval_results(made)
    assert list(files) == ["ten-n.yaml"]  # the other tag is not trained
    data = yaml.safe_load(files["ten-n.yaml"])
    if not hasattr(hub, "parse_eval_result_entries"):
        pytest.skip("this huggingface_hub does not know the format yet")
    first, second = hub.parse_eval_result_entries(data)
    assert (first.dataset_id, first.task_id, first.value) == ("owner/cats", "acc", 0.5)
    assert (second.task_id, second.value) == ("map_cat", 0.25)
    assert first.source_url == "https://huggingface.co/owner/toy-net-ten-n"
    assert first.notes == "test/acc of toy-net:ten-n, half of the test pictures"
    assert hub.eval_result_entries_to_yaml([first, second]) == data


def test_data_that_the_hub_does_not_know_have_no_evaluation_results(entry: index.Entry) -> None:
    assert eval_results(trained(entry, trained_on={"data": "Cats", "licence": "MIT"})) == {}
    assert eval_results(trained(entry, sha256=None, file=None)) == {}
    assert eval_results(trained(entry, metrics={})) == {}


def test_evaluation_results_are_written_and_checked_with_the_card(entry: index.Entry) -> None:
    with_results(entry)
    made = trained(entry)
    path = claims.card_folder(made) / ".eval_results" / "ten-n.yaml"
    assert path in card.write(made)
    assert path.read_text() == eval_results(made)["ten-n.yaml"]
    assert not any(".eval_results" in problem for problem in card.check(made))
    path.write_text(path.read_text().replace("0.5", "0.9"))
    assert any(".eval_results is out of date" in problem for problem in card.check(made))
    assert card.write(made) == [path]
    stale = path.with_name("gone.yaml")
    stale.write_text("[]\n")
    assert any(".eval_results is out of date" in problem for problem in card.check(made))
    assert card.write(made) == [stale]
    assert not stale.exists()


@pytest.mark.parametrize("name", OURS)
def test_published_evaluation_results_are_those_of_the_index(name: str) -> None:
    entry = index.entries()[name]
    for file, text in eval_results(entry).items():
        weights = entry.weights[file.removesuffix(".yaml")]
        assert [r["value"] for r in yaml.safe_load(text)] == list(weights.metrics.values())
        assert {r["dataset"]["id"] for r in yaml.safe_load(text)} == {weights.trained_on["hub"]}


def test_the_table_of_methods(entry: index.Entry) -> None:
    with_results(entry)
    ((row,),) = tables("\n".join(card.readme_table([entry])))
    assert row["claims held"] == "1 of 1 run, 1 not run"
    assert row["task"] == "tabular-classification"


def test_a_claim_names_what_its_curves_are_drawn_against(
    entry: index.Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = with_results(entry, curves=True)
    claim = claims.claims_of(entry)[0]
    drawn: list[str] = []
    monkeypatch.setattr("zoo.card.plots.draw_curves", lambda *given, across, mark: drawn.append(across))
    for named in (claim, replace(claim, across="labelled sections")):
        draw_claims(entry, [named], results, tmp_path)
    assert drawn == ["epoch", "labelled sections"]


def test_values_of_separate_things_are_no_curve(entry: index.Entry) -> None:
    claim = claims.claims_of(entry)[0]
    assert curve_key(claim, ["accuracy per set"]) is None
    assert curve_key(claim, ["candidates per pair against radius"]) == "candidates per pair against radius"
    assert curve_key(claim, ["accuracy per set", "loss"]) == "loss"


def test_curves_are_drawn(entry: index.Entry, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    results = with_results(entry, curves=True)
    found = claims.claims_of(entry)
    name, curves = curves_of(entry, found[0], results["runs"])
    assert name == "val/acc"
    assert {arm: len(lines) for arm, lines in curves.items()} == {"ours": 2, "baseline": 2}
    (path,) = draw_claims(entry, found, results, tmp_path / "images")
    picture = Image.open(path).convert("RGBA")
    assert picture.getpixel((0, 0))[3] == 0  # transparent: fits light and dark pages
    first = path.read_bytes()
    draw_claims(entry, found, results, tmp_path / "images")
    assert path.read_bytes() == first


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtra, match=r"lightning-method-zoo\[test\]"):
        draw_curves({"ours": [[(0, 0), (1, 1)]]}, "iou", tmp_path / "x.png")


def test_command_line(entry: index.Entry, capsys: pytest.CaptureFixture[str]) -> None:
    with_results(entry)
    assert cli.main(["card", "toy-net"]) == 0
    assert cli.main(["card", "toy-net", "--check"]) == 1  # the hand-written parts are missing
    assert "WRONG" in capsys.readouterr().out
    assert cli.main(["card"]) == 2
    assert cli.main(["card", "toy-net", "--images", "--check"]) == 2
    assert "zoo card NAME" in capsys.readouterr().err
