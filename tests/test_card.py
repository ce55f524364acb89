"""Cards: regenerated from the same source they equal what is in the repository, and their code runs."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cli_toys
import pytest
from PIL import Image

from zoo import _card_text, _claims_plan, card, claims, cli, index
from zoo._card_plots import curve_key, curves_of, draw_claims, draw_curves
from zoo._claims_results import write_results
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
    before = card.render(entry)
    assert "| A higher rate is better \\| by far. | +1 | - | **not run** (not run yet) |" in before
    with_results(entry)
    text = card.render(entry)
    assert "+0.25 test/acc [0.25, 0.25], 2 seeds | **holds** |" in text
    assert "**not run** (needs a GPU)" in text
    assert "| ours | 0.5 | 0.51 | 0.505 |" in text
    assert "### not-yet" not in text


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


def test_the_table_of_methods(entry: index.Entry) -> None:
    with_results(entry)
    head, _, row, _ = card.readme_table([entry])
    assert head.startswith("| id | method | task |")
    assert "1 of 1 run, 1 not run" in row


def test_pictures_of_data_that_must_be_fetched_are_left_to_the_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo._card_plots.draw_claims", lambda *given: [])  # else written beside the card
    assert card.draw(index.entries()["soft-rocket"]) == []


def test_a_claim_names_what_its_curves_are_drawn_against(
    entry: index.Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = with_results(entry, curves=True)
    claim = claims.claims_of(entry)[0]
    drawn: list[str] = []
    monkeypatch.setattr("zoo._card_plots.draw_curves", lambda *given, across, mark: drawn.append(across))
    for named in (claim, replace(claim, across="labelled sections")):
        draw_claims(entry, [named], results, tmp_path)
    assert drawn == ["epoch", "labelled sections"]


def test_values_of_separate_things_are_no_curve(entry: index.Entry) -> None:
    claim = claims.claims_of(entry)[0]
    assert curve_key(claim, ["accuracy per set"]) is None
    assert curve_key(claim, ["accuracy per set", "loss"]) == "loss"


def test_curves_are_drawn(entry: index.Entry, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    results = with_results(entry, curves=True)
    found = claims.claims_of(entry)
    name, curves = curves_of(entry, found[0], results["runs"])
    assert name == "val/acc"
    assert {arm: len(lines) for arm, lines in curves.items()} == {"ours": 2, "baseline": 2}
    (path,) = draw_claims(entry, found, results, tmp_path / "images")
    picture = Image.open(path)
    assert picture.mode == "RGBA"
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


def test_output_pictures_stand_in_a_row() -> None:
    row = card._side_by_side([Image.new("RGB", (10, 20)), Image.new("RGB", (40, 20))], height=20, gap=4)
    assert row.size == (54, 20)
    assert row.getpixel((11, 5))[3] == 0
