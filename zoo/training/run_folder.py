"""The run folder `runs/<id>-<tag>/version_N`: loggers, checkpoints, saved config, and the last words of a run."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter, ModelCheckpoint, ModelSummary, ProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from zoo.files import write_whole, writing
from zoo.training.checkpoints import BestCheckpoint, LastCheckpoint, best_of, describe, last_of, take_over_last
from zoo.training.display import Bar, Summary
from zoo.training.resuming import next_line
from zoo.training.stages import RESULT, number_of, run_folders
from zoo.training.stopping import StopOnSignal

__all__ = [
    "PlainProgress",
    "PredictionFiles",
    "SaveConfig",
    "claim_folder",
    "default_callbacks",
    "default_loggers",
    "give_back",
    "last_words",
    "write_result",
]


def claim_folder(root: Path) -> Path:
    """Make the next `version_N` in one step, so that two runs started together get one each.

    Other ranks than the first only look: Lightning broadcasts the folders that are written to.
    """
    earlier = run_folders(root)
    if getattr(rank_zero_only, "rank", 0):
        return earlier[-1] if earlier else root / "version_0"
    number = number_of(earlier[-1]) + 1 if earlier else 0
    while True:
        folder = root / f"version_{number}"
        with writing(folder), suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder
        number += 1


def give_back(folder: Path) -> None:
    """Remove a claimed folder of a run that did not start, and the method's folder if that is empty then."""
    for place in (folder, folder.parent):
        with suppress(OSError):
            place.rmdir()


def default_loggers(folder: Path) -> list[Logger]:
    """TensorBoard and CSV into one folder."""
    place: dict[str, Any] = {"save_dir": str(folder.parent.parent), "name": folder.parent.name}
    return [TensorBoardLogger(**place, version=folder.name), CSVLogger(**place, version=folder.name)]


def default_callbacks(
    command: str,
    module: LightningModule,
    given: list[Callback],
    *,
    checkpoints: bool,
    bar: bool | None,
    every_n_steps: int | None = None,
    summary: bool = True,
) -> list[Callback]:
    """Callbacks that recipe and flags left open.

    Args:
        command: the subcommand.
        module: its `monitor` selects the best checkpoint.
        given: callbacks of recipe and flags.
        checkpoints: whether the Trainer may save checkpoints.
        bar: whether a progress bar was asked for; None means where there is a terminal.
        every_n_steps: how often the last state is saved besides the ends of epochs.
        summary: whether the layers are listed.
    """
    added: list[Callback] = [StopOnSignal()] if command == "fit" else []
    if command == "fit" and checkpoints:
        if not any(isinstance(c, ModelCheckpoint) for c in given):
            added.append(BestCheckpoint(*getattr(module, "monitor", ("val/loss", "min"))))
        take_over_last(given)
        added.append(LastCheckpoint(every_n_steps))  # after the best one, so that it holds what that one knows
    if not any(isinstance(c, ProgressBar) for c in given):
        added.append(Bar() if bar else PlainProgress())
    if summary and not any(isinstance(c, ModelSummary) for c in given):
        added.append(Summary())
    return added


class SaveConfig(Callback):
    """Writes the resolved config into the run's folder, before the first step and never over another one.

    Args:
        dump: returns the YAML text; called when the run starts.
    """

    def __init__(self, dump: Callable[[], str]) -> None:
        self.dump = dump
        self.path: Path | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save once per run, on the first rank."""
        folder = trainer.log_dir  # broadcasts, so every rank must ask
        if self.path is not None or not trainer.is_global_zero or folder is None:
            return
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        path = place / "config.yaml"
        number = 1
        while path.exists():
            path = place / f"config_{number}.yaml"
            number += 1
        write_whole(path, self.dump())
        self.path = path


class PlainProgress(Callback):
    """One line per epoch where there is no terminal: a progress bar would flood a log file."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.validated = False

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self.started = time.monotonic()
        self.validated = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember that there are new numbers; the old ones stay in `callback_metrics`."""
        self.validated = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print epoch, metrics and seconds."""
        if not trainer.is_global_zero:
            return
        shown = []
        for key, value in sorted(trainer.callback_metrics.items()):
            old = key.startswith("val/") and not self.validated
            if not old and not key.endswith(("_step", "_epoch")) and value.numel() == 1:
                shown.append(f"{key} {float(value):.4g}")
        total = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else "?"
        seconds = time.monotonic() - self.started
        print(f"epoch {trainer.current_epoch + 1}/{total}  {'  '.join(shown)}  {seconds:.1f} s", flush=True)


class PredictionFiles(BasePredictionWriter):
    """Writes each predicted batch as `predictions/<rank>-<batch>.pt`, readable with `weights_only=True`."""

    def __init__(self) -> None:
        super().__init__("batch")
        self.folder: Path | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the folder; every rank asks, because it is broadcast."""
        if trainer.log_dir is not None:
            self.folder = Path(trainer.log_dir) / "predictions"

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Save the results together with the samples' indices."""
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        held: dict[str, Any] = {"result": prediction}
        if isinstance(batch, dict):
            held |= {key: batch[key] for key in ("index", "image_id") if key in batch}
        write_whole(self.folder / f"{trainer.global_rank:03d}-{batch_idx:06d}.pt", lambda file: torch.save(held, file))


def last_words(
    command: str, trainer: Trainer, name: str, saved: SaveConfig | None, prog: str, *, trust: bool = False
) -> list[str]:
    """Lines that say where the results are and how to go on; each command can be pasted.

    Args:
        command: the subcommand.
        trainer: which has ended.
        name: `id:tag`.
        saved: which wrote the config of the run.
        prog: how the program is called.
        trust: whether the config names classes of other packages.
    """
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return ["fast_dev_run: every stage ran, nothing was saved."]
    lines = []
    config = saved.path if saved is not None else None
    if config is not None:
        lines.append(f"config       {config}   (run again: {next_line(prog, command, config, name, trust=trust)})")
    if command == "predict" and trainer.log_dir:
        lines.append(f"predictions  {Path(trainer.log_dir) / 'predictions'}   (torch.load each file)")
    if command != "fit" or (newest := last_of(trainer)) is None:
        return lines
    callback, last = best_of(trainer), newest.last_model_path
    best = callback.best_model_path if callback is not None else ""
    chosen = best or last
    if last:
        resume = next_line(prog, "fit", config, name, last, trust=trust)
        lines.append(f"last         {last}   (resume: {resume})")
    if best and callback is not None:
        score = (
            f"{callback.monitor} {float(callback.best_model_score):.4g}"
            if callback.best_model_score is not None
            else ""
        )
        lines.append(f"best         {best}   {score}".rstrip())
    if chosen:
        quoted = shlex.quote(chosen)
        lines += [
            f"score it     {next_line(prog, 'test', config, name, chosen, trust=trust)}",
            f"load it      model = zoo.load({json.dumps(chosen, ensure_ascii=False)})",
            f"predict      zoo predict {quoted} INPUT --out results",
            f"share it     zoo push {quoted} OWNER/NAME",
        ]
    return lines


def write_result(command: str, trainer: Trainer, folder: Path | None, *, chosen_on_validation: bool) -> None:
    """Record how a finished run ended: its checkpoints and last metrics. A killed run has no such file.

    `checkpoint` is what scoring, stages and `zoo reproduce` use: the `last` one, or the `best` one if the recipe
    selects on validation; `selected` says which, `checkpoint_epoch` and `checkpoint_step` what the file says about
    itself. `epochs` and `steps` are those of the whole run; `metrics` are its last ones, those of validation as of
    epoch `validated_at`.
    """
    if folder is None or trainer.fast_dev_run or trainer.interrupted:  # type: ignore[attr-defined]
        return
    result: dict[str, Any] = {"command": command}
    if command == "fit" and (newest := last_of(trainer)) is not None:
        selector = best_of(trainer)
        best, last = (selector.best_model_path if selector else None) or None, newest.last_model_path or None
        selected = "best" if best and (chosen_on_validation or not last) else "last"
        result |= {"checkpoint": best if selected == "best" else last, "selected": selected, "best": best, "last": last}
        result |= describe(result["checkpoint"]) if result["checkpoint"] else {}
        result |= {"monitor": selector.monitor if selector else None, "validated_at": newest.validated_at}
    result["epochs"], result["steps"] = trainer.current_epoch, trainer.global_step
    result["metrics"] = {k: float(v) for k, v in sorted(trainer.callback_metrics.items()) if v.numel() == 1}
    write_whole(folder / RESULT, json.dumps(result, indent=2) + "\n")


def has_terminal() -> bool:
    """Whether a person is watching."""
    return sys.stderr.isatty() and sys.stdout.isatty()
