"""From a name to verified bytes: Hub cache, bundled file, Hub, a folder, a repository of anybody's, a checkpoint."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from zoo.base.compiled import plain_names
from zoo.base.format import check_format
from zoo.errors import (
    BadInput,
    CorruptFile,
    InvalidConfig,
    NetworkUnavailable,
    NotOnHub,
    RepositoryNotFound,
    UnsafeFile,
)
from zoo.files import file_sha256
from zoo.index import Entry, Weights, bundled_path, entries
from zoo.store.checkpoint import arguments_of, read_checkpoint
from zoo.store.config import check_arguments, check_id, entry_and_tag, is_line, read_config
from zoo.store.foreign import own_arguments
from zoo.store.hub import Hub, check_listed
from zoo.store.reference import Reference, licences_of
from zoo.store.tensors import check_sha256, not_finite, read_state

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CONFIG", "GOLDEN", "MODEL", "Checkpoint", "Row", "find", "pull_path"]

CONFIG, MODEL, GOLDEN = "config.json", "model.safetensors", "golden.safetensors"
T = TypeVar("T")


@dataclass
class Checkpoint:
    """Verified weights and what is needed to build their module.

    Attributes:
        entry: the index entry, with its tag's overrides.
        name: `id:tag`, `hf://owner/repo@commit` or a path.
        init: constructor arguments the weights were made with.
        state: tensors; None if only the arguments were asked for.
        source: `cache`, `bundled`, `hub`, `folder` or `checkpoint`, and where.
        sha256: of the file's bytes.
        pinned: whether the index holds that hash.
        parent: the public name these weights descend from.
        facts: of the data they were trained on.
        trusted: whether the arguments come from the index, not from a file.
        licence: of the weights, as far as it is known.
        data_licence: of what they were trained on.
        size: bytes of the file.
        left_out: arguments of the file that name another network somewhere else, which are not in `init`.
    """

    entry: Entry
    name: str
    init: dict[str, Any]
    state: dict[str, Tensor] | None = None
    source: str = ""
    sha256: str = ""
    pinned: bool = False
    parent: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    size: int = 0
    trusted: bool = False
    licence: str | None = None
    data_licence: str | None = None
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One line of `verify` or `publish`: which weights, where they lie, whether they are right, and why (not).

    `checked` is False where there is no file.
    """

    name: str
    where: str
    ok: bool
    why: str
    checked: bool = True

    @property
    def mark(self) -> str:
        """`ok`, `WRONG`, or `-` where there is no file to check."""
        return "WRONG" if not self.ok else "ok   " if self.checked else "-    "

    def __str__(self) -> str:
        return f"{self.mark} {self.name:<40} {self.where:<8} {self.why}"


def find(reference: Reference, hub: Hub, *, source: str | None = None, weights: bool = True) -> Checkpoint:
    """Find, verify and read.

    Args:
        reference: what is wanted.
        hub: where to ask.
        source: None, `hub` or `bundled`.
        weights: False reads only the arguments.
    """
    if source not in (None, "hub", "bundled"):
        raise BadInput(f"source: expected None, 'hub' or 'bundled', got {source!r}.")
    if reference.kind == "index":
        return _find_entry(reference, hub, source=source, weights=weights)
    if source is not None:
        raise BadInput(f"source={source!r} chooses between the places of an index entry; {reference.name} is not one.")
    if reference.repo is not None:
        return _find_remote(reference.repo, reference.revision, hub, weights=weights)
    assert reference.path is not None
    local = _find_folder if reference.kind == "folder" else _find_checkpoint
    return local(reference.path, weights=weights)


def _find_entry(reference: Reference, hub: Hub, *, source: str | None, weights: bool) -> Checkpoint:
    if reference.tag is None:
        assert reference.entry is not None
        if weights:
            name = reference.name
            raise NotOnHub(f"{name} has no weights. Build it untrained: zoo.load({name!r}, weights=False).")
        return Checkpoint(reference.entry, reference.name, {}, trusted=True)
    entry, about = reference.indexed
    name, size = reference.name, about.bytes or 0
    checkpoint = Checkpoint(entry, name, dict(about.init), parent=name, size=size, trusted=True)
    checkpoint.licence, checkpoint.data_licence = about.licence, about.trained_on.get("licence")
    if not weights:
        return checkpoint
    if not reference.is_pinned:
        other = _find_remote(_published(reference), reference.revision, hub, weights=True)
        if other.entry.id != entry.id:
            raise InvalidConfig(f"{other.name}: expected {entry.id}, got {other.entry.id}.")
        return other
    (checkpoint.state, checkpoint.sha256), checkpoint.source = _pinned(
        reference, hub, source, lambda path: read_state(path, sha256=about.sha256, size=about.bytes)
    )
    checkpoint.pinned = True
    return checkpoint


def _published(reference: Reference) -> str:
    """Repository of a checkpoint of the index of which another revision is wanted."""
    if reference.repo is None:
        raise NotOnHub(f"{reference.name} has not been published, so it has no revision {reference.revision!r}.")
    return reference.repo


def _places(reference: Reference, hub: Hub, source: str | None) -> Iterator[tuple[str, Callable[[], Path]]]:
    """Places of pinned weights in the order to try; the Hub last, and once more if what it sent is damaged."""
    repo, revision = reference.repo, reference.revision
    cached = hub.cached(repo, MODEL, revision) if repo and revision and source != "bundled" else None
    if cached:
        yield "cache", lambda: cached
    if source != "hub" and (bundled := reference.bundled):
        yield "bundled", lambda: bundled
    if repo and revision and source != "bundled" and not (hub.is_offline and cached):
        hint = _alternatives(*reference.indexed)
        yield "hub", lambda: hub.download(repo, MODEL, revision, force=bool(cached), hint=hint)
        if not hub.is_offline:
            yield "hub", lambda: hub.download(repo, MODEL, revision, force=True, hint=hint)


def _alternatives(entry: Entry, about: Weights) -> str:
    here = [f"{entry.id}:{t}" for t, w in entry.weights.items() if w.file and bundled_path(w, entry).is_file()]
    return f" Without a network these load: {', '.join(here)}." if here and about.tag not in here else ""


def _pinned(reference: Reference, hub: Hub, source: str | None, use: Callable[[Path], T]) -> tuple[T, str]:
    """Apply `use`, which checks the hash, to the first place whose file is right."""
    name, (entry, about) = reference.name, reference.indexed
    if about.sha256 is None:
        raise NotOnHub(
            f"{name} has not been trained yet; its recipe makes it: zoo train {name}. Other tags of {entry.id}: "
            f"{', '.join(t for t, w in entry.weights.items() if w.sha256) or 'none'}."
        )
    damaged: CorruptFile | None = None
    for kind, place in _places(reference, hub, source):
        try:
            path = place()
        except NetworkUnavailable as error:
            raise (damaged or error) from error
        try:
            where = f"{reference.repo}@{reference.revision}" if kind != "bundled" else str(path)
            return use(path), f"{kind}: {where}"
        except CorruptFile as error:
            damaged = damaged or error
            if kind != "hub":
                warnings.warn(f"{error} Trying the next source.", RuntimeWarning, stacklevel=2)
    if damaged is not None:
        raise damaged
    if source == "bundled":
        raise NotOnHub(f"{name} is not bundled with this installation. Leave source=None, or use source='hub'.")
    raise NotOnHub(
        f"{name} has not been published to the Hub (no repository in the index), and its file is not bundled here"
        + (" or not asked for (source='hub')." if about.file else ".")
        + f" Train it: zoo train {name}"
    )


def pull_path(reference: Reference, hub: Hub) -> Path:
    """Download and verify `model.safetensors`; its path in the Hub cache."""
    if reference.kind == "hub":
        return _remote_files(str(reference.repo), reference.revision, hub)[1]
    if reference.kind != "index":
        raise BadInput(f"{reference.name} is local already; pull() expects a name of the index or hf://owner/repo.")
    if reference.tag is None:
        raise NotOnHub(f"{reference.name} has no weights.")
    if not reference.is_pinned:
        return _remote_files(_published(reference), reference.revision, hub)[1]
    _, about = reference.indexed

    def verified(path: Path) -> Path:
        check_sha256(path, str(about.sha256), size=about.bytes)
        return path

    return _pinned(reference, hub, "hub", verified)[0]


def _remote_files(repo: str, revision: str | None, hub: Hub) -> tuple[dict[str, Any], Path, str, str | None]:
    """Config, path of the weights, commit and listed hash of a repository outside the index, all of one commit."""
    commit, listed = hub.resolve(repo, revision, (CONFIG, MODEL))

    def fetch(file: str, force: bool) -> Path:
        path = hub.download(repo, file, commit, force=force)
        data = path.read_bytes() if file == CONFIG else None
        check_listed(path, data, file_sha256(path), listed.get(file))
        return path

    paths = []
    for file in (CONFIG, MODEL):
        try:
            paths.append(fetch(file, False))
        except CorruptFile:
            if hub.is_offline:
                raise
            paths.append(fetch(file, True))
    hub.note(paths[1], commit, listed)
    config, _ = read_config(paths[0])
    return config, paths[1], commit, listed.get(MODEL)


def _find_remote(repo: str, revision: str | None, hub: Hub, *, weights: bool) -> Checkpoint:
    config, path, commit, listed = _remote_files(repo, revision, hub)
    name = f"hf://{repo}@{commit}"
    checkpoint = _from_config(config, name, path)
    checkpoint.parent = name
    if weights:
        state, sha256 = read_state(path)
        check_listed(path, None, sha256, listed)  # the bytes that were parsed, not those hashed before
        checkpoint.state, checkpoint.sha256, checkpoint.source = state, sha256, f"hub: {repo}@{commit}"
        _check_config_hash(config, sha256, name)
    return checkpoint


def _check_config_hash(config: dict[str, Any], sha256: str, where: object) -> None:
    expected = config["sha256"].get(MODEL)
    if expected != sha256:
        raise CorruptFile(
            f"{where}: its config.json says sha256 {expected} for {MODEL}, the file has {sha256}. The two do not "
            "belong together; get both again."
        )


def _from_config(config: dict[str, Any], name: str, path: Path) -> Checkpoint:
    entry = entry_and_tag(config)
    check_arguments(entry.model_class(), config["init"], where=name, error=InvalidConfig)
    parent, facts = config.get("parent"), config.get("facts") or {}
    init, left_out = own_arguments(entry.model_class(), config["init"], name)
    checkpoint = Checkpoint(entry, name, init, parent=parent, facts=facts, size=path.stat().st_size, left_out=left_out)
    inherited, checkpoint.data_licence = licences_of(parent)
    checkpoint.licence = config.get("licence") or inherited
    return checkpoint


def _find_folder(folder: Path, *, weights: bool) -> Checkpoint:
    if not (folder / CONFIG).is_file():
        raise RepositoryNotFound(f"{folder}: expected a folder written by zoo.save(), got no {CONFIG} in it.")
    config, _ = read_config(folder / CONFIG)
    path = folder / MODEL
    if not path.is_file():
        raise RepositoryNotFound(f"{folder}: expected {MODEL} beside {CONFIG}, got none. Save it again.")
    checkpoint = _from_config(config, str(folder), path)
    checkpoint.source = f"folder: {folder}"
    if weights:
        sha256 = config["sha256"].get(MODEL, "none in config.json")
        checkpoint.state, checkpoint.sha256 = read_state(path, sha256=sha256)
        pins = {w.sha256 for w in checkpoint.entry.weights.values()}
        checkpoint.pinned = checkpoint.sha256 in pins
    return checkpoint


# Lightning checkpoints --------------------------------------------------------------------------------------------


def _find_checkpoint(path: Path, *, weights: bool) -> Checkpoint:
    content = read_checkpoint(path, tensors=weights)
    mine = content.get("zoo")
    name = mine.get("id") if isinstance(mine, dict) else None
    if not isinstance(mine, dict) or not isinstance(name, str):
        raise BadInput(
            f"{path}: expected a checkpoint of a method in the index, got one without an id. Was its class "
            "registered (zoo.register) when it was trained?"
        )
    check_format(mine.get("format"), path)
    check_id(name, path)
    entry = entries()[name]
    init = arguments_of(content)
    check_arguments(entry.model_class(), init, where=str(path), error=InvalidConfig)
    parent = mine.get("parent") if is_line(mine.get("parent")) else None
    init, left_out = own_arguments(entry.model_class(), init, str(path))
    checkpoint = Checkpoint(entry, str(path), init, parent=parent, size=path.stat().st_size, left_out=left_out)
    checkpoint.source = f"checkpoint: {path}"
    checkpoint.licence, checkpoint.data_licence = licences_of(parent)
    if weights:
        import torch

        state = {k: v for k, v in plain_names(content["state_dict"]).items() if isinstance(v, torch.Tensor)}
        if bad := not_finite(state):
            raise UnsafeFile(
                f"{path}: {bad!r} holds NaN or infinity: the training diverged. Use an earlier checkpoint."
            )
        checkpoint.state, checkpoint.sha256 = state, file_sha256(path)
    return checkpoint
