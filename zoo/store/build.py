"""From verified weights to a module: built with its arguments, then filled."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lightning.pytorch.utilities.seed import isolate_rng

from zoo.base.arguments import without_downloads
from zoo.base.modes import single_precision
from zoo.base.report import LoadReport
from zoo.errors import BadInput, InvalidConfig, UnsafeFile, ZooError
from zoo.index.licences import notice
from zoo.index.rules import shown
from zoo.store.config import check_arguments, check_classes, class_arguments
from zoo.store.memory import bounded, largest_tensor
from zoo.store.sources import Checkpoint

if TYPE_CHECKING:
    from zoo.base import ZooModule

__all__ = ["assemble", "build_foreign", "check_foreign", "fill_from", "notice_of"]

_MAX_EXAMPLE = 1 << 28
_log = logging.getLogger("zoo")


@single_precision()
def assemble(
    checkpoint: Checkpoint,
    init: dict[str, Any],
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    map_location: Any = "cpu",
) -> ZooModule:
    """Build the module of verified weights and fill it."""
    cls = checkpoint.entry.model_class()
    check_arguments(cls, init, where=checkpoint.name, error=BadInput)
    classes = class_arguments(cls, checkpoint.init, num_classes, class_names, where=checkpoint.name)
    wanted = {**checkpoint.init, **init, **classes}
    if checkpoint.state is not None:
        # fetching what is overwritten a moment later would waste a download and fail without a network
        wanted |= without_downloads(cls, wanted)
    module: ZooModule
    if checkpoint.trusted:
        module = cls(**wanted)
    elif wanted == checkpoint.init:
        module = build_foreign(checkpoint)
    else:
        check_foreign(checkpoint)
        with _named(cls, checkpoint.name):
            module = cls(**wanted)  # what the user asks for has no bound
    if checkpoint.state is None:
        module.report = LoadReport(checkpoint.name, source="untrained")
    else:
        fill_from(module, checkpoint, remake=check_classes(cls, checkpoint.init, wanted))
    return module.to(map_location).eval()


def build_foreign(checkpoint: Checkpoint) -> ZooModule:
    """Build the module of a file that somebody else wrote, with its own arguments.

    Raises:
        UnsafeFile: if these ask for more memory or layers than the file's size explains.
        InvalidConfig: if the constructor refuses them.
    """
    cls = checkpoint.entry.model_class()
    with _named(cls, checkpoint.name), bounded(checkpoint.size, checkpoint.name):
        try:
            module: ZooModule = cls(**checkpoint.init)
        except BadInput as error:  # the file's mistake, not the user's
            raise InvalidConfig(f"{checkpoint.name}: {cls.__name__} cannot be built from its init: {error}") from error
        try:
            with isolate_rng(), largest_tensor(_MAX_EXAMPLE, f"{checkpoint.name}: an example of its inputs"):
                module.example_input()
        except UnsafeFile:
            raise
        except Exception:  # it may need what the weights will bring, and only its size is of interest
            return module
    return module


def check_foreign(checkpoint: Checkpoint) -> None:
    """Judge the arguments of a file by building its module, which is thrown away; random numbers are left alone.

    Raises:
        UnsafeFile: if these ask for more memory or layers than the file's size explains.
        InvalidConfig: if the constructor refuses them.
    """
    if not checkpoint.trusted:
        with isolate_rng():
            build_foreign(checkpoint)


@contextmanager
def _named(cls: type, where: str) -> Iterator[None]:
    """Turn what a constructor raises for unchecked arguments into one error."""
    try:
        yield
    except ZooError:
        raise
    except (TypeError, ValueError, LookupError, ArithmeticError, RuntimeError, AttributeError, AssertionError,
            MemoryError, OSError) as error:  # fmt: skip
        text = " ".join(str(error).split())[:300]
        raise InvalidConfig(f"{where}: {cls.__name__} cannot be built from its init values: {text}") from error


def fill_from(module: ZooModule, checkpoint: Checkpoint, *, remake: bool) -> LoadReport:
    """Fill a module with verified weights.

    Args:
        module: of the same method.
        checkpoint: the weights.
        remake: keep the head of the module.

    Raises:
        KeyMismatch: (ShapeMismatch) if they do not fit; the module is unchanged.
    """
    from zoo.store.fill import fill

    report = LoadReport(checkpoint.name, source=checkpoint.source, sha256=checkpoint.sha256, pinned=checkpoint.pinned)
    fill(module, checkpoint.state or {}, report, remake=remake)
    module.report = report
    module.parent = checkpoint.parent
    return report


def notice_of(checkpoint: Checkpoint) -> None:
    """Say once which licence restricts the weights; nothing is said of local files without a licence."""
    for name, value in checkpoint.left_out.items():
        _log.warning(
            "%s: its %s %s is not used: whose network that is, only you can know. If you want it, give it yourself: "
            "zoo.load(..., %s=...), --model.%s ...",
            *(checkpoint.name, name, shown(value), name, name),
        )
    if checkpoint.state is not None and (checkpoint.licence or checkpoint.source.startswith("hub")):
        notice(checkpoint.name, checkpoint.licence, checkpoint.data_licence)
