"""Talking to the Hub: every transfer is huggingface_hub's, every failure becomes one of ours."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path
from typing import Any

from zoo.errors import (
    BadInput,
    CorruptFile,
    GatedRepository,
    NetworkUnavailable,
    RepositoryChanged,
    RepositoryNotFound,
    RevisionNotFound,
    TruncatedFile,
    Unauthorized,
    ZooError,
)
from zoo.files import disk_error, write_whole

__all__ = ["Hub", "as_commit", "check_listed", "parse_address"]

COMMIT = re.compile(r"[0-9a-f]{40}")
_REVISION = re.compile(r"\w[\w./-]{0,254}", re.ASCII)
_PART = r"\w(?:[\w.-]{0,94}\w)?"  # the Hub's own rule for names of owners and repositories
_ADDRESS = re.compile(rf"hf://({_PART}/{_PART})(?:@(\w[\w./-]{{0,254}}))?", re.ASCII)


def parse_address(address: str, revision: str | None = None) -> tuple[str, str | None]:
    """Repository and revision of `hf://owner/repo[@revision]`.

    Raises:
        BadInput: if it is not of that form, or names another revision than the argument.
    """
    match = _ADDRESS.fullmatch(address)
    if not match or ".." in address or "--" in address or match.group(1).endswith(".git"):
        raise BadInput(
            "expected hf://owner/repo or hf://owner/repo@revision (names of at most 96 letters, digits, '-', '_' and "
            f"'.'), got {address[:200]!r}."
        )
    repo, given = match.groups()
    if revision and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise BadInput(f"{address}: expected a branch, a tag or a commit as its revision, got {revision[:80]!r}.")
    if given and revision and given != revision:
        raise BadInput(f"{address} names the revision {given!r}, the argument says {revision!r}. Give one of them.")
    return repo, given or revision


@dataclass(frozen=True)
class Hub:
    """One Hub as one user sees it.

    Attributes:
        endpoint: address of the Hub or of a mirror; HF_ENDPOINT by default.
        token: HF_TOKEN or the saved login by default.
        offline: use the cache only; HF_HUB_OFFLINE by default.
        cache: another cache folder than the client's own.
    """

    endpoint: str | None = None
    token: str | bool | None = None
    offline: bool | None = None
    cache: Path | None = None

    @property
    def is_offline(self) -> bool:
        """Whether the network must not be used."""
        from huggingface_hub import constants

        return bool(constants.HF_HUB_OFFLINE if self.offline is None else self.offline)

    def cached(self, repo: str, file: str, revision: str) -> Path | None:
        """The cached copy of a file at a revision. Never touches the network."""
        from huggingface_hub import try_to_load_from_cache

        path = try_to_load_from_cache(repo, file, cache_dir=self.cache, revision=revision)
        return Path(path) if isinstance(path, str) else None

    def download(self, repo: str, file: str, revision: str, *, force: bool = False, hint: str = "") -> Path:
        """Path of a file at a revision, from the cache or the Hub. Its contents are not checked here."""
        from huggingface_hub import constants, hf_hub_download

        # a client that renames its arguments must not silently lose one: all by keyword
        with self.explained(repo, revision, f"{constants.HF_HUB_CACHE} (the Hub cache)", hint):
            return Path(
                hf_hub_download(
                    repo_id=repo,
                    filename=file,
                    revision=revision,
                    cache_dir=self.cache,
                    endpoint=self.endpoint,
                    token=self.token,
                    force_download=force,
                    local_files_only=self.is_offline,
                    library_name="lightning-method-zoo",
                )
            )

    def api(self) -> Any:
        """The client's API object for this endpoint and token."""
        from huggingface_hub import HfApi

        return HfApi(endpoint=self.endpoint, token=self.token)

    def resolve(self, repo: str, revision: str | None, files: tuple[str, ...]) -> tuple[str, dict[str, str]]:
        """One commit for a branch or tag, and the hashes the Hub lists for files that are not cached at it yet.

        A commit whose files are all cached needs no request; without a network, the cache's own note of the branch
        is used, and the names of its blobs, which are the hashes that were listed then.
        """
        with self.explained(repo, revision or "main", "the Hub cache"):
            api = self.api()
            answer = api.resolve_revision(
                repo, revision=revision, cache_dir=self.cache, local_files_only=self.is_offline
            )
            commit = as_commit(answer.resolved, repo)
            paths = [self.cached(repo, file, commit) for file in files]
            noted = self._noted(commit, paths)
            known = [path is not None and (path.is_symlink() or path.name in noted) for path in paths]
            if self.is_offline or all(known):
                return commit, noted
            about = api.get_paths_info(repo, list(files), revision=commit)
        return commit, {f.path: f.lfs.sha256 if f.lfs else f.blob_id for f in about}

    def _noted(self, commit: str, paths: Sequence[Path | None]) -> dict[str, str]:
        """The hashes that `note` kept."""
        for path in paths:
            if path is not None and (note := _note_of(path, commit)).is_file():
                with suppress(ValueError):
                    content = json.loads(note.read_bytes()[:_MAX_NOTE])
                    return {str(k): str(v) for k, v in content.items()} if isinstance(content, dict) else {}
        return {}

    def note(self, path: Path, commit: str, listed: dict[str, str]) -> None:
        """Keep the hashes that the Hub lists beside a cache without symbolic links.

        Elsewhere the link to the blob, which is named by its hash, tells it.
        """
        if listed and not path.is_symlink() and not self.is_offline:
            place = _note_of(path, commit)
            place.parent.mkdir(parents=True, exist_ok=True)
            write_whole(place, json.dumps(listed))

    @contextmanager
    def explained(self, repo: str, revision: str | None, place: object, hint: str = "") -> Iterator[None]:
        """Turn the client's exceptions into ours."""
        try:
            yield
        except ZooError:
            raise
        except Exception as error:
            translated = self._translate(error, repo, revision, place, hint)
            if translated is None:
                raise
            raise translated from error

    def _translate(
        self, error: BaseException, repo: str, revision: str | None, place: object, hint: str
    ) -> ZooError | None:
        from huggingface_hub import errors as client

        where = f"hf://{repo}" + (f"@{revision}" if revision else "")
        unresolved = getattr(client, "RevisionResolutionError", ())
        wrappers = (client.LocalEntryNotFoundError, ValueError, RuntimeError, unresolved)
        if isinstance(error, wrappers) and error.__cause__ is not None:
            # the client wraps what happened: a wrong revision or a refused token is not "no network"
            return self._translate(error.__cause__, repo, revision, place, hint)
        if isinstance(error, client.GatedRepoError):
            return GatedRepository(
                f"{where} is gated. Accept its conditions at {self._page(repo)} while logged in, then give a token "
                "of that account (`hf auth login`, HF_TOKEN, or token=...)."
            )
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(error, client.RevisionNotFoundError):
            return RevisionNotFound(
                f"{where}: the repository has no such revision. See {self._page(repo)}/commits/main"
            )
        if isinstance(error, client.RemoteEntryNotFoundError):
            return RepositoryNotFound(
                f"{where} has no such file ({_file_of(error)}): it was not written by this zoo. "
                "Repositories made by zoo.push hold config.json and model.safetensors."
            )
        if isinstance(error, (client.LocalEntryNotFoundError, client.OfflineModeIsEnabled, unresolved)):
            return NetworkUnavailable(
                f"{where}: offline mode is on, and the Hub cache does not have what is needed. Do this once with a "
                f"network (without HF_HUB_OFFLINE), or copy the cache of a machine that has it (HF_HOME).{hint}"
            )
        if status == 401:
            return Unauthorized(
                f"{where}: the Hub answered 401: the repository is private or does not exist, or the token is wrong. "
                "Check the name, then give a token that may read it (`hf auth login`, HF_TOKEN, or token=...)."
            )
        if isinstance(error, client.RepositoryNotFoundError):
            return RepositoryNotFound(f"{where}: the Hub has no such repository. Check the name at {self._page(repo)}")
        if status == 403:
            return Unauthorized(f"{where}: the Hub answered 403: this token may not do that. Use one with that right.")
        if status == 412:
            return RepositoryChanged(
                f"{where}: somebody else committed to it just now, and nothing of yours was. Look at "
                f"{self._page(repo)}, then push again."
            )
        return _network_or_disk(error, where, place, status, hint)

    def _page(self, repo: str) -> str:
        from huggingface_hub import constants

        return f"{(self.endpoint or constants.ENDPOINT).rstrip('/')}/{repo}"


_MAX_NOTE = 1 << 16


def _note_of(path: Path, commit: str) -> Path:
    """Where the hashes of a commit are kept, for a file `REPOSITORY/snapshots/COMMIT/FILE`."""
    return path.parents[2] / "zoo-hashes" / f"{commit}.json"


def as_commit(name: Any, repo: str) -> str:
    """A commit as the Hub says it; it becomes part of paths in the cache.

    Raises:
        CorruptFile: if it is not one.
    """
    if not isinstance(name, str) or COMMIT.fullmatch(name) is None:
        raise CorruptFile(f"hf://{repo}: expected a commit of 40 digits from the Hub, got {str(name)[:60]!r}.")
    return name


def _file_of(error: Any) -> str:
    url = str(getattr(getattr(error, "response", None), "url", ""))
    return url.rsplit("/", 1)[-1] or "unknown"


def _network_or_disk(error: BaseException, where: str, place: object, status: int | None, hint: str) -> ZooError | None:
    text = f"{type(error).__name__}: {error}".split("\n")[0][:200]
    if isinstance(error, OSError) and "Consistency check failed" in str(error):
        return TruncatedFile(f"{where}: the download broke off ({text}). Load again; what arrived is not used.")
    if status == 429:
        return NetworkUnavailable(
            f"{where}: the Hub answers 429, too many requests. Wait some minutes, or log in.{hint}"
        )
    if status is not None and status >= 400:
        return NetworkUnavailable(
            f"{where}: the Hub answers {status}. Try again later, or set HF_ENDPOINT to a mirror.{hint}"
        )
    if (full := disk_error(error, place)) is not None:
        return full
    module = type(error).__module__.partition(".")[0]
    if module in ("httpx", "httpx2", "httpcore", "httpcore2") or isinstance(error, (ConnectionError, TimeoutError)):
        return NetworkUnavailable(
            f"{where}: the Hub cannot be reached ({text}). Check the connection and proxy, or set HF_ENDPOINT to a "
            f"mirror; what is in the cache loads without a network.{hint}"
        )
    if isinstance(error, (ValueError, KeyError, TypeError, AttributeError, IndexError)):
        return NetworkUnavailable(
            f"{where}: what answers is not a Hub, or not a sound one ({text}). Check HF_ENDPOINT and the proxy.{hint}"
        )
    return None


def check_listed(path: Path, data: bytes | None, sha256: str, listed: str | None) -> None:
    """Compare a downloaded file with the hash the Hub lists: sha256 of large files, git's blob hash of small ones.

    Args:
        path: the file in the cache, whose blob is named by that hash.
        data: its bytes, for the git hash; read from `path`, if None.
        sha256: of the bytes that were parsed.
        listed: what the Hub said; None: what the cache noted when it was downloaded.

    Raises:
        CorruptFile: if they differ, or if there is nothing to compare with.
    """
    expected = listed or os.path.realpath(path).replace("\\", "/").rpartition("/")[2]
    if re.fullmatch(r"[0-9a-f]{64}", expected):
        actual = sha256
    elif COMMIT.fullmatch(expected):
        data = path.read_bytes() if data is None else data
        actual = sha1(b"blob %d\0" % len(data) + data).hexdigest()
    else:
        raise CorruptFile(f"{path}: no hash is known to compare it with. Load it once with a network.")
    if actual != expected:
        raise CorruptFile(
            f"{path}: the Hub lists {expected}, the file has {actual}. It was changed or damaged, and is not used. "
            "Load again with a network."
        )
