"""Sharing one checkpoint: a folder becomes one commit, which is then loaded back from an empty cache."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import BadInput, CorruptFile, RepositoryChanged, RevisionNotFound
from zoo.files import file_sha256, temporary
from zoo.index import Pin as Published
from zoo.index import Weights
from zoo.store.config import read_config
from zoo.store.hub import Hub, parse_address
from zoo.store.reference import reference_of
from zoo.store.sources import CONFIG, GOLDEN, MODEL, find

if TYPE_CHECKING:
    from zoo.base import ZooModule

__all__ = ["ensure_tag", "files_of", "listing", "load_back", "push", "send"]


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
        # a folder may be anybody's: only what loads is sent
        checkpoint = find(reference_of(folder), Hub(offline=True))
        config, _ = read_config(folder / CONFIG)
        if not (folder / GOLDEN).is_file():
            raise BadInput(f"{folder}: {GOLDEN} is missing. Load the folder and write it again with zoo.save().")
        files = files_of(folder)
        from zoo.store.folder import card, config_text

        if licence and licence != config.get("licence"):
            config = {**config, "licence": licence}  # so that it reaches those who load the weights, too
            files[CONFIG] = config_text(config)
        licence = config.get("licence") or checkpoint.licence
        name = repo.rpartition("/")[2]
        files["README.md"] = card(checkpoint.entry, config, name, f"hf://{repo}", licence).encode()
        message = f"{checkpoint.entry.id}: weights {checkpoint.sha256[:12]}"
        commit = send(hub, repo, files, private=private, tag=tag, message=message)
        load_back(hub, repo, commit, checkpoint.sha256)
        return Weights(
            tag or "pushed",
            init=config["init"],
            sha256=checkpoint.sha256,
            bytes=(folder / MODEL).stat().st_size,
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


def files_of(folder: Path) -> dict[str, bytes | Path]:
    """The files to send: the weights, their config and golden outputs, the card and its pictures."""
    files: dict[str, bytes | Path] = {n: folder / n for n in (CONFIG, MODEL, GOLDEN) if (folder / n).is_file()}
    for path in sorted((folder / "images").glob("*")):
        if path.is_file() and not path.is_symlink():
            files[f"images/{path.name}"] = path
    return files


def listing(hub: Hub, repo: str, revision: str | None = None) -> tuple[str, dict[str, str]]:
    """Commit of a revision and the hashes of its files, as the Hub says them."""
    with hub.explained(repo, revision, "the Hub"):
        about = hub.api().model_info(repo, revision=revision, files_metadata=True)
    return str(about.sha), {s.rfilename: (s.lfs.sha256 if s.lfs else s.blob_id) or "" for s in about.siblings or ()}


def send(hub: Hub, repo: str, files: dict[str, bytes | Path], *, private: bool, tag: str | None, message: str) -> str:
    """Make one commit of the files, on top of what is there, and name it; returns the commit.

    Raises:
        RepositoryChanged: if somebody else committed meanwhile, or the tag names other weights.
    """
    from huggingface_hub import CommitOperationAdd

    with hub.explained(repo, None, "the Hub"):
        hub.api().create_repo(repo, private=private, exist_ok=True)
    parent, _ = listing(hub, repo)
    model = files[MODEL]
    if tag is not None and isinstance(model, Path) and _is_taken(hub, repo, tag, file_sha256(model)):
        tag = None  # it names these weights already, and does not move
    added = [CommitOperationAdd(path, data if isinstance(data, bytes) else str(data)) for path, data in files.items()]
    with hub.explained(repo, None, "the Hub"):
        done = hub.api().create_commit(repo, added, commit_message=message, parent_commit=parent)
        commit = str(done.oid)
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
