"""What a name stands for. A name is resolved once, where it comes in, and travels on as a `Reference`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from zoo.errors import BadInput, RepositoryNotFound, UnknownName
from zoo.index import Entry, Weights, bundled_path, entries, resolve
from zoo.store.hub import parse_address

__all__ = ["Reference", "licences_of", "parent_of", "reference_of", "references_of"]


@dataclass(frozen=True)
class Reference:
    """A name that has been resolved.

    Attributes:
        kind: `index`, `hub`, `folder` or `checkpoint`.
        name: as messages call it: `id:tag`, `id` without a tag, `hf://owner/repo[@revision]` or a path.
        entry: of the index, with the overrides of its tag.
        tag: of the entry; None if it has no weights.
        repo: on the Hub; for an entry, where its weights are published, if they are.
        revision: of the repository: the one asked for, else the one that the index pins.
        path: of the folder or checkpoint.
    """

    kind: str
    name: str
    entry: Entry | None = None
    tag: str | None = None
    repo: str | None = None
    revision: str | None = None
    path: Path | None = None

    @property
    def indexed(self) -> tuple[Entry, Weights]:
        """The entry and the checkpoint of a tag of the index."""
        assert self.entry is not None
        assert self.tag is not None
        return self.entry, self.entry.weights[self.tag]

    @property
    def bundled(self) -> Path | None:
        """The bundled file of a tag of the index, where this installation has it."""
        entry, about = self.indexed
        path = bundled_path(about, entry)
        return path if about.file and path.is_file() else None

    @property
    def is_pinned(self) -> bool:
        """Whether the revision of a tag of the index is the one that the index pins, or none."""
        return self.revision == self.indexed[1].hub.revision


def reference_of(name: str | Path | Reference, revision: str | None = None) -> Reference:
    """Resolve a name.

    Args:
        name: `id`, `id:tag`, an alias, `hf://owner/repo[@revision]`, a folder written by `zoo.save`, or a `.ckpt` file.
        revision: of the repository; None: of an entry, the one that the index pins.

    Raises:
        BadInput: if it is none of these, or a local file is to have a revision.
        UnknownName: if the index has no such name.
        RepositoryNotFound: if it is a path to nothing.
    """
    if isinstance(name, Reference):
        return name
    if not isinstance(name, (str, os.PathLike)):
        raise BadInput(
            f"expected a model's name, hf://owner/repo, a folder or a .ckpt file, got {type(name).__name__}."
        )
    if isinstance(name, str) and name.startswith("hf://"):
        repo, revision = parse_address(name, revision)
        return Reference("hub", name, repo=repo, revision=revision)
    if (kind := _kind_of(name)) == "index":
        return _indexed(str(name), revision)
    if revision is not None:
        raise BadInput(f"revision={revision!r} is for the Hub; {name} is local.")
    return Reference(kind, str(name), path=Path(name).expanduser())


def _kind_of(name: str | Path) -> str:
    """`index`, `folder` or `checkpoint`; names of the index come before folders of the same name."""
    text = os.fspath(name)
    if isinstance(name, str):
        if "://" in name:
            raise BadInput(
                f"{name}: weights come from the Hub (hf://owner/repo) or from a local folder, not from a URL."
            )
        base = name.partition(":")[0]
        if base in entries() or any(base in e.aliases for e in entries().values()):
            return "index"
    path = Path(text).expanduser()
    if path.is_dir():
        return "folder"
    if path.suffix == ".ckpt" and path.exists():
        return "checkpoint"
    if path.is_file():
        raise BadInput(f"{text}: expected a folder written by zoo.save() or a Lightning .ckpt file. Give one of these.")
    if not isinstance(name, str) or os.sep in text or text.startswith((".", "~")) or path.suffix == ".ckpt":
        raise RepositoryNotFound(f"{text}: there is no such folder or file. Check the path.")
    return "index"


def _indexed(name: str, revision: str | None = None) -> Reference:
    entry, tag = resolve(name)
    if tag is None:
        return Reference("index", entry.id, entry)
    published = entry.weights[tag].hub
    revision = revision or published.revision
    return Reference("index", f"{entry.id}:{tag}", entry.tag(tag), tag, published.repo, revision)


def references_of(names: str | Iterable[str] | None) -> list[Reference]:
    """Checkpoints of the index; an id stands for all its tags, and None for everything."""
    wanted: list[Reference] = []
    for name in [names] if isinstance(names, str) else names or entries():
        entry, tag = resolve(name)
        tags = [tag] if ":" in name or name not in entries() else entry.weights
        wanted += [_indexed(f"{entry.id}:{t}") for t in tags if t]
    return wanted


def parent_of(name: str | None) -> Reference | None:
    """What a checkpoint says that it descends from, where that is a name of the index or of the Hub."""
    text = name or ""
    try:
        return reference_of(text) if text.startswith("hf://") else _indexed(text)
    except (BadInput, UnknownName):
        return None


def licences_of(parent: str | None) -> tuple[str | None, str | None]:
    """Licences of weights of the index and of their data; both None for other parents.

    What is made from weights is bound by their licence, whatever its maker says.
    """
    reference = parent_of(parent)
    if reference is None or reference.tag is None:
        return None, None
    _, about = reference.indexed
    return about.licence, about.trained_on.get("licence")
