"""What training loops share: parameter groups, schedules, the mean of gradients over ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from zoo.base.ranks import sum_over_ranks
from zoo.errors import InvalidConfig

if TYPE_CHECKING:
    from lightning import Trainer

__all__ = ["average_gradients", "decay_groups", "every_step", "trained_steps", "warmup_cosine"]


def decay_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups in which only matrices and convolution kernels decay; biases, gains and shifts do not.

    Args:
        module: its trainable parameters are taken, in their order.
        weight_decay: of the parameters with more than one axis.

    Returns:
        At most two groups for an optimiser; one without parameters is left out.
    """
    trained = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def warmup_cosine(
    steps: int, warmup: float = 0.0, final: float = 0.0, span: tuple[float, float] = (0.0, 1.0)
) -> Callable[[int], float]:
    """Factor of the learning rate at each optimiser step: a linear rise, then half a cosine.

    Args:
        steps: optimiser steps of this run, at least 1.
        warmup: share of the whole schedule in which the rate rises linearly, in [0, 1).
        final: factor at the end of the whole schedule.
        span: part of the whole schedule that this run covers; a run of `(0.6, 1.0)` continues one of `(0.0, 0.6)`.

    Returns:
        Factor for a step number; after the last step it stays as it is.
    """
    start, end = span

    def factor(step: int) -> float:
        done = start + (end - start) * min(step / steps, 1.0)
        if done < warmup:
            return max(done, (end - start) / steps) / warmup  # the first step already moves
        cosine = 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))
        return final + (1 - final) * cosine

    return factor


def every_step(scheduler: torch.optim.lr_scheduler.LRScheduler) -> dict[str, Any]:
    """What `configure_optimizers` returns for a scheduler that moves after every step rather than every epoch."""
    return {"optimizer": scheduler.optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def average_gradients(parameters: Iterable[Tensor], samples: int) -> None:
    """Replace gradients by their mean over the samples of all ranks, for modules that nothing wraps.

    All ranks must call it, with the same parameters in the same order.

    Args:
        parameters: those without a gradient are left out.
        samples: number behind the gradients of this rank, which are means over them.
    """
    held = [p.grad for p in parameters if p.grad is not None]
    if not held:
        return
    share = samples / sum_over_ranks(torch.tensor(float(samples), device=held[0].device))
    for gradient in held:
        gradient.copy_(sum_over_ranks(gradient * share))


def trained_steps(trainer: Trainer) -> int:
    """Optimiser steps of the whole run, for schedules.

    Raises:
        InvalidConfig: if neither epochs nor steps are limited.
    """
    steps = trainer.estimated_stepping_batches
    if steps == float("inf") or steps < 0:
        raise InvalidConfig("A learning-rate schedule needs a known end: set trainer.max_epochs or trainer.max_steps.")
    return int(steps)
