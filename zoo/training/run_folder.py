"""The run folder `runs/<id>-<tag>/version_N`: loggers, checkpoints, saved config, and the last words of a run."""

from __future__ import annotations

import json
import re
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter, ModelCheckpoint, ProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from zoo.files import write_whole
from zoo.training.stages import RESULT

__all__ = [
    "BestAndLast",
    "PlainProgress",
    "PredictionFiles",
    "SaveConfig",
    "claim_folder",
    "default_callbacks",
    "default_loggers",
    "give_back",
    "last_checkpoint",
    "last_words",
    "write_result",
]

RUNS = "runs"


def _version(folder: Path) -> int:
    match = re.fullmatch(r"version_(\d+)", folder.name)
    return int(match.group(1)) if match else -1


def versions(root: Path) -> list[Path]:
    """Folders of earlier runs, oldest first."""
    folders = [p for p in root.glob("version_*") if p.is_dir() and _version(p) >= 0] if root.is_dir() else []
    return sorted(folders, key=_version)


def claim_folder(root: Path) -> Path:
    """Make the next `version_N` in one step, so that two runs started together get one each.

    Other ranks than the first only look: Lightning broadcasts the folders that are written to.
    """
    earlier = versions(root)
    if getattr(rank_zero_only, "rank", 0):
        return earlier[-1] if earlier else root / "version_0"
    number = _version(earlier[-1]) + 1 if earlier else 0
    while True:
        folder = root / f"version_{number}"
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1


def give_back(folder: Path) -> None:
    """Remove a claimed folder of a run that did not start, and the method's folder if that is empty then."""
    for place in (folder, folder.parent):
        with suppress(OSError):
            place.rmdir()


def last_checkpoint(root: Path) -> Path | None:
    """The newest `last.ckpt` among the runs in `root`."""
    checkpoints = [p for run in versions(root) for p in (run / "checkpoints").glob("last*.ckpt") if p.is_file()]
    return max(checkpoints, key=lambda p: p.stat().st_mtime) if checkpoints else None


def default_loggers(folder: Path) -> list[Logger]:
    """TensorBoard and CSV into one folder."""
    place: dict[str, Any] = {"save_dir": str(folder.parent.parent), "name": folder.parent.name}
    return [TensorBoardLogger(**place, version=folder.name), CSVLogger(**place, version=folder.name)]


def default_callbacks(
    command: str, module: LightningModule, given: list[Callback], *, checkpoints: bool, bar: bool | None
) -> list[Callback]:
    """Callbacks that recipe and flags left open.

    Args:
        command: the subcommand.
        module: its `monitor` selects the best checkpoint.
        given: callbacks of recipe and flags.
        checkpoints: whether the Trainer may save checkpoints.
        bar: whether a progress bar was asked for; None means where there is a terminal.
    """
    added: list[Callback] = []
    if command == "fit" and checkpoints and not any(isinstance(c, ModelCheckpoint) for c in given):
        key, mode = getattr(module, "monitor", ("val/loss", "min"))
        name = "best-epoch{epoch:03d}"
        added.append(BestAndLast(filename=name, auto_insert_metric_name=False, monitor=key, mode=mode, save_last=True))
    if bar is False and not any(isinstance(c, ProgressBar) for c in given):
        added.append(PlainProgress())
    return added


class BestAndLast(ModelCheckpoint):
    """A ModelCheckpoint that, when a run is resumed in a new folder, still knows the best one of the old folder."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the best checkpoint over while its file exists; Lightning forgets it when the folder changes."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the folder has changed is what this class is for
            super().load_state_dict(state_dict)
        best = state_dict.get("best_model_path")
        if not self.best_model_path and best and Path(best).is_file():
            self.best_model_path = best
            self.best_model_score = state_dict["best_model_score"]
            self.best_k_models = {k: v for k, v in state_dict["best_k_models"].items() if Path(k).is_file()}
            self.kth_best_model_path, self.kth_value = state_dict["kth_best_model_path"], state_dict["kth_value"]


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
        torch.save(held, self.folder / f"{trainer.global_rank:03d}-{batch_idx:06d}.pt")


def last_words(command: str, trainer: Trainer, name: str, saved: SaveConfig | None, prog: str) -> list[str]:
    """Lines that say where the results are and how to go on."""
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return ["fast_dev_run: every stage ran, nothing was saved."]
    lines = []
    if saved is not None and saved.path is not None:
        lines.append(f"config       {saved.path}   (run again: {prog} {command} --config {saved.path})")
    if command == "predict" and trainer.log_dir:
        lines.append(f"predictions  {Path(trainer.log_dir) / 'predictions'}   (torch.load each file)")
    callback = trainer.checkpoint_callback
    if command != "fit" or not isinstance(callback, ModelCheckpoint):
        return lines
    best, last = callback.best_model_path, callback.last_model_path
    chosen = best or last
    if last:
        lines.append(f"last         {last}   (resume: {prog} fit --zoo {name} --ckpt_path {last})")
    if best:
        score = (
            f"{callback.monitor} {float(callback.best_model_score):.4g}"
            if callback.best_model_score is not None
            else ""
        )
        lines.append(f"best         {best}   {score}".rstrip())
    if chosen:
        lines += [
            f'load it      model = zoo.load("{chosen}")',
            f"predict      zoo predict {chosen} INPUT --out results",
            f"share it     zoo push {chosen} OWNER/NAME",
        ]
    return lines


def write_result(command: str, trainer: Trainer, folder: Path | None, *, chosen_on_validation: bool) -> None:
    """Record how a finished run ended: its checkpoints and last metrics. A killed run has no such file."""
    callback = trainer.checkpoint_callback
    if folder is None or trainer.fast_dev_run or trainer.interrupted:  # type: ignore[attr-defined]
        return
    result: dict[str, Any] = {"command": command}
    if command == "fit" and isinstance(callback, ModelCheckpoint):
        best, last = callback.best_model_path or None, callback.last_model_path or None
        result |= {"checkpoint": (best or last) if chosen_on_validation else (last or best), "best": best, "last": last}
        result["monitor"] = callback.monitor
    result["epochs"], result["steps"] = trainer.current_epoch, trainer.global_step
    result["metrics"] = {k: float(v) for k, v in sorted(trainer.callback_metrics.items()) if v.numel() == 1}
    write_whole(folder / RESULT, json.dumps(result, indent=2) + "\n")


def has_terminal() -> bool:
    """Whether a person is watching."""
    return sys.stderr.isatty() and sys.stdout.isatty()
