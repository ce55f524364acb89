"""What each process of a rank test does."""

from __future__ import annotations

import socket
import sys
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as processes
from toys.rules import cohort, context, network

from zoo.errors import ZooError
from zoo.federated.ranks import comm_of_run
from zoo.federated.rules import create_rule

SHARES = {
    1: [range(12)],
    2: [[1, 4, 5, 8, 11], [0, 2, 3, 6, 7, 9, 10]],
    3: [[2, 9, 3, 4, 7, 1], [], [0, 5, 6, 8, 10, 11]],
}
"""Clients of each process: unequal, unsorted, and one process without any."""


def run(size: int, variants: dict[str, tuple[str, dict[str, Any]]], folder: Any) -> list[dict[str, Any]]:
    """Three rounds of each rule in `size` processes; what each process found."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    if size == 1:
        _serve(0, size, port, variants, str(folder))
    else:  # forked ones have imported everything
        method = "fork" if sys.platform == "linux" else "spawn"
        processes.start_processes(_serve, (size, port, variants, str(folder)), nprocs=size, start_method=method)
    return [torch.load(f"{folder}/{rank}.pt", weights_only=True) for rank in range(size)]


def _serve(rank: int, size: int, port: int, variants: dict[str, tuple[str, dict[str, Any]]], folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=size, timeout=timedelta(seconds=180)
    )
    found: dict[str, Any] = {key: three_rounds(*variant, SHARES[size][rank]) for key, variant in variants.items()}
    found["broken"] = broken(SHARES[size][rank])
    torch.save(found, f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def three_rounds(name: str, options: dict[str, Any], clients: Any) -> dict[str, Any]:
    """Rounds in which other clients are away, and one entry comes from some only."""
    rule, comm, global_sd = create_rule(name, **options), comm_of_run(), network(dtype=torch.float32)
    state: dict[str, Any] = rule.init_state(global_sd)
    metrics: list[dict[str, float]] = []
    for round in range(3):
        updates = [update for update in cohort(global_sd, clients, seed=round + 1) if update.client_id != 3 * round]
        for update in updates:
            if update.client_id % 4 == 1:
                del update.state["head.weight"]
        global_sd, state, found = rule(global_sd, updates, context(round), state, comm)
        metrics.append(found)
    return {"model": global_sd, "state": state, "metrics": metrics}


def broken(clients: Any) -> list[str]:
    """What every process says of a broken update of client 0, whoever holds it; then a round without client 0."""
    rule, comm, global_sd = create_rule("krum", byzantine=1), comm_of_run(), network()
    said = []
    updates = cohort(global_sd, clients)
    for damage in (float("nan"), float("inf"), "shape"):
        for update in updates:
            if update.client_id == 0:
                update.state["conv.bias"] = torch.zeros(2) if damage == "shape" else torch.full((4,), damage)
        try:
            rule(global_sd, updates, context(), {}, comm)
        except ZooError as error:
            said.append(f"{type(error).__name__}: {error}")
    rule(global_sd, [u for u in updates if u.client_id != 0], context(), {}, comm)
    return said
