"""What a checkpoint needs so that a resumed run equals the uninterrupted one."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

__all__ = ["random_state", "reopen_epoch", "set_random_state"]


def reopen_epoch(checkpoint: dict[str, Any]) -> None:
    """Undo that Lightning counts an epoch as complete which `max_steps`, `max_time` or early stopping cut short.

    Resumed, it would leave out the rest of that epoch. The batch loop's own progress tells where it stopped.
    """
    loop = checkpoint.get("loops", {}).get("fit_loop", {})
    epochs, batches = loop.get("epoch_progress"), loop.get("epoch_loop.batch_progress")
    if not epochs or not batches or batches["is_last_batch"] or not batches["current"]["ready"]:
        return
    for part in (epochs["total"], epochs["current"]):
        if part["started"] and part["processed"] == part["started"]:
            part["processed"] -= 1
            part["completed"] = min(part["completed"], part["processed"])


def random_state() -> dict[str, Any]:
    """States of every generator as tensors and plain values, so that `weights_only=True` reads them."""
    name, keys, *rest = np.random.get_state(legacy=True)
    version, inner, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [str(name), torch.from_numpy(np.asarray(keys).astype(np.int64)), *map(float, rest)],
        "python": [version, list(inner), gauss],
    }


def set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), int(position), int(has_gauss), cached))
    version, inner, gauss = state["python"]
    random.setstate((version, tuple(inner), gauss))
