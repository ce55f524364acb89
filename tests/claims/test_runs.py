"""`zoo reproduce`: runs that survive anything. A stand-in replaces training, so that hours pass in seconds."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from toys.claims import BRANCHED, PAIR, PROGRAM, STUB, calls, make_entry, place_of, write_claims

from zoo import claims, cli, index
from zoo.claims import confirming as _claims_confirming
from zoo.claims import planning as _claims_plan
from zoo.claims import run as _claims_run
from zoo.claims import steps as _claims_steps
from zoo.claims.compare import side_by_side
from zoo.claims.results import write_results
from zoo.errors import BadInput

TIMED = """
- id: quick-enough
  promise: It takes a second.
  arms: {ours: {recipe: ten-s}}
  metric: test/acc
  timed: true
  expect: at-most
  value: 1
  seeds: [0]
"""


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


def test_the_epoch_that_was_scored_is_checked_and_kept(entry: index.Entry, tmp_path: Path) -> None:
    """Weights of another epoch than the result says are not measured."""
    place = place_of(entry, tmp_path)
    jobs = _claims_plan.plan(entry, write_claims(entry, PAIR))
    (tmp_path / "extra").write_text(json.dumps({"selected": "last", "checkpoint_epoch": 1, "checkpoint_step": 4}))
    failed = _claims_run.carry_out(place, jobs, pause=0.01)
    assert len(failed) == 6
    assert "holds step 4, but the run ended after 8" in failed[0]
    (tmp_path / "extra").write_text(json.dumps({"selected": "best", "checkpoint_epoch": 1, "checkpoint_step": 4}))
    assert _claims_run.carry_out(place, jobs, pause=0.01) == []
    result = _claims_steps.result_of(place, jobs[0], {})
    assert result is not None
    assert (result["scored_epoch"], result["epochs"]) == (1, 2)


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
from zoo.claims import run as _claims_run
_claims_run.carry_out(*pickle.load(open({file!r}, "rb")), pause=0.01)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a killed parent takes its runs along on Linux only")
def test_kill_9_at_any_moment_and_go_on(entry: index.Entry, tmp_path: Path) -> None:
    jobs = _claims_plan.plan(entry, write_claims(entry, PAIR))
    (tmp_path / "slow").write_text("fit --zoo toy-net:ten-n --seed_everything=1")
    job_file = tmp_path / "jobs.pkl"
    job_file.write_bytes(pickle.dumps((place_of(entry, tmp_path), jobs)))
    text = WORKER.format(root=str(STUB.parents[2]), file=str(job_file))
    path = os.pathsep.join([str(STUB.parents[1]), os.environ.get("PYTHONPATH", "")])  # where the toy's code is
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
    assert re.search(r"^holds +fast-wins", capsys.readouterr().out, re.MULTILINE)
    found = json.loads(path.read_text())
    run = next(iter(found["runs"].values()))
    assert {"spec", "metrics", "curves", "minutes", "threads", "code", "versions", "hardware", "commit"} <= set(run)
    assert str(tmp_path) not in path.read_text()
    assert len(calls(tmp_path)) == 4 + 12
    (tmp_path / "broken").write_text("fit")
    write_claims(entry, PAIR.replace("0.5", "0.75"))
    assert cli.main(["reproduce", "toy-net"]) == 1
    assert "out of luck" in capsys.readouterr().err


# Looks ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def stubbed(entry: index.Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> index.Entry:
    stub = partial(_claims_steps.Place, program=(*PROGRAM, str(tmp_path)))
    for name, value in (("Place", stub), ("carry_out", partial(_claims_run.carry_out, pause=0.01))):
        for module in (_claims_steps, _claims_run, _claims_confirming):  # whichever was imported before
            monkeypatch.setattr(module, name, value, raising=False)
    return entry


def fits(folder: Path) -> int:
    return sum(" fit " in line for line in calls(folder))


def lucky(folder: Path, ours: list[float]) -> None:
    """Scores of ours, seed by seed; the baseline has 0.25 always."""
    scores = {f"0.5:{seed}": value for seed, value in enumerate(ours)}
    scores |= {f"0.25:{seed}": 0.25 for seed in range(20)}
    (folder / "luck").write_text(json.dumps(scores))


LOOKS = PAIR.replace("seeds: [0, 1, 2]", "seeds: 12").replace("minutes: 6", "minutes: 24")
SURE_AT_SIX = [0.26, 0.30, 0.34, 0.30, 0.30, 0.30]


def test_seeds_are_added_until_the_claim_is_decided(stubbed: index.Entry, tmp_path: Path) -> None:
    write_claims(stubbed, LOOKS)
    lucky(tmp_path, [0.3, 0.2, 0.3, 0.31, 0.32, 0.33, *([0.32, 0.33] * 3)])
    report = claims.reproduce(claims.make_plan("toy-net"))
    assert report.failed == []
    assert fits(tmp_path) == 2 * 12
    about = report.fresh["fast-wins"]
    assert (about["verdict"], about["look"]["number"], about["look"]["seeds"]) == ("holds", 3, 12)
    assert report.results is not None
    assert report.results["claims"]["fast-wins"]["look"] == about["look"]


def test_no_seed_is_added_once_the_claim_is_decided(stubbed: index.Entry, tmp_path: Path) -> None:
    write_claims(stubbed, LOOKS)
    lucky(tmp_path, [0.30, 0.301, 0.302, 0.1, 0.1, 0.1])
    report = claims.reproduce(claims.make_plan("toy-net"))
    assert (report.fresh["fast-wins"]["verdict"], fits(tmp_path)) == ("holds", 6)
    lucky(tmp_path, [0.20, 0.201, 0.202])
    other = claims.reproduce(claims.make_plan("toy-net"), folder=tmp_path / "again", fresh=True)
    assert (other.fresh["fast-wins"]["verdict"], fits(tmp_path)) == ("opposite", 12)


def test_only_what_is_undecided_goes_on(stubbed: index.Entry, tmp_path: Path) -> None:
    second = LOOKS.replace("fast-wins", "again").replace("0.5", "0.75")
    fixed = PAIR.replace("fast-wins", "fixed").replace("0.5", "0.625")
    write_claims(stubbed, LOOKS + second + fixed)
    lucky(tmp_path, SURE_AT_SIX)  # and 0.75 of the second claim beats 0.25 at once
    report = claims.reproduce(claims.make_plan("toy-net"))
    looks = {name: about.get("look", {}).get("number") for name, about in report.fresh.items()}
    assert looks == {"fast-wins": 2, "again": 1, "fixed": None}
    assert fits(tmp_path) == (6 + 6) + 3 + 3  # the baseline is shared


def test_looks_go_on_where_they_were_stopped(stubbed: index.Entry, tmp_path: Path) -> None:
    write_claims(stubbed, LOOKS)
    lucky(tmp_path, SURE_AT_SIX)
    report = claims.reproduce(claims.make_plan("toy-net", looks=1))
    assert (report.fresh["fast-wins"]["verdict"], report.fresh["fast-wins"]["next_seeds"]) == ("undecided", 6)
    assert fits(tmp_path) == 6
    assert [claim.id for claim in claims.make_plan("toy-net", missing=True).claims] == ["fast-wins"]
    report = claims.reproduce(claims.make_plan("toy-net", missing=True))
    assert report.fresh["fast-wins"]["verdict"] == "holds"
    assert fits(tmp_path) == 2 * report.fresh["fast-wins"]["look"]["seeds"]
    assert claims.make_plan("toy-net", missing=True).claims == []
    with pytest.raises(BadInput, match="--looks"):
        claims.make_plan("toy-net", seeds=[0], looks=1)


def test_a_failed_run_is_not_tried_at_every_look(stubbed: index.Entry, tmp_path: Path) -> None:
    recipe = tmp_path / "recipes" / "toy-net" / "ten-n.yaml"
    recipe.write_text(recipe.read_text() + "after: [ten-s]\n")
    write_claims(stubbed, LOOKS)
    (tmp_path / "broken").write_text("fit --zoo toy-net:ten-s")
    report = claims.reproduce(claims.make_plan("toy-net"))
    assert (fits(tmp_path), len(report.failed)) == (1, 7)
    assert report.fresh["fast-wins"]["verdict"] == "not run"


def test_the_plan_shows_its_looks_and_what_they_cost(
    stubbed: index.Entry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_claims(stubbed, LOOKS)
    assert cli.main(["reproduce", "toy-net", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "judged after 3 seeds (6 min), 6 seeds (12 min), 12 seeds (24 min)" in shown
    assert "98.33 %" in shown
    assert "about 6 to 24 minutes" in shown
    assert shown.count("(look 2)") == 6
    assert shown.count("(look 3)") == 12
    assert calls(tmp_path) == []
    assert cli.main(["reproduce", "toy-net", "--dry-run", "--looks", "1"]) == 0
    assert "about 6 minutes" in capsys.readouterr().out


# A reader's own measurement ---------------------------------------------------------------------------------------


def published(entry: index.Entry, ours: list[float]) -> Path:
    """Published results that say these scores, made by the code that runs now."""
    (claim,) = claims.claims_of(entry)
    path = claims.card_folder(entry) / "results.json"
    runs: dict[str, Any] = {}
    for job in _claims_plan.plan(entry, [claim]):
        value = 0.25 if job.spec["set"]["model.lr"] == 0.25 else ours[int(job.seed or 0)]
        key = _claims_plan.fingerprint(job.spec)
        runs[key] = {"spec": job.spec, "metrics": {"test/acc": value}, "code": job.code, "minutes": 1.0}
    write_results(path, entry, [claim], runs)
    return path


def test_a_readers_runs_are_judged_by_themselves(
    stubbed: index.Entry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_claims(stubbed, PAIR)
    path = published(stubbed, [0.3, 0.31, 0.32])
    before = path.read_bytes()
    lucky(tmp_path, [0.1, 0.11, 0.12])
    assert cli.main(["reproduce", "toy-net", "--out", str(tmp_path / "mine")]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^opposite +fast-wins", shown, re.MULTILINE)
    assert "published: holds" in shown
    assert "intervals apart" in shown
    assert path.read_bytes() == before
    own = json.loads((tmp_path / "mine" / "toy-net-results.json").read_text())
    assert own["claims"]["fast-wins"]["verdict"] == "opposite"
    assert len(own["runs"]) == 6


def test_what_is_compared_with_a_number_is_shown_as_measured(
    stubbed: index.Entry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_claims(stubbed, PAIR.replace("expect: higher", "expect: at-least\n  value: 0.2"))
    lucky(tmp_path, [0.3, 0.31, 0.32])
    assert cli.main(["reproduce", "toy-net"]) == 0
    assert re.search(r"^ +test/acc: 0\.31 \[0\.28\d*, 0\.33\d*\]$", capsys.readouterr().out, re.MULTILINE)


def test_a_checkout_says_when_its_runs_contradict_what_is_published(
    stubbed: index.Entry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_claims(stubbed, PAIR)
    path = published(stubbed, [0.3, 0.31, 0.32])
    lucky(tmp_path, [0.1, 0.11, 0.12])
    assert cli.main(["reproduce", "toy-net"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^opposite +fast-wins", shown, re.MULTILINE)
    assert "    results.json: holds" in shown  # the same code had measured it: the published runs stay
    assert json.loads(path.read_text())["claims"]["fast-wins"]["verdict"] == "holds"


def test_the_first_measurement_says_what_is_left_after_holm(
    stubbed: index.Entry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rates = ("0.5", "0.625", "0.75")
    write_claims(stubbed, "".join(PAIR.replace("0.5", rate).replace("fast", f"n{i}") for i, rate in enumerate(rates)))
    scores = {f"{rate}:{seed}": 0.25 + gain for rate in rates for seed, gain in enumerate((0.03, 0.05, 0.07))}
    (tmp_path / "luck").write_text(json.dumps(scores | {f"0.25:{seed}": 0.25 for seed in range(3)}))
    assert cli.main(["reproduce", "toy-net"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("results.json: holds  (undecided after Holm)") == 3


@pytest.mark.parametrize(
    ("ours", "how"),
    [([0.3, 0.31, 0.32], "equal"), ([0.31, 0.3, 0.32], "intervals overlap"), ([0.9, 0.91, 0.92], "intervals apart")],
)
def test_how_a_measurement_relates_to_the_published_one(
    stubbed: index.Entry, tmp_path: Path, ours: list[float], how: str
) -> None:
    write_claims(stubbed, PAIR)
    published(stubbed, [0.3, 0.31, 0.32])
    lucky(tmp_path, ours)
    report = claims.reproduce(claims.make_plan("toy-net"), fresh=True)
    ((_, _, relation),) = side_by_side(report.published["fast-wins"], report.fresh["fast-wins"])
    assert relation == how
    part = claims.reproduce(claims.make_plan("toy-net", seeds=[0, 1]), fresh=True)
    assert part.fresh["fast-wins"]["comparisons"][0]["n"] == 2


def test_exact_quantities_are_equal_or_not() -> None:
    about = {"against": "value", "differences": {"exact": 0.5}, "n": 0, "mean": 0.5, "low": 0.5, "high": 0.5}
    assert side_by_side({"comparisons": [about]}, {"comparisons": [about]})[0][2] == "equal"
    other = {**about, "differences": {"exact": 0.6}, "mean": 0.6, "low": 0.6, "high": 0.6}
    assert side_by_side({"comparisons": [about]}, {"comparisons": [other]})[0][2] == "differs"
    assert side_by_side(None, {"comparisons": [about]})[0][1:] == (None, "not published")


def test_runs_of_other_code_are_no_part_of_a_readers_measurement(
    stubbed: index.Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_claims(stubbed, LOOKS)
    lucky(tmp_path, SURE_AT_SIX)
    first = claims.reproduce(claims.make_plan("toy-net"), fresh=True)
    assert first.path is not None
    assert len(json.loads(first.path.read_text())["runs"]) == 12
    monkeypatch.setattr(_claims_plan, "code_hash", lambda modules: "other")
    again = claims.reproduce(claims.make_plan("toy-net", looks=1), fresh=True)
    assert again.fresh["fast-wins"]["verdict"] == "undecided"
    assert again.path == first.path
    assert again.results is not None
    codes = [run["code"] for run in again.results["runs"].values()]
    assert codes.count("other") == 6


def test_code_that_gives_equal_digits_confirms_what_other_code_has_measured(
    stubbed: index.Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One run of a kind is repeated; its kind is marked if all digits are equal, and stays as it is if one is not."""
    write_claims(stubbed, PAIR + TIMED)
    first = claims.reproduce(claims.make_plan("toy-net"))
    assert first.path is not None
    before = json.loads(first.path.read_text())
    monkeypatch.setattr(_claims_plan, "code_hash", lambda modules: "edited")
    assert cli.main(["reproduce", "toy-net", "--recheck", "--dry-run"]) == 0
    assert "would repeat" in capsys.readouterr().out
    assert json.loads(first.path.read_text()) == before
    (tmp_path / "calls.txt").unlink()
    assert cli.main(["reproduce", "toy-net", "--recheck"]) == 0
    assert "equal digits   ten-n: 6 runs" in capsys.readouterr().out
    assert len(calls(tmp_path)) == 2  # fit and test of one run, none of the timed claim
    after = json.loads(first.path.read_text())
    assert after["claims"] == before["claims"]
    timed = [run for run in after["runs"].values() if run["spec"]["recipe"] == "ten-s"]
    assert all("confirmed" not in run for run in timed)
    assert len(timed) == 1
    rest = [run for run in after["runs"].values() if run["spec"]["recipe"] == "ten-n"]
    assert [run.pop("confirmed")["code"] for run in rest] == ["edited"] * 6
    assert all(run in before["runs"].values() for run in rest)
    assert cli.main(["reproduce", "toy-net", "--recheck"]) == 0
    assert "nothing to repeat" in capsys.readouterr().out


def test_other_digits_confirm_nothing(
    stubbed: index.Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_claims(stubbed, PAIR)
    path = claims.reproduce(claims.make_plan("toy-net")).path
    assert path is not None
    content = json.loads(path.read_text())
    for run in content["runs"].values():
        run["metrics"]["test/acc"] += 1e-9
    path.write_text(json.dumps(content))
    before = path.read_bytes()
    monkeypatch.setattr(_claims_plan, "code_hash", lambda modules: "edited")
    assert cli.main(["reproduce", "toy-net", "--recheck"]) == 1
    said = capsys.readouterr().out
    assert "differs        ten-n: 6 runs" in said
    assert re.search(r": test/acc (0\.\d+?)0+1, now \1\n", said)  # whichever of them was the quickest
    assert path.read_bytes() == before


def test_an_installed_package_is_never_written_into(
    stubbed: index.Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_claims(stubbed, PAIR)
    path = published(stubbed, [0.3, 0.31, 0.32])
    before = path.read_bytes()
    monkeypatch.setattr(claims, "is_installed", lambda entry: True)
    report = claims.reproduce(claims.make_plan("toy-net"), folder=tmp_path / "runs")
    assert report.path == tmp_path / "runs" / "toy-net-results.json"
    assert report.path.is_file()
    assert path.read_bytes() == before


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
