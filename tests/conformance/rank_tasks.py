"""What the two ranks of the pool do. Arguments and answers are plain values; models are found by their index name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning import Callback
from torch import Tensor

from conformance.support import data_of, different, model_of, state_of, trainer_of, variants
from zoo.index import Entry

STEPS = 3


def entry_of(name: str) -> Entry:
    """The entry behind a test's parameter."""
    return dict(variants())[name]


def ddp(folder: str, strategy: str = "ddp", **options: Any) -> Any:
    """A trainer on two ranks."""
    callbacks = options.pop("callbacks", [])
    return trainer_of(Path(folder), *callbacks, strategy=strategy, devices=2, **options)


def plain(values: dict[str, Tensor]) -> dict[str, float]:
    """Logged values as numbers."""
    return {k: float(v) for k, v in values.items()}


def score(name: str, folder: str, weights: str) -> dict[str, Any]:
    """Validate and test fixed weights, each rank on its own share; the ranks have unequal numbers of batches."""
    entry = entry_of(name)
    model, data = model_of(entry), data_of(entry, batch_size=1)
    model.load_state_dict(torch.load(weights, weights_only=True))
    found: dict[str, float] = {}
    sizes = []
    for stage in ("validate", "test"):
        trainer = ddp(folder)
        getattr(trainer, stage)(model, data, verbose=False)
        found |= plain(trainer.callback_metrics)
        sizes.append(len((trainer.val_dataloaders if stage == "validate" else trainer.test_dataloaders).sampler))
    return {"metrics": found, "sizes": sizes}


def train(name: str, folder: str, strategy: str, batch_size: int, quiet: bool) -> dict[str, Any]:
    """A few steps (one round, for methods that learn per pass); returns the weights.

    Args:
        name: test parameter.
        folder: for the trainer's files.
        strategy: of the trainer.
        batch_size: per rank.
        quiet: switch off dropout and the like, whose numbers are drawn per rank.
    """
    entry = entry_of(name)
    model, data = model_of(entry), data_of(entry, batch_size=batch_size)
    callbacks: list[Callback] = [StillDropout()] if quiet else []
    limits: dict[str, Any] = {} if getattr(model, "every_sample", False) else {"max_steps": STEPS, "max_epochs": -1}
    trainer = ddp(folder, strategy, callbacks=callbacks, limit_val_batches=0, **limits)
    trainer.fit(model, data)
    return {"state": {k: v.numpy() for k, v in state_of(model).items()}, "steps": trainer.global_step}


class StillDropout(Callback):
    """Dropout without dropping: its random numbers depend on the rank."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        for module in pl_module.modules():
            if isinstance(module, torch.nn.modules.dropout._DropoutNd):
                module.p = 0.0


def resume(name: str, folder: str, stop: int) -> list[str]:
    """Interrupt in the middle of an epoch and go on; return what differs from the uninterrupted run on this rank."""
    from conformance.support import SaveAfter, run_state

    entry = entry_of(name)
    path = Path(folder) / "middle.ckpt"
    options = {"max_epochs": 2, "limit_val_batches": 0}
    whole = ddp(folder, callbacks=[SaveAfter(stop, path)], **options)
    whole.fit(model_of(entry), data_of(entry))
    expected = run_state(whole)
    again = ddp(folder, **options)
    again.fit(model_of(entry, seed=9), data_of(entry), ckpt_path=str(path), weights_only=True)
    return different(expected, run_state(again))


def predict(name: str, folder: str) -> list[int]:
    """Indices of the samples that this rank predicts."""
    entry = entry_of(name)
    model, data = model_of(entry), data_of(entry)

    class Seen(Callback):
        def __init__(self) -> None:
            self.index: list[int] = []

        def on_predict_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, *_: Any) -> None:
            self.index += batch["index"].tolist()

    seen = Seen()
    ddp(folder, callbacks=[seen]).predict(model, data, return_predictions=False)
    return seen.index


def too_few(name: str, folder: str) -> str:
    """The message when a split has fewer samples than there are ranks."""
    from zoo.errors import TooFewSamples

    entry = entry_of(name)
    model, data = model_of(entry), data_of(entry)
    data._datasets["val"] = torch.utils.data.Subset(data.split("val"), [0])
    try:
        ddp(folder).validate(model, data, verbose=False)
    except TooFewSamples as error:
        return str(error)
    return "no error"
