"""Training from the command line in processes of its own: several ranks, and runs that are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from zoo import training

QUIET = ["--trainer.max_epochs", "1"]


def _script(place: Path, *words: str) -> subprocess.Popen[str]:
    tests = Path(__file__).parents[1]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tests.parent), str(tests)]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(tests / "toys" / "cli.py"), *words]
    return subprocess.Popen(
        command, cwd=place, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )


@pytest.mark.slow
def test_ddp_from_a_script(place: Path) -> None:
    """Two processes: Lightning starts the script again with the words of sys.argv."""
    run = _script(place, "fit", "--zoo", "toy-net:ten-s", "--trainer.devices", "2", "--trainer.strategy", "ddp", *QUIET)
    out, _ = run.communicate(timeout=240)
    assert run.returncode == 0, out
    assert "MEMBER: 2/2" in out
    assert [p.name for p in (place / "runs" / "toy-net-ten-s").iterdir()] == ["version_0"]
    config = yaml.safe_load((place / "runs" / "toy-net-ten-s" / "version_0" / "config.yaml").read_text())
    assert int(config["trainer"]["devices"]) == 2
    assert out.count("load it") == 1


@pytest.mark.slow
def test_killed_run_leaves_nothing_in_the_way(place: Path) -> None:
    """kill -9 in the middle; the next run starts in a folder of its own, and `last` can be resumed."""
    run = _script(place, "fit", "--zoo", "toy-net", "--trainer.max_epochs", "100000")
    folder = place / "runs" / "toy-net-ten-n" / "version_0" / "checkpoints"
    deadline = time.monotonic() + 120
    while not list(folder.glob("last.ckpt")) and time.monotonic() < deadline and run.poll() is None:
        time.sleep(0.2)
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate()
    done = training.run(["fit", "--zoo", "toy-net", *QUIET])
    assert done.saved.path.parent.name == "version_1"
    epochs = torch.load(folder / "last.ckpt", weights_only=True)["epoch"]
    last = place / "runs" / "toy-net-ten-n" / "version_0" / "checkpoints" / "last.ckpt"
    words = ["--ckpt_path", str(last), "--trainer.max_epochs", str(epochs + 2)]
    rest = training.run(["fit", "--zoo", "toy-net", *words])
    assert rest.trainer.current_epoch == epochs + 2
