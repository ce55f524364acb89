"""The index: which methods exist, with which data modules and which verified weights.

Neither torch nor lightning is imported here, so that listing is instant. Class paths come from trusted, installed code
only: our own `checkpoints.yaml`, a YAML file named by an installed package's entry point `zoo.index`, or `register()`.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

from zoo.errors import BadInput, InvalidIndex, ShadowedPackage, UnknownName, ZooError, nearest
from zoo.files import PACKAGE
from zoo.index.rules import raise_if_any
from zoo.index.schema import CAPABILITIES, LEARNS, problems_of
from zoo.index.tasks import KEYS, TASKS, Task
from zoo.safe_yaml import load_yaml

__all__ = [
    "CAPABILITIES",
    "KEYS",
    "LEARNS",
    "TASKS",
    "Entry",
    "Hub",
    "Task",
    "Weights",
    "bundled_path",
    "entries",
    "entry_of",
    "id_of",
    "index_path",
    "info",
    "list_models",
    "load_yaml",
    "recipe_path",
    "refresh",
    "register",
    "resolve",
]

_GROUP = "zoo.index"
_OVERRIDES = ("data", "task", "learns", "can", "tiny")


@dataclass(frozen=True)
class Hub:
    """Where weights are published: `owner/name` at a commit of 40 hexadecimal digits, or nowhere yet."""

    repo: str | None = None
    revision: str | None = None


@dataclass(frozen=True)
class Weights:
    """One checkpoint of a method. `data`, `task`, `learns`, `can` and `tiny` override the entry's where given.

    Attributes:
        tag: its name; never moved to other weights once published.
        init: constructor arguments the weights were trained with.
        recipe: path below `recipes/` of the config that makes them.
        file: name of the bundled file, below `bundled/`.
        sha256: hash of `model.safetensors`, checked on every load. None: not trained yet, there is only the recipe.
        bytes: size of that file.
        params: number of parameters.
        hub: where it is published.
        licence: of the weights.
        trained_on: the data: at least `data` and `licence`.
        metrics: headline numbers by logged key.
        seed: of the run that made them.
        tolerance: how far a re-run may differ, for all metrics or by metric.
    """

    tag: str
    init: dict[str, Any] = field(default_factory=dict)
    recipe: str | None = None
    file: str | None = None
    sha256: str | None = None
    bytes: int | None = None
    params: int | None = None
    hub: Hub = field(default_factory=Hub)
    licence: str = ""
    trained_on: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    seed: int | None = None
    tolerance: float | dict[str, float] | None = None
    data: str | None = None
    task: str | None = None
    learns: str | None = None
    can: tuple[str, ...] | None = None
    tiny: dict[str, Any] | None = None


@dataclass(frozen=True)
class Entry:
    """One method of the zoo. Building one checks it.

    Attributes:
        id: kebab-case name.
        model: class path `package.module:Class` of the ZooModule.
        data: class path of the paired ZooDataModule.
        task: one of `TASKS`.
        summary: one sentence.
        paper: `title`, `year` and, where known, `authors`, `venue`, `arxiv`, `doi`, `url`, `code`.
        licence: of the code.
        can: some of `CAPABILITIES`.
        learns: one of `LEARNS`.
        tiny: `{model: ..., data: ...}`, arguments small enough for tests.
        default: the tag that the bare id stands for.
        aliases: another name people search -> tag.
        registers: registry -> names that importing the model adds to it, so that a name is enough to find it.
        weights: tag -> checkpoint.
        source: the file it came from; `bundled/` and `recipes/` are looked for beside it.

    Raises:
        InvalidIndex: listing everything that is wrong.
    """

    id: str
    model: str
    data: str
    task: str
    summary: str = ""
    paper: dict[str, Any] = field(default_factory=dict)
    licence: str = ""
    can: tuple[str, ...] = ()
    learns: str = "gradient"
    tiny: dict[str, Any] = field(default_factory=dict)
    default: str | None = None
    aliases: dict[str, str] = field(default_factory=dict)
    registers: dict[str, list[str]] = field(default_factory=dict)
    weights: dict[str, Weights] = field(default_factory=dict)
    source: str = "register()"

    def __post_init__(self) -> None:
        raw = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("id", "source", "weights")}
        raw = {k: v for k, v in raw.items() if v not in (None, "")}
        raw["weights"] = {tag: _raw_weights(w) for tag, w in self.weights.items()}
        raise_if_any(self.source, problems_of(self.id, raw), "the index", InvalidIndex)

    def tag(self, tag: str | None = None) -> Entry:
        """This entry with the overrides of a tag (the default one, if None) applied.

        Raises:
            UnknownName: if there is no such tag.
        """
        if (tag := tag or self.default) is None:
            return self
        given = {k: getattr(self._weights(tag), k) for k in _OVERRIDES}
        return replace(self, **{k: v for k, v in given.items() if v is not None})

    def _weights(self, tag: str) -> Weights:
        if tag not in self.weights:
            known = ", ".join(self.weights) or "none"
            raise UnknownName(f"{self.id} has no tag {tag!r}.{nearest(tag, self.weights)} Tags: {known}.")
        return self.weights[tag]

    def model_class(self) -> Any:
        """Import the model's class."""
        return _import_class(self.model, f"{self.id}: model")

    def data_class(self) -> Any:
        """Import the data module's class."""
        return _import_class(self.data, f"{self.id}: data")


def _raw_weights(weights: Weights) -> dict[str, Any]:
    raw = {f.name: getattr(weights, f.name) for f in fields(weights) if f.name not in ("tag", "hub")}
    raw = {k: v for k, v in raw.items() if v not in (None, "")}
    return raw | {"hub": {"repo": weights.hub.repo, "revision": weights.hub.revision}}


def _import_class(path: str, where: str) -> Any:
    from importlib import import_module

    module_name, _, class_name = path.partition(":")
    top = module_name.partition(".")[0]
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # a dependency of that module is missing, not the module
        _refuse_shadow(top, where)
        raise InvalidIndex(
            f"{where}: expected a module {module_name}, found none. Is its package installed?"
        ) from error
    _refuse_shadow(top, where)
    found = getattr(module, class_name, None)
    if not isinstance(found, type):
        raise InvalidIndex(f"{where}: {module_name} has no class {class_name!r}.{nearest(class_name, vars(module))}")
    return found


def _refuse_shadow(top: str, where: str) -> None:
    """A folder called `datamodules` in the user's project comes first on the path and would be imported instead."""
    if top != "datamodules" or top not in sys.modules:
        return
    places = [Path(p).resolve() for p in getattr(sys.modules[top], "__path__", [])]
    if PACKAGE.parent.resolve() / top not in places:
        found = places[0] if places else getattr(sys.modules[top], "__file__", "?")
        raise ShadowedPackage(
            f"{where}: expected the zoo's own package {top!r} in {PACKAGE.parent}, found another one: {found}. "
            "Rename that folder or file, or start Python from elsewhere."
        )


# Reading ----------------------------------------------------------------------------------------------------------

_registered: dict[str, Entry] = {}
_cache: dict[str, Entry] | None = None


def index_path() -> Path:
    """Path of our own index: inside the installed package, else beside it in a checkout."""
    for path in (PACKAGE / "checkpoints.yaml", PACKAGE.parent / "checkpoints.yaml"):
        if path.is_file():
            return path
    raise InvalidIndex(
        f"expected checkpoints.yaml in {PACKAGE} or {PACKAGE.parent}, found none. "
        "The installation is damaged: pip install --force-reinstall lightning-method-zoo"
    )


def _parse(raw: Any, source: str, *, ordered: bool = False) -> dict[str, Entry]:
    """Build the entries of a parsed YAML file; all problems of the file are told at once."""
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise InvalidIndex(f"{source}: expected a mapping from id to entry, got {type(raw).__name__}.")
    problems = [p for name, block in raw.items() for p in problems_of(name, block)]
    names = list(map(str, raw))
    if ordered and names != sorted(names):
        late = next(b for a, b in pairwise(names) if b < a)
        before = next(n for n in names if n > late)
        problems.append(f"{late}: blocks are in alphabetical order; move it before {before}")
    raise_if_any(source, problems, "the index", InvalidIndex)
    return {name: _entry(name, block, source) for name, block in raw.items()}


def _entry(name: str, raw: dict[str, Any], source: str) -> Entry:
    given = {k: v for k, v in raw.items() if v is not None} | {"id": name, "source": source}
    given["can"] = tuple(given.get("can", ()))
    given["weights"] = {tag: _weights(tag, block) for tag, block in given.get("weights", {}).items()}
    return Entry(**given)


def _weights(tag: str, raw: dict[str, Any]) -> Weights:
    given = {k: v for k, v in raw.items() if v is not None} | {"tag": tag}
    given["hub"] = Hub(**given.get("hub", {}))
    if "can" in given:
        given["can"] = tuple(given["can"])
    return Weights(**given)


def read_index(path: Path, *, text: str | None = None, ordered: bool = False) -> dict[str, Entry]:
    """Read and check one index file.

    Args:
        path: a YAML file.
        text: what the file is to hold, to check it before it is written.
        ordered: also insist on alphabetical order.

    Raises:
        InvalidIndex: listing all problems.
        UnsafeFile: if the YAML is hostile.
    """
    raw = load_yaml(path) if text is None else load_yaml(text, where=str(path))
    return _parse(raw, str(path), ordered=ordered)


def _third_parties() -> Iterator[tuple[str, Path]]:
    """Name and YAML file of each entry point of the group, found through file lists, without importing anything."""
    from importlib.metadata import entry_points

    for point in entry_points(group=_GROUP):
        relative = PurePosixPath(point.value.replace(":", "/"))
        if ":" in point.value:  # "package.sub:file.yaml"
            package, _, file = point.value.partition(":")
            relative = PurePosixPath(package.replace(".", "/"), file)
        owner = f"{point.name} ({point.dist.name})" if point.dist else point.name
        try:
            if relative.is_absolute() or ".." in relative.parts:
                raise InvalidIndex(f"expected package_dir/file.yaml or package:file.yaml, got {point.value!r}")
            yield owner, _locate(point.dist, relative)
        except (ZooError, OSError, ImportError, ValueError) as error:
            _warn_broken(owner, error)


def _locate(dist: Any, relative: PurePosixPath) -> Path:
    for file in (dist.files if dist else None) or ():
        if PurePosixPath(file) == relative:
            return Path(str(dist.locate_file(file)))
    from importlib.machinery import PathFinder  # an editable install lists no package files

    spec = PathFinder.find_spec(relative.parts[0])
    for folder in (spec.submodule_search_locations if spec else None) or ():
        if (path := Path(folder).parent / relative).is_file():
            return path
    raise InvalidIndex(f"no file {relative} in the distribution")


def _warn_broken(owner: str, error: Exception) -> None:
    warnings.warn(
        f"The zoo index of {owner} was left out: {error}. Update or uninstall that package.",
        RuntimeWarning,
        stacklevel=2,
    )


def _merge(found: dict[str, Entry], more: dict[str, Entry]) -> None:
    taken = {name: e.id for e in found.values() for name in (e.id, *e.aliases)}
    for entry in more.values():
        for name in (entry.id, *entry.aliases):
            if taken.setdefault(name, entry.id) != entry.id or name in found:
                raise InvalidIndex(
                    f"{entry.source}: {entry.id}: the name {name!r} is taken by {taken[name]}; rename it"
                )
    found.update(more)


def entries() -> dict[str, Entry]:
    """All entries by id: ours, those of installed packages, and registered ones. Read once per process.

    Raises:
        InvalidIndex: if our own index is broken. A third party's broken index only causes a warning.
    """
    global _cache
    if _cache is None:
        found: dict[str, Entry] = {}
        _merge(found, read_index(index_path(), ordered=True))
        for owner, path in _third_parties():
            try:
                _merge(found, read_index(path))
            except (ZooError, OSError) as error:
                _warn_broken(owner, error)
        _cache = found
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
        entry._weights(tag)
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
        pattern: wildcard over ids, aliases and `id:tag`, in any case: `"*yolo*"`.
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
        raise UnknownName(f"There is no task {task!r}.{nearest(task, TASKS)} Tasks: {', '.join(TASKS)}.")
    needed = {can} if isinstance(can, str) else set(can or ())
    for name in sorted(needed - set(CAPABILITIES)):
        raise UnknownName(f"There is no capability {name!r}.{nearest(name, CAPABILITIES) or ' '}{list(CAPABILITIES)}")
    years = {year} if isinstance(year, int) else set(year) if year is not None else None

    def keep(entry: Entry) -> bool:
        views = [entry.tag(t) for t in entry.weights] or [entry]
        licences = [w.licence for w in entry.weights.values()] or [entry.licence]
        names = [entry.id, *entry.aliases, *(f"{entry.id}:{t}" for t in entry.weights)]
        has_weights = any(w.sha256 for w in entry.weights.values())
        return (
            any(fnmatchcase(n, pattern.lower()) for n in names)
            and (task is None or any(v.task == task for v in views))
            and (licence is None or any(fnmatchcase(x.lower(), licence.lower()) for x in licences))
            and (pretrained is None or pretrained == has_weights)
            and (paper is None or paper.lower() in " ".join(map(str, entry.paper.values())).lower())
            and (years is None or entry.paper.get("year") in years)
            and any(needed <= set(v.can) for v in views)
        )

    return sorted(name for name, entry in entries().items() if keep(entry))


def id_of(cls: type) -> str | None:
    """The id whose model is that class, or a base of it; None if there is none."""
    by_class = {entry.model: entry.id for entry in entries().values()}
    return next((i for c in cls.__mro__ for path in _paths_of(c) if (i := by_class.get(path))), None)


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
    if (found := id_of(cls)) is None:
        raise UnknownName(
            f"No index entry has the model {cls.__module__}:{cls.__qualname__}. Add one with zoo.register(Entry(...)), "
            "or through an installed package's entry point 'zoo.index', so that its files can be loaded again."
        )
    return entries()[found]


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
    recipe = (entry._weights(tag).recipe if tag else None) or f"{entry.id}/{tag}.yaml"
    if _beside(entry) != PACKAGE:
        return _beside(entry) / "recipes" / recipe
    method, _, file = recipe.partition("/")
    return PACKAGE / "methods" / method.replace("-", "_") / "recipes" / file


def bundled_path(weights: Weights, entry: Entry | None = None) -> Path:
    """Where the bundled file of a checkpoint lies, or would lie."""
    return _beside(entry) / "bundled" / (weights.file or "")
