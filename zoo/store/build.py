"""From verified weights to a module: built with its arguments, then filled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from zoo.base.report import LoadReport
from zoo.errors import BadInput
from zoo.index.licences import notice
from zoo.store.config import build, check_arguments, check_classes, class_arguments
from zoo.store.sources import Checkpoint

if TYPE_CHECKING:
    from zoo.base import ZooModule

__all__ = ["assemble", "fill_from", "notice_of"]


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
    untrusted = None if checkpoint.trusted else checkpoint.size
    module: ZooModule = build(
        cls, wanted, weights_follow=checkpoint.state is not None, where=checkpoint.name, untrusted=untrusted
    )
    if checkpoint.state is None:
        module.report = LoadReport(checkpoint.name, source="untrained")
    else:
        fill_from(module, checkpoint, remake=check_classes(cls, checkpoint.init, wanted))
    return module.to(map_location).eval()


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
    if checkpoint.state is not None and (checkpoint.licence or checkpoint.source.startswith("hub")):
        notice(checkpoint.name, checkpoint.licence, checkpoint.data_licence)
