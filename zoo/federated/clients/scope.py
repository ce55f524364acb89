"""Which entries of a network clients share with all, with their group, or not at all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from zoo.errors import InvalidConfig

__all__ = ["ParamScope"]


class ParamScope:
    r"""Maps state-dict names to `global`, `group:NAME` or `local`; the first pattern that matches decides.

        ParamScope([("decoder\.digits\.", "group:digits"), ("lock\.", "local")])

    Args:
        rules: pairs of a regular expression, searched in the name, and a scope. What matches none is global.

    Raises:
        InvalidConfig: for a pattern that is no regular expression, or another scope.
    """

    def __init__(self, rules: Sequence[tuple[str, str]] = ()) -> None:
        self.rules: list[tuple[re.Pattern[str], str]] = []
        for pattern, scope in rules:
            if scope not in ("global", "local") and not re.fullmatch(r"group:.+", scope):
                raise InvalidConfig(f"scope of {pattern!r}: expected global, local or group:NAME, got {scope!r}.")
            try:
                self.rules.append((re.compile(pattern), scope))
            except re.error as error:
                raise InvalidConfig(f"scope: {pattern!r} is no regular expression ({error}).") from error

    def of(self, name: str) -> str:
        """The scope of a name."""
        return next((scope for pattern, scope in self.rules if pattern.search(name)), "global")

    def shared(self, names: Iterable[str], group: str | None = None) -> list[str]:
        """Names that a client of `group` exchanges with the server."""
        return [name for name in names if self.of(name) in ("global", f"group:{group}")]

    def local(self, names: Iterable[str]) -> list[str]:
        """Names that stay with the client."""
        return [name for name in names if self.of(name) == "local"]
