"""The blocks of model cards and the examples of help texts are run as printed, each page or command in one process.

What `documented.place.brief` appends makes trainings, attacks and reproductions short; nothing else of a line changes
but the words in capitals, for which a user writes a name or a file of their own.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from documented.blocks import ROOT, blocks_of, commands
from documented.place import Place, file_to_predict, picture

from zoo import index
from zoo.cli import COMMANDS

CARDS = [e.id for e in index.entries().values() if (ROOT / "model_cards" / e.id / "README.md").is_file()]
DETECTOR, CLASSIFIER, PLAIN = "alpha-iou-yolo", "rslad", "rslad:fmnist-resnet10w24-natural"

NOT_RUN = {
    "zoo verify NAME --remote": "asks the Hub: tests/hub/test_download.py",
    "zoo card --all --check": "every card: tests/card",
    "zoo card NAME --images": "draws into the checkout: tests/card",
    "zoo data fetch": "publishers' servers: tests/data, tests/faults",
    "zoo leaderboard robustness --own": "minutes: tests/robustness/test_board.py",
    "zoo leaderboard robustness --missing": "hours: tests/robustness/test_board.py",
    "zoo predict NAME pictures/ film.mp4": "a film needs the extra: tests/cli/test_predict.py",
}
"""Starts of examples that are not run here, and where they are."""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    folder = tmp_path / "a folder"
    folder.mkdir()
    return Place(folder, monkeypatch)


def first_claim(name: str) -> str:
    """A claim of a method."""
    text = (ROOT / "model_cards" / name / "claims.yaml").read_text(encoding="utf-8")
    found = re.search(r"^ *- id: (\S+)", text, re.MULTILINE)
    assert found, name
    return found[1]


@pytest.mark.parametrize("name", CARDS)
def test_blocks_of_a_card(name: str, place: Place) -> None:
    blocks = blocks_of(ROOT / "model_cards" / name / "README.md")
    place.run(f"zoo data fake {name} DIR")
    words = {"INPUT": file_to_predict(name, Path("DIR")), "CLAIM": first_claim(name)}
    done = 0
    for block in blocks:
        if block.language == "python":
            place.execute(block.code, f"{block.page}:{block.line}")
            done += 1
            continue
        for line in commands(block.code):
            if block.why_not(line) is None:
                place.run(line, words)
                done += 1
    assert done >= 3, "a card shows how to train and reproduce, and where there are weights how to load and predict"


def examples(command: str) -> list[str]:
    """What is run of a command's examples."""
    return [line for line in COMMANDS[command].examples if not line.startswith(tuple(NOT_RUN))]


@pytest.mark.parametrize("command", ["evaluate", "leaderboard", "verify", "reproduce", "data"])
def test_examples_of_a_command(command: str, place: Place) -> None:
    words = {"NAME": CLASSIFIER, "CLAIM": first_claim(CLASSIFIER), "DATA=DIR": "unused=."}
    if command == "evaluate":
        place.run(f"zoo train {PLAIN} --trainer.default_root_dir trained")
        (last,) = Path("trained").rglob("last.ckpt")
        place.run(f"zoo data fake {PLAIN} DIR --format fashion-mnist")
        words |= {"my.ckpt": str(last)}
    if command == "leaderboard":
        words = {"NAME:TAG": PLAIN}
    if command == "data":
        words |= {"NAME DIR --format coco": f"{DETECTOR} DIR --format coco", "NAME DIR": f"{DETECTOR} DIR"}
    if command == "reproduce":
        words = {"--root DATA=DIR": "", **words}
    for line in examples(command):
        place.run(line, dict(sorted(words.items(), key=lambda pair: -len(pair[0]))))


def test_examples_of_predict(place: Place) -> None:
    for name in ("picture.jpg", "other.jpg"):
        picture(place.folder / name)
    place.run(f"zoo data fake {DETECTOR} DIR --format coco")
    place.run(f"zoo train {DETECTOR} --data.root DIR --data.img_size 64 --trainer.default_root_dir trained")
    (last,) = Path("trained").rglob("last.ckpt")
    words = {"runs/NAME-TAG/version_0/checkpoints/last.ckpt": f"'{last}'", "NAME": DETECTOR}
    for number, line in enumerate(examples("predict")):
        place.run(line.replace("--out results", f"--out results{number}"), words)
    assert (place.folder / "results0").is_dir()


def test_examples_of_replay(place: Place) -> None:
    place.run(f"zoo data fake {PLAIN} DIR")
    line = f"zoo train {PLAIN} --data.root DIR --model.lr 1e30 --data.batch_size 4 --trainer.default_root_dir trained"
    with pytest.raises(AssertionError, match="The step is kept in"):
        place.run(line)
    (kept,) = Path("trained").rglob("nonfinite-*.ckpt")
    for line in examples("replay"):
        start = line.split(" ")[2]
        said = place.run(line, {start: f"'{kept}'", "DIR": "DIR"})
        assert "The same, bit for bit" in said


def test_examples_of_card(place: Place) -> None:
    for line in examples("card"):
        place.run(line, {"NAME": CLASSIFIER})


def test_every_example_left_out_says_where_it_is_run() -> None:
    every = [line for command in COMMANDS.values() for line in command.examples]
    for start, why in NOT_RUN.items():
        assert any(line.startswith(start) for line in every), start
        assert all((ROOT / part).exists() for part in re.findall(r"tests/[\w./]+", why)), why
