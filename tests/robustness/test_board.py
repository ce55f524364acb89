"""The leader board: rows go on where they stopped, equal the plain evaluation, stay whole, and the page is theirs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys.attacks import data, register_digits, trained

import zoo
from zoo import index
from zoo.cli import main
from zoo.errors import BadInput
from zoo.nn.attacks import pgd
from zoo.robustness import battery, board
from zoo.robustness.adaptive import adaptive_attacks
from zoo.robustness.board.row import home, read_row
from zoo.robustness.report import Check

EPS = 0.12
FAST = ("pgd-5", "apgd-ce-10", "adaptive")


@pytest.fixture
def digits() -> tuple[Tensor, Tensor]:
    _, _, x, y = data()
    return x[:60], y[:60]


@pytest.fixture(autouse=True)
def few_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 20 pictures; without the radii and Square, which take most of the time."""
    former = battery._black_box

    def black_box(run: Any, white: Tensor, attack: str, name: str) -> Check:
        return Check(name, None, "", "") if name == "square" else former(run, white, attack, name)

    monkeypatch.setattr(battery, "_sweep", lambda run: [])
    monkeypatch.setattr(battery, "_black_box", black_box)
    monkeypatch.setattr("zoo.robustness.board.measuring.BLOCK", 20)


def subject(digits: tuple[Tensor, Tensor], **more: Any) -> board.Subject:
    return board.Subject("toy", trained(), digits, "Digits", EPS, **more)


def test_verdicts_keep_each_picture() -> None:
    verdicts = board.Verdicts()
    verdicts.add([False, False, True], 1.0)
    verdicts.add([True, False], 0.5)
    assert verdicts.flags == [False, False, True, True, False]
    assert (verdicts.seen, verdicts.bits, verdicts.seconds, verdicts.share) == (5, "6", 1.5, 0.4)
    assert board.Verdicts().flags == []


def test_a_row_is_the_plain_evaluation(digits: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    """Blocks change no verdict: the same worst case as `evaluate_robustness`, and other numbers of pictures nest."""
    row = board.measure(subject(digits), tmp_path / "row.json", 50, FAST)
    report = zoo.evaluate_robustness(trained(), digits, EPS, 50, FAST[:2], checks=False)
    assert row.worst == pytest.approx(report.worst)
    assert 0 < row.worst < row.clean.share == pytest.approx(report.clean)
    assert {name: verdicts.seen for name, verdicts in row.attacks.items()} == {"pgd-5": 50, "apgd-ce-10": 50}
    assert row.macs == macs_by_hand()
    assert row.params == sum(p.numel() for p in trained().parameters())
    assert row.checks["n"] == 20
    assert read_row(tmp_path / "row.json") == row
    fewer = board.measure(subject(digits), tmp_path / "few.json", 30, FAST)
    assert fewer.attacks["pgd-5"].flags == row.attacks["pgd-5"].flags[:30]
    assert fewer.group == row.group


def macs_by_hand() -> int:
    """Two 5x5 convolutions of stride 2 on 28x28 and a linear layer."""
    first, second = 14 * 14 * 8 * 25, 7 * 7 * 16 * 25 * 8
    return first + second + 98 * 8 * 10


def test_a_stopped_row_goes_on(digits: tuple[Tensor, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = board.measure(subject(digits), tmp_path / "whole.json", 60, FAST)
    heard: list[str] = []

    def stop(line: str) -> None:
        heard.append(line)
        if len(heard) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        board.measure(subject(digits), tmp_path / "row.json", 60, FAST, tell=stop)
    half = read_row(tmp_path / "row.json")
    assert [half.attacks[name].seen for name in ("pgd-5", "apgd-ce-10")] == [40, 20]
    ran: list[int] = []
    from zoo.robustness.run import Run

    former = Run.run
    monkeypatch.setattr(Run, "run", lambda self, attack: (ran.append(len(self.x)), former(self, attack))[1])
    row = board.measure(subject(digits), tmp_path / "row.json", 60, FAST)
    assert {name: row.attacks[name].bits for name in row.attacks} == {
        name: whole.attacks[name].bits for name in whole.attacks
    }
    assert ran[:3] == [20, 20, 20], "what had been seen is not attacked again"
    ran.clear()
    board.measure(subject(digits), tmp_path / "row.json", 60, FAST)
    assert ran == []


def test_a_later_attack_is_part_of_the_checks(digits: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    """Black-box attacks are compared with all that ran, also with what ran in a later call."""
    path = tmp_path / "row.json"
    assert board.measure(subject(digits), path, 40, ("pgd-5",)).checks["attacks"] == ["pgd-5"]
    assert board.measure(subject(digits), path, 40, FAST).checks["attacks"] == ["pgd-5", "apgd-ce-10"]


def test_two_processes_share_a_row(digits: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "row.json"
    board.measure(subject(digits), path, 60, FAST)
    stale = board.measure(subject(digits), tmp_path / "stale.json", 60, ("pgd-5",))
    stale.attacks["pgd-5"] = board.Verdicts(stale.attacks["pgd-5"].about, 4, "f", 0.1)
    stale.save(path)
    assert {name: verdicts.seen for name, verdicts in read_row(path).attacks.items()} == {"pgd-5": 60, "apgd-ce-10": 60}


def test_another_attack_of_the_name_is_not_mixed(digits: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "row.json"
    row = board.measure(subject(digits), path, 40, FAST)
    row.attacks["pgd-5"].about = "of another package"
    path.unlink()
    row.save(path)
    with pytest.raises(BadInput, match=r"'of another package'.*--again"):
        board.measure(subject(digits), path, 60, FAST)
    with pytest.raises(BadInput, match="holds 40 pictures"):
        board.measure(subject(digits), path, 30, ("apgd-ce-10",))


def test_other_weights_begin_anew(digits: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "row.json"
    board.measure(subject(digits, sha256="a"), path, 40, FAST)
    row = board.measure(subject(digits, sha256="b"), path, 20, ("pgd-5",))
    assert (row.sha256, list(row.attacks), row.attacks["pgd-5"].seen) == ("b", ["pgd-5"], 20)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": 2}', "[" * 100_000])
def test_a_broken_row_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "row.json"
    path.write_text(text)
    with pytest.raises(BadInput, match=r"row\.json: no row"):
        read_row(path)


def test_verdicts_that_do_not_fit_are_refused(digits: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "row.json"
    board.measure(subject(digits), path, 20, ("pgd-5",))
    raw = json.loads(path.read_text())
    raw["attacks"]["pgd-5"]["bits"] = "f" * 30
    path.write_text(json.dumps(raw))
    with pytest.raises(BadInput, match="do not fit"):
        read_row(path)


# Attacks that a model declares ------------------------------------------------------------------------------------


class Declares(nn.Module):
    """Answers with a mask that no gradient passes: only who knows can attack it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).detach() + 0.0 * x.flatten(1).sum(1, keepdim=True)

    def adaptive_attacks(self) -> dict[str, Callable[..., Tensor]]:
        return {"known": lambda model, x, y: pgd(self.net, x, y, eps=EPS, step=EPS / 4, steps=10, check=False)}


def test_declared_attacks_count_everywhere(digits: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    model = Declares(trained()).eval()
    report = zoo.evaluate_robustness(model, digits, EPS, 40, "quick", checks=False)
    assert [row.attack for row in report.rows] == ["fgsm", "pgd-20", "cw-30", "known"]
    assert report.rows[-1].accuracy < report.rows[1].accuracy - 0.2
    alone = zoo.evaluate_robustness(model, digits, EPS, 40, "adaptive,fgsm", checks=False)
    assert [row.attack for row in alone.rows] == ["known", "fgsm"]
    row = board.enter("mine", model, digits, EPS, tmp_path, n=40, attacks=FAST, label="Digits")
    assert row.declared == ["known"]
    assert row.worst == pytest.approx(report.rows[-1].accuracy, abs=0.1)
    assert "known" in board.page([row])
    more = {"twice": lambda m, x, y: x}
    assert set(board.enter("b", model, digits, EPS, tmp_path, n=40, attacks=FAST, adaptive=more).declared) == {
        "known",
        "twice",
    }


def test_what_is_declared_wrongly_is_named(digits: tuple[Tensor, Tensor]) -> None:
    model = Declares(trained())
    model.adaptive_attacks = lambda: ["known"]  # type: ignore[method-assign,assignment,return-value]
    with pytest.raises(BadInput, match="expected a mapping of name -> function"):
        adaptive_attacks(model)
    with pytest.raises(BadInput, match="declares none against itself"):
        zoo.evaluate_robustness(trained(), digits, EPS, 10, "adaptive", checks=False)


def test_a_method_declares_beside_its_model() -> None:
    found = [
        entry
        for entry in index.entries().values()
        if entry.task == "image-classification" and adaptive_attacks(entry.model_class()(**entry.tiny["model"]))
    ]
    assert found, "at least one method knows an attack of its own"
    for entry in found:
        model = entry.model_class()(**entry.tiny["model"]).eval()
        (example,) = model.example_input()
        labels = torch.zeros(len(example), dtype=torch.long)
        for name, run in adaptive_attacks(model).items():
            assert (run(model, example, labels) - example).abs().max() <= model.hparams["eps"] + 1e-5, name


# What is published ------------------------------------------------------------------------------------------------


def test_the_page_is_that_of_the_rows() -> None:
    assert home().with_suffix(".md").read_text(encoding="utf-8") == board.page(board.published()), (
        "zoo leaderboard robustness --write"
    )


def test_published_rows_are_of_the_weights_of_the_index() -> None:
    rows = board.published()
    assert rows
    for row in rows:
        entry, tag = index.resolve(row.name)
        assert tag is not None
        assert row.sha256 == entry.weights[tag].sha256, f"zoo leaderboard robustness --measure {row.name} --again"
        assert not row.own
        assert row.checks, f"{row.name}: not checked for masked gradients"
        assert (home() / board.place_of(home(), row.name, row.norm, row.eps).name).is_file()
    for group in board.groups_of(rows):
        assert len({row.clean.seen for row in group}) == 1, "rows of a group are of the same pictures"


def test_rows_are_ordered_and_grouped(digits: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    one = board.measure(subject(digits), tmp_path / "row.json", 40, ("pgd-5",))
    better = replace(one, name="better", attacks={})
    other = replace(one, name="other", eps=0.3)
    assert [[row.name for row in group] for group in board.groups_of([one, other, better])] == [
        ["better", "toy"],
        ["other"],
    ]
    flagged = replace(one, checks={"n": 20, "results": [{"name": "radius", "ok": False, "measured": "rises"}]})
    assert "radius" in board.shown([flagged]).splitlines()[-1]
    assert "sign of masking, radius: rises" in board.page([flagged])


# The command ------------------------------------------------------------------------------------------------------


def test_own_checkpoint_is_entered_and_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    register_digits()
    monkeypatch.chdir(tmp_path)
    module = zoo.load("toy-digits", weights=False)
    module.net.load_state_dict(trained().state_dict())
    zoo.save(module, tmp_path / "mine")
    line = "leaderboard robustness --own mine --n 20 --autoattack 0 --eps 0.12 --folder kept"
    assert main(["leaderboard", "robustness", "--own", "mine"]) == 2
    assert "mine was not trained for a radius: give one with --eps" in capsys.readouterr().err
    assert main([*line.split(), "--dry-run"]) == 0
    assert "M multiply-adds each: about" in capsys.readouterr().out
    assert not Path("kept").exists()
    assert main(line.split()) == 0
    assert "mine (yours)" in capsys.readouterr().out
    (path,) = Path("kept").glob("*.json")
    row = read_row(path)
    assert row.own
    assert row.sha256
    assert (row.clean.seen, row.command) == (20, "zoo leaderboard robustness --own mine --eps 0.12")
    assert main(["leaderboard", "robustness", "--folder", "kept", "--json"]) == 0
    assert any(row["name"] == "mine" for row in json.loads(capsys.readouterr().out))
    assert main([*line.split(), "--again"]) == 0
    assert "0 of 20 verdicts differ" in capsys.readouterr().out
    assert [p.name for p in Path("kept").iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("robust", "Did you mean 'robustness'"),
        ("robustness --measure toy-digts", "Did you mean 'toy-digits'"),
        ("robustness --own gone.ckpt", "gone.ckpt"),
        ("robustness --own toy-digits --eps x", "expected a number or a fraction"),
        ("robustness --own alpha-iou-yolo", "this board is for image classifiers"),
        ("robustness --data toy-digits", "give --own PATH"),
        ("robustness --missing --own a", "leave out --measure and --own"),
        ("robustness --write", "from inside a checkout"),
        ("robustness --n 0", "at least 1"),
        ("robustness --own toy-digits --eps 0.1 --device gpu", "none of auto"),
    ],
)
def test_mistakes(
    words: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    register_digits()
    monkeypatch.chdir(tmp_path)
    assert main(["leaderboard", *words.split()]) == 2
    assert expected in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
