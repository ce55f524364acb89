"""Build hook: puts the index and what the model cards are made of into the package.

They lie at the top of a checkout, where people read and edit them; an installed package finds them inside `zoo/`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

CARD_FILES = ("claims.yaml", "results.json")
BOARDS = "docs/leaderboards/*/*.json"


class CustomBuildHook(BuildHookInterface):
    """Adds `checkpoints.yaml`, data files of cards and boards; a plain list would fail where a card has none yet."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Name the files, unless the package stays where it is (editable installation)."""
        if version == "editable":
            return
        root = Path(self.root)
        added = {"checkpoints.yaml": "zoo/checkpoints.yaml"}
        for name in CARD_FILES:
            for path in sorted(root.glob(f"model_cards/*/{name}")):
                relative = path.relative_to(root).as_posix()
                added[relative] = f"zoo/{relative}"
        for path in sorted(root.glob(BOARDS)):
            relative = path.relative_to(root).as_posix()
            added[relative] = f"zoo/{relative}"
        build_data["force_include"].update(added)
