"""Sharing a module from the module itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.index import Weights

__all__ = ["Shared"]


class Shared:
    """Adds `push` to a module."""

    def push(self, repo_id: str, **options: Any) -> Weights:
        """Share this module on the Hub in one commit, then download it and check that it loads.

        Args:
            repo_id: `owner/name`; created, private, if it does not exist.
            options: those of `zoo.push`: private, tag, licence, token, endpoint.

        Returns:
            What an index entry would say about it.

        Raises:
            ZooError: as `zoo.push` does.
        """
        from zoo.store import push

        return push(self, repo_id, **options)  # type: ignore[arg-type]
