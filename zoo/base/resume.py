"""What a checkpoint needs so that a resumed run equals the uninterrupted one."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from lightning import Trainer

__all__ = [
    "plain_state",
    "random_state",
    "raw_state",
    "reopen_epoch",
    "reopen_validation",
    "set_random_state",
    "validation_follows",
]


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


def validation_follows(trainer: Trainer) -> bool:
    """True if validation runs right after the current training batch."""
    every, batches = trainer.check_val_every_n_epoch, trainer.val_check_batch
    if not trainer.enable_validation or batches is None or (every and (trainer.current_epoch + 1) % every):
        return False
    if batches == float("inf"):
        return trainer.is_last_batch
    loop = trainer.fit_loop.epoch_loop
    return (1 + (loop.batch_idx if every else loop.total_batch_idx)) % int(batches) == 0


def reopen_validation(checkpoint: dict[str, Any], follows: bool) -> None:
    """Undo that Lightning leaves out the validation that was to follow the batch after which a checkpoint was written.

    Such a checkpoint (`every_n_train_steps` that meets an epoch's end, a signal of the scheduler) was counted as if the
    validation had been: whatever a method derives from it, such as an interval or the choice of the best model, would
    be missing. A validation of which no batch is done yet is something that Lightning resumes.

    Args:
        checkpoint: about to be written.
        follows: whether validation comes next if this batch has just ended.
    """
    loop = checkpoint.get("loops", {}).get("fit_loop", {})
    batches, seen = loop.get("epoch_loop.batch_progress"), loop.get("epoch_loop.val_loop.batch_progress")
    if not follows or not batches or not seen or batches["current"]["completed"] == batches["current"]["processed"]:
        return
    for part in ("total", "current"):
        batches[part]["completed"] += 1
        done = seen[part]["completed"] if part == "total" else 0
        seen[part] |= {"ready": done + 1, "started": done + 1, "processed": done, "completed": done}


def random_state() -> dict[str, Any]:
    """States of every generator as tensors and plain values, so that `weights_only=True` reads them."""
    return plain_state(raw_state(cuda=torch.cuda.is_available()))


def raw_state(*, cuda: bool) -> tuple[Any, ...]:
    """States of every generator as they come, which takes a fraction of the time; see `plain_state`."""
    devices = torch.cuda.get_rng_state_all() if cuda else []
    return torch.get_rng_state(), devices, np.random.get_state(legacy=True), random.getstate()


def plain_state(raw: tuple[Any, ...]) -> dict[str, Any]:
    """What `random_state` returns, from what `raw_state` returned."""
    ours, cuda, (name, keys, *rest), (version, inner, gauss) = raw
    return {
        "torch": ours,
        "cuda": cuda,
        "numpy": [str(name), torch.from_numpy(np.asarray(keys).astype(np.int64)), *map(float, rest)],
        "python": [version, list(inner), gauss],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Restore what `random_state` returned."""
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), int(position), int(has_gauss), cached))
    version, inner, gauss = state["python"]
    random.setstate((version, tuple(inner), gauss))
