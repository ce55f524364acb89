"""A Hub on the loopback interface, for the real client: standard library only, with switches for what goes wrong."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import socket
import struct
import threading
import time
from dataclasses import dataclass
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from hub_state import LARGE, HubError, Repo, State, git_oid

_ROUTES: list[tuple[str, re.Pattern[str], str]] = [
    ("GET", re.compile(r"/api/whoami-v2"), "whoami"),
    ("POST", re.compile(r"/api/repos/create"), "create"),
    ("DELETE", re.compile(r"/api/repos/delete"), "delete"),
    ("POST", re.compile(r"/api/validate-yaml"), "validate"),
    ("GET", re.compile(r"/api/models"), "models"),
    ("GET", re.compile(r"/api/models/([^/]+/[^/]+)/refs"), "refs"),
    ("GET", re.compile(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)(?:/(.*))?"), "tree"),
    ("POST", re.compile(r"/api/models/([^/]+/[^/]+)/paths-info/([^/]+)"), "paths_info"),
    ("POST", re.compile(r"/api/models/([^/]+/[^/]+)/tag/([^/]+)"), "tag"),
    ("POST", re.compile(r"/api/models/([^/]+/[^/]+)/preupload/([^/]+)"), "preupload"),
    ("POST", re.compile(r"/api/models/([^/]+/[^/]+)/commit/([^/]+)"), "commit"),
    ("GET", re.compile(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?"), "info"),
    ("POST", re.compile(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch"), "batch"),
    ("POST", re.compile(r"/lfs/verify"), "verify"),
    ("PUT", re.compile(r"/lfs/([0-9a-f]{64})"), "upload"),
    ("GET", re.compile(r"/lfs/([0-9a-f]{64})(?:/(.*))?"), "large"),
    ("GET", re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)"), "resolve"),
]


@dataclass
class Fault:
    """One switch. `kind`: corrupt, truncate, reset, slow, stall, or a status (401, 403, 404, 429, 503).

    `path` limits it to requests whose address contains it, `method` to one method, `times` to so many requests.
    """

    kind: str | int
    path: str = ""
    method: str = ""
    times: int = 1 << 30
    seconds: float = 5.0

    def takes(self, method: str, path: str) -> bool:
        if self.times <= 0 or self.path not in path or (self.method and self.method != method):
            return False
        if self.kind in ("corrupt", "truncate", "reset", "slow") and (method != "GET" or "/api/" in path):
            return False
        self.times -= 1
        return True


class LoopbackHub:
    """The server. `state` holds the repositories, `faults` what goes wrong, `requests` what was asked."""

    def __init__(self) -> None:
        self.state = State()
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []
        self.bodies: list[bytes] = []
        self.authorized_elsewhere: list[str] = []
        self.redirect = True
        self.racing: set[str] = set()
        self._connections: set[socket.socket] = set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.hub = self  # type: ignore[attr-defined]
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def add(self, name: str, files: dict[str, bytes], **options: Any) -> str:
        return self.state.add(name, files, **options)

    def fault(self, kind: str | int, path: str = "", **options: Any) -> Fault:
        """Switch a fault on; returns it, `fault.times = 0` switches it off."""
        self.faults.append(Fault(kind, path, **options))
        return self.faults[-1]

    def move_tag(self, name: str, tag: str, commit: str) -> None:
        self.state.repos[name].tags[tag] = commit

    def race(self, name: str) -> None:
        """Let somebody else's commit arrive just before the next one."""
        self.racing.add(name)

    def count(self, method: str = "", part: str = "") -> int:
        return sum(m.startswith(method) and part in p for m, p in self.requests)

    def received(self) -> bytes:
        """Every byte that was sent here but for headers, with what is in base64 decoded behind it."""
        parts = []
        for body in self.bodies:
            parts.append(body)
            for found in re.findall(rb'"(?:content|sample)":\s*"([A-Za-z0-9+/=]*)"', body):
                parts.append(base64.b64decode(found))
        return b"\n".join(parts)

    def stop(self) -> None:
        """Go away, kept-alive connections included."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()
        for connection in list(self._connections):
            _abort(connection)


def _abort(connection: socket.socket) -> None:
    """Close with a reset instead of a goodbye."""
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    connection.close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def setup(self) -> None:
        super().setup()
        self.server.hub._connections.add(self.connection)

    def finish(self) -> None:
        self.server.hub._connections.discard(self.connection)
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

    def _answer(self) -> None:
        hub: LoopbackHub = self.server.hub
        address = urlsplit(self.path)
        path = unquote(address.path)
        self.query = parse_qs(address.query)
        hub.requests.append((self.command, path))
        self.body = self._read_body()
        hub.bodies.append(self.body)
        self.fault: Fault | None = None
        try:
            for fault in hub.faults:
                if fault.takes(self.command, path):
                    self._misbehave(fault)
            method = "GET" if self.command == "HEAD" else self.command
            for verb, pattern, name in _ROUTES:
                if verb == method and (found := pattern.fullmatch(path)):
                    with hub.state.lock:
                        status, headers, content = getattr(self, f"_{name}")(*found.groups())
                    self._send(status, headers, content)
                    return
            raise HubError(404, "", "Not found")
        except HubError as error:
            headers = {"X-Error-Code": error.code, "X-Error-Message": error.message, **error.headers}
            self._send(error.status, {k: v for k, v in headers.items() if v}, {"error": error.message})
        except OSError:
            self.close_connection = True

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while length := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(length))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _misbehave(self, fault: Fault) -> None:
        if fault.kind == "stall":
            time.sleep(fault.seconds)
        elif isinstance(fault.kind, str):
            self.fault = fault
        elif fault.kind == 401:
            raise HubError(401, "", "Invalid credentials in Authorization header")
        elif fault.kind == 403:
            raise HubError(403, "GatedRepo", "Access is restricted")
        elif fault.kind == 404:
            raise HubError(404, "RepoNotFound", "Repository not found")
        elif fault.kind == 429:
            raise HubError(429, "", "Too many requests", {"Retry-After": "1", "RateLimit": '"api";r=0;t=1'})
        else:
            raise HubError(fault.kind, "", "Service unavailable")

    def _send(self, status: int, headers: dict[str, str], content: Any) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        if isinstance(content, bytes) and (asked := self.headers.get("Range")) and status == 200:
            first, last = re.fullmatch(r"bytes=(\d+)-(\d*)", asked).groups()  # type: ignore[union-attr]
            begin, end = int(first), min(int(last or len(data) - 1), len(data) - 1)
            headers = {**headers, "Content-Range": f"bytes {begin}-{end}/{len(data)}"}
            status, data = 206, data[begin : end + 1]
        kind = self.fault.kind if self.fault else ""
        if kind == "corrupt" and data:
            middle = len(data) // 2
            data = data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]
        self.send_response(status)
        if "Content-Type" not in headers:
            headers["Content-Type"] = "application/octet-stream" if isinstance(content, bytes) else "application/json"
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self._write(data, kind)

    def _write(self, data: bytes, kind: str | int) -> None:
        if kind in ("truncate", "reset"):
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            self.close_connection = True
            if kind == "reset":
                _abort(self.connection)
        elif kind == "slow":
            for start in range(0, len(data), 1024):
                self.wfile.write(data[start : start + 1024])
                time.sleep(0.01)
        else:
            self.wfile.write(data)

    # Who asks -----------------------------------------------------------------------------------------------------

    @property
    def _user(self) -> str | None:
        _, _, token = self.headers.get("Authorization", "").partition(" ")
        if not token:
            return None
        user = self.server.hub.state.tokens.get(token)
        if user is None:
            raise HubError(401, "", "Invalid credentials in Authorization header")
        return str(user)

    def _repo(self, name: str, *, write: bool = False, contents: bool = True) -> Repo:
        return self.server.hub.state.repo(name, self._user, write=write, contents=contents)  # type: ignore[no-any-return]

    # Answers: (status, headers, content) --------------------------------------------------------------------------

    def _whoami(self) -> Any:
        user = self._user
        if user is None:
            raise HubError(401, "", "Invalid username or password")
        return 200, {}, {"type": "user", "name": user, "orgs": [], "auth": {"accessToken": {"role": "write"}}}

    def _models(self) -> Any:
        return 200, {}, [{"id": name} for name, repo in self.server.hub.state.repos.items() if not repo.private]

    def _create(self) -> Any:
        asked = json.loads(self.body)
        user, owner = self._user, asked.get("organization")
        if user is None:
            raise HubError(401, "", "Invalid username or password")
        if owner not in (None, user):
            raise HubError(403, "", "You don't have the rights to create a model under this namespace")
        name = f"{user}/{asked['name']}"
        about = {"url": f"{self.server.hub.url}/{name}", "name": name, "id": name}
        if name in self.server.hub.state.repos:
            return 409, {}, {"error": "You already created this model repo", **about}
        private = bool(asked.get("private")) or asked.get("visibility") == "private"
        self.server.hub.state.repos[name] = Repo(name, private)
        return 200, {}, about

    def _delete(self) -> Any:
        asked = json.loads(self.body)
        name = f"{asked.get('organization') or self._user}/{asked['name']}"
        self._repo(name, write=True)
        del self.server.hub.state.repos[name]
        return 200, {}, {}

    def _validate(self) -> Any:
        return 200, {}, {"warnings": [], "errors": []}

    def _info(self, name: str, revision: str | None) -> Any:
        return 200, {}, self._repo(name, contents=False).info(revision or "main")

    def _refs(self, name: str) -> Any:
        repo = self._repo(name)

        def shown(kind: str, refs: dict[str, str]) -> list[dict[str, str]]:
            return [{"name": n, "ref": f"refs/{kind}/{n}", "targetCommit": oid} for n, oid in refs.items()]

        return 200, {}, {"branches": shown("heads", repo.branches), "tags": shown("tags", repo.tags), "converts": []}

    def _tree(self, name: str, revision: str, folder: str | None) -> Any:
        repo = self._repo(name)
        tree = repo.commits[repo.resolve(revision)]
        return 200, {}, [repo.entry(p, d) for p, d in sorted(tree.items()) if p.startswith(folder or "")]

    def _paths_info(self, name: str, revision: str) -> Any:
        repo = self._repo(name)
        text = self.body.decode()
        paths = json.loads(text)["paths"] if text.startswith("{") else parse_qs(text).get("paths", [])
        tree = repo.commits[repo.resolve(revision)]
        return 200, {}, [repo.entry(p, tree[p]) for p in paths if p in tree]

    def _tag(self, name: str, revision: str) -> Any:
        repo, tag = self._repo(name, write=True), json.loads(self.body)["tag"]
        if tag in repo.tags:
            raise HubError(409, "", f"Tag {tag} already exists")
        repo.tags[tag] = repo.resolve(revision)
        return 200, {}, {}

    def _preupload(self, name: str, revision: str) -> Any:
        repo = self._repo(name, write=True)
        tree = repo.commits[repo.resolve(revision)]
        files = []
        for file in json.loads(self.body)["files"]:
            path = file["path"]
            mode = "lfs" if path.endswith(LARGE) else "regular"
            known = tree.get(path)
            oid = None if known is None else sha256(known).hexdigest() if mode == "lfs" else git_oid(known)
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return 200, {}, {"files": files}

    def _batch(self, name: str) -> Any:
        self._repo(name, write=True)
        hub, objects = self.server.hub, []
        for item in json.loads(self.body)["objects"]:
            line: dict[str, Any] = {"oid": item["oid"], "size": item["size"]}
            if item["oid"] not in hub.state.blobs:
                line["actions"] = {
                    "upload": {"href": f"{hub.url}/lfs/{item['oid']}"},
                    "verify": {"href": f"{hub.url}/lfs/verify"},
                }
            objects.append(line)
        return 200, {"Content-Type": "application/vnd.git-lfs+json"}, {"transfer": "basic", "objects": objects}

    def _upload(self, oid: str) -> Any:
        if sha256(self.body).hexdigest() != oid:
            raise HubError(400, "", "the content does not have this sha256")
        self.server.hub.state.blobs[oid] = self.body
        return 200, {}, b""

    def _verify(self) -> Any:
        asked = json.loads(self.body)
        data = self.server.hub.state.blobs.get(asked["oid"])
        if data is None or len(data) != asked["size"]:
            raise HubError(404, "", "no such object")
        return 200, {}, {}

    def _commit(self, name: str, revision: str) -> Any:
        repo = self._repo(name, write=True)
        lines = [json.loads(line) for line in self.body.splitlines() if line.strip()]
        files: dict[str, bytes | None] = {}
        if name in self.server.hub.racing:
            self.server.hub.racing.discard(name)
            repo.commit({"notes.txt": b"somebody else's"}, revision)
        for line in lines:
            value = line["value"]
            if line["key"] == "header" and value.get("parentCommit") not in (None, repo.branches.get(revision)):
                raise HubError(412, "", "A commit has happened since. Please refresh and try again.")
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.server.hub.state.blobs:
                    raise HubError(400, "", f"the large file {value['path']} was not uploaded")
                files[value["path"]] = self.server.hub.state.blobs[value["oid"]]
            elif line["key"] == "deletedFile":
                files[value["path"]] = None
        oid = repo.commit(files, revision)
        url = f"{self.server.hub.url}/{name}/commit/{oid}"
        return 200, {}, {"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""}

    def _resolve(self, name: str, revision: str, path: str) -> Any:
        repo = self._repo(name)
        oid = repo.resolve(revision)
        data = repo.commits[oid].get(path)
        if data is None:
            raise HubError(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": oid})
        headers = {"X-Repo-Commit": oid, "Accept-Ranges": "bytes", "ETag": f'"{git_oid(data)}"'}
        if path.endswith(LARGE):
            digest = sha256(data).hexdigest()
            headers |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(data)), "ETag": f'"{digest}"'}
            if self.server.hub.redirect:
                # to another host name, so that the client must drop its token on the way
                self.server.hub.state.blobs[digest] = data
                return 302, {**headers, "Location": f"http://localhost:{self.server.hub.port}/lfs/{digest}/{path}"}, b""
        return 200, headers, data

    def _large(self, oid: str, path: str | None) -> Any:
        if self.headers.get("Authorization"):
            self.server.hub.authorized_elsewhere.append(self.path)
        data = self.server.hub.state.blobs.get(oid)
        if data is None:
            raise HubError(404, "EntryNotFound", "Entry not found")
        return 200, {"Accept-Ranges": "bytes", "ETag": f'"{oid}"'}, data
