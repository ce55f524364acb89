"""What each process of a rank test of the learner does."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as processes
from toys.learners import ToyLearner, learn, state_of, trainer_of

DATA: dict[str, Any] = {"clients": 5, "link_loss": 0.1}
METHODS: dict[str, dict[str, Any]] = {
    "fedavg": {},
    "moon, fedadam": {"rule": "fedadam", "client": "moon", "local": {"policy": "persistent"}},
    "median": {"rule": "median"},
    "ewwa": {"rule": "ewwa"},
}


def run(size: int, folder: Path) -> list[dict[str, Any]]:
    """Three rounds of each method in `size` processes, and what each of them holds."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    method = "fork" if sys.platform == "linux" else "spawn"  # forked ones have imported everything
    processes.start_processes(_serve, (size, port, str(folder)), nprocs=size, start_method=method)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(size)]


def _serve(rank: int, size: int, port: int, folder: str) -> None:
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE=str(size), NODE_RANK="0", LOCAL_RANK=str(rank)
    )
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    fit = {"strategy": "fed_ddp", "devices": size}
    place = Path(folder)
    found: dict[str, Any] = {}
    for name, method in METHODS.items():
        learner = learn(place, DATA, fit=fit, **method)
        found[name] = {"state": state_of(learner), "clients": learner.client_states, "told": told(learner)}
    found["resumed"] = resumed(place, fit)
    torch.save(found, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def told(learner: ToyLearner) -> float:
    """The logged loss of the last round."""
    return float(learner.trainer.callback_metrics["train/loss"])


def resumed(folder: Path, fit: dict[str, Any]) -> dict[str, Any]:
    """One round, saved; then on to three in fresh objects."""
    from toys.learners import ToyClients

    method = METHODS["moon, fedadam"]
    first = learn(folder, DATA, fit={**fit, "max_epochs": 1}, **method)
    path = folder / "one.ckpt"
    first.trainer.save_checkpoint(path)
    again = ToyLearner(**method)
    trainer_of(folder, **fit).fit(again, ToyClients(**DATA), ckpt_path=path, weights_only=True)
    return state_of(again)
