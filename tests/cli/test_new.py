"""`zoo new`: for every task and base it writes a method that works, in four places, or nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module, util
from pathlib import Path

import pytest
from conformance.support import data_of, inputs_of, model_of, trainer_of
from toys.cli import failure, run

from zoo import claims, cli, files, index
from zoo.cli.new import BASES
from zoo.index.editing import insert_block

ROOT = Path(cli.__file__).parents[2]
CASES = [(base, task) for base, tasks in BASES.items() for task in tasks]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files_of(folder: Path) -> set[str]:
    """All files and folders below a folder."""
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*")}


# Where a block goes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name", "order"),
    [
        ("# about\n#\n", "b-net", ["b-net"]),
        ("# about\n\na-net:\n  x: 1\n\n# of c\nc-net:\n  x: 1\n", "b-net", ["a-net", "b-net", "c-net"]),
        ("# about\na-net:\n  x: 1", "z-net", ["a-net", "z-net"]),
        ("# about\n\nc-net:\n  x: 1\n", "a-net", ["a-net", "c-net"]),
    ],
)
def test_block_goes_to_its_place(text: str, name: str, order: list[str]) -> None:
    done = insert_block(text, name, f"{name}:\n  x: 2\n")
    assert list(index.load_yaml(done)) == order
    assert [line for line in done.splitlines() if line.startswith("#")] == [
        line for line in text.splitlines() if line.startswith("#")
    ]
    if "# of c" in done:
        assert "# of c\nc-net:" in done


# Every task, on every base ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A package of its own with a method for each task and base, importable."""
    root = tmp_path_factory.mktemp("new") / "made_methods"
    for number, (base, task) in enumerate(CASES):
        assert run("new", task, f"net-{number}", "--base", base, "--dir", root) == 0
    sys.path.insert(0, str(root))
    yield root
    sys.path.remove(str(root))
    for name in [name for name in sys.modules if name.partition(".")[0] == root.name]:
        del sys.modules[name]


def test_every_task_can_be_begun() -> None:
    assert {task for _, task in CASES} == set(index.TASKS)
    assert all(index.TASKS[task].template in BASES for task in index.TASKS)


@pytest.mark.parametrize("case", range(len(CASES)), ids=[f"{base}-{task}" for base, task in CASES])
def test_what_is_written_trains_and_predicts_the_results_of_its_task(case: int, package: Path, place: Path) -> None:
    entry = index.read_index(package / package.name / "index.yaml", ordered=False)[f"net-{case}"].tag()
    assert entry.task == CASES[case][1]
    model, data = model_of(entry), data_of(entry)
    trainer = trainer_of(place, fast_dev_run=True)
    trainer.fit(model, data)
    trainer.test(model, data, verbose=False)
    model._trainer = None
    assert model.task == entry.task
    inputs = inputs_of(entry, model, place / "fake", 2)
    results = model.predict(inputs)
    assert len(results) == 2
    assert set(results[0]) >= set(index.TASKS[entry.task].results)
    assert model.show(inputs[0], results[0]).size[0] > 0


@pytest.mark.parametrize("case", range(len(CASES)), ids=[f"{base}-{task}" for base, task in CASES])
def test_its_own_test_passes(case: int, package: Path) -> None:
    name = f"made_test_net_{case}"
    spec = util.spec_from_file_location(name, package / "tests" / f"test_net_{case}.py")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tests = [value for key, value in vars(module).items() if key.startswith("test_")]
    assert tests
    for test in tests:
        test()


def test_what_is_written_names_nothing_of_the_templates(package: Path) -> None:
    for path in package.rglob("*"):
        if path.suffix in (".py", ".yaml", ".toml"):
            text = path.read_text(encoding="utf-8")
            for mark in ("zoo.cli", "NewMethod", "new-method", "new_method", "new-package", "new_package", "# zoo new"):
                assert mark not in text, f"{path}: {mark}"


def test_what_is_written_is_formatted_and_sorted(package: Path) -> None:
    pytest.importorskip("ruff", reason="part of the extra dev")
    for words in (("check",), ("format", "--check")):
        command = [sys.executable, "-m", "ruff", *words, "--no-cache", "--config", str(ROOT / "pyproject.toml"), "."]
        done = subprocess.run(command, cwd=package, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout


def test_data_modules_are_shared(package: Path) -> None:
    """No method brings a data module for a format that there is."""
    for entry in index.read_index(package / package.name / "index.yaml").values():
        assert entry.data.startswith("datamodules.")
        assert import_module(entry.data.partition(":")[0])


def test_the_example_of_a_claim_is_valid(package: Path) -> None:
    for entry in index.read_index(package / package.name / "index.yaml").values():
        assert [claim.id for claim in claims.claims_of(entry)] == ["wider-is-better"]


# Four places ------------------------------------------------------------------------------------------------------


@pytest.fixture
def checkout(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What `zoo new` takes for the checkout."""
    root = place / "checkout"
    root.mkdir()
    (root / "pyproject.toml").write_text("")
    (root / "checkpoints.yaml").write_text("# all methods\n")
    monkeypatch.setattr(index, "index_path", lambda: root / "checkpoints.yaml")
    monkeypatch.setattr(index, "_cache", {})
    return root


@pytest.mark.parametrize("base", BASES)
def test_a_checkout_gets_files_in_four_places(
    base: str, checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(checkout)
    assert run("new", BASES[base][0], "my-net", "--base", base) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"into {checkout}\n")
    new = {p for p in files_of(checkout) if (checkout / p).is_file()} - {"pyproject.toml"}
    assert new == {
        "checkpoints.yaml",
        "model_cards/my-net/claims.yaml",
        "tests/methods/my_net/test_module.py",
        "zoo/methods/my_net/__init__.py",
        "zoo/methods/my_net/module.py",
        "zoo/methods/my_net/network.py",
        "zoo/methods/my_net/recipes/example.yaml",
    }
    assert all(f"  {path}\n" in out for path in new)
    text = (checkout / "checkpoints.yaml").read_text()
    assert text.startswith("# all methods\n")
    assert index.read_index(checkout / "checkpoints.yaml")["my-net"].model == "zoo.methods.my_net:MyNet"


def test_a_checkout_is_written_into_from_inside_only(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files_of(checkout)
    message = failure(capsys, "new", "image-classification", "my-net")
    assert str(checkout) in message
    assert "--dir DIR" in message
    assert files_of(checkout) == before


def test_an_installed_zoo_needs_a_folder(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (checkout / "pyproject.toml").unlink()
    assert "--dir DIR" in failure(capsys, "new", "tabular-regression", "my-net")


# Mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("image-clasification my-net", "Did you mean 'image-classification'"),
        ("image-classification my-net --base detectr", "Did you mean 'detector'"),
        ("image-classification my-net --base detector", "serves object-detection"),
        ("image-classification MyNet", "not kebab-case"),
        ("image-classification ../my-net", "not kebab-case"),
        ("image-classification import", "cannot name a module"),
        (f"image-classification {'a' * 41}", "cannot name a module"),
        ("image-classification rslad", "taken by rslad"),
        ("image-classification fedavg", "taken by uav-swarm-fl"),
        ("image-classification my-net --dir zoo", "names the package"),
        ("image-classification my-net --dir class", "names the package"),
        ("image-classification my-net --dir full", "give a new folder"),
    ],
)
def test_mistakes_write_nothing(words: str, expected: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "full").mkdir()
    (place / "full" / "x").write_text("")
    if "--dir" not in words:
        words += " --dir mine"
    assert expected in failure(capsys, "new", *words.split())
    assert files_of(place) == {"full", "full/x"}


def test_a_second_method_of_that_name_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("new", "tabular-regression", "my-net", "--dir", "mine") == 0
    before = {p: (place / p).read_bytes() for p in files_of(place) if (place / p).is_file()}
    assert "exists: choose another name" in failure(capsys, "new", "object-detection", "my-net", "--dir", "mine")
    assert {p: (place / p).read_bytes() for p in files_of(place) if (place / p).is_file()} == before
    assert run("new", "tabular-regression", "a-net", "--dir", "mine") == 0
    assert list(index.read_index(place / "mine" / "mine" / "index.yaml", ordered=True)) == ["a-net", "my-net"]


@pytest.mark.parametrize("which", [1, 4, 9])
def test_a_full_disk_leaves_nothing(
    which: int, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whichever file does not fit any more."""
    from zoo.cli import new

    calls = []

    def full(path: Path, text: str) -> None:
        calls.append(path)
        if len(calls) == which:
            with files.writing(path):
                raise OSError(28, "No space left on device")
        files.write_whole(path, text)

    monkeypatch.setattr(new, "write_whole", full)
    assert "No room left" in failure(capsys, "new", "image-classification", "my-net", "--dir", "mine")
    assert len(calls) == which
    assert files_of(place) == set()
