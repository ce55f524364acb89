"""What a load reports."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import Any

from zoo.text import aligned

__all__ = ["LoadReport", "html_line"]


@dataclass(repr=False)
class LoadReport:
    """What `zoo.load` did, tensor by tensor; `str()` is a table.

    Attributes:
        name: index id and tag, repository or folder.
        loaded: keys whose values came from the file.
        reinitialised: keys of the head (role `head`), re-initialised because the classes differ.
        missing: keys the file may lack (role `training`).
        unexpected: keys of the file that were not used.
        source: `bundled`, `hub`, `cache`, `folder` or `checkpoint`, and where.
        sha256: hash of the file that was read.
        pinned: whether that hash is the one in the index.
        dtype: storage type of the float parameters.
    """

    name: str
    loaded: list[str] = field(default_factory=list)
    reinitialised: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    source: str = ""
    sha256: str = ""
    pinned: bool = False
    dtype: str = ""

    def __repr__(self) -> str:
        left = f", {len(self.reinitialised)} re-initialised" if self.reinitialised else ""
        held = f"{len(self.loaded)} tensors from {self.source or 'nowhere'}{left}"
        return f"<LoadReport {self.name}: {held}; print() tells all>"

    def __str__(self) -> str:
        def keys(names: list[str]) -> str:
            shown = ", ".join(names[:4]) + (f", ... ({len(names) - 4} more)" if len(names) > 4 else "")
            return f"{len(names)}" + (f"  {shown}" if names else "")

        rows = [
            ("weights", self.name),
            ("source", self.source),
            ("sha256", f"{self.sha256 or '-'} ({'pinned' if self.pinned else 'unpinned'})"),
            ("stored as", self.dtype or "-"),
            ("loaded", f"{len(self.loaded)}"),
            ("re-initialised", keys(self.reinitialised)),
            ("missing", keys(self.missing)),
            ("unexpected", keys(self.unexpected)),
        ]
        return "\n".join(aligned(rows))


def html_line(module: Any) -> str:
    """A module in one line: class, weights, task, size and mode."""
    name = module.report.name if module.report is not None else "untrained"
    count = sum(p.numel() for p in module.parameters())
    mode = "training" if module.training else "evaluation"
    return escape(f"{type(module).__name__} ({name}): {module.task}, {count:,} parameters, {mode} mode")
