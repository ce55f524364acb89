"""Memory of one call, as the operating system counts it: tracemalloc does not see tensors, images or libraries."""

from __future__ import annotations

import gc
import multiprocessing
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def _status(key: str) -> int:
    """A line of /proc/self/status in bytes."""
    found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found.group(1)) * 1024


def _measure(run: Callable[[], Any], queue: Any) -> None:
    try:
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak of the parent
        before = _status("VmRSS")
        run()
        queue.put(_status("VmHWM") - before)
    except BaseException as error:
        queue.put(f"{type(error).__name__}: {error}")


def grown(run: Callable[[], Any]) -> int:
    """Bytes by which the peak of a forked process rises while it runs a function."""
    if sys.platform != "linux":
        pytest.skip("needs /proc")
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=_measure, args=(run, queue))
    process.start()
    found = queue.get(timeout=120)
    process.join()
    assert isinstance(found, int), found
    return found
