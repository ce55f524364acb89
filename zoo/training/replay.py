"""`zoo replay`: do a step again that a run has kept because its result was not finite, bit for bit."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from zoo.base.ranks import rank
from zoo.base.resume import set_random_state
from zoo.errors import BadInput, NotFinite, ZooError
from zoo.files import temporary
from zoo.index import resolve
from zoo.store.checkpoint import read_checkpoint
from zoo.training import consent
from zoo.training.lightning_cli import ZooCLI
from zoo.training.nonfinite import CAPSULE, fingerprints, loss_of
from zoo.training.request import read_request

__all__ = ["Differs", "Replayed", "replay"]


class Replayed(ZooError):
    """A step was done again, with the same result; the message says where it stopped being finite."""


class Differs(ZooError):
    """A step was done again, with another result."""


def replay(path: str | Path, flags: Sequence[str] = (), *, prog: str = "zoo replay") -> None:
    """Do the step of a capsule again.

    Args:
        path: of the capsule, as the error of the run names it.
        flags: of `zoo train`, where something has changed since, such as `--data.root`.
        prog: how errors call the program.

    Raises:
        Replayed: always in the end, if the result is the same.
        Differs: if it is another one.
        BadInput: if the file holds no step, or not all of it.
    """
    capsule = read_checkpoint(path).get(CAPSULE)
    if not isinstance(capsule, dict):
        raise BadInput(f"{path} holds no step: give a file that a run has written when its loss was not finite.")
    if not capsule["complete"] or capsule["config"] is None:
        what = "was written without the config of `zoo train`" if capsule["complete"] else "holds only part of the step"
        raise BadInput(f"{path} {what}, so that the step cannot be done again. Its batch is under {CAPSULE!r}.")
    torch.set_num_threads(capsule["threads"])
    with temporary("zoo-replay-") as place, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*but have no `val_dataloader`")
        config = place / "config.yaml"
        config.write_text(capsule["config"], encoding="utf-8")
        words = ["fit", "--config", str(config), "--ckpt_path", str(path), *flags]
        request = read_request(words)
        entry, tag = resolve(str(request.zoo))
        consent.ask(request, entry.tag(tag) if tag else entry)  # the file may be a stranger's
        _ReplayCLI(request, entry.tag(tag) if tag else entry, tag, prog, capsule=capsule, place=place)


class _ReplayCLI(ZooCLI):
    """The command line of training with one batch, without folders and checkpoints."""

    repeats_steps = True

    def __init__(self, *args: Any, capsule: dict[str, Any], place: Path) -> None:
        self.capsule, self.place = capsule, place
        super().__init__(*args)

    def instantiate_classes(self) -> None:
        """The batch takes the place of the data."""
        super().instantiate_classes()
        self.datamodule = _OneBatch(self.datamodule, self.capsule)

    def _data_facts(self) -> dict[str, Any]:
        return {}

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        given = config.get("callbacks") or []
        given = [*(given if isinstance(given, list) else [given]), *callbacks]
        kept = [callback for callback in given if not isinstance(callback, ModelCheckpoint)]
        off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
        config |= dict.fromkeys(off, False) | {"default_root_dir": str(self.place), "num_sanity_val_steps": 0}
        config |= {"limit_train_batches": None, "limit_val_batches": 0, "max_time": None}
        return self.trainer_class(**{**config, "callbacks": [_Compare(self.capsule), *kept]})


class _OneBatch(LightningDataModule):
    """The batch of this rank, as often as the epoch had batches; anything else is asked of the run's data module.

    Args:
        real: the run's data module, which is only set up when it is needed (clients' data).
        capsule: of the run.
    """

    def __init__(self, real: Any, capsule: dict[str, Any]) -> None:
        super().__init__()
        self._real, self._capsule, self._ready = real, capsule, False

    def train_dataloader(self) -> _Again:
        """The batch, again and again."""
        ranks = self._capsule["ranks"]
        if rank() >= len(ranks):
            raise BadInput(f"The run had {len(ranks)} ranks, here are more: give the same --trainer.devices.")
        return _Again(ranks[rank()]["batch"], self._capsule["batches"])

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """The batch has been through this hook of the run."""
        return batch

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """The batch has been through this hook of the run."""
        return batch

    def facts(self) -> dict[str, Any]:
        """Nothing to compare the model with."""
        return {}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if not self._ready:
            self._ready = True
            self._real.trainer = self.trainer
            self._real.prepare_data()
            self._real.setup("fit")
        return getattr(self._real, name)


class _Again:
    def __init__(self, batch: Any, length: int) -> None:
        self.batch, self.length = batch, length

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield self.batch

    def state_dict(self) -> dict[str, int]:
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        pass


class _Compare(Callback):
    """Sets random states and gradients as they were, and compares what comes out."""

    def __init__(self, capsule: dict[str, Any]) -> None:
        self.capsule = capsule
        self.first = ""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ranks cannot be more or less."""
        if trainer.world_size != len(self.capsule["ranks"]):
            raise BadInput(
                f"The run had {len(self.capsule['ranks'])} ranks, here are {trainer.world_size}: give the same "
                "--trainer.devices and --trainer.strategy."
            )

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Put the state of this rank back that no checkpoint holds."""
        mine = self.capsule["ranks"][trainer.global_rank]
        for name, parameter in pl_module.named_parameters():
            if name in mine["gradients"]:
                parameter.grad = mine["gradients"][name].to(parameter.device, copy=True)
        for name, part in pl_module.named_modules():
            part.register_forward_hook(partial(self._watch, name))
        pl_module._resume = {}  # type: ignore[assignment]
        set_random_state(mine["rng"])

    def _watch(self, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        if self.first:
            return
        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor) and leaf.is_floating_point() and not bool(leaf.isfinite().all()):
                self.first = f"the output of {name or 'the module'} ({type(module).__name__})"
                return

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Compare loss and weights with those of the run."""
        mine = self.capsule["ranks"][trainer.global_rank]
        loss = loss_of(outputs)
        number = float(loss.detach().double().sum()) if loss is not None else None
        state = {k: v for k, v in pl_module.state_dict().items() if isinstance(v, Tensor) and v.is_floating_point()}
        digests, before = fingerprints({k: v for k, v in state.items() if v.numel()}), mine.get("after")
        if before is None:
            raise Differs(f"The run ended in this step with: {mine.get('error')} Now the step was finished.")
        other = [name for name, value in before.items() if digests.get(name) != value]
        if repr(number) != repr(mine["loss"]) or other:
            raise Differs(
                f"Another result: the loss is {number}, it was {mine['loss']}; {len(other)} of {len(before)} tensors "
                f"differ{': ' + other[0] if other else ''}. Versions, threads and device must be those of the run."
            )
        bad = [name for name, value in state.items() if not bool(value.isfinite().all())]
        self._finish(f"the loss is {number}, {len(bad)} of {len(state)} tensors are not finite afterwards")

    def on_step_refused(self, trainer: Trainer, pl_module: LightningModule, error: NotFinite) -> None:
        """Compare the refusal of a rule."""
        before = self.capsule["ranks"][trainer.global_rank].get("error")
        if before != str(error):
            raise Differs(f"Now the step ends with: {error} In the run it was: {before}") from error
        self._finish(str(error))

    def _finish(self, text: str) -> None:
        first = f"; not finite first: {self.first}" if self.first else ""
        raise Replayed(f"The same, bit for bit: {text}{first}")
