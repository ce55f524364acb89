"""The index: which methods exist, with which data modules and which verified weights.

Neither torch nor lightning is imported here, so that listing is instant. Class paths come from trusted, installed code
only: our own `checkpoints.yaml`, a YAML file named by an installed package's entry point `zoo.index`, or `register()`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from zoo.errors import BadInput, InvalidIndex, UnknownName, ZooError, nearest
from zoo.files import PACKAGE
from zoo.index.entry import Entry, Pin, Weights
from zoo.index.reading import index_path, read_index, third_parties, warn_broken
from zoo.index.schema import CAPABILITIES, LEARNS
from zoo.index.tasks import KEYS, TASKS, Task
from zoo.safe_yaml import load_yaml

__all__ = [
    "CAPABILITIES",
    "KEYS",
    "LEARNS",
    "TASKS",
    "Entry",
    "Pin",
    "Task",
    "Weights",
    "bundled_path",
    "entries",
    "entry_of",
    "golden_path",
    "id_of",
    "index_path",
    "info",
    "list_models",
    "load_yaml",
    "read_index",
    "recipe_path",
    "refresh",
    "register",
    "resolve",
]


_registered: dict[str, Entry] = {}
_cache: dict[str, Entry] | None = None


def _merge(merged: dict[str, Entry], more: dict[str, Entry]) -> None:
    taken = {name: e.id for e in merged.values() for name in (e.id, *e.aliases)}
    for entry in more.values():
        for name in (entry.id, *entry.aliases):
            if taken.setdefault(name, entry.id) != entry.id or name in merged:
                raise InvalidIndex(
                    f"{entry.source}: {entry.id}: the name {name!r} is taken by {taken[name]}; rename it"
                )
    merged.update(more)


def entries() -> dict[str, Entry]:
    """All entries by id: ours, those of installed packages, and registered ones. Read once per process.

    Raises:
        InvalidIndex: if our own index is broken. A third party's broken index only causes a warning.
    """
    global _cache
    if _cache is None:
        merged: dict[str, Entry] = {}
        _merge(merged, read_index(index_path(), ordered=True))
        for owner, path in third_parties():
            try:
                _merge(merged, read_index(path))
            except (ZooError, OSError) as error:
                warn_broken(owner, error)
        _cache = merged
    return _cache | _registered


def refresh() -> None:
    """Read the index files again at the next look-up; what was registered stays."""
    global _cache
    _cache = None


def register(entry: Entry, *, replace: bool = False) -> None:
    """Add an entry for this process.

    Args:
        entry: the entry.
        replace: allow an id that exists.

    Raises:
        InvalidIndex: if its id or an alias is taken.
    """
    if not isinstance(entry, Entry):
        raise BadInput(f"register() expects a zoo.index.Entry, got {type(entry).__name__}.")
    if entries().get(entry.id) == entry:
        return  # the same notebook cell, run again
    known = {k: v for k, v in entries().items() if not (replace and k == entry.id)}
    _merge(known, {entry.id: entry})
    _registered[entry.id] = entry


# Looking up -------------------------------------------------------------------------------------------------------


def resolve(name: str) -> tuple[Entry, str | None]:
    """Entry and tag of `id`, `id:tag`, an alias or `alias:tag`; the tag is None if the entry has no weights.

    Raises:
        UnknownName: with the nearest names.
    """
    if not isinstance(name, str):
        raise BadInput(f"A model's name is text such as 'id' or 'id:tag', got {type(name).__name__}.")
    known = entries()
    base, colon, tag = name.partition(":")
    aliases = {alias: (e, t) for e in known.values() for alias, t in e.aliases.items()}
    if base in known:
        entry, default = known[base], known[base].default
    elif base in aliases:
        entry, default = aliases[base]
    else:
        raise UnknownName(
            f"There is no model {name!r}.{nearest(base, [*known, *aliases])} zoo.list_models() (or `zoo list`) shows "
            f"all {len(known)}."
        )
    if colon:
        entry.weights_of(tag)
    return entry, (tag if colon else default)


def info(name: str) -> Entry:
    """The entry of a name, with the overrides of its tag applied."""
    entry, tag = resolve(name)
    return entry.tag(tag)


def list_models(
    pattern: str = "*",
    *,
    task: str | None = None,
    licence: str | None = None,
    pretrained: bool | None = None,
    paper: str | None = None,
    year: int | Iterable[int] | None = None,
    can: str | Iterable[str] | None = None,
) -> list[str]:
    """Ids of the methods that match, in alphabetical order.

    Args:
        pattern: wildcard over ids, aliases and `id:tag`, in any case: `"*yolo*"`. Without a wildcard, a name, or part
            of names if none is just that.
        task: such as `object-detection`; a tag's own task counts.
        licence: wildcard over the licences of the weights (of the code, where there are no weights).
        pretrained: only methods with weights (True) or without (False).
        paper: part of the paper's title, authors, venue or number.
        year: of the paper; one or several.
        can: capabilities, all of which are needed.

    Raises:
        UnknownName: for a task or capability that does not exist.
    """
    if task is not None and task not in TASKS:
        served = sorted({view.task for entry in entries().values() for view in _views(entry)})
        raise UnknownName(f"There is no task {task!r}.{nearest(task, TASKS)} Tasks with methods: {', '.join(served)}.")
    needed = {can} if isinstance(can, str) else set(can or ())
    for name in sorted(needed - set(CAPABILITIES)):
        raise UnknownName(f"There is no capability {name!r}.{nearest(name, CAPABILITIES) or ' '}{list(CAPABILITIES)}")
    years = {year} if isinstance(year, int) else set(year) if year is not None else None

    wanted = pattern.lower()
    if not any(sign in wanted for sign in "*?[") and wanted not in [n for e in entries().values() for n in _names(e)]:
        wanted = f"*{wanted}*"

    def keep(entry: Entry) -> bool:
        views = _views(entry) if task is not None or needed else [entry]
        licences = [w.licence for w in entry.weights.values()] or [entry.licence]
        has_weights = any(w.sha256 for w in entry.weights.values())
        return (
            any(fnmatchcase(n, wanted) for n in _names(entry))
            and (task is None or any(v.task == task for v in views))
            and (licence is None or any(fnmatchcase(x.lower(), licence.lower()) for x in licences))
            and (pretrained is None or pretrained == has_weights)
            and (paper is None or paper.lower() in " ".join(map(str, entry.paper.values())).lower())
            and (years is None or entry.paper.get("year") in years)
            and any(needed <= set(v.can) for v in views)
        )

    return sorted(name for name, entry in entries().items() if keep(entry))


def _views(entry: Entry) -> list[Entry]:
    return [entry.tag(tag) for tag in entry.weights] or [entry]


def _names(entry: Entry) -> list[str]:
    return [entry.id, *entry.aliases, *(f"{entry.id}:{tag}" for tag in entry.weights)]


def id_of(cls: type) -> str | None:
    """The id whose model is that class, or a base of it; None if there is none.

    Where several entries name it, the one of the index that the class came with counts, so that no other package can
    give its own id to a class, and files written here can be read elsewhere.
    """
    by_class: dict[str, list[Entry]] = {}
    for entry in entries().values():
        by_class.setdefault(entry.model, []).append(entry)
    for c in cls.__mro__:
        for path in _paths_of(c):
            if named := by_class.get(path):
                home = [entry for entry in named if _is_home(entry, c)]
                own = [entry for entry in named if entry.id in _registered]
                return (home[0] if home else own[-1] if own else named[0]).id
    return None


def _is_home(entry: Entry, cls: type) -> bool:
    """Whether an entry's index lies in the package of a class."""
    package = cls.__module__.partition(".")[0]
    if entry.source == str(index_path()):
        return package == PACKAGE.name
    folders = getattr(sys.modules.get(package), "__path__", ())
    return any(Path(entry.source).resolve().is_relative_to(Path(folder).resolve()) for folder in folders)


def _paths_of(cls: type) -> Iterator[str]:
    """Class paths that may name a class: its module's, and those of the packages whose face may export it."""
    module = cls.__module__
    while module:
        yield f"{module}:{cls.__qualname__}"
        module = module.rpartition(".")[0]


def entry_of(cls: type) -> Entry:
    """The entry whose model is that class.

    Raises:
        UnknownName: if none is.
    """
    if (name := id_of(cls)) is None:
        raise UnknownName(
            f"No index entry has the model {cls.__module__}:{cls.__qualname__}. Add one with zoo.register(Entry(...)), "
            "or through an installed package's entry point 'zoo.index', so that its files can be loaded again."
        )
    return entries()[name]


def _beside(entry: Entry | None) -> Path:
    """Folder that holds an entry's `bundled` and, for an outside package, its `recipes`."""
    if entry is None or Path(entry.source) == index_path() or not Path(entry.source).is_absolute():
        return PACKAGE
    return Path(entry.source).parent


def recipe_path(entry: Entry, tag: str | None = None) -> Path:
    """The training config of a tag (the default one, if None); it may not exist.

    Raises:
        UnknownName: if there is no such tag.
    """
    tag = tag or entry.default
    recipe = (entry.weights_of(tag).recipe if tag else None) or f"{entry.id}/{tag}.yaml"
    if _beside(entry) != PACKAGE:
        return _beside(entry) / "recipes" / recipe
    method, _, file = recipe.partition("/")
    return PACKAGE / "methods" / method.replace("-", "_") / "recipes" / file


def golden_path(file: str, entry: Entry) -> Path:
    """Where the stored inputs and outputs of a bundled checkpoint lie, or would lie.

    Args:
        file: name of the bundled file.
        entry: the method; those of an outside package are beside its index.
    """
    beside = _beside(entry)
    return (index_path().parent / "tests" / "golden" if beside == PACKAGE else beside / "golden") / file


def bundled_path(weights: Weights, entry: Entry | None = None) -> Path:
    """Where the bundled file of a checkpoint lies, or would lie."""
    return _beside(entry) / "bundled" / (weights.file or "")
