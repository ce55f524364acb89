"""Texts that a stranger wrote: in cards and on terminals they are shown as they are, and do nothing."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from toys import hub as toys

import zoo
from zoo import cli, errors, index, training
from zoo.index.licences import forget
from zoo.store.folder import card, golden_problems
from zoo.text import markdown, printable

EVIL = "\n# Owned\n<script>alert(1)</script> [x](https://a.invalid) ![y](z) `c` \x1b[2J\u202e | * _a_ ~~b~~ &lt;"
NAMES = [EVIL, "- b", "https://a.invalid/x"]


@pytest.fixture(autouse=True)
def own_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "_registered", {})
    zoo.register(toys.entry())
    forget()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return zoo.save(toys.trained(class_names=NAMES), tmp_path / "saved")


def changed(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))
    return folder


def lines_of(text: str) -> list[str]:
    """The lines of a card below its header."""
    return text.partition("\n---\n")[2].splitlines()


def harmless(text: str) -> bool:
    """No line, link, picture, code, HTML or control character of `EVIL`."""
    body = "\n".join(line for line in lines_of(text) if not line.startswith(("import", "model =", "print", "```")))
    inner = body.replace("# saved", "")
    return not any(mark in inner for mark in ("# Owned", "<script", "](", "`c", "\x1b", "\u202e", "~~", "://a"))


def test_cards_show_texts_as_they_are(folder: Path) -> None:
    assert harmless((folder / "README.md").read_text())

    def all_evil(config: dict[str, Any]) -> None:
        config.update(parent=EVIL, licence=EVIL, metrics={EVIL: 1.0}, trained_on={"data": EVIL, "licence": EVIL})

    config = json.loads((folder / "config.json").read_text())
    all_evil(config)
    text = card(index.info("toy-net"), config, EVIL, "FOLDER", EVIL)
    assert harmless(text.replace("\n# ", "\n"))
    head = text.partition("\n---\n")[0]
    assert "\x1b" not in head
    assert head.count("\n") == len(head.splitlines()) - 1 < 8
    shown = next(line for line in lines_of(text) if line.startswith("Classes: "))
    assert "&#60;script&#62;" in shown
    assert len([line for line in lines_of(text) if line.startswith("| ")]) == 2


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ball_carrier 1.5 (a, b)", "ball_carrier 1.5 (a, b)"),
        ("_a_ __b__", "&#95;a&#95; &#95;&#95;b&#95;&#95;"),
        ("- a", "&#45; a"),
        ("a\nb", "a&#92;nb"),
        ("Zürich　東京", "Zürich　東京"),
        ("\ud800", "&#92;ud800"),
    ],
)
def test_markdown(text: str, shown: str) -> None:
    assert markdown(text) == shown


def test_terminals(folder: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    changed(folder, lambda c: c.update(licence="x\x1b[2J\ny"))
    with caplog.at_level(logging.WARNING, "zoo"):
        module = zoo.load(folder)
    assert r"the licence x\x1b[2J\ny:" in caplog.text
    module.report.unexpected.append("key\x1b[2J")  # type: ignore[union-attr]
    assert "\x1b" not in str(module.report)
    changed(folder, lambda c: c.update(zoo="a\x1b[2Jb"))
    for run in (lambda: cli.main(["pull", "hf://\x1b[2J"]), lambda: training.main(["fit", "--weights", str(folder)])):
        assert run() == 2
        said = capsys.readouterr().err
        assert "error: " in said
        assert "\x1b" not in said


def test_lines_stay_lines() -> None:
    assert printable("a\n\tb\x1b\x85", lines=True) == "a\n\tb\\x1b\\x85"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("metrics", {"a": "text"}),
        ("metrics", {"a": [1]}),
        ("metrics", {"a": True}),
        ("metrics", {"a": None}),
        ("versions", {"torch": 2}),
        ("parent", "x" * 10_000),
        ("licence", "x" * 10_000),
        ("format", 0),
        ("format", -5),
        ("init", {"class_names": {"a": 1}}),
        ("init", {"class_names": [{"a": 1}]}),
        ("init", {"class_names": "abc"}),
        ("facts", []),
    ],
)
def test_wrong_types_are_named(folder: Path, key: str, value: Any, tmp_path: Path) -> None:
    changed(folder, lambda c: c.update({key: value}))
    for run in (zoo.load, lambda path: zoo.save(path, tmp_path / "again"), lambda path: zoo.push(path, "owner/x")):
        with pytest.raises(errors.InvalidConfig, match=rf"config\.json: {key}"):
            run(folder)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.pop("input.0"), "expected 1 inputs"),
        (lambda t: t.update({"input.1": torch.ones(2, 5)}), "expected 1 inputs"),
        (lambda t: t.update({"input.x": torch.ones(2, 5)}), r"input\.0, input\.1"),
        (lambda t: t.update({"input.0": torch.ones(2, 9)}), "cannot be used"),
        (lambda t: t.update({"input.0": torch.ones(2, 5, dtype=torch.bool)}), "cannot be used"),
        (lambda t: t.pop("output"), "no such output"),
        (lambda t: t.update(output=torch.ones(9)), "expected"),
        (lambda t: t.update(more=torch.ones(9)), "no such output"),
        (lambda t: t.clear(), "expected 1 inputs"),
    ],
)
def test_golden_outputs_of_strangers_are_named(
    folder: Path, change: Callable[[dict[str, torch.Tensor]], object], says: str
) -> None:
    tensors = load_file(folder / "golden.safetensors")
    change(tensors)
    save_file(tensors, folder / "golden.safetensors")
    (problem, *_) = golden_problems(zoo.load(folder), folder / "golden.safetensors")
    assert re.search(says, problem)


@pytest.mark.parametrize(
    "name",
    ["hf://owner/" + "a" * 97, "hf://" + "a" * 97 + "/x", "hf://owner/x@../..", "hf://owner/x.git", "hf://owner"],
)
def test_names_that_the_hub_does_not_have(name: str, tmp_path: Path) -> None:
    for run in (lambda: zoo.load(name), lambda: zoo.pull(name), lambda: zoo.push(toys.trained(), name[5:])):
        with pytest.raises(errors.BadInput):
            run()
