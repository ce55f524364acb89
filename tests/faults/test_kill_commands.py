"""kill -9 of long commands at random moments: nothing that was finished is lost, no process and no lock is left.

Those that talk to the Hub are in test_kill.py.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import test_data_sources as sources
import torch
import yaml
from fault_tools import FORK, in_child
from test_training_processes import SOON, alive, children, until
from toys import cli as cli_toys
from toys.attacks import DigitNet, register_digits, trained
from toys.claims import PAIR, calls, make_entry, place_of, write_claims

import zoo
from zoo import data_sources, index, training
from zoo.claims import planning, run
from zoo.cli import main

pytestmark = pytest.mark.skipif(not FORK or sys.platform != "linux", reason="needs fork and /proc")
QUICK, FULL = 2, 40
ROUNDS = pytest.mark.parametrize(
    "rounds", [pytest.param(QUICK, id="quick"), pytest.param(FULL, id="full", marks=pytest.mark.slow)]
)
place = sources.place


def descendants(pid: int) -> list[int]:
    found = children(pid)
    return found + [further for child in found for further in descendants(child)]


def killed(work: Callable[[], Any], delay: float) -> bool:
    """Kill a process after a while; False if it was done by then. What it had started must end, too."""

    def child() -> None:
        torch.set_num_threads(1)
        work()

    process = in_child(child)
    time.sleep(delay)
    started, was_alive = descendants(process.pid), process.is_alive()
    process.kill()
    assert until(lambda: not any(map(alive, [process.pid, *started])), SOON), started
    process.join(SOON)
    return was_alive


def seconds(work: Callable[[], Any]) -> float:
    """How long a process takes that does this."""
    start = time.monotonic()
    process = in_child(work)
    process.join(SOON)
    assert process.exitcode == 0
    return time.monotonic() - start


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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rounds: int, ranks: int, record_property: Callable[..., None]
) -> None:
    """Every file is whole, and the run goes on to what it would have been."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(index, "_registered", dict(index._registered))
    cli_toys.register(tmp_path)
    rng, count = random.Random(500 + rounds + ranks), 0
    longest = seconds(lambda: fit(tmp_path / "whole", ranks))
    whole = state(tmp_path / "whole")
    for number in range(rounds):
        root = tmp_path / f"run{number}"
        count += killed(lambda r=root: fit(r, ranks), rng.random() * longest)
        for path in root.rglob("*.ckpt"):
            torch.load(path, weights_only=True)
        for path in root.rglob("config.yaml"):
            assert yaml.safe_load(path.read_text())["zoo"] == "toy-net:ten-n"
        for path in root.rglob("result.json"):
            json.loads(path.read_text())
        assert not list(root.rglob("*.lock"))
        begun = bool(list(root.rglob("last.ckpt")))
        if number % 4 < 2 or rounds < FULL:
            assert seconds(lambda r=root, b=begun: fit(r, ranks, *(["--ckpt_path", "last"] if b else []))) >= 0
            found = state(root)
            assert all(torch.equal(value, found[key]) for key, value in whole.items())
    record_property("killed", count)
    assert count or rounds < FULL


# Reproducing, evaluating, fetching --------------------------------------------------------------------------------


@ROUNDS
def test_killed_reproduce(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rounds: int, record_property: Callable[..., None]
) -> None:
    """A run that is in progress is lost, finished ones are not, and the lock is free."""
    entry = make_entry(tmp_path, monkeypatch)
    jobs = planning.plan(entry, write_claims(entry, PAIR))
    rng, count = random.Random(600 + rounds), 0
    (tmp_path / "timed").mkdir()
    longest = seconds(lambda: run.carry_out(place_of(entry, tmp_path / "timed"), jobs, pause=0.01))
    for number in range(rounds):
        folder = tmp_path / str(number)
        folder.mkdir()
        count += killed(lambda f=folder: run.carry_out(place_of(entry, f), jobs, pause=0.01), rng.random() * longest)
        assert run.carry_out(place_of(entry, folder), jobs, pause=0.01) == []
        assert 12 <= len(calls(folder)) <= 12 + 1
    record_property("killed", count)
    assert count or rounds < FULL


@ROUNDS
def test_killed_evaluate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rounds: int, record_property: Callable[..., None]
) -> None:
    """There is a whole report or none, and the earlier one until then."""
    monkeypatch.setattr(index, "_registered", dict(index._registered))
    register_digits()
    module = DigitNet()
    module.net.load_state_dict(trained().state_dict())
    saved, report = zoo.save(module, tmp_path / "digits", card=False), tmp_path / "report.json"
    words = ["evaluate", str(saved), "--eps", "0.1", "--n", "40", "--attacks", "fgsm,pgd-20", "--no-checks"]
    rng, count = random.Random(700 + rounds), 0

    def evaluate() -> None:
        torch.set_num_threads(1)
        assert main([*words, "--out", str(report)]) == 0

    longest = seconds(evaluate)
    right = json.loads(report.read_text())
    for number in range(rounds):
        if number % 2:
            report.unlink(missing_ok=True)
        count += killed(evaluate, rng.random() * longest)
        if report.exists():
            found = json.loads(report.read_text())
            assert [row["accuracy"] for row in found["rows"]] == [row["accuracy"] for row in right["rows"]]
        else:
            assert number % 2
            seconds(evaluate)
    record_property("killed", count)
    assert count or rounds < FULL


@ROUNDS
def test_killed_fetch(
    place: Path, monkeypatch: pytest.MonkeyPatch, rounds: int, record_property: Callable[..., None]
) -> None:
    """Files that bear their names are whole; the next call leaves nothing else behind."""
    rng, count = random.Random(800 + rounds), 0
    for number in range(rounds):
        folder = place / f"data{number}"
        monkeypatch.setenv("CLIENT_PLAN", "slow")
        count += killed(lambda f=folder: data_sources.fetch("toy", f), rng.random() * 1.5)
        for path in folder.glob("toy/*"):
            assert path.read_bytes() in (sources.TRAIN, sources.TEST)
        monkeypatch.setenv("CLIENT_PLAN", "good")
        data_sources.fetch("toy", folder)
        assert sources.whole(folder)
        assert sources.leftovers(folder) == []
        assert [p for p in os.listdir(folder) if p.endswith(".lock")] == []
    record_property("killed", count)
    assert count or rounds < FULL
