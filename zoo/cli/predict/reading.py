"""What files hold: one input each, or the frames of an animation, or what the method's data module reads from them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import index
from zoo.cli.predict.paths import problem_of
from zoo.errors import ZooError

if TYPE_CHECKING:
    from zoo.base import ZooModule

__all__ = ["Failure", "Item", "Reader"]


@dataclass(frozen=True)
class Item:
    """One input.

    Attributes:
        path: of its file, as the user wrote it.
        value: what `predict` takes.
        kind: what `number` counts, such as `frame`; empty if the file is one input.
        number: of the part in its file.
    """

    path: str
    value: Any
    kind: str = ""
    number: int | None = None

    @property
    def where(self) -> str:
        """How messages call it."""
        return self.path if self.number is None else f"{self.path}, {self.kind} {self.number}"


@dataclass(frozen=True)
class Failure:
    """A file, or the rest of it, that cannot be read."""

    path: str
    error: ZooError


class Reader:
    """Reads the files of a method.

    Args:
        module: the loaded method, whose task says what one input is.
    """

    def __init__(self, module: ZooModule) -> None:
        self.module = module
        entry = index.entry_of(type(module))
        self.pictures = index.TASKS[module.task or entry.task].reads == "image"
        self.data: Any = None if self.pictures else entry.data_class()

    @property
    def whole_folders(self) -> bool:
        """Whether a folder is one input."""
        return bool(getattr(self.data, "whole_folders", False))

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Endings of the files that are taken from a folder; empty for all."""
        if self.pictures:
            from zoo.inputs import images, video

            return (*images.SUFFIXES, *video.SUFFIXES)
        return tuple(getattr(self.data, "input_suffixes", ()))

    def items(self, paths: Iterable[str]) -> Iterator[Item | Failure]:
        """Inputs of all files in order, read when they are asked for."""
        for path in paths:
            try:
                if (missing := problem_of(path)) is not None:
                    raise missing
                yield from self._inside(path)
            except ZooError as error:
                yield Failure(path, error)

    def _inside(self, path: str) -> Iterator[Item]:
        file = Path(path).expanduser()
        if self.pictures:
            yield from _frames(path, file)
        elif hasattr(self.data, "read_inputs"):
            for kind, number, value in self.data.read_inputs(file, self.module):
                yield Item(path, value, kind, number)
        else:
            yield Item(path, str(file))


def _frames(path: str, file: Path) -> Iterator[Item]:
    from zoo.inputs import images, video

    if file.suffix.lower() in video.SUFFIXES:
        frames = video.read_video(file)
    elif file.suffix.lower() in images.MOVING and images.has_frames(file):
        frames = images.read_frames(file)
    else:
        yield Item(path, str(file))
        return
    for number, pixels in enumerate(frames):
        yield Item(path, pixels, "frame", number)
