"""Where results go while they come: lines or JSON on standard output, and pictures and files in a folder."""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Any

from zoo.cli.predict.files import Growing
from zoo.cli.predict.paths import MARK, Names, beside_inputs
from zoo.cli.predict.pictures import Painter
from zoo.cli.predict.reading import Item
from zoo.cli.predict.results import plain, summary
from zoo.cli.predict.saves import Answer, Save, make_saves
from zoo.errors import ZooError
from zoo.text import printable

if TYPE_CHECKING:
    from zoo.base import ZooModule

__all__ = ["Outputs"]

_AHEAD = 2
"""Batches that may wait for their pictures while the next one is computed."""


class Outputs:
    """Everything that is written about results, in the order of the inputs.

    Args:
        module: the method.
        paths: of all inputs.
        folder: of pictures and files; None to print only.
        as_json: print JSON, not lines.
        pictures: whether to draw.
        saves: further formats; see `zoo.cli.predict.saves`.
    """

    def __init__(
        self,
        module: ZooModule,
        paths: Sequence[str],
        folder: Path | None,
        *,
        as_json: bool = False,
        pictures: bool = True,
        saves: Sequence[str] = (),
    ) -> None:
        self.folder, self.as_json = folder, as_json
        self.names = Names(paths)
        self.count = 0
        self._waiting: deque[list[tuple[Answer, Future[str | None] | None]]] = deque()
        self._painter = Painter(module, folder) if folder is not None and pictures else None
        self._files: list[Save] = make_saves(saves, module, folder, paths) if folder is not None else []
        self._rows = (
            Growing(beside_inputs(folder / "results.json", paths), "[\n", "\n]\n", ",\n")
            if folder is not None
            else None
        )

    def add(self, answers: Sequence[tuple[Item, dict[str, Any]]]) -> None:
        """Take results of one batch; those of earlier ones are written."""
        batch: list[tuple[Answer, Future[str | None] | None]] = []
        for item, result in answers:
            name = self.names.of(item.path, item.number)
            part = {} if item.number is None else {item.kind: item.number}
            values = {key: plain(value, self.folder, f"{name}{MARK}-{key}") for key, value in result.items()}
            answer = Answer(item, name, result, {"input": item.path, **part, **values})
            batch.append((answer, self._painter.draw(item.value, result, name) if self._painter else None))
        self._waiting.append(batch)
        while len(self._waiting) > (_AHEAD if self._painter else 0):
            self._write(self._waiting.popleft())

    def _write(self, batch: list[tuple[Answer, Future[str | None] | None]]) -> None:
        for answer, drawing in batch:
            picture = drawing.result() if drawing is not None else None
            if picture is not None:
                answer.row["picture"] = picture
        answers = [answer for answer, _ in batch]
        if not answers:
            return
        texts = [indent(json.dumps(a.row, indent=2, ensure_ascii=False), "  ") for a in answers]
        if self._rows is not None:
            self._rows.add(texts)
        for file in self._files:
            file.add(answers)
        if self.as_json:
            print(",\n" if self.count else "[\n", ",\n".join(texts), sep="", end="")
        else:
            print("".join(f"{printable(f'{a.item.where}: {summary(a.row)}')}\n" for a in answers), end="")
        sys.stdout.flush()
        self.count += len(answers)

    def close(self, *, whole: bool) -> None:
        """Write what waits, and end all files.

        Args:
            whole: whether all went well; else errors of what waits are left out, since another one is reported.
        """
        try:
            while self._waiting:
                self._write(self._waiting.popleft())
        except (ZooError, OSError):
            if whole:
                raise
        finally:
            if self._painter is not None:
                self._painter.close()
            if self.as_json and (self.count or whole):
                print("\n]" if self.count else "[]")
            if self._rows is not None and (self.count or whole):
                self._rows.close()
                for file in self._files:
                    file.close()
