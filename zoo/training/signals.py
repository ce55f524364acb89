"""Signals that end a run: their exit codes, and handlers for a while. Nothing here imports torch."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["SIGNALS", "Stopped", "code_of", "handlers_kept", "no_alarm"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Those that end a run in order."""


class Stopped(SystemExit):
    """A run was stopped by a signal; the exit code is 128 and its number, as shells count.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


def code_of(end: BaseException) -> int | None:
    """The exit code that an exception stands for; None if it is an error.

    Args:
        end: what a run was left by.
    """
    if isinstance(end, KeyboardInterrupt) or isinstance(end.__context__, KeyboardInterrupt):
        return 128 + signal.SIGINT  # Lightning ends with 1 after Ctrl-C
    if isinstance(end, SystemExit):
        if type(end).__name__ == "SIGTERMException":  # Lightning's, without a code
            return 128 + signal.SIGTERM
        return end.code if isinstance(end.code, int) else (0 if end.code is None else 1)
    if type(end).__name__ == "ProcessExitedException":  # of a forked rank
        code = int(getattr(end, "exit_code", 1))
        code = 128 - code if code < 0 else code
        return code if code in (128 + signal.SIGINT, 128 + signal.SIGTERM) else None
    return None


def no_alarm() -> None:
    """Take back an alarm that is set."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, 0)


@contextmanager
def handlers_kept() -> Iterator[bool]:
    """Put the signal handlers back afterwards that were installed before.

    Yields:
        Whether handlers may be installed at all: only the main thread can.
    """
    if threading.current_thread() is not threading.main_thread():
        yield False
        return
    numbers = [*SIGNALS, *([signal.SIGALRM] if sys.platform != "win32" else [])]
    former = {number: signal.getsignal(number) for number in numbers}
    try:
        yield True
    finally:
        no_alarm()
        for number, handler in former.items():
            if handler is not None:
                signal.signal(number, handler)
