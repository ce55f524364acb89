"""Where a command may write: into a checkout or a package's sources only from inside of them, or where one says so."""

from __future__ import annotations

from pathlib import Path

from zoo import index
from zoo.errors import BadInput
from zoo.files import PACKAGE
from zoo.index import Entry

__all__ = ["checkout", "index_of", "is_inside", "project_of", "say_where"]

_DEPTH = 6  # folders between a card and the root of its project, at the most


def checkout() -> Path | None:
    """Root of the checkout that this zoo is imported from; None if it is an installed package."""
    root = index.index_path().parent
    return root if root.resolve() != PACKAGE and (root / "pyproject.toml").is_file() else None


def index_of(entry: Entry) -> Path:
    """The index file that names a method."""
    source = Path(entry.source)
    return source if source.is_absolute() else index.index_path()


def project_of(entry: Entry) -> Path | None:
    """Root of the sources around the index of a method; None if there are none, as where it is installed."""
    around = list(index_of(entry).parents)[:_DEPTH]
    if any(folder.name in ("site-packages", "dist-packages") for folder in around):
        return None
    return next((folder for folder in around if (folder / "pyproject.toml").is_file()), None)


def is_inside(root: Path) -> bool:
    """Whether the current folder is this one or lies in it."""
    here = Path.cwd().resolve()
    return root.resolve() in (here, *here.parents)


def say_where(entry: Entry, folder: str | None, instead: str) -> Path:
    """Print the root of the sources that a command is about to write into, if it may.

    Args:
        entry: the method.
        folder: the root as the user names it instead of going there; None: the current folder decides.
        instead: what else can be done, as the end of a sentence that begins "Go there, or".

    Returns:
        That root; without sources around it, the folder of the index that names the method.

    Raises:
        BadInput: from a folder outside of it, or for another folder.
    """
    root = project_of(entry)
    if folder is not None:
        if root is None or Path(folder).expanduser().resolve() != root.resolve():
            raise BadInput(f"--dir {folder}: {entry.id} belongs to {root or index_of(entry).parent}; name that folder.")
    elif root is not None and not is_inside(root):
        raise BadInput(
            f"This writes into {root}, where {entry.id} belongs, and the current folder is outside of it. Go there, or "
            f"{instead}."
        )
    root = root or index_of(entry).parent
    print(f"into {root.resolve()}", flush=True)
    return root
