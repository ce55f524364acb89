"""A real deployment on 127.0.0.1: a SuperLink, two SuperNodes, and a server that is killed and started again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("flwr", reason="the extra federated needs Python 3.11")

pytestmark = pytest.mark.slow

ROUNDS = 3
MODEL = {"network": "resnet10-w4-gn", "local_epochs": 1, "lr": 0.05, "optimizer_policy": "persistent"}
DATA = {"num_clients": 2, "batch_size": 8, "train_size": 72, "val_size": 20, "min_client_size": 2}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Deployment:
    """Programs of Flower, each in a process group of its own so that it ends with all its children."""

    def __init__(self, folder: Path, checkout: Path) -> None:
        self.folder, self.checkout, self.port = folder, checkout, free_port()
        self.programs: list[subprocess.Popen[bytes]] = []
        home = folder / "home"
        home.mkdir()
        (home / "config.toml").write_text(f'[superlink.lan]\naddress = "127.0.0.1:{self.port}"\ninsecure = true\n')
        path = os.pathsep.join([str(checkout), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.environment = {
            **os.environ, "PYTHONPATH": path, "FLWR_HOME": str(home), "FLWR_TELEMETRY_ENABLED": "0",
            "OMP_NUM_THREADS": "1", "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }  # fmt: skip

    def start(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        with open(self.folder / f"{name}.log", "ab") as log:
            program = subprocess.Popen(
                command, env=self.environment, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )
        self.programs.append(program)
        return program

    def link(self) -> subprocess.Popen[bytes]:
        return self.start(
            "link", "flower-superlink", "--insecure", "--host", "127.0.0.1", "--port", str(self.port),
            "--disable-runtime-dependency-installation", "--database", str(self.folder / "link.db"),
        )  # fmt: skip

    def node(self, client: int) -> subprocess.Popen[bytes]:
        state = self.folder / f"state-{client}"
        return self.start(
            f"node-{client}", "flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{self.port}",
            "--port", str(free_port()), "--node-config", f'clients="{client}" threads=1 state-dir="{state}"',
        )  # fmt: skip

    def run(self) -> subprocess.Popen[bytes]:
        app = str(self.checkout / "examples" / "flower")
        return self.start("run", "flwr", "run", app, "lan", "--stream", "--run-config", str(self.folder / "run.toml"))

    def saved(self) -> dict[str, Any]:
        path = self.folder / "result" / "server.pt"
        return torch.load(path, weights_only=True) if path.exists() else {"history": []}

    def wait(self, run: subprocess.Popen[bytes], rounds: int, seconds: float) -> None:
        until = time.monotonic() + seconds
        while len(self.saved()["history"]) < rounds:
            assert time.monotonic() < until, self.logs()
            assert run.poll() is None, self.logs()
            time.sleep(0.2)

    def logs(self) -> str:
        return "\n".join(f"--- {p.name}\n{p.read_text()[-3000:]}" for p in sorted(self.folder.glob("*.log")))

    def end(self, program: subprocess.Popen[bytes], how: int = signal.SIGKILL) -> None:
        if program.poll() is None:
            os.killpg(program.pid, how)
            program.wait(30)


@pytest.fixture
def deployment(tmp_path: Path, checkout: Path) -> Iterator[Deployment]:
    made = Deployment(tmp_path, checkout)
    yield made
    for program in made.programs:
        made.end(program)


def flow(values: dict[str, Any]) -> str:
    return "{" + ", ".join(f"{key}: {value}" for key, value in values.items()) + "}"


def test_a_killed_server_goes_on_and_nothing_is_lost(deployment: Deployment) -> None:
    import lightning

    import zoo

    folder = deployment.folder
    lines = {"zoo": "uav-swarm-fl", "model": flow(MODEL), "data": flow(DATA), "folder": str(folder / "result")}
    (folder / "run.toml").write_text(
        "".join(f'{key} = "{value}"\n' for key, value in lines.items()) + f"rounds = {ROUNDS}\nwait = 120.0\n"
    )
    link = deployment.link()
    time.sleep(5)
    for client in range(2):
        deployment.node(client)
    run = deployment.run()
    deployment.wait(run, 1, 200)
    deployment.end(link)  # with the server of the run, and whatever else it started
    deployment.end(run)
    done = len(deployment.saved()["history"])
    assert 1 <= done < ROUNDS

    deployment.link()
    time.sleep(5)
    deployment.wait(deployment.run(), ROUNDS, 300)
    assert [row["round"] for row in deployment.saved()["history"]] == list(range(ROUNDS))

    lightning.seed_everything(0, verbose=False)
    learner = zoo.load("uav-swarm-fl", weights=False, **MODEL).train()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    trainer = lightning.Trainer(
        max_epochs=ROUNDS, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(learner, zoo.datamodule("uav-swarm-fl", **DATA))
    torch.set_num_threads(before)
    found = deployment.saved()["model"]
    assert all(torch.equal(found[key], value) for key, value in learner.network.state_dict().items())
