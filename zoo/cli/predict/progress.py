"""A bar on a terminal, and nothing elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["progress"]


@contextmanager
def progress(total: int) -> Iterator[Callable[[int], None]]:
    """Show how many of `total` files are done, where standard error is a terminal and there are several.

    Yields:
        A function that is called with the number of files done.
    """
    if total < 2 or not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("predict"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # lines of results go above the bar; into a file or a pipe they go as they are
    redirect = sys.stdout.isatty()
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=redirect) as bar:
        task = bar.add_task("predict", total=total)
        yield lambda done: bar.update(task, completed=done)
