"""Networks of timm by name: of those that timm knows itself, never of a repository or a folder."""

from __future__ import annotations

from typing import Any

from zoo.errors import UnknownName, nearest

__all__ = ["create_timm"]


def create_timm(name: str, **options: Any) -> Any:
    """Build a network of timm.

    timm would take a name such as `hf-hub:OWNER/REPO` or `local-dir:FOLDER` for an order to read the network's
    definition there.

    Args:
        name: as timm lists it, with the tag of its weights if wanted.
        options: of `timm.create_model`.

    Raises:
        UnknownName: if timm has no such network, with the nearest names.
    """
    import timm  # costs seconds to import

    if not isinstance(name, str) or ":" in name or "/" in name or not timm.is_model(name):
        raise UnknownName(f"timm has no model {str(name)[:200]!r}.{nearest(str(name)[:200], timm.list_models())}")
    return timm.create_model(name, **options)
