"""What `zoo info` and the end of a run print is run as printed, for every method; blocks of pages say why if not run.

Python and `zoo` lines run in this process, in a folder of the user's own outside the checkout. Trainings get few
batches (`place.SHORT`), lines for several processes are resolved only (`place.brief`), and what needs a network or
other machines says so in a comment above its block, which `test_what_is_not_run_says_why` prints.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from documented.blocks import blocks_of, commands, pages
from documented.place import Place, file_to_predict, run_block

import zoo
from zoo import index
from zoo.cli import COMMANDS

OURS = [e.id for e in index.entries().values() if e.source != "register()" and e.weights[e.default].file]
CLASSIFIER = "rslad"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    folder = tmp_path / "a folder"
    folder.mkdir()
    return Place(folder, monkeypatch, processes=1)


@pytest.mark.parametrize("name", OURS)
def test_what_info_and_a_run_print(name: str, place: Place) -> None:
    """The lines of `zoo info`, then those that the end of that training printed."""
    told = dict(re.findall(r"^  (load|predict|train|data) +(.*)$", place.run(f"zoo info {name}"), re.MULTILINE))
    assert set(told) == {"load", "predict", "train", "data"}
    printed = place.run(told["data"])
    place.execute(f"import zoo\n{told['load']}", "zoo info")
    file = file_to_predict(name, Path("DIR"))
    place.run(told["predict"], {"INPUT": file})
    place.run(told["train"])
    (trains,) = re.findall(r"Train on it: (.*)", printed)
    summary = place.run(trains)
    lines = re.findall(r"\((?:run again|resume): (.*)\)$", summary, re.MULTILINE)
    lines += re.findall(r"^score it +(.*)$", summary, re.MULTILINE)
    assert len(lines) == 3
    for line in lines:
        place.run(line)
    (loads,) = re.findall(r"^load it +(.*)$", summary, re.MULTILINE)
    place.execute(loads, "the end of a run")
    assert isinstance(place.names["model"], zoo.ZooModule)
    (predicts,) = re.findall(r"^predict +(.*)$", summary, re.MULTILINE)
    place.run(predicts.replace("--out results", "--out others"), {"INPUT": file})


@pytest.mark.parametrize("command", ["list", "info"])
def test_examples_of_help(command: str, place: Place) -> None:
    name = index.info(CLASSIFIER)
    words = {"NAME:TAG": f"{name.id}:{name.default}", "NAME": name.id}
    for line in COMMANDS[command].examples:
        place.run(line, words)


# Nothing is left out in silence -----------------------------------------------------------------------------------


def test_what_is_not_run_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    """A list of the blocks and lines that no test runs, each with its reason; `-s` shows it."""
    blocks = [block for page in pages() for block in blocks_of(page)]
    reasons = [(f"{b.page}:{b.line}", *pair) for b in blocks for pair in b.left_out.items()]
    for where, start, why in reasons:
        print(f"{where}: {start or 'the whole block'}: {why}")
        assert len(why) > 10, where
    for block in blocks:
        unused = [s for s in block.left_out if s and not any(c.startswith(s) for c in commands(block.code))]
        assert not unused, f"{block.page}:{block.line}: no line starts with {unused}"
    marks = sum(page.read_text(encoding="utf-8").count("<!-- not run") for page in pages())
    assert marks == len(reasons), "a mark stands above no block, or is misspelt"


def test_a_broken_line_is_noticed(place: Place) -> None:
    """The checks above can fail."""
    page = place.folder / "page.md"
    page.write_text(
        "```bash\nzoo list --no-such-flag\n```\n\n<!-- not run (pip): needs a package index -->\n```bash\npip x  # y\n"
        "zoo list \\\n    --json\n```\n\n<!-- not run: needs eight machines -->\n```bash\nsrun x\n```\n\n"
        "```bash\nsrun y\n```\n"
    )
    first, second, third, fourth = blocks_of(page)
    assert commands(second.code) == ["pip x", "zoo list --json"]
    with pytest.raises(AssertionError, match="no-such-flag"):
        run_block(first, place, {})
    run_block(second, place, {})
    run_block(third, place, {})
    with pytest.raises(AssertionError, match="srun"):
        run_block(fourth, place, {})
