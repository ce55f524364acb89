"""Time and memory of aggregating ten updates of eleven million parameters, next to a literal float32 mean in NumPy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

RULES: list[tuple[str, dict[str, Any]]] = [
    ("fedavg", {}),
    ("fedavgm", {}),
    ("fedadam", {}),
    ("norm-clip", {}),
    ("krum", {}),
    ("geometric-median", {}),
    ("median", {}),
    ("trimmed-mean", {}),
    ("bulyan", {}),
    ("ewwa-adam", {}),
]


def measure(
    clients: int = 10, repeats: int = 5, rules: list[tuple[str, dict[str, Any]]] | None = None
) -> list[dict[str, Any]]:
    """One row per rule: `seconds` (median), `least`, `models` (peak memory beyond the arguments, result and new state
    included, in models), `parameters`. Each from processes of its own, with one thread; from the second round on."""
    # memory that is freed then goes back to the system; else the next call would find it and seem to need none
    strict = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    rows = []
    for name, options in rules or [*RULES, ("numpy", {})]:
        row, memory = (
            json.loads(
                subprocess.run(
                    [sys.executable, __file__, name, json.dumps(options), str(clients), str(count)],
                    check=True, capture_output=True, text=True, env=environment,
                ).stdout
            )
            for count, environment in ((repeats, dict(os.environ)), (1, strict))
        )  # fmt: skip
        rows.append({**row, "models": memory["models"]})
    return rows


def peak_from_now() -> int:
    """Start a new high-water mark of resident memory; returns the current use in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def status(key: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024


def one(name: str, options: dict[str, Any], clients: int, repeats: int) -> dict[str, Any]:
    import torch
    from torchvision.models import resnet18

    from zoo.federated.rules import ClientUpdate, RoundContext, create_rule

    torch.set_num_threads(1)
    start = {k: v.contiguous() for k, v in resnet18(num_classes=10).state_dict().items()}
    made = torch.Generator().manual_seed(0)
    updates = []
    for client in range(clients):
        state = {
            k: v + 0.01 * torch.randn(v.shape, generator=made) if v.is_floating_point() else v.clone()
            for k, v in start.items()
        }
        updates.append(ClientUpdate(client, 100 + client, state))
    size = sum(v.numel() * v.element_size() for v in start.values())
    ctx = RoundContext(0, 0, tuple(range(clients)), clients)

    if name == "numpy":

        def call(state: dict[str, Any]) -> Any:
            total = sum(u.num_examples for u in updates)
            return {k: sum(u.state[k].numpy() * (u.num_examples / total) for u in updates) for k in start}, state, {}

        state: dict[str, Any] = {}
    else:
        rule = create_rule(name, **options)

        def call(state: dict[str, Any]) -> Any:
            return rule(start, updates, ctx, state)

        _, state, _ = call(rule.init_state(start))  # imports, allocations, moments
    before = peak_from_now()
    call(state)
    peak = status("VmHWM") - before
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call(state)
        seconds.append(time.perf_counter() - begin)
    return {
        "rule": name,
        "seconds": sorted(seconds)[len(seconds) // 2],
        "least": min(seconds),
        "models": peak / size,
        "parameters": sum(v.numel() for v in start.values()),
        "clients": clients,
    }


if __name__ == "__main__":
    if len(sys.argv) == 5:
        print(json.dumps(one(sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))))
    else:
        for row in measure():
            print(f"{row['rule']:18} {row['seconds']:6.3f} s  (least {row['least']:.3f})  {row['models']:5.2f} models")
