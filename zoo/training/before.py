"""The state of a run before its present step, kept so that a step that goes wrong can be done again."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from lightning import LightningModule, Trainer
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from zoo.base import RoundModule
from zoo.base.resume import plain_state, raw_state
from zoo.training.state_tensors import StateTensors

__all__ = ["Before"]

_MOST = 64 << 20
"""Bytes of an unfinished round that are copied before each step; a larger one is copied before the last step alone."""
_SIMPLE = (int, float, bool, str, type(None))
_TENSOR = object()


class Before:
    """Copies of what a step reads and changes. Nothing here waits for a device.

    Weights and the state of optimisers are copied into the same memory in each step, which costs about as much time as
    an optimiser does, and as much memory as weights and optimisers take.
    """

    def __init__(self) -> None:
        self.batch: Any = None
        self.batch_idx = 0
        self.collected: dict[str, Any] | None = None
        self.own: dict[str, Any] = {}
        self.gradients: dict[str, Tensor] = {}
        self._random: tuple[Any, ...] = ()
        self._names: list[str] = []
        self._weights = _Copies()
        self._extra: dict[str, Any] = {}
        self._optimizers: list[_Optimizer] = []
        self._schedulers: list[dict[str, Any]] = []
        self._counts: list[tuple[Any, dict[str, Any]]] = []
        self._stepped = 0
        self._scale: Tensor | None = None

    def take(self, trainer: Trainer, module: LightningModule, state: StateTensors, batch: Any, batch_idx: int) -> None:
        """Copy what is there now. In the last step of a round all ranks call it together.

        Args:
            trainer: about to run a step.
            module: its module.
            state: of the module.
            batch: of this rank, on its device.
            batch_idx: its number in the epoch.
        """
        self.batch, self.batch_idx = _copied(batch), batch_idx
        self._take_collected(trainer, module)
        self.gradients = {}
        if trainer.accumulate_grad_batches > 1 and trainer.fit_loop.epoch_loop.batch_progress.current.ready > 1:
            named = module.named_parameters()
            self.gradients = {name: p.grad.detach().clone() for name, p in named if p.grad is not None}
        self._names, tensors = state.get()
        self._weights.take(tensors)
        self._extra = {}
        if not state.plain:
            held = module.state_dict(keep_vars=True).items()
            self._extra = {name: copy.deepcopy(value) for name, value in held if not isinstance(value, Tensor)}
        while len(self._optimizers) < len(trainer.optimizers):
            self._optimizers.append(_Optimizer())
        for kept, optimizer in zip(self._optimizers, trainer.optimizers, strict=True):
            kept.take(optimizer)
        self._schedulers = [dict(config.scheduler.state_dict()) for config in trainer.lr_scheduler_configs]
        self._counts = [(part, dict(vars(part))) for part in _counters(trainer)]
        for _, values in self._counts[:2]:
            values["ready"] -= 1  # this batch is counted already, and will be again
        self._stepped = trainer.fit_loop.epoch_loop._batches_that_stepped
        scale = getattr(getattr(trainer.precision_plugin, "scaler", None), "_scale", None)
        self._scale = scale.clone() if scale is not None else None
        self._random = raw_state(cuda=module.device.type == "cuda")  # whether there is another GPU takes long to say

    def _take_collected(self, trainer: Trainer, module: LightningModule) -> None:
        self.collected, self.own = None, {}
        if not isinstance(module, RoundModule):
            self.collected = {}
            return
        last, collected = trainer.is_last_batch, module.collected_state()
        if last or _bytes(collected) <= _MOST:
            self.collected = _copied(collected)
        if last:  # the round ends in this step, and what clients and rules remember changes
            held: dict[str, Any] = {"state_dict": {}}
            module.on_save_checkpoint(held)
            self.own = _copied({key: value for key, value in held.items() if key not in ("state_dict", "zoo")})

    @property
    def random(self) -> dict[str, Any]:
        """States of the generators, as a checkpoint holds them."""
        return plain_state(self._random)

    @property
    def weights(self) -> dict[str, Tensor]:
        """The tensors of the module's state."""
        return dict(zip(self._names, self._weights.held, strict=True))

    def fill(self, checkpoint: dict[str, Any], trainer: Trainer) -> None:
        """Put weights, optimisers and schedulers into a checkpoint that is being written.

        Args:
            checkpoint: changed in place.
            trainer: whose optimisers were copied.
        """
        state = self.weights | self._extra
        checkpoint["state_dict"] = {name: state[name] for name in checkpoint["state_dict"]}
        pairs = zip(self._optimizers, trainer.optimizers, strict=True)
        checkpoint["optimizer_states"] = [kept.packed(optimizer) for kept, optimizer in pairs]
        checkpoint["lr_schedulers"] = self._schedulers
        precision = checkpoint.get(type(trainer.precision_plugin).__qualname__)
        if self._scale is not None and isinstance(precision, dict):
            precision["scale"] = float(self._scale)

    @contextmanager
    def counters_back(self, trainer: Trainer) -> Iterator[None]:
        """Let the Trainer's counters be those of before for a while."""
        loop = trainer.fit_loop.epoch_loop
        now = [(part, dict(vars(part))) for part, _ in self._counts]
        stepped, last = loop._batches_that_stepped, loop.batch_progress.is_last_batch
        try:
            for part, values in self._counts:
                vars(part).update(values)
            loop._batches_that_stepped, loop.batch_progress.is_last_batch = self._stepped, False
            yield
        finally:
            for part, values in now:
                vars(part).update(values)
            loop._batches_that_stepped, loop.batch_progress.is_last_batch = stepped, last


class _Copies:
    """Copies of tensors, in memory that is used again while their shapes stay."""

    def __init__(self) -> None:
        self.held: list[Tensor] = []
        self._kinds: list[Any] = []

    def take(self, tensors: list[Tensor]) -> None:
        kinds = [(tensor.shape, tensor.dtype, tensor.device) for tensor in tensors]
        with torch.no_grad():
            if kinds != self._kinds:
                self.held, self._kinds = [tensor.detach().clone() for tensor in tensors], kinds
            elif tensors:
                torch._foreach_copy_(self.held, tensors)


class _Optimizer:
    """State and settings of an optimiser, as its `state_dict` has them."""

    def __init__(self) -> None:
        self._layout: list[tuple[Any, list[str]]] = []  # parameters, and the keys of what is held for each
        self._copies = _Copies()
        self._plain: list[Any] = []  # the values in order, with `_TENSOR` in place of tensors
        self._settings: list[dict[str, Any]] = []
        self._whole: dict[str, Any] | None = None

    def take(self, optimizer: torch.optim.Optimizer) -> None:
        if type(optimizer).state_dict is not torch.optim.Optimizer.state_dict:
            self._whole = _copied(optimizer.state_dict())
            return
        self._layout = [(parameter, list(held)) for parameter, held in optimizer.state.items()]
        values = list(chain.from_iterable(held.values() for held in optimizer.state.values()))
        self._copies.take([value for value in values if isinstance(value, Tensor)])
        self._plain = [_TENSOR if isinstance(value, Tensor) else value for value in values]
        self._settings = [
            {key: value if _is_simple(value) else _copied(value) for key, value in group.items() if key != "params"}
            for group in optimizer.param_groups
        ]

    def packed(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        if self._whole is not None:
            return self._whole
        groups: list[dict[str, Any]] = []
        numbers: dict[Tensor, int] = {}
        for settings, group in zip(self._settings, optimizer.param_groups, strict=True):
            start = len(numbers)
            numbers |= {parameter: start + i for i, parameter in enumerate(group["params"])}
            groups.append({**settings, "params": [numbers[parameter] for parameter in group["params"]]})
        state: dict[Any, dict[str, Any]] = {}
        plain, copies = iter(self._plain), iter(self._copies.held)
        for parameter, keys in self._layout:
            for key in keys:
                value = next(plain)
                state.setdefault(numbers[parameter], {})[key] = next(copies) if value is _TENSOR else value
        return {"state": state, "param_groups": groups}


def _counters(trainer: Trainer) -> list[Any]:
    """What counts batches and steps, as objects whose attributes are the numbers."""
    loop = trainer.fit_loop.epoch_loop
    optim = loop.automatic_optimization.optim_progress.optimizer
    steps = (loop.manual_optimization.optim_step_progress, optim.step, optim.zero_grad, loop.scheduler_progress)
    return [half for progress in (loop.batch_progress, *steps) for half in (progress.total, progress.current)]


def _is_simple(value: Any) -> bool:
    """Whether there is nothing to copy in it."""
    return type(value) in _SIMPLE or (type(value) is tuple and all(type(v) in _SIMPLE for v in value))


def _copied(value: Any) -> Any:
    return tree_map(lambda v: v.detach().clone() if isinstance(v, Tensor) else v, value)


def _bytes(value: Any) -> int:
    return sum(leaf.numel() * leaf.element_size() for leaf in tree_leaves(value) if isinstance(leaf, Tensor))
