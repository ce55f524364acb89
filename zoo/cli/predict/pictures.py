"""Pictures of results, drawn and written by threads while the next inputs are computed."""

from __future__ import annotations

import inspect
import io
import os
import secrets
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli.predict.paths import MARK
from zoo.files import writing

if TYPE_CHECKING:
    from zoo.base import ZooModule

__all__ = ["Painter"]

_SMALL = 320
"""Pictures with a longer side below this are enlarged, so that what is written on them can be read."""

_THREADS = min(4, os.cpu_count() or 1)


class Painter:
    """Draws results into a folder.

    Args:
        module: whose `show` draws.
        folder: of the PNG files.
    """

    def __init__(self, module: ZooModule, folder: Path) -> None:
        self.module, self.folder = module, folder
        known = inspect.signature(module.show).parameters
        self.options: dict[str, Any] = {"longest": _SMALL} if "longest" in known else {}
        self.pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="zoo-picture")

    def draw(self, value: Any, result: dict[str, Any], name: str) -> Future[str | None]:
        """Begin to draw; the future holds the name of the file, or None if the method draws nothing."""
        return self.pool.submit(self._draw, value, result, name)

    def _draw(self, value: Any, result: dict[str, Any], name: str) -> str | None:
        try:
            picture = self.module.show(value, result, **self.options)
        except NotImplementedError:
            return None
        content = io.BytesIO()
        picture.save(content, "PNG", compress_level=1)  # a tenth of the time for a tenth more bytes
        target = self.folder / f"{name}{MARK}.png"
        partial = target.with_name(f"{target.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
        with writing(target):
            try:
                partial.write_bytes(content.getbuffer())
                os.replace(partial, target)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
        return target.name

    def close(self) -> None:
        """Wait for what was begun."""
        self.pool.shutdown(wait=True)
