"""Sharing one checkpoint: a folder becomes one commit, which is then loaded back from an empty cache."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

from zoo.base.arguments import parameters_of
from zoo.errors import CorruptFile, RepositoryChanged, RepositoryNotFound, RevisionNotFound, UnsafeFile
from zoo.files import open_regular, read_regular, temporary
from zoo.index import Pin as Published
from zoo.index import Weights
from zoo.store.config import parse_config, read_config
from zoo.store.hub import Hub, as_commit, parse_address
from zoo.store.outgoing import check_private, picture_files, texts_of, without_places
from zoo.store.reference import reference_of
from zoo.store.sources import CONFIG, GOLDEN, MODEL, Checkpoint, find
from zoo.store.tensors import header_text

if TYPE_CHECKING:
    from zoo.base import ZooModule

__all__ = ["contents_of", "ensure_tag", "listing", "load_back", "push", "send"]

_MAX_GOLDEN = 1 << 28
_log = logging.getLogger("zoo")


def push(
    module: ZooModule | str | Path,
    repo: str,
    hub: Hub,
    *,
    private: bool = True,
    tag: str | None = None,
    licence: str | None = None,
) -> Weights:
    """See `zoo.store.push`."""
    parse_address(f"hf://{repo}")
    with _folder_of(module) as folder:
        checkpoint, files = contents_of(folder, hub.token)
        config = parse_config(cast(bytes, files[CONFIG]), folder / CONFIG)
        from zoo.store.folder import card, config_text

        if licence and licence != config.get("licence"):
            config = {**config, "licence": licence}  # so that it reaches those who load the weights, too
            files[CONFIG] = config_text(config)
        licence = config.get("licence") or checkpoint.licence
        name = repo.rpartition("/")[2]
        text = card(checkpoint.entry, config, name, f"hf://{repo}", licence)
        check_private(text, "the card", hub.token)
        files["README.md"] = text.encode()
        message = f"{checkpoint.entry.id}: weights {checkpoint.sha256[:12]}"
        commit = send(hub, repo, files, checkpoint.sha256, private=private, tag=tag, message=message)
        load_back(hub, repo, commit, checkpoint.sha256)
        return Weights(
            tag or "pushed",
            init=config["init"],
            sha256=checkpoint.sha256,
            bytes=checkpoint.size,
            params=sum(t.numel() for t in (checkpoint.state or {}).values()),
            hub=Published(repo, commit),
            licence=licence or "",
            metrics=config.get("metrics") or {},
        )


@contextmanager
def _folder_of(module: ZooModule | str | Path) -> Iterator[Path]:
    """A folder as `save` writes it; temporary, unless one was given."""
    from zoo.store.folder import save

    if isinstance(module, (str, Path)) and Path(module).expanduser().is_dir():
        yield Path(module).expanduser()
        return
    with temporary("zoo-push-") as place:
        yield save(module, place / "checkpoint")


def contents_of(folder: Path, token: str | bool | None = None) -> tuple[Checkpoint, dict[str, bytes | Path]]:
    """What of a folder is sent: weights that load, their config, the golden outputs that they give, and its pictures.

    A folder may be anybody's. Links are refused, other files stay where they are, and whatever the config says about
    this machine is taken out of it or refused, all before the Hub hears of it.

    Args:
        folder: as `save` writes it.
        token: the one in use.

    Returns:
        The weights, and files by name: bytes as they were judged; the weights by their path, to be compared with the
        hash when they are sent.

    Raises:
        UnsafeFile: if a file is a link, is not what its name says, or holds something private.
        CorruptFile: if the weights do not give the golden outputs.
    """
    from zoo.store.build import assemble
    from zoo.store.folder import config_text, golden_problems

    for name in (CONFIG, MODEL, GOLDEN):
        if not os.path.lexists(folder / name):
            raise RepositoryNotFound(
                f"{folder}: {name} is missing. Load what it was made from, and write it again with zoo.save()."
            )
        open_regular(folder / name, links=False).close()
    checkpoint = find(reference_of(folder), Hub(offline=True))
    config, data = read_config(folder / CONFIG)
    cls = checkpoint.entry.model_class()
    optional = {name for name, p in parameters_of(cls).items() if p.default is None}
    config, removed = without_places(config, optional, getattr(cls, "references", ()))
    if removed:
        _log.warning("%s: not sent, because it names places on this machine: %s", folder, ", ".join(removed))
        data = config_text(config)
    for text in texts_of(config):
        check_private(text, f"{folder / CONFIG}", token)
    for name in (MODEL, GOLDEN):
        check_private(header_text(folder / name), f"{folder / name}", token)
    golden = read_regular(folder / GOLDEN, _MAX_GOLDEN, links=False)
    module = assemble(checkpoint, {})
    if module.report is not None and (foreign := module.report.unexpected):
        raise UnsafeFile(f"{folder / MODEL}: expected tensors of the method only, got {foreign[0][:80]!r}.")
    if problems := golden_problems(module, folder / GOLDEN):
        raise CorruptFile(
            f"{folder}: its weights do not give its golden outputs ({problems[0]}). Load what it was made from, and "
            "write it again with zoo.save()."
        )
    files: dict[str, bytes | Path] = {CONFIG: data, MODEL: folder / MODEL, GOLDEN: golden}
    return checkpoint, files | picture_files(folder / "images")


def listing(hub: Hub, repo: str, revision: str | None = None) -> tuple[str, dict[str, str]]:
    """Commit of a revision and the hashes of its files, as the Hub says them."""
    with hub.explained(repo, revision, "the Hub"):
        about = hub.api().model_info(repo, revision=revision, files_metadata=True)
    return as_commit(about.sha, repo), {
        s.rfilename: (s.lfs.sha256 if s.lfs else s.blob_id) or "" for s in about.siblings or ()
    }


def send(
    hub: Hub,
    repo: str,
    files: dict[str, bytes | Path],
    sha256: str,
    *,
    private: bool,
    tag: str | None,
    message: str,
) -> str:
    """Make one commit of the files, on top of what is there, and name it; returns the commit.

    Args:
        hub: where to.
        repo: `owner/name`; created if it does not exist.
        files: by name; see `contents_of`.
        sha256: of the weights, as they were verified.
        private: whether a new repository is private.
        tag: a name for the commit.
        message: of the commit.

    Raises:
        CorruptFile: if the weights changed since they were verified; nothing was sent.
        RepositoryChanged: if somebody else committed in between, or the tag names other weights.
    """
    from huggingface_hub import CommitOperationAdd

    added = [CommitOperationAdd(path, data if isinstance(data, bytes) else str(data)) for path, data in files.items()]
    for operation in added:
        if operation.path_in_repo == MODEL and operation.upload_info.sha256.hex() != sha256:
            raise CorruptFile(f"{MODEL}: the file changed while it was being pushed. Push again.")
    with hub.explained(repo, None, "the Hub"):
        hub.api().create_repo(repo, private=private, exist_ok=True)
    parent, _ = listing(hub, repo)
    if tag is not None and _is_taken(hub, repo, tag, sha256):
        tag = None  # it names these weights already, and does not move
    with hub.explained(repo, None, "the Hub"):
        done = hub.api().create_commit(repo, added, commit_message=message, parent_commit=parent)
        commit = as_commit(done.oid, repo)
        if tag is not None:
            hub.api().create_tag(repo, tag=tag, revision=commit)
    return commit


def ensure_tag(hub: Hub, repo: str, tag: str, commit: str, sha256: str) -> None:
    """Name a commit, unless its weights have that name already."""
    if not _is_taken(hub, repo, tag, sha256):
        with hub.explained(repo, None, "the Hub"):
            hub.api().create_tag(repo, tag=tag, revision=commit)


def _is_taken(hub: Hub, repo: str, tag: str, sha256: str) -> bool:
    try:
        _, listed = listing(hub, repo, tag)
    except RevisionNotFound:
        return False
    if listed.get(MODEL) != sha256:
        raise RepositoryChanged(
            f"hf://{repo}: the tag {tag!r} names other weights ({str(listed.get(MODEL))[:12]}), and a tag never moves. "
            "Choose another tag."
        )
    return True


def load_back(hub: Hub, repo: str, commit: str, sha256: str) -> None:
    """Load a commit from an empty cache, as a stranger would, and reproduce its golden outputs.

    Raises:
        CorruptFile: if the Hub serves something else than was sent.
    """
    from zoo.store.build import assemble
    from zoo.store.folder import golden_problems

    with temporary("zoo-check-") as place:
        fresh = Hub(hub.endpoint, hub.token, hub.offline, place)
        checkpoint = find(reference_of(f"hf://{repo}", commit), fresh)
        if checkpoint.sha256 != sha256:
            served = checkpoint.sha256
            raise CorruptFile(f"hf://{repo}@{commit}: sent sha256 {sha256}, the Hub serves {served}. Push again.")
        golden = fresh.download(repo, GOLDEN, commit)
        if problems := golden_problems(assemble(checkpoint, {}), golden):
            raise CorruptFile(f"hf://{repo}@{commit}: golden outputs are not reproduced ({problems[0]}). Push again.")
