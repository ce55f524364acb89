"""Which code a run depends on, as one hash: a finished run counts only for the code that made it.

The hash covers the modules of the method, its data module, the callbacks its recipe names and its studies, and every
module of the same packages that these import at their top level (imports inside functions belong to loading, sharing
and the command line, which change no number). Comments, docstrings and layout are left out, so that polishing a text
does not void hours of computing.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from functools import lru_cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

__all__ = ["class_paths", "code_hash", "modules_behind"]

_ASIDE = frozenset({"zoo.errors", "zoo"})  # messages and lazy names: no number depends on them


def code_hash(modules: Iterable[str]) -> str:
    """Sixteen hexadecimal digits that change when code behind these modules changes.

    Args:
        modules: dotted names.
    """
    total = hashlib.sha256()
    for name, path in sorted(modules_behind(modules).items()):
        total.update(f"{name}\0{_essence(path)}\0".encode())
    return total.hexdigest()[:16]


def modules_behind(modules: Iterable[str]) -> dict[str, Path]:
    """The modules themselves and what they import at top level from the same packages: name -> file."""
    waiting = list(modules)
    tops = {name.partition(".")[0] for name in waiting} | {"zoo", "datamodules"}
    found: dict[str, Path] = {}
    while waiting:
        name = waiting.pop()
        if name in found or name in _ASIDE or name.partition(".")[0] not in tops:
            continue
        path = _file_of(name)
        if path is not None:
            found[name] = path
            waiting += _imports(path, name)
    return found


def _file_of(name: str) -> Path | None:
    """File of a module, found without importing it or its package."""
    place: list[str] | None = None
    spec = None
    parts = name.split(".")
    for i in range(len(parts)):
        spec = PathFinder.find_spec(".".join(parts[: i + 1]), place)
        if spec is None:
            return None
        place = list(spec.submodule_search_locations or ())
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def _imports(path: Path, name: str) -> tuple[str, ...]:
    """Modules imported at the top level of a file; names imported from a package may be modules themselves."""
    about = path.stat()
    return _parsed_imports(path, name, about.st_mtime_ns, about.st_size)


@lru_cache(maxsize=1024)
def _parsed_imports(path: Path, name: str, changed: int, size: int) -> tuple[str, ...]:
    found: list[str] = []
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.parse(path.read_bytes()).body:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            found += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return tuple(found)


def _essence(path: Path) -> str:
    """A file's code without comments, docstrings and layout."""
    about = path.stat()
    return _stripped(path, about.st_mtime_ns, about.st_size)


@lru_cache(maxsize=1024)
def _stripped(path: Path, changed: int, size: int) -> str:
    """Cached while the file is as it was: a long plan asks before each of its steps."""
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            # a bare string is a docstring or stands below an attribute as one
            kept = [s for s in body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
            node.body = kept or [ast.Pass()]  # type: ignore[attr-defined]
    return ast.unparse(ast.fix_missing_locations(tree))


def class_paths(value: Any) -> list[str]:
    """Modules of all `class_path` values inside a recipe."""
    if isinstance(value, dict):
        own = [str(value["class_path"]).rpartition(".")[0]] if "class_path" in value else []
        return own + [m for item in value.values() for m in class_paths(item)]
    if isinstance(value, list):
        return [m for item in value for m in class_paths(item)]
    return []
