"""Which code a run depends on, as one hash: a finished run counts only for the code that made it.

The hash covers the modules of the method, its data module, the callbacks its recipe names and its studies, and every
module of the same packages that these import at their top level (imports inside functions belong to loading, sharing
and the command line, which change no number). Of each file only the code that computes something counts: comments,
docstrings, layout, `__all__`, and imports from the packages themselves are left out, and so is the file's name, so that
polishing a text or moving a file does not void hours of computing. Modules that no number depends on (`_ASIDE`,
pictures, export, tuning) are left out as a whole.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterable
from functools import lru_cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

__all__ = ["class_paths", "code_hash", "modules_behind"]

# messages, lazy names, the index and its checks, texts, exports and uploads: no number depends on them
_ASIDE = re.compile(
    r"zoo"
    r"|zoo\.(?:errors|text|files|safe_yaml|checks|_index_\w+|_licences|_base_export|_base_report)"
    r"|zoo\.(?:index|pictures)(?:\..+)?"
    r"|zoo\.base\.(?:export|report)"
    r"|.+[._](?:picture|pictures|draw|show)"  # files with these names draw
    r"|.+\.tuning"  # what was tuned is in the recipes and claims
)


def code_hash(modules: Iterable[str]) -> str:
    """Sixteen hexadecimal digits that change when code behind these modules changes.

    Args:
        modules: dotted names.
    """
    digests = {
        hashlib.sha256(code.encode()).digest() for p in modules_behind(modules).values() if (code := _essence(p))
    }
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()[:16]


def modules_behind(modules: Iterable[str]) -> dict[str, Path]:
    """The modules themselves and what they import at top level from the same packages: name -> file."""
    waiting = list(modules)
    tops = {name.partition(".")[0] for name in waiting} | {"zoo", "datamodules"}
    files: dict[str, Path] = {}
    while waiting:
        name = waiting.pop()
        if name in files or _ASIDE.fullmatch(name) or name.partition(".")[0] not in tops:
            continue
        path = _file_of(name)
        if path is not None:
            files[name] = path
            waiting += _imports(path, name)
    return files


def _file_of(name: str) -> Path | None:
    """File of a module; neither it nor its package is imported."""
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
    names: list[str] = []
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.parse(path.read_bytes()).body:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return tuple(names)


def _essence(path: Path) -> str:
    """What a file computes: no comments, docstrings, layout, `__all__`, nor imports from its own packages."""
    about = path.stat()
    return _stripped(path, about.st_mtime_ns, about.st_size)


@lru_cache(maxsize=1024)
def _stripped(path: Path, changed: int, size: int) -> str:
    """Cached while the file is as it was: a long plan asks before each of its steps."""
    tree = ast.parse(path.read_bytes())
    tops = {"zoo", "datamodules", _top_of(path)}
    for node in ast.walk(tree):
        for block in ("body", "orelse", "finalbody"):
            statements = getattr(node, block, None)
            if isinstance(statements, list) and statements:
                kept = [s for s in statements if not _says_nothing(s, tops)]
                # what a module lacks is nothing; a function or a branch needs a statement
                setattr(node, block, kept or ([] if isinstance(node, ast.Module) or block != "body" else [ast.Pass()]))
    return ast.unparse(ast.fix_missing_locations(tree))


def _top_of(path: Path) -> str:
    """Name of the package that a file belongs to."""
    folder = path.parent
    while (folder.parent / "__init__.py").is_file():
        folder = folder.parent
    return folder.name if (folder / "__init__.py").is_file() else path.stem


def _says_nothing(node: ast.stmt, tops: set[str]) -> bool:
    """Whether a statement changes no number: a text, a list of exports, an import whose target is hashed itself."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    if isinstance(node, ast.Import):
        return all(alias.name.partition(".")[0] in tops for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        return bool(node.level) or (node.module or "").partition(".")[0] in {*tops, "__future__"}
    targets = node.targets if isinstance(node, ast.Assign) else []
    return any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets)


def class_paths(value: Any) -> list[str]:
    """Modules of all `class_path` values inside a recipe."""
    if isinstance(value, dict):
        own = [str(value["class_path"]).rpartition(".")[0]] if "class_path" in value else []
        return own + [m for item in value.values() for m in class_paths(item)]
    if isinstance(value, list):
        return [m for item in value for m in class_paths(item)]
    return []
