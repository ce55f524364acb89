"""`zoo reproduce`: runs that survive anything. A stand-in replaces training, so that hours pass in seconds."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from claims_toys import BRANCHED, PAIR, PROGRAM, STUB, calls, make_entry, place_of, write_claims

from zoo import _claims_plan, _claims_run, _claims_steps, claims, cli, index
from zoo.errors import BadInput


@pytest.fixture
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> index.Entry:
    return make_entry(tmp_path, monkeypatch)


def test_runs_are_done_once_and_kept(entry: index.Entry, tmp_path: Path) -> None:
    found = write_claims(entry, PAIR)
    jobs = _claims_plan.plan(entry, found)
    place = place_of(entry, tmp_path)
    assert _claims_run.carry_out(place, jobs, pause=0.01) == []
    assert [line.split()[2] for line in calls(tmp_path)] == ["fit", "test"] * 6
    fit = calls(tmp_path)[0]
    for word in ("--zoo toy-net:ten-n", "--seed_everything=0", "--data.seed=0", "--model.lr=0.5"):
        assert word in fit
    assert "--model.lr" not in calls(tmp_path)[1]  # the checkpoint knows
    assert _claims_run.carry_out(place, jobs, pause=0.01) == []
    assert len(calls(tmp_path)) == 12
    result = _claims_steps.result_of(place, jobs[0], {"commit": "abc"})
    assert result is not None
    assert result["metrics"] == {"test/acc": 0.5, "val/acc": 0.5}
    assert result["curves"] == {"train/loss": [[1, 1.5]], "val/acc": [[1, 0.25], [2, 0.5]]}
    assert result["commit"] == "abc"
    checkpoints = list(place.of(jobs[0].key).rglob("*.ckpt"))
    assert [path.name for path in checkpoints] == ["last.ckpt"]


def test_branches_start_from_the_run_of_their_seed(entry: index.Entry, tmp_path: Path) -> None:
    jobs = _claims_plan.plan(entry, write_claims(entry, BRANCHED))
    place = place_of(entry, tmp_path)
    assert _claims_run.carry_out(place, jobs, pause=0.01) == []
    fits = [line for line in calls(tmp_path) if " fit " in line]
    assert len(fits) == 6
    for line in fits:
        if "--weights" in line:
            words = line.split()
            seed = next(w for w in words if w.startswith("--seed_everything"))
            assert seed in Path(words[words.index("--weights") + 1]).read_text()


def test_a_failed_run_is_told_and_the_others_go_on(entry: index.Entry, tmp_path: Path) -> None:
    jobs = _claims_plan.plan(entry, write_claims(entry, PAIR + BRANCHED))
    (tmp_path / "broken").write_text("fit --zoo toy-net:ten-s --seed_everything=1")
    (tmp_path / "stubborn").write_text("test --zoo toy-net:ten-n --seed_everything=2")
    failed = _claims_run.carry_out(place_of(entry, tmp_path), jobs, parallel=3, pause=0.01)
    text = "\n".join(failed)
    assert "ended with code 3" in text
    assert "out of luck" in text
    assert text.count("a run it needs has failed") == 2
    assert text.count("test ended with code 0") == 2  # no result is no success
    assert len(failed) == 5
    (tmp_path / "broken").unlink()
    (tmp_path / "stubborn").unlink()
    assert _claims_run.carry_out(place_of(entry, tmp_path), jobs, pause=0.01) == []


def test_code_that_changes_meanwhile_stops_the_plan(
    entry: index.Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = _claims_plan.plan(entry, write_claims(entry, PAIR), seeds=[0])
    monkeypatch.setattr(_claims_run, "code_of", lambda entry, spec: "edited")
    failed = _claims_run.carry_out(place_of(entry, tmp_path), jobs, pause=0.01)
    assert "the code has changed" in failed[0]
    assert calls(tmp_path) == []


def test_threads_are_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "9")
    found = _claims_steps._environment(2)
    assert found["OMP_NUM_THREADS"] == found["MKL_NUM_THREADS"] == "2"


WORKER = """\
import pickle, sys
sys.path.insert(0, {root!r})
from zoo import _claims_run
_claims_run.carry_out(*pickle.load(open({file!r}, "rb")), pause=0.01)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a killed parent takes its runs along on Linux only")
def test_kill_9_at_any_moment_and_go_on(entry: index.Entry, tmp_path: Path) -> None:
    jobs = _claims_plan.plan(entry, write_claims(entry, PAIR))
    (tmp_path / "slow").write_text("fit --zoo toy-net:ten-n --seed_everything=1")
    job_file = tmp_path / "jobs.pkl"
    job_file.write_bytes(pickle.dumps((place_of(entry, tmp_path), jobs)))
    text = WORKER.format(root=str(STUB.parents[1]), file=str(job_file))
    path = os.pathsep.join([str(STUB.parent), os.environ.get("PYTHONPATH", "")])  # where the toy's code is
    process = subprocess.Popen([sys.executable, "-c", text], env={**os.environ, "PYTHONPATH": path})
    try:
        deadline = time.monotonic() + 120
        while len(calls(tmp_path)) < 5 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        with pytest.raises(BadInput, match="Another zoo reproduce is at work"):
            _claims_run.carry_out(place_of(entry, tmp_path), jobs)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    before = calls(tmp_path)
    assert len(before) == 5  # two runs with fit and test, and the one that hangs
    (tmp_path / "slow").unlink()
    assert _claims_run.carry_out(place_of(entry, tmp_path), jobs, pause=0.01) == []
    assert len(calls(tmp_path)) == 12 + 1  # only the run in progress was lost


def test_ctrl_c_ends_the_processes(entry: index.Entry, tmp_path: Path) -> None:
    jobs = _claims_plan.plan(entry, write_claims(entry, PAIR), seeds=[0])
    (tmp_path / "slow").write_text("fit")
    queue = _claims_run._Queue(place_of(entry, tmp_path), jobs, 2, lambda job: None, _claims_run.Display(2))
    started: list[Any] = []

    def interrupt() -> None:
        started.extend(queue.active)
        raise KeyboardInterrupt

    queue._look = interrupt  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        queue.work(0.01)
    assert len(started) == 2
    assert all(step.process.poll() is not None for step in started)


def test_reproduce_from_the_command_line(
    entry: index.Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stub = partial(_claims_steps.Place, program=(*PROGRAM, str(tmp_path)))
    monkeypatch.setattr(_claims_steps, "Place", stub)
    write_claims(entry, PAIR)
    path = claims.card_folder(entry) / "results.json"
    assert cli.main(["reproduce", "toy-net", "--dry-run"]) == 0
    assert "6 runs, 0 of them done" in (shown := capsys.readouterr().out)
    assert "about 6 minutes" in shown
    assert cli.main(["reproduce", "toy-net", "--quick"]) == 0
    assert "nothing was recorded" in capsys.readouterr().out
    assert not path.exists()
    assert "--trainer.limit_train_batches=2" in calls(tmp_path)[0]
    assert cli.main(["reproduce", "toy-net", "--seeds", "0", "1"]) == 0
    assert json.loads(path.read_text())["claims"]["fast-wins"]["reason"] == "4 of 6 runs are there"
    assert cli.main(["reproduce", "toy-net", "--jobs", "2", "--threads", "1"]) == 0
    assert "holds      fast-wins" in capsys.readouterr().out
    found = json.loads(path.read_text())
    run = next(iter(found["runs"].values()))
    assert {"spec", "metrics", "curves", "minutes", "threads", "code", "versions", "hardware", "commit"} <= set(run)
    assert str(tmp_path) not in path.read_text()
    assert len(calls(tmp_path)) == 4 + 12
    (tmp_path / "broken").write_text("fit")
    write_claims(entry, PAIR.replace("0.5", "0.75"))
    assert cli.main(["reproduce", "toy-net"]) == 1
    assert "out of luck" in capsys.readouterr().err


def test_the_bar_of_a_terminal(
    entry: index.Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = _claims_plan.plan(entry, write_claims(entry, PAIR), seeds=[0])
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert _claims_run.carry_out(place_of(entry, tmp_path), jobs, pause=0.01) == []
    assert "[2/2] done" in capsys.readouterr().err


def test_studies_get_the_folders_of_data_sets(entry: index.Entry, tmp_path: Path) -> None:
    claim = """
    - id: needs-data
      promise: A study reads a data set.
      arms: {ours: {study: look, set: {folder: $pictures, size: 3}}}
      metric: score
      expect: at-least
      value: 0
      needs: [pictures]
    """
    job = _claims_plan.plan(entry, write_claims(entry, claim))[0]
    place = _claims_steps.Place(entry, tmp_path, {"pictures": tmp_path / "real"}, 1)
    step = object.__new__(_claims_steps.Step)
    step.job, step.place, step.name, step.folder = job, place, "study", tmp_path
    assert json.loads(step.words()[3]) == {"folder": str(tmp_path / "real"), "size": 3}
