"""Repositories of the loopback Hub: commits, branches, tags and large files, in memory."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from hashlib import sha1, sha256
from typing import Any

LARGE = (".safetensors", ".png", ".jpg", ".bin")


class HubError(Exception):
    """An answer with a status and the Hub's own error code."""

    def __init__(self, status: int, code: str = "", message: str = "", headers: dict[str, str] | None = None) -> None:
        super().__init__(message or code)
        self.status, self.code, self.message, self.headers = status, code, message or code, headers or {}


def git_oid(data: bytes) -> str:
    return sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class Repo:
    name: str
    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    history: list[str] = field(default_factory=list)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.commits:
            self.commit({".gitattributes": b"*.safetensors filter=lfs\n"})

    def commit(self, files: dict[str, bytes | None], branch: str = "main") -> str:
        """Add a commit on top of a branch; None deletes a file. Returns its 40 digits."""
        parent = self.branches.get(branch, "")
        tree = dict(self.commits.get(parent, {}))
        for path, data in files.items():
            if data is None:
                tree.pop(path, None)
            else:
                tree[path] = data
        seed = f"{self.name}{parent}{len(self.history)}" + "".join(f"{p}{git_oid(d)}" for p, d in sorted(tree.items()))
        oid = sha1(seed.encode()).hexdigest()
        self.commits[oid] = tree
        self.history.append(oid)
        self.branches[branch] = oid
        return oid

    def resolve(self, revision: str) -> str:
        revision = "main" if revision == "HEAD" else revision
        found = self.branches.get(revision) or self.tags.get(revision)
        if found is None and revision in self.commits:
            found = revision
        if found is None:
            raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return found

    def entry(self, path: str, data: bytes) -> dict[str, Any]:
        """One line of a listing."""
        found: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": git_oid(data)}
        if path.endswith(LARGE):
            found["lfs"] = {"oid": sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
        return found

    def info(self, revision: str) -> dict[str, Any]:
        """What the models API answers."""
        oid = self.resolve(revision)
        siblings = []
        for path, data in sorted(self.commits[oid].items()):
            line: dict[str, Any] = {"rfilename": path, "size": len(data), "blobId": git_oid(data)}
            if path.endswith(LARGE):
                line["lfs"] = {"sha256": sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
            siblings.append(line)
        dates = {"lastModified": "2026-01-01T00:00:00.000Z", "createdAt": "2026-01-01T00:00:00.000Z"}
        return {
            "_id": self.name,
            "id": self.name,
            "modelId": self.name,
            "sha": oid,
            "private": self.private,
            "gated": "manual" if self.gated else False,
            "disabled": False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "siblings": siblings,
            **dates,
        }


class State:
    """Everything the Hub knows. `lock` guards it: handlers run in threads."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.repos: dict[str, Repo] = {}
        self.blobs: dict[str, bytes] = {}
        self.tokens: dict[str, str] = {"token-of-owner": "owner", "token-of-other": "other"}
        self.accepted: set[tuple[str, str]] = set()

    def add(self, name: str, files: dict[str, bytes], *, private: bool = False, gated: bool = False) -> str:
        """Create a repository with one commit; returns the commit."""
        with self.lock:
            repo = self.repos.setdefault(name, Repo(name, private, gated))
            return repo.commit(dict(files))

    def repo(self, name: str, user: str | None, *, write: bool = False, contents: bool = True) -> Repo:
        """A repository that a user may see (and, `write`, change).

        Raises:
            HubError: 401 without a token, 403 without access, 404 if there is none.
        """
        repo = self.repos.get(name)
        may = user is not None and user == name.split("/")[0]
        if repo is None:
            raise HubError(401 if user is None else 404, "RepoNotFound", "Repository not found")
        if repo.private and not may:
            raise HubError(401 if user is None else 404, "RepoNotFound", "Repository not found")
        if repo.gated and contents and not may and (user or "", name) not in self.accepted:
            raise HubError(
                401 if user is None else 403,
                "GatedRepo",
                f"Access to model {name} is restricted and you are not in the authorized list.",
            )
        if write and not may:
            raise HubError(401 if user is None else 403, "", "You don't have the rights to write here")
        return repo
