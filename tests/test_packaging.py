"""The wheel is whole and works far from the checkout; listing is light; missing extras and shadows are named."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it

ROOT = Path(__file__).parents[1]
DIST = "lightning_method_zoo"


def isolated(*paths: Path) -> dict[str, str]:
    """An environment in which the checkout is not on the path."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PYTEST"))}
    return kept | {"PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def python(code: str, cwd: Path, *paths: Path) -> str:
    """Run code in a new process; an editable installation of the checkout must not help it."""
    hide = ""
    if ROOT not in paths:
        hide = f"import sys; sys.path[:] = [p for p in sys.path if p != {str(ROOT)!r}]\n"
        hide += "sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in type(f).__module__ + repr(f)]\n"
    command = [sys.executable, "-c", hide + code]
    done = subprocess.run(command, cwd=cwd, env=isolated(*paths), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the checkout, so that a developer's clutter is the same as on a clean machine."""
    folder = tmp_path_factory.mktemp("build")
    source = folder / "source"
    kept = [
        "zoo",
        "datamodules",
        "model_cards",
        "checkpoints.yaml",
        "pyproject.toml",
        "hatch_build.py",
        "LICENSE",
        "docs",
    ]
    kept += ["README.md", ".gitignore"]
    source.mkdir()
    for name in kept:
        if (path := ROOT / name).is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif path.is_file():
            shutil.copy(path, source / name)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)]
    done = subprocess.run(command, env=isolated(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel in an empty folder; its dependencies come from this environment."""
    folder = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(folder)]
    done = subprocess.run([*command, str(wheel)], env=isolated(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def files_below(folder: str) -> set[str]:
    """Files of the checkout that belong into the wheel."""
    found = {p.relative_to(ROOT).as_posix() for p in (ROOT / folder).rglob("*") if p.is_file()}
    return {p for p in found if "__pycache__" not in p and not p.endswith(".partial")}


def test_wheel_holds_everything(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    for folder in ("zoo", "datamodules"):
        missing = files_below(folder) - inside
        assert not missing, f"not in the wheel: {sorted(missing)[:5]}"
    assert {"zoo/checkpoints.yaml", "zoo/py.typed", "datamodules/py.typed"} <= inside
    cards = {f"zoo/{p}" for p in files_below("model_cards") if p.endswith(("/claims.yaml", "/results.json"))}
    assert cards <= inside
    boards = {f"zoo/{p}" for p in files_below("docs/leaderboards") if p.endswith(".json")}
    assert boards
    assert boards <= inside
    tops = {name.split("/")[0] for name in inside}
    assert tops == {"zoo", "datamodules", next(t for t in tops if t.endswith(".dist-info"))}
    assert any(n.endswith("licenses/LICENSE") for n in inside)
    assert wheel.name.startswith(f"{DIST}-")


def test_every_bundled_file_is_in_the_wheel(wheel: Path) -> None:
    from zoo import index
    from zoo.index import entries

    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    for entry in entries().values():
        if entry.source == "register()":
            continue
        for weights in entry.weights.values():
            assert weights.file is None or f"zoo/bundled/{weights.file}" in inside
            assert (
                weights.recipe is None or index.recipe_path(entry, weights.tag).relative_to(ROOT).as_posix() in inside
            )


def test_installed_wheel_lists_loads_and_predicts(installed: Path, tmp_path: Path) -> None:
    code = f"""
import pathlib, zoo, datamodules
here = pathlib.Path({str(installed)!r})
assert here in pathlib.Path(zoo.__file__).parents, zoo.__file__
assert here in pathlib.Path(datamodules.__file__).parents, datamodules.__file__
from zoo.index import entries, index_path
assert here in index_path().parents
from zoo.data_sources import CATALOGUE
from zoo.robustness.board import published
assert published(), "rows of the leader board"
assert "mnist" in CATALOGUE
for entry in entries().values():
    loaded = 0
    for tag, weights in entry.weights.items():
        if weights.file:
            model = zoo.load(f"{{entry.id}}:{{tag}}")
            assert model.report.pinned
            loaded += 1
    if not loaded:
        model = entry.model_class()(**entry.tiny.get("model", {{}}))
    data = zoo.datamodule(entry.id, **entry.tiny.get("data", {{}}))
    folder = data.fake(pathlib.Path(entry.id))
    pictures = sorted(p for p in folder.rglob("*") if p.suffix in (".png", ".jpg"))
    inputs = str(pictures[0]) if pictures else model.example_input()[0][0]
    assert len(model.predict(inputs)) == 1
print(len(zoo.list_models()))
"""
    assert int(python(code, tmp_path, installed)) >= 1


def test_command_of_the_wheel(installed: Path, tmp_path: Path) -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        command = tomllib.load(file)["project"]["scripts"]["zoo"]
    module, _, function = command.partition(":")
    program = f"import sys, {module}\nsys.argv = ['zoo', 'list']\n{module}.{function}()"
    out = python(program, tmp_path, installed)
    assert out


def test_version_is_the_same_everywhere() -> None:
    import zoo

    with (ROOT / "pyproject.toml").open("rb") as file:
        about = tomllib.load(file)
    assert "version" in about["project"]["dynamic"]
    source = (ROOT / about["tool"]["hatch"]["version"]["path"]).read_text(encoding="utf-8")
    assert f'VERSION = "{zoo.__version__}"' in source


def test_dependencies_are_those_that_are_imported() -> None:
    """Every import at the top of a module is the standard library, ours, a base dependency, or required first.

    A module may say at its top what it cannot do without (`require("flwr", "federated")`): importing it then tells what
    to install. Its private siblings, which it imports afterwards, need not say so again.
    """
    import ast

    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    renamed = {"pyyaml": "yaml", "pillow": "PIL", "faster-coco-eval": "faster_coco_eval"}
    words = [d.split(">")[0].split("[")[0].strip() for d in project["dependencies"]]
    allowed = {renamed.get(w, w) for w in words} | set(sys.stdlib_module_names) | {"zoo", "datamodules"}
    for path in sorted([*(ROOT / "zoo").rglob("*.py"), *(ROOT / "datamodules").rglob("*.py")]):
        required = _required(path)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            strange = {n.split(".")[0] for n in names} - allowed - required
            assert not strange, f"{path.relative_to(ROOT)} imports {strange}, which the base installation lacks"


def _required(path: Path) -> set[str]:
    """What a module, or the public one whose part it is, asks for by `require` at its top."""
    import ast

    found: set[str] = set()
    for file in {path, path.with_name("__init__.py")}:  # a package asks once for all its parts
        text = file.read_text(encoding="utf-8")
        for node in ast.parse(text).body if "require(" in text else ():
            call = node.value if isinstance(node, ast.Expr) else None
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "require":
                found |= {a.value for a in call.args[:1] if isinstance(a, ast.Constant)}
    return found


def test_listing_is_light(tmp_path: Path) -> None:
    code = (
        "import sys, zoo\nzoo.list_models('*')\nzoo.info(zoo.list_models()[0])\n"
        "heavy = {'torch', 'lightning', 'pytorch_lightning', 'torchvision', 'timm', 'torchmetrics', 'numpy', 'PIL',"
        " 'huggingface_hub', 'jsonargparse', 'rich'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert python(code, tmp_path, ROOT) == "[]"


def test_no_module_imports_torchvision_at_the_top() -> None:
    """torchvision.ops pulls in torch._dynamo: seconds that loading a model need not wait for. timm imports it, too."""
    import ast

    for path in [*(ROOT / "zoo").rglob("*.py"), *(ROOT / "datamodules").rglob("*.py")]:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            slow = {n.split(".")[0] for n in names} & {"torchvision", "timm"}
            assert not slow, f"{path.relative_to(ROOT)}: import {slow} inside the functions that use it"


def test_a_users_datamodules_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "datamodules").mkdir()
    (tmp_path / "datamodules" / "__init__.py").write_text("")
    (tmp_path / "datamodules" / "boxes.py").write_text("class BoxesDataModule: pass\n")
    code = """
from zoo.errors import ShadowedPackage
from zoo.index import entries
for entry in entries().values():
    if entry.data.startswith("datamodules."):
        try:
            entry.data_class()
        except ShadowedPackage as error:
            print(error)
        else:
            print("no error for", entry.id)
"""
    said = python(code, tmp_path, tmp_path, ROOT)
    assert said
    for line in said.splitlines():
        assert str(tmp_path / "datamodules") in line
        assert "Rename" in line


def required_extras() -> list[tuple[str, str]]:
    """Every `require("module", "extra")` in the package."""
    import ast

    found = set()
    for path in [*(ROOT / "zoo").rglob("*.py"), *(ROOT / "datamodules").rglob("*.py")]:
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)) if "require(" in text else ():
            if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "require":
                values = [a.value for a in node.args if isinstance(a, ast.Constant)]
                if len(values) == 2:
                    found.add((str(values[0]), str(values[1])))
    return sorted(found)


@pytest.mark.parametrize(("module", "extra"), required_extras())
def test_missing_extra_is_named(module: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the module: the message must hold a pip command with an extra that exists and brings it."""
    from zoo.errors import MissingExtra, require

    with (ROOT / "pyproject.toml").open("rb") as file:
        extras: dict[str, Any] = tomllib.load(file)["project"]["optional-dependencies"]
    assert extra in extras
    distribution = {"skimage": "scikit-image", "sklearn": "scikit-learn", "cv2": "opencv-python"}.get(module, module)
    brought = {d.split(">")[0].split("[")[0].replace("_", "-") for d in extras[extra]}
    assert distribution.split(".")[0].replace("_", "-") in brought, f"the extra {extra} does not bring {module}"
    for name in [m for m in sys.modules if m == module or m.startswith(f"{module}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Hidden(module), *sys.meta_path])
    with pytest.raises(MissingExtra) as caught:
        require(module, extra)
    assert f'pip install "lightning-method-zoo[{extra}]"' in str(caught.value)


class Hidden:
    """An import hook under which a module does not exist."""

    def __init__(self, module: str) -> None:
        self.top = module.split(".")[0]

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.split(".")[0] == self.top:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_export_without_the_extra_is_one_message(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from toys.ridge import ToyRidge

    from zoo.errors import MissingExtra

    for name in [m for m in sys.modules if m.split(".")[0] == "onnx"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Hidden("onnx"), *sys.meta_path])
    with pytest.raises(MissingExtra, match=r"lightning-method-zoo\[export\]"):
        ToyRidge().export_onnx(tmp_path / "model.onnx")


def test_no_file_is_too_long() -> None:
    """At most 500 lines: what grows beyond is two things."""
    long = {
        p.relative_to(ROOT).as_posix(): count
        for folder in ("zoo", "datamodules", "tests", "examples", "benchmarks")
        for p in (ROOT / folder).rglob("*.py")
        if (count := len(p.read_text(encoding="utf-8").splitlines())) > 500
    }
    assert not long


def test_no_function_is_too_long() -> None:
    """At most 60 lines, its signature and docstring included."""
    import ast

    long = {
        f"{path.relative_to(ROOT).as_posix()}:{node.name}": count
        for folder in ("zoo", "datamodules", "tests", "examples", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and (count := (node.end_lineno or 0) - node.lineno + 1) > 60
    }
    assert not long


def test_shared_code_names_no_method() -> None:
    """Only a method's own places may name it."""
    from zoo.index import entries

    shared = [*(ROOT / "zoo").glob("*.py"), *(ROOT / "zoo" / "nn").glob("*.py"), *(ROOT / "datamodules").rglob("*.py")]
    shared += [*(ROOT / "tests" / "conformance").glob("*.py"), ROOT / "train.py"]
    for entry in entries().values():
        if entry.source == "register()":
            continue
        class_name = entry.model.partition(":")[2]
        for path in shared:
            text = path.read_text(encoding="utf-8")
            for name in (entry.id, entry.id.replace("-", "_"), class_name):
                assert not re.search(rf"\b{re.escape(name)}\b", text), f"{path.relative_to(ROOT)} names {name}"
