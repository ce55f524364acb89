"""docs/add-a-method.md, step by step: the commands for a package run beside a copy of the checkout."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from zoo import cli

ROOT = Path(cli.__file__).parents[2]
PAGE = (ROOT / "docs" / "add-a-method.md").read_text(encoding="utf-8")
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "*.safetensors", "runs", "docs", "benchmarks")


def commands(heading: str) -> list[str]:
    """The lines of the first block of commands below a heading of the page."""
    section = re.split(rf"^## {re.escape(heading)}$", PAGE, flags=re.MULTILINE)[1]
    block = re.search(r"^```bash\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert block is not None
    return block[1].splitlines()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the checkout without weights; entries that have some are taken out of its index."""
    root = tmp_path / "checkout"
    root.mkdir()
    for name in ("zoo", "datamodules", "tests"):
        shutil.copytree(ROOT / name, root / name, ignore=LEFT_OUT)
    shutil.copyfile(ROOT / "pyproject.toml", root / "pyproject.toml")
    text = (ROOT / "checkpoints.yaml").read_text(encoding="utf-8")
    (root / "checkpoints.yaml").write_text(re.match(r"(#.*\n)+", text)[0])  # type: ignore[index]
    return root


def follow(root: Path, line: str, *more: str, places: tuple[Path, ...] = ()) -> str:
    """Run a command of the page as people do, in the root of the copy; what it prints."""
    program, *words = shlex.split(line)
    assert program in ("zoo", "pytest")
    quiet = ["-q", "-p", "no:cacheprovider"] if program == "pytest" else []
    paths = os.pathsep.join(map(str, (root, *places)))
    done = subprocess.run(
        [sys.executable, "-m", program, *words, *quiet, *more],
        cwd=root,
        env={**os.environ, "PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=540,
    )
    assert done.returncode == 0, f"{line}\n{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def install(package: Path, place: Path) -> None:
    """What `pip install -e` leaves behind for the zoo: metadata with the entry point of pyproject.toml."""
    text = (package / "pyproject.toml").read_text(encoding="utf-8")
    (entry,) = re.findall(r'^\[project\.entry-points\."zoo\.index"\]\n(\w+) = "(.*)"$', text, re.MULTILINE)
    metadata = place / f"{entry[0]}-0.1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {entry[0]}\nVersion: 0.1.0\n")
    (metadata / "entry_points.txt").write_text(f"[zoo.index]\n{entry[0]} = {entry[1]}\n")


def test_a_method_in_a_package_of_its_own(copy: Path, tmp_path: Path) -> None:
    """Its entries pass the conformance suite of the checkout, against its own golden outputs."""
    new, pip, train, own, suite = commands("A package of your own")
    assert pip.startswith("pip install -e ")
    follow(copy, new)
    package, installed = tmp_path / "my_methods", tmp_path / "installed"
    install(package, installed)
    places = (installed, package)
    for step in (train, own):
        follow(copy, step, places=places)
    first, _, bundle, *_ = commands("The first weights")
    follow(copy, first, "--trainer.max_epochs=1", places=places)
    follow(copy, bundle, "--dir", str(package), places=places)
    assert (package / "my_methods" / "golden" / "my-method-example.safetensors").is_file()
    assert not (copy / "tests" / "golden" / "my-method-example.safetensors").exists()
    # of the suite, what depends on where the entry comes from
    name = suite.rpartition(" ")[2]
    assert "passed" in follow(
        copy, suite.replace(name, f"'{name} and (c01 or c14 or c20 or c22 or c41)'"), places=places
    )
    golden = package / "my_methods" / "golden" / "my-method-example.safetensors"
    golden.unlink()
    with pytest.raises(AssertionError, match="zoo bundle CHECKPOINT my-method:example"):
        follow(copy, suite.replace(name, f"'{name} and c22'"), places=places)
