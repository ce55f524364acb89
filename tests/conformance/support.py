"""Building tiny models, data and trainers from an index entry, and comparing what comes out."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.data import ConcatDataset, Dataset

from datamodules.base import ZooDataModule
from zoo.base import ZooModule
from zoo.index import Entry, entries

COUPLING = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


# Entries ----------------------------------------------------------------------------------------------------------


def variants() -> list[tuple[str, Entry]]:
    """Every entry with its default tag, and again with each tag that overrides something."""
    found = []
    for entry in entries().values():
        found.append((entry.id, entry.tag()))
        for tag, weights in entry.weights.items():
            own = any(v is not None for v in (weights.data, weights.task, weights.learns, weights.can, weights.tiny))
            if own and tag != entry.default:
                found.append((f"{entry.id}:{tag}", entry.tag(tag)))
    return found


def is_round(entry: Entry) -> bool:
    """Whether it learns once per pass instead of by following gradients."""
    return entry.learns in ("closed-form", "rounds")  # one class may do both, whichever its arguments say


# Building ---------------------------------------------------------------------------------------------------------


def model_of(entry: Entry, seed: int = 0, **init: Any) -> ZooModule:
    """A tiny model; equal seeds give equal weights."""
    seed_everything(seed, verbose=False)
    return entry.model_class()(**{**entry.tiny.get("model", {}), **init})


def data_of(entry: Entry, root: Path | None = None, **init: Any) -> ZooDataModule:
    """Tiny data with at least four training batches."""
    given = {**entry.tiny.get("data", {}), **init}
    if root is not None:
        given["root"] = str(root)
    data = entry.data_class()(**given)
    data.prepare_data()
    data.setup("fit")
    if "batch_size" not in init:
        data.batch_size = max(2, min(data.batch_size, len(data.split("train")) // 4))
    return data


def trainer_of(folder: Path, *callbacks: Callback, **options: Any) -> Trainer:
    """A silent trainer on one CPU process."""
    quiet = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": any(isinstance(c, Checkpoint) for c in callbacks),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "max_epochs": 1,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return lightning.Trainer(default_root_dir=str(folder), callbacks=list(callbacks), **{**quiet, **options})


def items_of(data: ZooDataModule, split: str, count: int) -> list[dict[str, Any]]:
    """The first samples of a split."""
    dataset = data.split(split)
    return [dataset[i] for i in range(min(count, len(dataset)))]  # type: ignore[arg-type]


def samples_of(data: ZooDataModule, split: str) -> Dataset[Any]:
    """The samples of a split; where training items are clients, those of all clients."""
    clients: Any = data
    if split == "train" and hasattr(data, "client_dataset"):
        return ConcatDataset([clients.client_dataset(client) for client in range(clients.num_clients)])
    return data.split(split)


def batch_of(data: ZooDataModule, split: str, count: int = 4) -> dict[str, Any]:
    """The first samples of a split as a batch."""
    return type(data).collate(items_of(data, split, count))


_LEARNED: dict[str, ZooModule] = {}


def learned(entry: Entry, folder: Path) -> tuple[ZooModule, ZooDataModule]:
    """A model after one epoch: elastic parts have their shape, statistics have moved. Each test has its own copy."""
    key = f"{entry.id} {entry.model} {entry.tiny}"
    if key not in _LEARNED:
        model = model_of(entry)
        trainer_of(folder).fit(model, data_of(entry))
        model._trainer = None
        _LEARNED[key] = model
    return copy.deepcopy(_LEARNED[key]), data_of(entry)


def inputs_of(entry: Entry, model: ZooModule, folder: Path, count: int = 3) -> list[Any]:
    """What a user would hand to `predict`: pictures of the fake folder, else rows of the example input."""
    entry.data_class()(**entry.tiny.get("data", {})).fake(folder)
    pictures = sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURES)
    if pictures:
        return [str(p) for p in pictures[:count]]
    return list(model.example_input()[0][:count])


# Comparing --------------------------------------------------------------------------------------------------------


def tensors(value: Any) -> list[Tensor]:
    """Every tensor and array within."""
    leaves = [torch.from_numpy(v.copy()) if isinstance(v, np.ndarray) else v for v in tree_leaves(value)]
    return [v for v in leaves if isinstance(v, Tensor)]


def all_finite(value: Any) -> bool:
    """Whether no float within is NaN or infinite."""
    return all(bool(torch.isfinite(t).all()) for t in tensors(value) if t.is_floating_point())


def different(first: Any, second: Any, path: str = "") -> list[str]:
    """Places where two nested values are not equal, bit for bit."""
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        return [] if first.dtype == second.dtype and np.array_equal(first, second) else [path or "array"]
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        same = first.shape == second.shape and first.dtype == second.dtype and _equal(first, second)
        return [] if same else [path or "tensor"]
    if isinstance(first, dict) and isinstance(second, dict):
        found = [f"{path}.{k}" for k in first.keys() ^ second.keys()]
        return found + [d for k in first if k in second for d in different(first[k], second[k], f"{path}.{k}")]
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        if len(first) != len(second):
            return [f"{path}: lengths {len(first)} and {len(second)}"]
        return [d for i, (a, b) in enumerate(zip(first, second, strict=True)) for d in different(a, b, f"{path}[{i}]")]
    same = first == second or (first != first and second != second)
    return [] if bool(np.all(same)) else [f"{path}: {first!r} and {second!r}"]


def _equal(first: Tensor, second: Tensor) -> bool:
    return bool(torch.equal(first, second) or torch.equal(torch.nan_to_num(first), torch.nan_to_num(second)))


def furthest(first: Any, second: Any) -> float:
    """The largest difference relative to size, over the float tensors within (infinite when they do not match)."""
    a, b = tensors(first), tensors(second)
    if [t.shape for t in a] != [t.shape for t in b]:
        return float("inf")
    worst = 0.0
    for left, right in zip(a, b, strict=True):
        if left.numel():
            gap = (left.double() - right.double()).abs() / (1 + right.double().abs())
            worst = max(worst, float(gap.max()))
    return worst


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the state dict."""
    return {k: v.detach().clone() for k, v in model.state_dict().items()}


def run_state(trainer: Trainer) -> dict[str, Any]:
    """Everything that a resumed run must share with the uninterrupted one."""
    module: Any = trainer.lightning_module
    return {
        "state": state_of(module),
        "optimizers": [_copied(o.state_dict()) for o in trainer.optimizers],
        "schedulers": [_copied(c.scheduler.state_dict()) for c in trainer.lr_scheduler_configs],
        "metrics": {k: v.clone() for k, v in trainer.callback_metrics.items() if not k.startswith("train/")},
        "steps": trainer.global_step,
        "epoch": trainer.current_epoch,
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state(legacy=True)[1].tolist(),
    }


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {str(k): _copied(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_copied(v) for v in value]
    return value if isinstance(value, (int, float, str, bool, type(None))) else repr(type(value))


# Callbacks --------------------------------------------------------------------------------------------------------


class SaveAfter(Checkpoint):
    """Saves once, after so many training batches of the whole run; a Checkpoint, so that it comes last."""

    def __init__(self, batches: int, path: Path) -> None:
        self.left, self.path = batches, path

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.left -= 1
        if self.left == 0:
            trainer.save_checkpoint(self.path)


class Interrupted(Exception):
    """What `StopAfter` raises: nothing is tidied up, as after a kill."""


class StopAfter(Callback):
    """Dies at the start of the batch after so many."""

    def __init__(self, batches: int) -> None:
        self.left = batches

    def on_train_batch_start(self, *_: Any) -> None:
        self.left -= 1
        if self.left < 0:
            raise Interrupted


class Losses(Callback):
    """The training loss of each batch: what the step returned, or the logged `train/loss`.

    Training stops when `enough` says so of the losses so far.
    """

    def __init__(self, enough: Callable[[list[float]], bool] = lambda values: False) -> None:
        self.values: list[float] = []
        self.enough = enough

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, *_: Any) -> None:
        if isinstance(outputs, dict) and outputs.get("loss") is not None:
            self.values.append(float(outputs["loss"]))
        elif "train/loss" in trainer.callback_metrics:
            self.values.append(float(trainer.callback_metrics["train/loss"]))
        trainer.should_stop = trainer.should_stop or self.enough(self.values)


class Gradients(Callback):
    """Names of parameters that got a gradient, and of those whose gradient was not finite."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.broken: set[str] = set()

    def on_after_backward(self, trainer: Trainer, pl_module: Any) -> None:
        for name, parameter in pl_module.named_parameters():
            if parameter.grad is not None:
                self.seen.add(name)
                if not torch.isfinite(parameter.grad).all():
                    self.broken.add(name)


class Repeat:
    """One batch, given again and again as a loader."""

    def __init__(self, batch: Any, times: int) -> None:
        self.batch, self.times = batch, times

    def __len__(self) -> int:
        return self.times

    def __iter__(self) -> Iterator[Any]:
        yield from (self.batch for _ in range(self.times))


def names(values: Iterable[str], shown: int = 8) -> str:
    """The first of some names, for messages."""
    ordered: Sequence[str] = sorted(values)
    return ", ".join(ordered[:shown]) + (f", ... ({len(ordered)} in all)" if len(ordered) > shown else "")
