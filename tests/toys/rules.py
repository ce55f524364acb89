"""A small network's state dict, and updates of clients that trained it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from zoo.federated.rules import ClientUpdate, RoundContext, Rule, StateDict


def network(seed: int = 0, dtype: torch.dtype = torch.float32) -> StateDict:
    made = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=made, dtype=torch.float64).to(dtype)

    return {
        "conv.weight": normal(4, 2, 3, 3),
        "conv.bias": normal(4),
        "norm.running_mean": normal(4),
        "norm.running_var": normal(4).square() + 0.5,
        "norm.num_batches_tracked": torch.tensor(5),
        "head.weight": normal(3, 4),
        "scale": normal(),
    }


def trained(global_sd: StateDict, client: int, seed: int = 1, spread: float = 0.1) -> ClientUpdate:
    """The global model with a change of its own per client; every value depends on seed and client only."""
    made = torch.Generator().manual_seed(1000 * seed + client)
    state = {}
    for key, value in global_sd.items():
        if value.is_floating_point():
            change = torch.randn(value.shape, generator=made, dtype=torch.float64) * spread
            state[key] = (value.double() + change).to(value.dtype)
            if key.endswith("running_var"):
                state[key] = state[key].abs()
        else:
            state[key] = value + client + 1
    return ClientUpdate(client, 10 * (client % 4) + 5, state, {"loss": float(client)})


def cohort(global_sd: StateDict, clients: Iterable[int] = range(12), seed: int = 1) -> list[ClientUpdate]:
    return [trained(global_sd, client, seed) for client in clients]


def context(round: int = 0, clients: int = 12) -> RoundContext:
    return RoundContext(round, 7, tuple(range(clients)), clients)


def rounds(rule: Rule, start: StateDict, count: int = 3, **options: Any) -> tuple[StateDict, dict[str, Any], list[Any]]:
    """Several rounds whose updates depend on the present global model."""
    global_sd, state, metrics = start, rule.init_state(start), []
    for round in range(count):
        updates = cohort(global_sd, seed=round + 1, **options)
        global_sd, state, found = rule(global_sd, updates, context(round), state)
        metrics.append(found)
    return global_sd, state, metrics
