"""The stages of a run of Soft ROCKET: solve, tune, solve again, and keep the best model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from zoo.methods.soft_rocket.module import SoftRocket

__all__ = ["Stages"]

_KERNELS = ("rocket.weights", "rocket.biases", "rocket.log_sharpness")
_HEAD = ("head.mean", "head.scale", "head.weight", "head.bias", "temperature", "spread")

State = dict[str, Tensor]


class Stages:
    """Where a run is: `solve` (head for the first kernels), `tune`, `resolve` (head for the tuned ones), `done`.

    Args:
        tune_epochs: most epochs of `tune`; with 0 every epoch is `solve`.
        patience: epochs without a better validation loss that end `tune`.
    """

    def __init__(self, tune_epochs: int, patience: int) -> None:
        self.tune_epochs, self.patience = tune_epochs, patience
        self.name = "solve"
        self.entered = ""  # the stage that has been prepared
        self.tuned = self.waited = 0
        self.best: State = {}
        self.best_loss = self.best_tuned_loss = float("inf")
        self.best_tuned: State = {}
        self.start: State = {}
        self.unit: Tensor | None = None
        self.forget()

    @property
    def epochs(self) -> int:
        """Epochs of a whole run."""
        return self.tune_epochs + 2 if self.tune_epochs else 1

    # What a streamed fit is calibrated on ---------------------------------------------------------------------------

    def remember(self, features: Tensor, targets: Tensor, index: Tensor, most: int) -> None:
        """Keep the series whose index is below `most`: the same ones however ranks and batches share them."""
        keep = index < most
        self.sample.append((features[keep].float().cpu(), targets[keep].cpu(), index[keep].cpu()))

    def remembered(self, gather: Callable[[Any], list[Any]]) -> tuple[Tensor, Tensor]:
        """Features and targets of these series of all ranks, in the order of their index."""
        parts = [part for rank in gather(self.sample) for part in rank]
        features, targets, index = (torch.cat([p[i] for p in parts]) for i in range(3))
        order = index.argsort(stable=True)
        return features[order], targets[order]

    def forget(self) -> None:
        """Drop these series."""
        self.sample: list[tuple[Tensor, Tensor, Tensor]] = []

    # Going on -------------------------------------------------------------------------------------------------------

    def enter(self, module: SoftRocket) -> None:
        """Prepare the stage, once."""
        if self.entered == self.name:
            return
        self.entered = self.name
        with torch.no_grad():
            if self.name == "tune":
                self.start = _copy(module, _KERNELS)
                if module.classifies:  # the head gives logits from here on
                    module.head.weight.mul_(module.temperature)
                    module.head.bias.mul_(module.temperature)
                    module.temperature.fill_(1.0)
                else:
                    self.unit = (module.spread / 1.645).clamp(min=1e-12).cpu()
            elif self.name == "resolve":
                _restore(module, self.best_tuned)

    def finish_epoch(self) -> None:
        """Choose the stage of the next epoch."""
        if not self.tune_epochs:
            return
        if self.name == "tune":
            self.tuned += 1
        follow = {"solve": "tune", "resolve": "done"}
        stop = self.tuned >= self.tune_epochs or self.waited >= self.patience
        self.name = follow.get(self.name, "resolve" if self.name == "tune" and stop else self.name)

    def consider(self, module: SoftRocket, loss: float) -> None:
        """Keep the model if it validates best; at the end of the run, make it the module's."""
        if self.entered == "tune":
            self.waited += 1
            if loss < self.best_tuned_loss:
                self.best_tuned_loss, self.best_tuned, self.waited = loss, _copy(module, _KERNELS), 0
        if loss < self.best_loss:
            self.best_loss, self.best = loss, _copy(module, _KERNELS + _HEAD)
        last = module.trainer.current_epoch + 1 == module.trainer.max_epochs
        if self.name == "done" or last:
            _restore(module, self.best)
            module.trainer.should_stop = True

    def from_start(self, rocket: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
        """Weights and biases of the kernels, beside those at the start of tuning."""
        for name in _KERNELS[:2]:
            now = rocket.get_parameter(name.removeprefix("rocket."))
            yield now, self.start[name].to(now.device)

    # Resuming -------------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Everything, as tensors and plain values."""
        return {k: v for k, v in vars(self).items() if k not in ("tune_epochs", "patience")}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what `state` returned."""
        vars(self).update(state)


def _tensor(module: nn.Module, name: str) -> Tensor:
    owner = module.get_submodule(name.rpartition(".")[0])
    found: Tensor = getattr(owner, name.rpartition(".")[2])
    return found


def _copy(module: nn.Module, names: tuple[str, ...]) -> State:
    return {name: _tensor(module, name).detach().cpu().clone() for name in names}


@torch.no_grad()
def _restore(module: nn.Module, state: State) -> None:
    for name, value in state.items():
        _tensor(module, name).copy_(value)
