"""Imports run downwards only, those inside functions and for type checking too; shared code imports no method."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]

LAYERS = (
    ("errors",),
    ("files", "safe_yaml", "checks", "text", "streams"),
    ("index",),
    ("data_sources",),
    ("base",),
    ("inputs", "pictures"),
    ("store",),
    ("nn",),
    ("task bases",),
    ("datamodules",),
    ("studies", "federated", "robustness"),
    ("methods",),
    ("training",),
    ("claims",),
    ("card",),
    ("cli",),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

# The bases of a task build on layers, attacks and stored weights, which build on the contract beside them.
TASK_BASES = {
    "adversarial_classifier",
    "detector",
    "image_classifier",
    "other_network",
    "segmenter",
    "series",
    "video",
}


def layer_of(module: str) -> str:
    """Layer of a module by its dotted name; the façade itself is `zoo`."""
    first, _, rest = module.partition(".")
    if first == "datamodules" or not rest:
        return first
    name, _, part = rest.partition(".")
    return "task bases" if name == "base" and part.partition(".")[0] in TASK_BASES else name


def modules() -> dict[str, Path]:
    """Dotted names of all modules of both packages."""
    found = {}
    for top in ("zoo", "datamodules"):
        for path in sorted((ROOT / top).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


def imported(path: Path, name: str, known: dict[str, Path]) -> Iterator[str]:
    """Modules of the two packages that a file imports, wherever in the file."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield inner if inner in known else base


@cache
def edges() -> tuple[tuple[str, str], ...]:
    known = modules()
    return tuple(
        (name, target)
        for name, path in known.items()
        for target in imported(path, name, known)
        if target.partition(".")[0] in ("zoo", "datamodules")
    )


def test_every_module_belongs_to_a_layer() -> None:
    lost = {m for m in modules() if layer_of(m) not in LEVEL} - {"zoo", "zoo.__main__"}
    assert not lost, f"say in LAYERS where these belong: {sorted(lost)}"


def test_imports_run_downwards() -> None:
    wrong = [
        f"{name} ({layer_of(name)}) imports {target} ({layer_of(target)})"
        for name, target in edges()
        if name not in ("zoo", "zoo.__main__") and LEVEL.get(layer_of(target), 99) > LEVEL.get(layer_of(name), 99)
    ]
    assert not wrong, "\n".join(wrong)


def test_methods_are_imported_by_nothing_and_do_not_import_each_other() -> None:
    """The index names their classes, so no shared module has to."""
    prefix = "zoo.methods."
    wrong = [
        f"{name} imports {target}"
        for name, target in edges()
        if target.startswith(prefix) and name.split(".")[:3] != target.split(".")[:3]
    ]
    assert not wrong, "\n".join(wrong)


def test_a_package_exports_nothing_under_the_name_of_another_module_of_it() -> None:
    """`from package import name` must not depend on which of the two was imported last."""
    known = modules()
    wrong = []
    for name, path in known.items():
        if path.name != "__init__.py":
            continue
        inside = {m.rpartition(".")[2] for m in known if m.rpartition(".")[0] == name}
        for node in ast.parse(path.read_bytes()).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name in inside:
                wrong.append(f"{name}.{node.name}")
            elif isinstance(node, ast.ImportFrom) and node.module != name:
                wrong += [f"{name}.{a.asname or a.name}" for a in node.names if (a.asname or a.name) in inside]
    assert not wrong, wrong


def test_the_package_is_seen_at_a_glance() -> None:
    entries = [p.name for p in (ROOT / "zoo").iterdir() if p.name != "__pycache__" and not p.name.startswith(".")]
    assert len(entries) <= 25, sorted(entries)


def test_nothing_inside_imports_the_facade() -> None:
    wrong = [f"{name} imports zoo" for name, target in edges() if target == "zoo"]
    assert not wrong, "\n".join(wrong)


def test_no_files_import_each_other() -> None:
    """No circle, whatever its length: what is left after removing files that import nothing that is left."""
    known = modules()
    waiting: dict[str, set[str]] = {name: set() for name in known}
    for name, target in edges():
        if target in known and target != name:
            waiting[name].add(target)
    waiting.pop("zoo")
    while True:
        done = [name for name, targets in waiting.items() if not targets & waiting.keys()]
        if not done:
            break
        for name in done:
            del waiting[name]
    circles = {name: sorted(targets & waiting.keys()) for name, targets in waiting.items()}
    assert not circles, "\n".join(f"{name} -> {', '.join(targets)}" for name, targets in circles.items())
