"""The checkpoints of a run: the last state, written whatever the validation says, and the best one by the monitor."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn

from zoo.base.resume import validation_follows
from zoo.store.checkpoint import read_checkpoint

__all__ = ["BestCheckpoint", "LastCheckpoint", "best_of", "describe", "last_of", "take_over_last", "within_step"]

LAST = "last"
"""Name of the file that holds the last state, without `.ckpt`."""


class BestCheckpoint(ModelCheckpoint):
    """Keeps the checkpoint that the monitor likes best, and in a resumed run still knows the best one from before.

    Args:
        monitor: logged key.
        mode: `min` or `max`.
    """

    def __init__(self, monitor: str, mode: str) -> None:
        super().__init__(
            filename="best-epoch{epoch:03d}", auto_insert_metric_name=False, monitor=monitor, mode=mode, save_last=False
        )
        self._resumed_from: Path | None = None

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Note which file is resumed; `load_state_dict` comes next."""
        self._resumed_from = Path(trainer.ckpt_path) if trainer.ckpt_path else None

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over scores and files of the resumed run; Lightning forgets the scores when the folder changes.

        A file counts while it exists, at its former place or beside the checkpoint that is resumed. One that is gone
        is nothing to compare with: it could not be loaded in the end.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the folder has changed is what this class is for
            super().load_state_dict(state_dict)
        self.best_k_models = {
            str(place): score for path, score in state_dict["best_k_models"].items() if (place := self._place_of(path))
        }
        self.best_model_path, self.best_model_score = "", None
        self.kth_best_model_path, self.kth_value = "", self._worst()
        if self.best_k_models:
            ranked = sorted(self.best_k_models, key=lambda path: float(self.best_k_models[path]))
            best, worst = (ranked[0], ranked[-1]) if self.mode == "min" else (ranked[-1], ranked[0])
            self.best_model_path, self.best_model_score = best, self.best_k_models[best]
            self.kth_best_model_path, self.kth_value = worst, self.best_k_models[worst]

    def _place_of(self, path: str) -> Path | None:
        beside = [self._resumed_from.with_name(Path(path).name)] if self._resumed_from else []
        return next((place for place in (Path(path), *beside) if place.is_file()), None)

    def _worst(self) -> Any:
        import torch

        return torch.tensor(float("inf") if self.mode == "min" else -float("inf"))


class LastCheckpoint(ModelCheckpoint):
    """Keeps `last.ckpt` at the last state that can be resumed exactly.

    It is written at the end of every epoch, also where nothing is validated or nothing improves. (Lightning's
    `save_last` writes only when the monitor has improved.) Before the first validation of a run it is written once
    more: a run that is stopped during a long validation then has something to resume from.

    Args:
        every_n_steps: also after so many steps of the optimiser; None: only with the epochs.
    """

    def __init__(self, every_n_steps: int | None = None) -> None:
        super().__init__(filename=LAST, save_top_k=1, enable_version_counter=False, save_on_train_epoch_end=True)
        self.every_n_steps = every_n_steps
        self.validated_at: int | None = None
        self._saved_at = 0

    def save(self, trainer: Trainer) -> None:
        """Write the state as it is now; all ranks call it together."""
        self.last_model_path = self.format_checkpoint_name({})
        self._save_checkpoint(trainer, self.last_model_path)
        self._saved_at = trainer.global_step

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count steps from here."""
        self._saved_at = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save after so many steps, and before the first validation."""
        if not _may_save(trainer) or within_step(trainer):
            return
        due = self.every_n_steps is not None and trainer.global_step - self._saved_at >= self.every_n_steps
        if due or (not self.last_model_path and validation_follows(trainer)):
            self.save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember of which epoch the values of validation are."""
        if not trainer.sanity_checking:
            self.validated_at = trainer.current_epoch + 1

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save; this comes after the validation of the epoch and after the best checkpoint."""
        if _may_save(trainer):
            self.save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing is left to save."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing: a resumed run writes its own files."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing to take over."""


def _may_save(trainer: Trainer) -> bool:
    return trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking and not trainer.fast_dev_run  # type: ignore[attr-defined]


def within_step(trainer: Trainer) -> bool:
    """Whether gradients of an unfinished step are waiting, which no checkpoint holds."""
    return trainer.lightning_module.automatic_optimization and trainer.fit_loop.epoch_loop._should_accumulate()


def take_over_last(given: list[Callback]) -> None:
    """Switch off `save_last` of checkpoint callbacks that would write the very file that `LastCheckpoint` keeps."""
    for callback in given:
        if isinstance(callback, ModelCheckpoint) and callback.save_last and callback.dirpath is None:
            callback.save_last = False


def last_of(trainer: Trainer) -> LastCheckpoint | None:
    """The callback that keeps the last state."""
    return next((c for c in trainer.checkpoint_callbacks if isinstance(c, LastCheckpoint)), None)


def best_of(trainer: Trainer) -> ModelCheckpoint | None:
    """The callback that selects by a monitor: the user's own, or ours."""
    others = [c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint) and c is not last_of(trainer)]
    return next((c for c in others if c.monitor is not None), next(iter(others), None))


def describe(path: str) -> dict[str, int]:
    """How far the training had come that a checkpoint holds, as the file itself says.

    Returns:
        `checkpoint_epoch`, the number of epochs (the last one perhaps in part), and `checkpoint_step`.
    """
    held = read_checkpoint(path, tensors=False)
    return {"checkpoint_epoch": int(held["epoch"]) + 1, "checkpoint_step": int(held["global_step"])}
