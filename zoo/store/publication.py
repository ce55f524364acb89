"""Publishing the index's own weights, and pinning the commits in the index file without touching the rest of it."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from hashlib import sha1
from pathlib import Path
from typing import Any

from zoo.base.arguments import without_downloads
from zoo.base.format import FORMAT
from zoo.errors import InvalidIndex, RepositoryNotFound, RevisionNotFound, Unauthorized, UnsafeFile, ZooError
from zoo.files import temporary, versions, write_whole, writing
from zoo.index import Entry, Weights, index_path, read_index, refresh
from zoo.index import Pin as Published
from zoo.index.editing import block_of
from zoo.store.hub import Hub
from zoo.store.outgoing import picture_files, text_file
from zoo.store.reference import Reference, reference_of
from zoo.store.sources import CONFIG, GOLDEN, MODEL, Row, find, pull_path
from zoo.store.tensors import check_sha256
from zoo.store.upload import contents_of, ensure_tag, listing, load_back, send

__all__ = ["pin", "publish"]


def publish(
    wanted: list[Reference], namespace: str, hub: Hub, *, private: bool = False, dry_run: bool = False
) -> list[Row]:
    """See `zoo.store.publish`."""
    rows = []
    for reference in wanted:
        name, (entry, about) = reference.name, reference.indexed
        if about.sha256 is None:
            continue
        repo = f"{namespace}/{entry.id}-{about.tag}"
        if dry_run:
            here = "published" if about.hub.repo == repo else "would be published"
            rows.append(Row(name, repo, True, f"{here}, {about.bytes or 0:,} bytes"))
            continue
        try:
            commit, why = _publish(reference, about.sha256, repo, hub, private=private)
            pin(Path(entry.source), entry.id, about.tag, repo, commit)
            rows.append(Row(name, repo, True, f"{why} at {commit[:12]}"))
        except ZooError as error:  # one failure must not stop the rest
            rows.append(Row(name, repo, False, str(error)))
    refresh()
    return rows


def _publish(reference: Reference, sha256: str, repo: str, hub: Hub, *, private: bool) -> tuple[str, str]:
    """Send one checkpoint unless the Hub has it already; returns its commit and what was done."""
    entry, about = reference.indexed
    with temporary("zoo-publish-") as place:
        readme = _card(entry, about, repo, hub)
        there = _already_there(hub, repo, about, readme)
        tag = f"sha256-{sha256[:12]}"
        if there is not None:
            if there != about.hub.revision:  # an earlier run stopped before it had named, checked and pinned it
                ensure_tag(hub, repo, tag, there, sha256)
                load_back(hub, repo, there, sha256)
            return there, "already there"
        _, files = contents_of(_stage(reference, sha256, place, hub), hub.token)
        files |= {"README.md": readme.encode()} | _pictures(entry) | _eval_results(entry, about, hub)
        commit = send(hub, repo, files, sha256, private=private, tag=tag, message=f"{reference.name} {sha256[:12]}")
        load_back(hub, repo, commit, sha256)
        return commit, "published"


def _already_there(hub: Hub, repo: str, about: Weights, readme: str) -> str | None:
    """The commit that holds these weights with this card: the pinned one, else the newest."""
    data = readme.encode()
    blob = sha1(b"blob %d\0" % len(data) + data).hexdigest()
    for revision in [about.hub.revision, None] if about.hub.repo == repo else [None]:
        try:
            commit, listed = listing(hub, repo, revision)
        except (RepositoryNotFound, RevisionNotFound, Unauthorized):
            continue  # 401 is also the answer for what does not exist; creating it will tell
        if listed.get(MODEL) == about.sha256 and listed.get("README.md") == blob and {CONFIG, GOLDEN} <= listed.keys():
            return commit
    return None


def _stage(reference: Reference, sha256: str, folder: Path, hub: Hub) -> Path:
    """Write the folder of a checkpoint around the very bytes that the index pins."""
    from zoo.store.build import assemble
    from zoo.store.folder import config_text, write_golden

    entry, about = reference.indexed
    source = reference.bundled or pull_path(reference, Hub(hub.endpoint, hub.token))
    check_sha256(source, sha256, size=about.bytes)
    with writing(folder):
        (folder / MODEL).write_bytes(source.read_bytes())
        config: dict[str, Any] = {
            "format": FORMAT,
            "zoo": entry.id,
            "tag": about.tag,
            "init": {**about.init, **without_downloads(entry.model_class(), about.init)},
            "facts": about.trained_on,
            "sha256": {MODEL: sha256},
            "parent": None,
            "versions": versions("torch", "lightning"),
            "metrics": about.metrics,
            "licence": about.licence,
        }
        (folder / CONFIG).write_bytes(config_text(config))
        # reading it back checks the hash of what was copied
        write_golden(assemble(find(reference_of(folder), replace(hub, offline=True)), {}), folder / GOLDEN)
    return folder


def _cards(entry: Entry) -> Path | None:
    """Folder of the entry's card, in a checkout or in the installed package.

    Raises:
        UnsafeFile: if a link leads out of there.
    """
    for base in (Path(entry.source).parent, index_path().parent):
        folder = base / "model_cards" / entry.id
        if not (folder / "README.md").is_file():
            continue
        if folder.resolve() != base.resolve() / "model_cards" / entry.id:
            raise UnsafeFile(f"{folder}: expected the folder of a card, got a link. Nothing was sent.")
        return folder
    return None


def _card(entry: Entry, about: Weights, repo: str, hub: Hub) -> str:
    from zoo.store.folder import card

    if folder := _cards(entry):
        return text_file(folder / "README.md", hub.token).decode()
    config = {"init": about.init, "metrics": about.metrics, "trained_on": about.trained_on}
    return card(entry, config, repo.rpartition("/")[2], f"{entry.id}:{about.tag}", about.licence)


def _pictures(entry: Entry) -> dict[str, bytes | Path]:
    folder = _cards(entry)
    return dict(picture_files(folder / "images")) if folder else {}


def _eval_results(entry: Entry, about: Weights, hub: Hub) -> dict[str, bytes | Path]:
    """This tag's numbers in the Hub's own format, where `zoo card` wrote them."""
    folder = _cards(entry)
    path = folder / ".eval_results" / f"{about.tag}.yaml" if folder else None
    if path is None or not os.path.lexists(path):
        return {}
    if path.parent.is_symlink():
        raise UnsafeFile(f"{path.parent}: expected a folder, got a link. Nothing was sent.")
    return {f".eval_results/{path.name}": text_file(path, hub.token)}


# The index file ---------------------------------------------------------------------------------------------------


def pin(path: Path, name: str, tag: str, repo: str, commit: str) -> None:
    """Write repository and commit into one tag's `hub:` line; every other byte of the file stays.

    Raises:
        InvalidIndex: if that line cannot be found; the file is unchanged.
    """
    old = path.read_text(encoding="utf-8")
    lines = old.splitlines(keepends=True)
    start, end = block_of(lines, 0, len(lines), name, "")
    start, end = block_of(lines, start, end, "weights")
    start, end = block_of(lines, start, end, tag)
    text = f'hub: {{repo: {repo}, revision: "{commit}"}}'
    at = next((i for i in range(start, end) if re.match(r"\s+hub:", lines[i])), None)
    if at is None:
        first = next((line for line in lines[start:end] if line.strip()), "")
        lines.insert(start, first[: len(first) - len(first.lstrip())] + text + "\n")
    else:
        changed = re.sub(r"hub:\s*(\{[^}]*\}|null|~)?(?=\s*(#.*)?$)", text, lines[at].rstrip("\n"))
        lines[at] = changed + "\n"
    new = "".join(lines)
    if new != old:
        _check_and_write(path, new, name, tag, Published(repo, commit))


def _check_and_write(path: Path, text: str, name: str, tag: str, published: Published) -> None:
    """Replace the file if the only thing that changed in what it says is that pin."""
    before, after = read_index(path), read_index(path, text=text)
    weights = before[name].weights
    pinned = {**weights, tag: replace(weights[tag], hub=published)}
    if after != {**before, name: replace(before[name], weights=pinned)}:
        raise InvalidIndex(
            f"{path}: {name}: expected weights.{tag}.hub on a line of its own, such as "
            "hub: {repo: null, revision: null}, got another layout. Write it so, then publish again."
        )
    write_whole(path, text)
