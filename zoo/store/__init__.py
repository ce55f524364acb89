"""Load, save, pull and verify weights.

Every load checks the sha256 that the index pins over the very bytes it parses, so no cache, mirror or network can
change what is loaded. Transfers are huggingface_hub's. Nothing that was fetched is ever executed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import BadInput, ZooError
from zoo.index import Weights, resolve
from zoo.index.recipes import read_recipe, section_of
from zoo.store.build import assemble, fill_from, notice_of
from zoo.store.config import check_arguments, check_classes
from zoo.store.hub import Hub
from zoo.store.recipe_data import bound_to_data
from zoo.store.reference import Reference, reference_of, references_of
from zoo.store.sources import MODEL, Row, find, pull_path
from zoo.store.tensors import check_sha256, read_state

if TYPE_CHECKING:
    from zoo.base import LoadReport, ZooModule
    from zoo.base.data import DataContract

__all__ = ["Row", "datamodule", "load", "load_into", "publish", "pull", "push", "read_state", "save", "verify"]


def load(
    name: str | Path,
    *,
    weights: bool = True,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    source: str | None = None,
    revision: str | None = None,
    endpoint: str | None = None,
    token: str | bool | None = None,
    offline: bool | None = None,
    map_location: Any = "cpu",
    **init: Any,
) -> ZooModule:
    """Build a method and give it verified weights.

    Args:
        name: `id`, `id:tag`, an alias, `hf://owner/repo[@revision]`, a folder written by `save`, or a `.ckpt` file.
        weights: False builds it untrained.
        num_classes: if it differs from the checkpoint's, only the head is re-initialised.
        class_names: implies `num_classes`; names that differ from the checkpoint's re-initialise the head, too.
        source: `hub` or `bundled` forces one; by default the Hub cache, then the bundled file, then the Hub.
        revision: of the repository. Another one than the index pins is compared with the Hub's own hash only.
        endpoint: another Hub than HF_ENDPOINT.
        token: another one than HF_TOKEN or the saved login.
        offline: use the cache only; HF_HUB_OFFLINE by default.
        map_location: device of the module.
        init: constructor arguments that differ from those of the weights. Arguments called `pretrained*` are False
            when weights are loaded: they would be fetched and overwritten.

    Returns:
        The module in evaluation mode; `module.report` says what was loaded from where.

    Raises:
        ZooError: a class of its own for each failure; the message says what to do.
    """
    hub = Hub(endpoint, token, offline)
    checkpoint = find(reference_of(name, revision), hub, source=source, weights=weights)
    module = assemble(checkpoint, init, num_classes, class_names, map_location)
    notice_of(checkpoint)
    return module


def load_into(
    module: ZooModule,
    name: str | Path | Reference,
    *,
    source: str | None = None,
    revision: str | None = None,
    endpoint: str | None = None,
    token: str | bool | None = None,
    offline: bool | None = None,
) -> LoadReport:
    """Load weights into an existing module; its mode and device are unchanged.

    The head is kept new if the module's class count or class names differ from the weights'.

    Args:
        module: of the same method as the weights.
        name: as in `load` (or resolved already), and so are the others.
        source: `hub` or `bundled`.
        revision: of the repository.
        endpoint: of the Hub.
        token: for the Hub.
        offline: use the cache only.

    Raises:
        BadInput: if the weights belong to another method.
        KeyMismatch: (ShapeMismatch) if they do not fit; the module is unchanged.
    """
    checkpoint = find(reference_of(name, revision), Hub(endpoint, token, offline), source=source)
    cls = checkpoint.entry.model_class()
    if not isinstance(module, cls):
        raise BadInput(f"{checkpoint.name} holds weights of {cls.__name__}, the module is a {type(module).__name__}.")
    report = fill_from(module, checkpoint, remake=check_classes(cls, checkpoint.init, module.init_args))
    notice_of(checkpoint)
    return report


def save(module: ZooModule | str | Path, folder: str | Path, *, card: bool = True, half: bool = False) -> Path:
    """Write a folder that `load` reads and that can be shared: config.json, model.safetensors, golden.safetensors.

    The folder appears whole or not at all. An earlier one written by `save` is replaced, any other is refused.

    Args:
        module: a module, or the path of a `.ckpt` file.
        folder: the folder.
        card: also write a README.md.
        half: store float32 parameters (not buffers) in half precision.

    Returns:
        The folder.

    Raises:
        BadInput: if the folder holds other files.
        PrivateWeights: if the module has parameters that must not be shared.
        UnsafeFile: if a weight is NaN or infinite.
        DiskFull: if there is no room; nothing is left behind.
    """
    from zoo.store.folder import save as write

    return write(module, Path(folder), with_card=card, half=half)


def pull(
    name: str,
    *,
    revision: str | None = None,
    endpoint: str | None = None,
    token: str | bool | None = None,
    offline: bool | None = None,
) -> Path:
    """Fetch weights from the Hub into its cache, verify them, and return the path of the file.

    Args:
        name: `id`, `id:tag`, an alias or `hf://owner/repo[@revision]`; a bundled file is not used.
        revision: as in `load`, and so are the others.
        endpoint: of the Hub.
        token: for the Hub.
        offline: only verify what is in the cache.

    Raises:
        NotOnHub: if they are not published.
        CorruptFile: if the Hub serves other bytes than the index pins.
    """
    return pull_path(reference_of(name, revision), Hub(endpoint, token, offline))


def verify(
    names: str | Iterable[str] | None = None,
    *,
    remote: bool = False,
    endpoint: str | None = None,
    token: str | bool | None = None,
) -> list[Row]:
    """Check every copy of the weights of the index: bundled, cached, and on the Hub.

    Args:
        names: `id` (all its tags) or `id:tag`; all, by default.
        remote: also ask the Hub whether the pinned revisions exist and list the same hashes.
        endpoint: of the Hub.
        token: for the Hub.
    """
    hub = Hub(endpoint, token)
    return [row for reference in references_of(names) for row in _verify(reference, hub, remote)]


def _verify(reference: Reference, hub: Hub, remote: bool) -> list[Row]:
    name, (_, about) = reference.name, reference.indexed
    if about.sha256 is None:
        return [Row(name, "-", True, "not trained yet, only a recipe", checked=False)]
    repo, revision = reference.repo, reference.revision
    places = {"bundled": reference.bundled, "cache": hub.cached(repo, MODEL, revision) if repo and revision else None}
    rows = []
    for where, path in places.items():
        if path is None:
            continue
        try:
            check_sha256(path, about.sha256, size=about.bytes)
            right = about.bytes in (None, path.stat().st_size)
            rows.append(
                Row(name, where, right, "sha256 agrees" + ("" if right else f", but bytes is not {about.bytes}"))
            )
        except ZooError as error:
            rows.append(Row(name, where, False, str(error)))
    if remote and repo and revision:
        rows.append(_verify_remote(name, repo, revision, about.sha256, hub))
    if not rows:
        there = Row(name, "hub", True, "not downloaded", checked=False)
        rows = [there if repo else Row(name, "-", False, "no file anywhere")]
    return rows


def _verify_remote(name: str, repo: str, revision: str, sha256: str, hub: Hub) -> Row:
    try:
        with hub.explained(repo, revision, "the Hub cache"):
            files = hub.api().model_info(repo, revision=revision, files_metadata=True).siblings or ()
    except ZooError as error:
        return Row(name, "hub", False, str(error))
    listed = {s.rfilename: s.lfs.sha256 for s in files if s.lfs}.get(MODEL)
    if listed != sha256:
        return Row(name, "hub", False, f"the Hub lists sha256 {listed}, the index {sha256}")
    return Row(name, "hub", True, "the Hub lists the same sha256")


def datamodule(name: str, root: str | Path | None = None, **init: Any) -> DataContract:
    """Build the data module that is paired with a method.

    Args:
        name: `id` or `id:tag`.
        root: your data; None is the embedded default. The other settings are those of the tag's recipe (input size,
            augmentation, ...), except for what describes its data (format, sizes, splits) where yours are others.
        init: further arguments of the data module.

    Raises:
        BadInput: for an argument it does not have.
    """
    entry, tag = resolve(name)
    cls = entry.tag(tag).data_class()
    check_arguments(cls, init, where=f"datamodule({name!r})", error=BadInput)
    given = section_of(read_recipe(entry, tag), "data", cls)
    check_arguments(cls, given, where=f"the recipe of {name}: data", error=BadInput)
    if root is not None:
        bound = bound_to_data(entry, tag, cls, given, root)
        given = {**{k: v for k, v in given.items() if k not in bound}, "root": str(root)}
    built: DataContract = cls(**{**given, **init})
    return built


def push(
    module: ZooModule | str | Path,
    repo_id: str,
    *,
    private: bool = True,
    tag: str | None = None,
    licence: str | None = None,
    token: str | bool | None = None,
    endpoint: str | None = None,
) -> Weights:
    """Share a checkpoint on the Hub, in one commit; then download it into an empty cache and check that it loads.

    Args:
        module: a module, a `.ckpt` file, or a folder written by `save`.
        repo_id: `owner/name`; created if it does not exist.
        private: whether a new repository is private.
        tag: a name for the commit, which never moves.
        licence: of the weights, for the card.
        token: another one than HF_TOKEN or the saved login.
        endpoint: another Hub than HF_ENDPOINT.

    Returns:
        What an index entry would say about it: repository and commit, sha256, bytes, parameters, arguments.

    Raises:
        PrivateWeights: if the module has parameters that must not be shared.
        RepositoryChanged: if somebody else committed in between, or the tag names other weights.
    """
    from zoo.store.upload import push as send

    return send(module, repo_id, Hub(endpoint, token), private=private, tag=tag, licence=licence)


def publish(
    names: str | Iterable[str] | None = None,
    *,
    namespace: str,
    private: bool = False,
    dry_run: bool = False,
    token: str | bool | None = None,
    endpoint: str | None = None,
) -> list[Row]:
    """Publish the index's own weights, one repository `namespace/id-tag` each, and pin them in the index file.

    Each is one commit, verified by loading it from an empty cache. What is there already is not sent again, so a run
    that was stopped is simply repeated.

    Args:
        names: `id` (all its trained tags) or `id:tag`; all, by default.
        namespace: owner of the repositories.
        private: whether new repositories are private.
        dry_run: only say what would be done.
        token: another one than HF_TOKEN or the saved login.
        endpoint: another Hub than HF_ENDPOINT.

    Returns:
        One row per checkpoint; rows that are not ok say why.
    """
    from zoo.store.publication import publish as send

    return send(references_of(names), namespace, Hub(endpoint, token), private=private, dry_run=dry_run)
