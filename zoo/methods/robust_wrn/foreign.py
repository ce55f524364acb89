"""Names of tensors in the files of the authors and of public leaderboards, for `zoo convert`."""

from __future__ import annotations

__all__ = ["NAMES"]

NAMES = ((r"^", "network."),)
"""Their names are those of our network: `stem_conv`, `blocks.i.layer.j`, `bn1`, `fc`."""
