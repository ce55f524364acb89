"""From a name to verified bytes: Hub cache, bundled file, Hub, a folder, a repository of anybody's, a checkpoint."""

from __future__ import annotations

import os
import pickle
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from zoo._store_config import FORMAT, check_arguments, entry_and_tag, parse_config, read_config
from zoo._store_hub import Hub, check_listed, parse_address
from zoo._store_tensors import check_sha256, not_finite, read_state
from zoo.errors import (
    BadInput,
    CorruptFile,
    FormatTooNew,
    InvalidConfig,
    NetworkUnavailable,
    NotOnHub,
    RepositoryNotFound,
    UnknownName,
    UnsafeFile,
)
from zoo.files import file_sha256
from zoo.index import Entry, Weights, bundled_path, entries, resolve

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CONFIG", "GOLDEN", "MODEL", "Found", "Row", "find", "kind_of", "pull_path"]

CONFIG, MODEL, GOLDEN = "config.json", "model.safetensors", "golden.safetensors"
T = TypeVar("T")


@dataclass
class Found:
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


@dataclass(frozen=True)
class Row:
    """One line of `verify` or `publish`: which weights, where they lie, whether they are right, and why (not)."""

    name: str
    where: str
    ok: bool
    why: str

    def __str__(self) -> str:
        return f"{'ok   ' if self.ok else 'WRONG'} {self.name:<40} {self.where:<8} {self.why}"


def kind_of(name: str | Path) -> str:
    """What a name stands for: `index`, `hub`, `folder` or `checkpoint`.

    Raises:
        BadInput: if it is none of these.
        RepositoryNotFound: if it is a path to nothing.
    """
    if not isinstance(name, (str, os.PathLike)):
        raise BadInput(
            f"expected a model's name, hf://owner/repo, a folder or a .ckpt file, found {type(name).__name__}."
        )
    text = os.fspath(name)
    if isinstance(name, str):
        if name.startswith("hf://"):
            return "hub"
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


def find(
    name: str | Path, hub: Hub, *, source: str | None = None, revision: str | None = None, weights: bool = True
) -> Found:
    """Find, verify and read.

    Args:
        name: see `kind_of`.
        hub: where to ask.
        source: None, `hub` or `bundled`.
        revision: of the repository; another one than the index pins is not pinned.
        weights: False reads only the arguments.
    """
    if source not in (None, "hub", "bundled"):
        raise BadInput(f"source: expected None, 'hub' or 'bundled', found {source!r}.")
    kind = kind_of(name)
    if kind != "index" and source is not None:
        raise BadInput(f"source={source!r} chooses between the places of an index entry; {name} is not one.")
    if kind in ("folder", "checkpoint") and revision is not None:
        raise BadInput(f"revision={revision!r} is for the Hub; {name} is local.")
    if kind == "hub":
        return _find_remote(*parse_address(str(name), revision), hub, weights=weights)
    if kind == "folder":
        return _find_folder(Path(name).expanduser(), weights=weights)
    if kind == "checkpoint":
        return _find_checkpoint(Path(name).expanduser(), weights=weights)
    return _find_entry(str(name), hub, source=source, revision=revision, weights=weights)


def _find_entry(name: str, hub: Hub, *, source: str | None, revision: str | None, weights: bool) -> Found:
    entry, tag = resolve(name)
    if tag is None:
        if weights:
            raise NotOnHub(f"{entry.id} has no weights. Build it untrained: zoo.load({entry.id!r}, weights=False).")
        return Found(entry, entry.id, {}, trusted=True)
    about, entry = entry.weights[tag], entry.tag(tag)
    found = Found(entry, f"{entry.id}:{tag}", dict(about.init), parent=f"{entry.id}:{tag}", size=about.bytes or 0)
    found.trusted = True
    found.licence, found.data_licence = about.licence, about.trained_on.get("licence")
    if not weights:
        return found
    if revision is not None and revision != about.hub.revision:
        if about.hub.repo is None:
            raise NotOnHub(f"{found.name} has not been published, so it has no revision {revision!r}.")
        other = _find_remote(about.hub.repo, revision, hub, weights=True)
        if other.entry.id != entry.id:
            raise InvalidConfig(f"{other.name}: expected {entry.id}, found {other.entry.id}.")
        return other
    (found.state, found.sha256), found.source = _pinned(
        entry, about, hub, source, lambda path: read_state(path, sha256=about.sha256, size=about.bytes)
    )
    found.pinned = True
    return found


def _places(entry: Entry, about: Weights, hub: Hub, source: str | None) -> Iterator[tuple[str, Callable[[], Path]]]:
    """Places of pinned weights in the order to try; the Hub last, and once more if what it sent is damaged."""
    repo, revision = about.hub.repo, about.hub.revision
    cached = hub.cached(repo, MODEL, revision) if repo and revision and source != "bundled" else None
    if cached:
        yield "cache", lambda: cached
    bundled = bundled_path(about, entry)
    if about.file and source != "hub" and bundled.is_file():
        yield "bundled", lambda: bundled
    if repo and revision and source != "bundled" and not (hub.is_offline and cached):
        hint = _alternatives(entry, about)
        yield "hub", lambda: hub.download(repo, MODEL, revision, force=bool(cached), hint=hint)
        if not hub.is_offline:
            yield "hub", lambda: hub.download(repo, MODEL, revision, force=True, hint=hint)


def _alternatives(entry: Entry, about: Weights) -> str:
    here = [f"{entry.id}:{t}" for t, w in entry.weights.items() if w.file and bundled_path(w, entry).is_file()]
    return f" Without a network these load: {', '.join(here)}." if here and about.tag not in here else ""


def _pinned(entry: Entry, about: Weights, hub: Hub, source: str | None, use: Callable[[Path], T]) -> tuple[T, str]:
    """Apply `use`, which checks the hash, to the first place whose file is right."""
    name = f"{entry.id}:{about.tag}"
    if about.sha256 is None:
        raise NotOnHub(
            f"{name} has not been trained yet; its recipe makes it: zoo train {name}. Other tags of {entry.id}: "
            f"{', '.join(t for t, w in entry.weights.items() if w.sha256) or 'none'}."
        )
    damaged: CorruptFile | None = None
    for kind, place in _places(entry, about, hub, source):
        try:
            path = place()
        except NetworkUnavailable as error:
            raise (damaged or error) from error
        try:
            where = f"{about.hub.repo}@{about.hub.revision}" if kind != "bundled" else str(path)
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


def pull_path(name: str, hub: Hub, revision: str | None = None) -> Path:
    """Download and verify `model.safetensors`; its path in the Hub cache."""
    if kind_of(name) == "hub":
        repo, revision = parse_address(name, revision)
        return _remote_files(repo, revision, hub)[1]
    if kind_of(name) != "index":
        raise BadInput(f"{name} is local already; pull() expects a name of the index or hf://owner/repo.")
    entry, tag = resolve(name)
    if tag is None:
        raise NotOnHub(f"{entry.id} has no weights.")
    about = entry.weights[tag]
    if revision is not None and revision != about.hub.revision:
        if about.hub.repo is None:
            raise NotOnHub(f"{entry.id}:{tag} has not been published, so it has no revision {revision!r}.")
        return _remote_files(about.hub.repo, revision, hub)[1]

    def verified(path: Path) -> Path:
        check_sha256(path, str(about.sha256), size=about.bytes)
        return path

    return _pinned(entry, about, hub, "hub", verified)[0]


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
    config, _ = read_config(paths[0])
    return config, paths[1], commit, listed.get(MODEL)


def _find_remote(repo: str, revision: str | None, hub: Hub, *, weights: bool) -> Found:
    config, path, commit, listed = _remote_files(repo, revision, hub)
    name = f"hf://{repo}@{commit}"
    found = _from_config(config, name, path)
    found.parent = name
    if weights:
        state, sha256 = read_state(path)
        check_listed(path, None, sha256, listed)  # the bytes that were parsed, not those hashed before
        found.state, found.sha256, found.source = state, sha256, f"hub: {repo}@{commit}"
        _check_config_hash(config, sha256, name)
    return found


def _check_config_hash(config: dict[str, Any], sha256: str, where: object) -> None:
    expected = config["sha256"].get(MODEL)
    if expected != sha256:
        raise CorruptFile(
            f"{where}: its config.json says sha256 {expected} for {MODEL}, the file has {sha256}. The two do not "
            "belong together; get both again."
        )


def _from_config(config: dict[str, Any], name: str, path: Path) -> Found:
    entry = entry_and_tag(config)
    check_arguments(entry.model_class(), config["init"], where=name, error=InvalidConfig)
    parent, facts = config.get("parent"), config.get("facts") or {}
    found = Found(entry, name, config["init"], parent=parent, facts=facts, size=path.stat().st_size)
    inherited, found.data_licence = licences_of(parent)
    found.licence = config.get("licence") or inherited
    return found


def licences_of(parent: str | None) -> tuple[str | None, str | None]:
    """Licences of weights of the index and of their data; both None for other parents.

    What is made from weights is bound by their licence, whatever its maker says.
    """
    try:
        entry, tag = resolve(parent or "")
    except UnknownName:
        return None, None
    about = entry.weights.get(tag or "")
    return (about.licence, about.trained_on.get("licence")) if about else (None, None)


def _find_folder(folder: Path, *, weights: bool) -> Found:
    if not (folder / CONFIG).is_file():
        raise RepositoryNotFound(f"{folder}: expected a folder written by zoo.save(), found no {CONFIG} in it.")
    config, _ = read_config(folder / CONFIG)
    path = folder / MODEL
    if not path.is_file():
        raise RepositoryNotFound(f"{folder}: expected {MODEL} beside {CONFIG}, found none. Save it again.")
    found = _from_config(config, str(folder), path)
    found.source = f"folder: {folder}"
    if weights:
        found.state, found.sha256 = read_state(path, sha256=config["sha256"].get(MODEL, "none in config.json"))
        pins = {w.sha256 for w in found.entry.weights.values()}
        found.pinned = found.sha256 in pins
    return found


# Lightning checkpoints --------------------------------------------------------------------------------------------


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a Lightning .ckpt without executing anything in it.

    Raises:
        UnsafeFile: if it holds anything but tensors and plain values, or is compressed.
        BadInput: if it is not a checkpoint of a ZooModule.
    """
    import torch

    try:
        with zipfile.ZipFile(path) as archive:
            # torch stores, never deflates: a compressed member is a bomb
            packed = [i.filename for i in archive.infolist() if i.file_size > i.compress_size]
    except zipfile.BadZipFile:
        raise UnsafeFile(
            f"{path}: expected a checkpoint of Lightning 2 (a zip archive), found another kind of file."
        ) from None
    if packed:
        raise UnsafeFile(
            f"{path}: expected a checkpoint as torch.save writes it, found compressed parts ({packed[0]})."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UnsafeFile(
            f"{path}: expected tensors and plain values only, found something that would execute code "
            f"({_last_line(error)}). Nothing was executed; do not use this file."
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise CorruptFile(f"{path}: the checkpoint cannot be read ({_last_line(error)}). Use another one.") from None
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise BadInput(f"{path}: expected a Lightning checkpoint with a state_dict, found none.")
    return checkpoint


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if "Unsupported" in line or "GLOBAL" in line]
    return (lines or str(error).splitlines() or [type(error).__name__])[0][:200]


def _find_checkpoint(path: Path, *, weights: bool) -> Found:
    checkpoint = read_checkpoint(path)
    mine = checkpoint.get("zoo")
    name = mine.get("id") if isinstance(mine, dict) else None
    if not isinstance(mine, dict) or not isinstance(name, str):
        raise BadInput(
            f"{path}: expected a checkpoint of a method in the index, found one without an id. Was its class "
            "registered (zoo.register) when it was trained?"
        )
    if isinstance(mine.get("format"), int) and mine["format"] > FORMAT:
        raise FormatTooNew(
            f"{path}: written in format {mine['format']}, this zoo reads up to {FORMAT}. Update the zoo."
        )
    entry = parse_id(name, path)
    arguments = checkpoint.get("hyper_parameters") or {}
    init = {k: v for k, v in arguments.items() if isinstance(k, str) and not k.startswith("_")}
    check_arguments(entry.model_class(), init, where=str(path), error=InvalidConfig)
    parent = mine.get("parent") if isinstance(mine.get("parent"), str) else None
    found = Found(entry, str(path), init, parent=parent, source=f"checkpoint: {path}", size=path.stat().st_size)
    found.licence, found.data_licence = licences_of(parent)
    if weights:
        import torch

        state = {k: v for k, v in checkpoint["state_dict"].items() if isinstance(v, torch.Tensor)}
        if bad := not_finite(state):
            raise UnsafeFile(
                f"{path}: {bad!r} holds NaN or infinity: the training diverged. Use an earlier checkpoint."
            )
        found.state, found.sha256 = state, file_sha256(path)
    return found


def parse_id(name: str, where: object) -> Entry:
    """Entry of an id that a file names; judged like a config's."""
    import json

    stub = {"format": FORMAT, "zoo": name, "init": {}, "sha256": {}}
    return entry_and_tag(parse_config(json.dumps(stub).encode(), where))
