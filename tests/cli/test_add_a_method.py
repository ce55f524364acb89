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
from zoo.cli.new import BASES

ROOT = Path(cli.__file__).parents[2]
PAGE = (ROOT / "docs" / "add-a-method.md").read_text(encoding="utf-8")
MOST = 120
"""Lines that a method may cost besides its equations, module and network."""

FILL_IN = "To be filled in"
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


def environment(root: Path, places: tuple[Path, ...]) -> dict[str, str]:
    """The copy comes first, then what is installed."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (root, *places))), "CUDA_VISIBLE_DEVICES": ""}


def follow(root: Path, *lines: str, places: tuple[Path, ...] = (), timeout: float = 540) -> str:
    """Run commands of the page in the root of the copy, as they stand there; what they print.

    Args:
        root: the copy.
        lines: commands of one program, run one after the other in one process.
        places: folders of installed packages.
        timeout: in seconds.
    """
    (program,) = {line.split()[0] for line in lines}
    words = [shlex.split(line)[1:] for line in lines]
    if program == "zoo":
        run, after = "from zoo import cli", "assert cli.main(words) == 0"
    else:
        words = [[*w, "-q", "-p", "no:cacheprovider"] for w in words]
        run, after = "import pytest", "assert pytest.main(words) == 0"
    # in one process: importing torch takes longer than most of these commands
    command = ["-c", f"import sys; {run}\nfor words in {words!r}: sys.stdout.flush(); {after}"]
    done = subprocess.run(
        [sys.executable, *command], cwd=root, env=environment(root, places), capture_output=True, text=True,
        timeout=timeout, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{lines}\n{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def install(package: Path, place: Path) -> None:
    """What `pip install -e` leaves behind for the zoo: metadata with the entry point of pyproject.toml."""
    text = (package / "pyproject.toml").read_text(encoding="utf-8")
    (entry,) = re.findall(r'^\[project\.entry-points\."zoo\.index"\]\n(\w+) = "(.*)"$', text, re.MULTILINE)
    metadata = place / f"{entry[0]}-0.1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {entry[0]}\nVersion: 0.1.0\n")
    (metadata / "entry_points.txt").write_text(f"[zoo.index]\n{entry[0]} = {entry[1]}\n")


def begin(package: Path, task: str, name: str, base: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """`zoo new`, and the placeholders filled in; the number of lines besides the method itself."""
    monkeypatch.chdir(package.parent)
    assert cli.main(["new", task, name, "--base", base, "--dir", str(package)]) == 0
    snake, lines = name.replace("-", "_"), 0
    index_file = package / package.name / "index.yaml"
    for path in (p for p in package.rglob("*") if p.is_file()):
        text = path.read_text(encoding="utf-8")
        if path == index_file:
            text = "\n".join(line for line in text.splitlines() if line)
            (block,) = re.findall(rf"^{name}:\n(?:[ #].*\n?)+", text, re.MULTILINE)
            lines += len(block.splitlines())
        elif {snake, name, f"test_{snake}.py"} & set(path.parts) and path.parent.name != snake:
            lines += len(text.splitlines())
        if FILL_IN in text:
            path.write_text(path.read_text(encoding="utf-8").replace(FILL_IN, "A test of the zoo"), encoding="utf-8")
    assert FILL_IN not in index_file.read_text(encoding="utf-8")
    return lines


def test_placeholders_and_lines_of_every_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the page promises: fewer than 120 lines besides equations, module and network."""
    assert f"less than {MOST} lines" in PAGE
    for base, tasks in BASES.items():
        name = f"made-{base.replace('_', '-')}"
        lines = begin(tmp_path / "made_methods", tasks[0], name, base, monkeypatch)
        assert 20 < lines < MOST, (base, lines)


def test_a_method_in_a_package_of_its_own(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its entries pass the conformance suite of the checkout, against its own golden outputs."""
    new, pip, train, own, suite = commands("A package of your own")
    assert pip.startswith("pip install -e ")
    monkeypatch.chdir(copy)
    assert cli.main(shlex.split(new)[1:]) == 0
    package, installed = tmp_path / "my_methods", tmp_path / "installed"
    install(package, installed)
    places = (installed, package)
    first, _, bundle, *_ = commands("The first weights")
    follow(copy, train, f"{first} --trainer.max_epochs=1", f"{bundle} --dir {shlex.quote(str(package))}", places=places)
    assert (package / "my_methods" / "golden" / "my-method-example.safetensors").is_file()
    assert not (copy / "tests" / "golden" / "my-method-example.safetensors").exists()
    # of the suite, what depends on where the entry comes from; `test_every_base_passes_the_whole_suite` runs all
    name = suite.rpartition(" ")[2]
    some = suite.replace(name, f"'{name} and (c01 or c14 or c20 or c22 or c41)'")
    assert follow(copy, own, some, places=places).count(" passed") == 2
    golden = package / "my_methods" / "golden" / "my-method-example.safetensors"
    golden.unlink()
    with pytest.raises(AssertionError, match="zoo bundle CHECKPOINT my-method:example"):
        follow(copy, suite.replace(name, f"'{name} and c22'"), places=places)


@pytest.mark.slow
def test_every_base_passes_the_whole_suite(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A method of each template, in a package outside of the checkout, with nothing but placeholders filled in."""
    package, installed = tmp_path / "made_methods", tmp_path / "installed"
    for base, tasks in BASES.items():
        begin(package, tasks[0], f"made-{base.replace('_', '-')}", base, monkeypatch)
    install(package, installed)
    places = (installed, package)
    said = follow(copy, "pytest tests/conformance -k made-", places=places, timeout=1800)
    assert re.search(r"^\d+ passed", said, re.MULTILINE), said[-3000:]
    for base in BASES:
        follow(copy, f"pytest {package}/tests/test_made_{base}.py", places=places)
