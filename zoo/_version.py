"""The one place that states the version."""

from __future__ import annotations

__all__ = ["__version__", "versions"]

__version__ = "0.1.0"


def versions(*packages: str) -> dict[str, str]:
    """Versions of the zoo, of Python, and of those of the packages that are installed."""
    import platform
    from contextlib import suppress
    from importlib import metadata

    known = {"zoo": __version__, "python": platform.python_version()}
    for name in packages:
        with suppress(metadata.PackageNotFoundError):
            known[name] = metadata.version(name)
    return known
