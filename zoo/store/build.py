"""From verified weights to a module: built with its arguments, then filled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from zoo.base.report import LoadReport
from zoo.errors import BadInput
from zoo.index.licences import notice
from zoo.store.config import build, check_arguments, check_classes, class_arguments
from zoo.store.sources import Found

if TYPE_CHECKING:
    from zoo.base import ZooModule

__all__ = ["assemble", "fill_from", "notice_of"]


def assemble(
    found: Found,
    init: dict[str, Any],
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    map_location: Any = "cpu",
) -> ZooModule:
    """Build the module of verified weights and fill it."""
    cls = found.entry.model_class()
    check_arguments(cls, init, where=found.name, error=BadInput)
    classes = class_arguments(cls, found.init, num_classes, class_names, where=found.name)
    wanted = {**found.init, **init, **classes}
    untrusted = None if found.trusted else found.size
    module: ZooModule = build(
        cls, wanted, weights_follow=found.state is not None, where=found.name, untrusted=untrusted
    )
    if found.state is None:
        module.report = LoadReport(found.name, source="untrained")
    else:
        fill_from(module, found, remake=check_classes(cls, found.init, wanted))
    return module.to(map_location).eval()


def fill_from(module: ZooModule, found: Found, *, remake: bool) -> LoadReport:
    """Fill a module with verified weights.

    Args:
        module: of the same method.
        found: the weights.
        remake: keep the head of the module.

    Raises:
        KeyMismatch: (ShapeMismatch) if they do not fit; the module is unchanged.
    """
    from zoo.store.fill import fill

    report = LoadReport(found.name, source=found.source, sha256=found.sha256, pinned=found.pinned)
    fill(module, found.state or {}, report, remake=remake)
    module.report = report
    module.parent = found.parent
    return report


def notice_of(found: Found) -> None:
    """Say once which licence restricts the weights; nothing is said of local files without a licence."""
    if found.state is not None and (found.licence or found.source.startswith("hub")):
        notice(found.name, found.licence, found.data_licence)
