"""Ctrl-C and SIGTERM: the step is finished, `last.ckpt` is written, and everything that was started ends with us.

Lightning takes a note of SIGTERM and breaks off wherever Ctrl-C falls; neither writes a checkpoint, and the first one
ends with exit status 0. With several ranks its handler begins a broadcast wherever the ranks happen to be.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from types import FrameType
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from zoo.federated.processes import waiting
from zoo.training.checkpoints import last_of, within_step
from zoo.training.signals import SIGNALS, Stopped, no_alarm

__all__ = ["StopOnSignal", "requested"]

GRACE = 5.0
"""Seconds that a step has to end after the first signal; what it was doing is lost then, not what came before."""

_AGAIN = 0.25
"""Seconds after which it is looked again whether the run has stopped: an exception that falls into a callback of
`os.fork` or into a destructor is swallowed by Python."""


class StopOnSignal(Callback):
    """Ends `fit` at the next moment from which it can be resumed exactly. A second signal ends it at once.

    Where a process only waits for its clients' processes, it does not wait: their round begins again on resuming.
    """

    def __init__(self) -> None:
        self.requested: int | None = None
        self._pid = os.getpid()
        self._deadline = 0.0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Install the handlers, in the process of this rank, before loaders start processes."""
        self._pid, self.requested = os.getpid(), None
        self._install()

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Install them again: the Trainer has put its own in front since."""
        self._install()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """As before the sanity check, which may be left out."""
        self._install()

    def _install(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a loader's or client's process, forked from this one
            if number == signal.SIGTERM:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return  # Ctrl-C reaches all of them; their parent ends them
        first, self.requested = self.requested is None, number
        self._deadline = time.monotonic() + GRACE
        if hasattr(signal, "setitimer"):
            signal.signal(signal.SIGALRM, self._look_again)
            signal.setitimer(signal.ITIMER_REAL, _AGAIN, _AGAIN)
        if not first or waiting():
            raise Stopped(number)
        with suppress(OSError):
            os.write(2, b"\nstopping after this step; the same signal again stops at once\n")

    def _look_again(self, number: int, frame: FrameType | None) -> None:
        """Stop now where the process only waits for its clients, or where the step has had its time."""
        if os.getpid() == self._pid and (waiting() or time.monotonic() > self._deadline):
            self._deadline = time.monotonic() + GRACE
            raise Stopped(self.requested or signal.SIGTERM)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop after an epoch; its end is saved already."""
        if number := self._agreed(trainer):
            raise Stopped(number)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and stop after a step."""
        every = 1 if trainer.strategy.root_device.type == "cpu" else trainer.log_every_n_steps  # type: ignore[attr-defined]
        if (trainer.world_size > 1 and (batch_idx + 1) % max(every, 1)) or within_step(trainer):
            return
        if number := self._agreed(trainer):
            no_alarm()
            if (newest := last_of(trainer)) is not None:
                newest.save(trainer)
            raise Stopped(number)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        """Stop in a validation, of which nothing is kept; ranks may have different numbers of batches there."""
        if trainer.world_size == 1 and self.requested is not None:
            raise Stopped(self.requested)

    def _agreed(self, trainer: Trainer) -> int:
        """The signal for which any rank is to stop, the same on all of them, since saving takes all; 0: none."""
        mine = self.requested or 0
        if trainer.world_size == 1:
            return mine
        value = torch.tensor(mine, device=trainer.strategy.root_device)
        return int(trainer.strategy.reduce(value, reduce_op="max"))  # type: ignore[arg-type]


def requested(trainer: Trainer) -> int | None:
    """The signal that asked for an end, if any."""
    return next((c.requested for c in trainer.callbacks if isinstance(c, StopOnSignal)), None)  # type: ignore[attr-defined]
