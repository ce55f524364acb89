"""A loss or weights that are no longer finite end a run, and the step that made them so is kept in a file.

Everything after such a step is lost: weights, averaged weights, and the next checkpoint. The file ("capsule") is a
checkpoint of the state before the step together with its batch, from which `zoo replay` does the step again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor
from torch.utils._pytree import tree_map

from zoo.errors import NotFinite, ZooError
from zoo.files import write_whole
from zoo.training.before import Before
from zoo.training.checkpoints import last_of, within_step
from zoo.training.state_tensors import StateTensors

__all__ = ["CAPSULE", "StopOnNonFinite", "fingerprints", "loss_of"]

CAPSULE = "capsule"
"""Key of a checkpoint that holds a step."""

_GOOD = torch.zeros(2, dtype=torch.int32)
_PATIENCE = 10
"""Steps in a row whose loss may be infinite where 16-bit gradients are scaled: the scale is lowered for them."""


class _Look(NamedTuple):
    """What was seen after a step, perhaps still on its way from the device."""

    before: Before
    loss: Tensor | None
    bad: Tensor
    ready: Any


class StopOnNonFinite(Callback):
    """Ends `fit` after a step whose loss, gradients or weights hold NaN or infinity.

    On a CPU it looks after each step. On other devices the answer is read one step later, so that nothing waits for
    it, but always before a checkpoint is written: none ever holds such a state. Values that are not finite when
    training starts may stay so. It belongs in front of the other callbacks.

    Args:
        config: returns the run's config as YAML, with which the step can be repeated; None: without that.
        keep: whether to write the step into the run's folder.
    """

    def __init__(self, config: Callable[[], str] | None = None, *, keep: bool = True) -> None:
        self.config, self.keep = config, keep
        self.path: Path | None = None
        self._active = self._quick = False
        self._exempt: set[str] = set()
        self._state: StateTensors | None = None
        self._names: list[str] = []
        self._numbers: list[int] = []  # of those that are looked at
        self._slots: list[Before] = []
        self._waiting: _Look | None = None
        self._filling: Before | None = None
        self._losses = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Get ready, and note what is not finite already."""
        self._active = isinstance(trainer.strategy, (SingleDeviceStrategy, DDPStrategy))
        self._quick = trainer.strategy.root_device.type == "cpu"
        self._slots = [Before()] if self._quick else [Before(), Before()]
        self._waiting, self._losses = None, 0
        self._exempt = set(_not_finite(_values(pl_module)))
        self._state, self._names = StateTensors(pl_module), []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Copy the state before the step."""
        if self._active and self._state is not None:
            self._slots.append(self._slots.pop(0))
            self._slots[-1].take(trainer, pl_module, self._state, batch, batch_idx)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at the step, or at the one before."""
        if not self._active:
            return
        self._settle(trainer, pl_module)
        self._waiting = self._look(trainer, pl_module, loss_of(outputs))
        if self._quick:
            self._settle(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the last step before anything else is done."""
        self._settle(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep a state that is not finite out of checkpoints."""
        if self._filling is not None:
            self._filling.fill(checkpoint, trainer)
        else:
            self._settle(trainer, pl_module)

    def on_step_refused(self, trainer: Trainer, pl_module: LightningModule, error: NotFinite) -> None:
        """Keep the step also where a rule refuses to go on with what clients have sent."""
        if self._active and (trainer.world_size == 1 or error.of_all_ranks):
            self._write(trainer, pl_module, self._slots[-1], {"error": str(error)}, say=True)

    # Looking ------------------------------------------------------------------------------------------------------

    def _look(self, trainer: Trainer, module: LightningModule, loss: Tensor | None) -> _Look:
        device = trainer.strategy.root_device
        with torch.no_grad():
            values = self._looked_at(trainer, module)
            sizes = [torch.linalg.vector_norm(loss.detach())] if loss is not None else []
            sizes += torch._foreach_norm(values) if values else []
            if not self._quick:
                sizes = [size.to(device, torch.float32, non_blocking=True) for size in sizes]
            finite = torch.stack(sizes).isfinite() if sizes else torch.ones(0, dtype=torch.bool, device=device)
            if self._quick and trainer.world_size == 1 and bool(finite.all()):
                return _Look(self._slots[-1], loss, _GOOD, None)
            parts = (finite[:1], finite[1:]) if loss is not None else (finite[:0], finite)
            bad = torch.stack([~part.all() for part in parts]).to(torch.int32)
            if trainer.world_size > 1:
                dist.all_reduce(bad, dist.ReduceOp.MAX)
        ready = None
        if device.type == "cuda":
            bad = bad.to("cpu", non_blocking=True)  # into pinned memory
            ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
            ready.record()
        return _Look(self._slots[-1], loss, bad, ready)

    def _looked_at(self, trainer: Trainer, module: LightningModule) -> list[Tensor]:
        """What a step has changed: the state, or gradients that are still being summed."""
        if within_step(trainer):
            return list(_values(module, gradients=True, without=self._exempt).values())
        names, tensors = self._state.get() if self._state is not None else ([], [])
        if names is not self._names:
            wanted = [v.is_floating_point() and v.numel() > 0 for v in tensors]
            self._names = names
            self._numbers = [i for i, name in enumerate(names) if wanted[i] and name not in self._exempt]
        return [tensors[i] for i in self._numbers]

    def _settle(self, trainer: Trainer, module: LightningModule) -> None:
        """Read what was seen; the same on all ranks."""
        if (look := self._waiting) is None:
            return
        self._waiting = None
        if look.ready is not None:
            look.ready.synchronize()
        bad_loss, bad_values = map(bool, look.bad.tolist())
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            self._losses = self._losses + 1 if bad_loss else 0
            bad_loss = self._losses >= _PATIENCE
        if not (bad_loss or bad_values):
            return
        newest = look.before is self._slots[-1]
        after = _values(module) if newest else self._slots[-1].weights
        names = [name for name in _not_finite(after) if name not in self._exempt]
        if newest and within_step(trainer):
            names += [f"{name} (gradient)" for name in _not_finite(_values(module, gradients=True))]
        problems = module.gather([names, _loss_problem(look.loss), _batch_problems(look.before.batch)])  # type: ignore[operator]
        names = list(dict.fromkeys(name for part in problems for name in part[0]))
        losses = [part[1] for part in problems if part[1]]
        if not names and not losses:
            return  # large numbers, whose squares were too large
        held = {"loss": _number(look.loss), "after": fingerprints(after)}
        note = self._write(trainer, module, look.before, held)
        raise NotFinite(_message(trainer, look.before, names, losses, [t for p in problems for t in p[2]]) + note)

    # Keeping ------------------------------------------------------------------------------------------------------

    def _write(
        self, trainer: Trainer, module: LightningModule, before: Before, held: dict[str, Any], *, say: bool = False
    ) -> str:
        """Write the capsule on the first rank; all call it together. Returns what there is to say about it."""
        if not self.keep or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return ""
        batch, plain = tree_map(_to_cpu, before.batch), _is_plain(before.batch)
        mine = {"rng": before.random, "collected": before.collected, "gradients": before.gradients, **held}
        ranks = module.gather({**mine, "batch": batch if plain else None})  # type: ignore[operator]
        self._filling = before
        try:
            with before.counters_back(trainer):
                checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
        finally:
            self._filling = None
        folder = Path(trainer.log_dir or trainer.default_root_dir)
        checkpoint |= before.own
        checkpoint["loops"]["fit_loop"]["state_dict"].pop("combined_loader", None)  # it is one batch ahead
        checkpoint["zoo"]["ranks"] = [{"rng": r["rng"], "collected": r["collected"] or {}} for r in ranks]
        checkpoint[CAPSULE] = {
            "batches": int(trainer.num_training_batches),
            "batch_idx": before.batch_idx,
            "threads": torch.get_num_threads(),
            "config": self.config() if self.config is not None else None,
            "complete": before.collected is not None and plain,
            "ranks": [{key: value for key, value in r.items() if key != "collected"} for r in ranks],
        }
        self.path = folder / f"nonfinite-epoch{checkpoint['epoch']:03d}-batch{before.batch_idx:06d}.ckpt"
        note = f" The step is kept in {self.path}: zoo replay {self.path} does it again and says where it begins."
        if trainer.is_global_zero:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                write_whole(self.path, lambda file: torch.save(checkpoint, file))
            except (ZooError, OSError) as error:
                note = f" The step could not be kept: {error}"
            if say:
                print(note.strip(), flush=True)
        trainer.strategy.barrier()  # the first of several ranks that ends takes the others with it
        return note


def loss_of(outputs: Any) -> Tensor | None:
    """The loss that a training step returned."""
    value = outputs.get("loss") if isinstance(outputs, dict) else outputs
    return value if isinstance(value, Tensor) and value.is_floating_point() else None


def fingerprints(values: dict[str, Tensor]) -> dict[str, str]:
    """A hash of each tensor's bytes, where every NaN counts as the same one."""
    digests = {}
    for name, value in values.items():
        value = value.detach().cpu().contiguous().reshape(-1)
        if value.is_floating_point():
            value = torch.where(value.isnan(), torch.full_like(value, math.nan), value)
        digests[name] = sha256(value.view(torch.uint8).numpy().tobytes()).hexdigest()[:16]
    return digests


def _values(module: LightningModule, *, gradients: bool = False, without: set[str] | None = None) -> dict[str, Tensor]:
    """Floating-point tensors of a module's state, or its gradients."""
    entries: Iterator[tuple[str, Any]] = iter(module.state_dict(keep_vars=True).items())
    if gradients:
        entries = ((name, parameter.grad) for name, parameter in module.named_parameters())
    return {
        name: value.detach()
        for name, value in entries
        if isinstance(value, Tensor) and value.is_floating_point() and value.numel() and name not in (without or ())
    }


def _not_finite(values: dict[str, Tensor]) -> list[str]:
    return [n for n, v in values.items() if v.is_floating_point() and v.numel() and not bool(v.isfinite().all())]


def _number(loss: Tensor | None) -> float | None:
    return float(loss.detach().double().sum()) if loss is not None else None


def _loss_problem(loss: Tensor | None) -> str:
    value = _number(loss)
    return f"{value:g}" if value is not None and not math.isfinite(value) else ""


def _batch_problems(batch: Any) -> list[str]:
    """Where a batch holds values that are not finite, as `'x' of sample 17`; for batches that are dicts."""
    if not isinstance(batch, dict):
        return []
    places = []
    for key, value in batch.items():
        if not isinstance(value, Tensor) or not value.is_floating_point() or bool(value.isfinite().all()):
            continue
        rows = (~value.isfinite()).reshape(len(value), -1).any(1) if value.dim() else torch.ones(1, dtype=torch.bool)
        row, index = int(rows.nonzero()[0]), batch.get("index")
        known = value.dim() and isinstance(index, (Tensor, list)) and len(index) == len(value)
        places.append(f"{key!r} of sample {int(index[row])}" if known and index is not None else repr(key))
    return places


def _message(trainer: Trainer, before: Before, names: list[str], losses: list[str], batch: list[str]) -> str:
    what = [f"the loss is {losses[0]}"] if losses else []
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        what.append(f"{names[0]}{more} hold{'' if more else 's'} NaN or infinity")
    text = f"Epoch {trainer.current_epoch + 1}, batch {before.batch_idx + 1}: {' and '.join(what)}. Training stopped"
    kept = last_of(trainer)
    text += f"; {kept.last_model_path} is the last finite state." if kept and kept.last_model_path else "."
    if batch:
        return f"{text} The batch holds NaN or infinity in {', '.join(batch[:3])}: look at these data first."
    return f"{text} Lower the learning rate, or clip gradients (--trainer.gradient_clip_val 1)."


def _to_cpu(value: Any) -> Any:
    return value.cpu() if isinstance(value, Tensor) else value


def _is_plain(value: Any) -> bool:
    """Whether a checkpoint that executes nothing can hold a value."""
    if isinstance(value, dict):
        return all(isinstance(k, (str, int)) and _is_plain(v) for k, v in value.items())
    if type(value) in (list, tuple):
        return all(map(_is_plain, value))
    return value is None or type(value) in (str, int, float, bool, Tensor)
