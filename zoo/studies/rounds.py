"""A federated run in this process, for studies that need several of them."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["Run", "run_rounds"]


@dataclass
class Run:
    """What a run left.

    Attributes:
        model: after the last round.
        data: its data module.
        accuracy: on the test images after the last round.
        validation: accuracy on the validation images after each round.
    """

    model: Any
    data: Any
    accuracy: float
    validation: list[float]

    @property
    def curve(self) -> list[tuple[float, float]]:
        """Points (round, validation accuracy)."""
        return [(float(number), value) for number, value in enumerate(self.validation, 1)]


def run_rounds(model: Any, data: Any, rounds: int, *, test: bool = True) -> Run:
    """Train `model` on the clients of `data`, validating after each round.

    Args:
        model: a federated method that logs `val/accuracy` and `test/accuracy`, untrained.
        data: a data module with clients.
        rounds: how many.
        test: whether to look at the test images in the end.
    """
    from lightning import Callback, Trainer

    validation: list[float] = []

    class Curve(Callback):
        def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
            validation.append(float(trainer.callback_metrics["val/accuracy"]))

    with _quiet(), tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            max_epochs=rounds,
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            default_root_dir=folder,
            callbacks=[Curve()],
        )
        trainer.fit(model, data)
        accuracy = trainer.test(model, data, verbose=False)[0]["test/accuracy"] if test else float("nan")
    return Run(model, data, float(accuracy), validation)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's words about devices and loaders, once per run."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
