"""What the index says about one method and each of its checkpoints."""

from __future__ import annotations

import sys
from copy import copy
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from zoo.errors import InvalidIndex, ShadowedPackage, UnknownName, nearest
from zoo.files import PACKAGE
from zoo.index.rules import raise_if_any
from zoo.index.schema import problems_of

__all__ = ["Entry", "Pin", "Weights"]

_OVERRIDES = ("data", "task", "learns", "can", "tiny")


@dataclass(frozen=True)
class Pin:
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
    hub: Pin = field(default_factory=Pin)
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


@dataclass(frozen=True, repr=False)
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

    def __repr__(self) -> str:
        tags = f"{len(self.weights)} checkpoint{'s' * (len(self.weights) != 1)}"
        return f"<Entry {self.id}: {self.task}, {tags}; `zoo info {self.id}` tells all>"

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
        given = {k: getattr(self.weights_of(tag), k) for k in _OVERRIDES}
        view = copy(self)  # not made again: everything was checked with the entry, and there are many tags
        for key, value in given.items():
            if value is not None:
                object.__setattr__(view, key, value)
        return view

    def weights_of(self, tag: str) -> Weights:
        """What the index says about a tag.

        Raises:
            UnknownName: if there is no such tag.
        """
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
        raise InvalidIndex(f"{where}: expected a module {module_name}, got none. Is its package installed?") from error
    _refuse_shadow(top, where)
    cls = getattr(module, class_name, None)
    if not isinstance(cls, type):
        raise InvalidIndex(f"{where}: {module_name} has no class {class_name!r}.{nearest(class_name, vars(module))}")
    return cls


def _refuse_shadow(top: str, where: str) -> None:
    """A folder called `datamodules` in the user's project comes first on the path and would be imported instead."""
    if top != "datamodules" or top not in sys.modules:
        return
    places = [Path(p).resolve() for p in getattr(sys.modules[top], "__path__", [])]
    if PACKAGE.parent.resolve() / top not in places:
        place = places[0] if places else getattr(sys.modules[top], "__file__", "?")
        raise ShadowedPackage(
            f"{where}: expected the zoo's own package {top!r} in {PACKAGE.parent}, got another one: {place}. "
            "Rename that folder or file, or start Python from elsewhere."
        )
