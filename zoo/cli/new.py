"""`zoo new`: the skeleton of a method, in a checkout or as a package of its own, from the files in `templates`."""

from __future__ import annotations

import argparse
import datetime
import keyword
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent

from zoo import index
from zoo.cli.place import checkout, is_inside
from zoo.errors import BadInput, UnknownName, nearest
from zoo.files import write_whole, writing
from zoo.index.editing import insert_block

__all__ = ["add_new", "base_of", "run_new", "values_of"]

_NAME = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
_MARK = re.compile(r"^( *)(.*?)  # zoo new: (\w+)$", re.MULTILINE)
_HEADER = "# Methods of this package, in the format of the zoo's checkpoints.yaml.\n"
_RESERVED = ("zoo", "datamodules", "tests", "test")
_LONGEST = 40
TEMPLATES = Path(__file__).parent / "templates"

BASES: dict[str, tuple[str, ...]] = {
    "image_classifier": ("image-classification",),
    "adversarial_classifier": ("image-classification",),
    "federated_classifier": ("image-classification",),
    "detector": ("object-detection",),
    "series": ("time-series-classification", "time-series-regression", "time-series-forecasting"),
    "plain": tuple(index.TASKS),
}
"""Template -> tasks it serves; `plain` has no base but that of all methods. The table of tasks has the defaults."""

_ANSWERS = {
    "boxes": "torch.stack([out[:, :2].sigmoid(), 1 + out[:, 2:4].sigmoid()], 1).reshape(-1, 1, 4)",
    "centers": "out[:, :3].reshape(-1, 1, 3)",
    "diameters": "out[:, :1].exp()",
    "durations": "out[:, :1].exp()",
    "image": "out.sigmoid().reshape(-1, 1, 4, 4)",
    "interval": "torch.stack([out[:, 0] - 1, out[:, 0] + 1], 1)",
    "intervals": "[[torch.zeros(0, 2)] for _ in out]",
    "label": "out.argmax(1)",
    "labels": "torch.zeros(len(out), 1, dtype=torch.int64)",
    "logits": "out",
    "mask": "out.reshape(-1, 1, 4, 4) > 0",
    "masks": "out.sigmoid().reshape(-1, 1, 4, 4)",
    "name": "[str(i) for i in out.argmax(1).tolist()]",
    "names": '[["0"] for _ in out]',
    "pairs": "torch.zeros(len(out), 1, 2, dtype=torch.int64)",
    "panoptic": "torch.zeros(len(out), 4, 4, dtype=torch.int64)",
    "points": "out[:, :2].reshape(-1, 1, 2)",
    "probs": "out.softmax(1)",
    "score": "out[:, 0].sigmoid()",
    "scores": "out[:, :1].sigmoid()",
    "segments_info": "[[] for _ in out]",
    "text": '["" for _ in out]',
    "value": "out[:, 0]",
    "video": "out.sigmoid().reshape(-1, 4, 1, 2, 2)",
}
"""Result key -> the example's value in the template without a base: of the right shape, from 16 outputs."""


@dataclass(frozen=True)
class _Target:
    """Where the files go.

    Attributes:
        root: folder of the checkout or of the package's project.
        package: name of the package; None in a checkout.
    """

    root: Path
    package: str | None

    @property
    def index_file(self) -> Path:
        return self.root / (f"{self.package}/index.yaml" if self.package else "checkpoints.yaml")

    def places(self, name: str) -> dict[str, str]:
        """Part of the template -> folder or file, below the root."""
        snake = name.replace("-", "_")
        if self.package:
            return {
                "code": f"{self.package}/{snake}",
                "recipe": f"{self.package}/recipes/{name}/example.yaml",
                "test": f"tests/test_{snake}.py",
                "claims": f"{self.package}/model_cards/{name}/claims.yaml",
            }
        return {
            "code": f"zoo/methods/{snake}",
            "recipe": f"zoo/methods/{snake}/recipes/example.yaml",
            "test": f"tests/methods/{snake}/test_module.py",
            "claims": f"model_cards/{name}/claims.yaml",
        }


def add_new(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of `zoo new`."""
    parser.add_argument("task", help=f"one of {', '.join(index.TASKS)}")
    parser.add_argument("name", help="kebab-case, as the paper calls it")
    parser.add_argument("--base", metavar="BASE", help=f"template, if not that of the task: {', '.join(BASES)}")
    parser.add_argument("--dir", metavar="DIR", help="write a package of your own there, instead of into a checkout")


def run_new(options: argparse.Namespace) -> int:
    """Write the files; nothing that exists is overwritten, except for the index, which gets a block."""
    base = base_of(options.task, options.base)
    _check_name(options.name)
    target = _target(options.dir)
    print(f"into {target.root}", flush=True)
    files = _files(base, options.task, options.name, target)
    if taken := [path for path in files if path.exists()]:
        raise BadInput(f"{taken[0]} exists: choose another name.")
    text = _HEADER
    if target.index_file.is_file():
        text = target.index_file.read_text(encoding="utf-8")
    values = values_of(base, options.task, options.name, target.package)
    block = _filled((TEMPLATES / base / "index.yaml").read_text(encoding="utf-8"), values)
    text = insert_block(text, options.name, block)
    index.read_index(target.index_file, text=text)  # refused before anything is written
    _write({**files, target.index_file: text})
    for path in [*files, target.index_file]:
        print(f"  {path.relative_to(target.root)}")
    print(_next_steps(options.name, target))
    return 0


def base_of(task: str, base: str | None = None) -> str:
    """The template for a task.

    Args:
        task: of the index's table.
        base: the one that was asked for.

    Raises:
        UnknownName: for a task or a template that does not exist.
        BadInput: for a template that does not serve the task.
    """
    if task not in index.TASKS:
        raise UnknownName(f"There is no task {task!r}.{nearest(task, index.TASKS)} Tasks: {', '.join(index.TASKS)}.")
    if base is None:
        return index.TASKS[task].template
    if base not in BASES:
        raise UnknownName(f"There is no base {base!r}.{nearest(base, BASES)} Bases: {', '.join(BASES)}.")
    if task not in BASES[base]:
        raise BadInput(f"The base {base} serves {', '.join(BASES[base])}, not {task}. Leave --base out.")
    return base


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise BadInput(f"{name!r} is not kebab-case: lower-case words with hyphens, such as my-method.")
    if keyword.iskeyword(name) or len(name) > _LONGEST:
        raise BadInput(f"{name!r} cannot name a module: give at most {_LONGEST} letters and no keyword of Python.")
    taken = {alias: e.id for e in index.entries().values() for alias in (e.id, *e.aliases)}
    if name in taken:
        raise BadInput(f"{name!r} is taken by {taken[name]}: choose another name.")


def _target(folder: str | None) -> _Target:
    """A checkout around the current folder, or the folder that was given.

    Raises:
        BadInput: if there is no checkout here and no folder was given, or the folder cannot become a package.
    """
    if folder is None:
        root = checkout()
        if root is None:
            raise BadInput("This zoo is installed, not a checkout: write a package of your own with --dir DIR.")
        if not is_inside(root):
            raise BadInput(
                f"The current folder is outside of the checkout {root}: go there to write into it, or write a package "
                "of your own with --dir DIR."
            )
        return _Target(root, None)
    root = Path(folder).expanduser().resolve()
    package = re.sub(r"\W+", "_", root.name.lower()).strip("_")
    if not package.isidentifier() or keyword.iskeyword(package) or package in _RESERVED:
        raise BadInput(f"--dir {folder}: its last part names the package; {package!r} cannot be one.")
    if root.is_file() or (root.is_dir() and any(root.iterdir()) and not (root / package / "index.yaml").is_file()):
        raise BadInput(f"--dir {folder} exists and is no package written by `zoo new`: give a new folder.")
    return _Target(root, package)


def values_of(base: str, task: str, name: str, package: str | None) -> dict[str, str]:
    """What stands in the template -> what is written instead.

    Args:
        base: the template.
        task: of the index's table.
        name: id of the method.
        package: its package; None: the zoo's.
    """
    snake = name.replace("-", "_")
    values = "value" in index.TASKS[task].results
    can = "batch_independent, " + ("" if values else "num_classes, ") + "onnx, export, compile, odd_size"
    place = f"{package}.{snake}" if package else f"zoo.methods.{snake}"
    return {
        **{f"zoo.cli.templates.{template}": place for template in (base, "image_classifier")},
        "NewMethod": "".join(word.capitalize() for word in name.split("-")),
        "new-method": name,
        "New method": name.replace("-", " ").capitalize(),
        "new-package": (package or "").replace("_", "-"),
        "new_package": package or "",
        "TASK": task,
        "YEAR": str(datetime.date.today().year),
        "SERIES_DATA": "target: value, " if values else "",
        "CAN": can,
    }


def _filled(text: str, values: Mapping[str, str], lines: Mapping[str, str] | None = None) -> str:
    """A template with the user's names; marked lines become what the task asks for."""

    def line(match: re.Match[str]) -> str:
        return indent(lines[match[3]], match[1]) if lines and match[3] in lines else match[1] + match[2]

    text = _MARK.sub(line, text)
    for old, new in values.items():
        text = text.replace(old, new)
    return text


def _sorted_imports(text: str, package: str | None) -> str:
    """The imports of the zoo in the order of their new names.

    An outside package comes last, in a block of its own, and the zoo is one of the libraries above it.
    """
    own = "|".join(("zoo", "datamodules", *([package] if package else [])))

    def ordered(match: re.Match[str]) -> str:
        lines = sorted(match[2].splitlines(keepends=True))
        mine = [line for line in lines if package and line.startswith(f"from {package}.")]
        others = [line for line in lines if line not in mine]
        gap = match[1] if package is None or not others else match[1].removesuffix("\n")
        return "".join([gap, *others, *(["\n"] if others and mine else []), *mine])

    return re.sub(rf"(?<=\n)(\n)((?:from (?:{own})[. ].*\n)+)", ordered, text)


def _write(files: Mapping[Path, str]) -> None:
    """Write files in this order, all of them or none; the last may exist."""
    made: list[Path] = []
    try:
        for path, text in files.items():
            with writing(path):
                for folder in reversed([p for p in path.parents if not p.exists()]):
                    folder.mkdir()
                    made.append(folder)
            existed = path.exists()
            write_whole(path, text)
            if not existed:
                made.append(path)
    except BaseException:
        for path in reversed(made):
            path.rmdir() if path.is_dir() else path.unlink()
        raise


def _files(base: str, task: str, name: str, target: _Target) -> dict[Path, str]:
    """All files but the index: path -> content."""
    values, places = values_of(base, task, name, target.package), target.places(name)
    results = index.TASKS[task].results
    lines = {"task": f'task = "{task}"', "target": "target: value" if "value" in results else "target: label"}
    lines["classes"] = "num_classes: int = " + ("0," if "value" in results else "3,")
    lines["results"] = "\n".join(f'"{key}": {_ANSWERS[key]},' for key in results if base == "plain")

    def read(path: Path) -> str:
        return _sorted_imports(_filled(path.read_text(encoding="utf-8"), values, lines), target.package)

    parts = {part: TEMPLATES / base / part for part in ("__init__.py", "module.py", "network.py")}
    if not parts["network.py"].is_file():  # the classifiers share theirs
        parts["network.py"] = TEMPLATES / "image_classifier" / "network.py"
    files = {f"{places['code']}/{part}": read(path) for part, path in parts.items()}
    files[places["recipe"]] = read(TEMPLATES / base / "example.yaml")
    files[places["test"]] = read(TEMPLATES / base / "test_module.py")
    files[places["claims"]] = read(TEMPLATES / "claims.yaml.txt")
    if target.package:
        start = f"{target.package}/__init__.py"
        once = {
            "pyproject.toml": read(TEMPLATES / "pyproject.toml.txt"),
            start: f'"""Methods of {target.package}."""\n',
        }
        files |= {path: text for path, text in once.items() if not (target.root / path).exists()}
    return {target.root / path: text for path, text in files.items()}


def _next_steps(name: str, target: _Target) -> str:
    test = target.places(name)["test"]
    if target.package:
        place = os.path.relpath(target.root)
        steps = [f"pip install -e {place}", f"zoo train {name} --trainer.fast_dev_run true", f"zoo train {name}"]
        steps.append(f"pytest {os.path.join(place, test)}")
    else:
        steps = [f"zoo train {name} --trainer.fast_dev_run true", f"zoo train {name}"]
        steps.append(f"pytest {Path(test).parent} tests/conformance -k {name.replace('-', '_')}\\ or\\ {name}")
    return "\nIt runs as it is:\n" + indent("\n".join(steps), "  ") + f"\nThen replace the example network by {name}."
