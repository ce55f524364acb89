"""`zoo new`: the skeleton of a method, in a checkout or as a package of its own."""

from __future__ import annotations

import argparse
import datetime
import os
import re
from dataclasses import dataclass
from pathlib import Path
from string import Template
from textwrap import indent

from zoo import index
from zoo.cli.new_data import DATA
from zoo.cli.new_text import INDEX, METHOD, PYPROJECT, RECIPE, TEST
from zoo.errors import BadInput, UnknownName, nearest
from zoo.files import write_whole

__all__ = ["add_new", "run_new"]

_NAME = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")


@dataclass(frozen=True)
class _Kind:
    """What is written for a task: which method, which data, in which folder."""

    method: str
    data: str
    domain: str


def _kind_of(task: index.Task) -> _Kind:
    series = task.reads == "series" or task.template == "regressor"
    return _Kind(
        task.template, "pictures" if task.reads == "image" else "rows", "sequence" if series else "classification"
    )


_KINDS = {name: _kind_of(task) for name, task in index.TASKS.items() if task.template}

_PARTS = {
    "rows": {
        "args": "        features: numbers per row.\n",
        "params": "        features: int = 4,\n",
        "classes": "3",
        "keep": "self.features = features",
        "body": "self.body = nn.Sequential(nn.Linear(features, width), nn.ReLU())",
        "what": "rows (n, features)",
        "key": "row",
        "convert": "as_row(item, self.features)",
        "make_doc": "Rows as lists, arrays, tensors, or CSV files whose last line counts.",
        "show": 'picture = Image.new("RGB", (240, 32), "white")',
        "show_doc": "The class and its probability, as text.",
        "example": "torch.linspace(-1, 1, 3 * self.features).reshape(3, self.features)",
        "example_doc": "Three rows.",
        "helper": "as_row",
        "module": "rows",
        "data_class": "RowsDataModule",
        "class_init": "features: 4, num_classes: 3, class_names: [east, north, south]",
        "reference": "body, head = model.body[0], model.head\n"
        "    expected = torch.relu(x @ body.weight.T + body.bias) @ head.weight.T + head.bias",
    },
    "pictures": {
        "args": "        size: pixels per side of the pictures.\n",
        "params": "        size: int = 16,\n",
        "classes": "2",
        "keep": "self.size = size",
        "body": "self.body = nn.Sequential("
        "nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())",
        "what": "pictures (n, 3, height, width) in [0, 1]",
        "key": "image",
        "convert": "to_square(item, self.size)",
        "make_doc": "Pictures as paths, PIL images, arrays (H, W, 3) or tensors (3, H, W).",
        "show": "picture = as_picture(inputs)",
        "show_doc": "The picture with its class and probability.",
        "example": "torch.linspace(0, 1, 9 * self.size**2).reshape(3, 3, self.size, self.size)",
        "example_doc": "Three pictures.",
        "helper": "as_picture, to_square",
        "module": "pictures",
        "data_class": "PicturesDataModule",
        "class_init": "size: 16, num_classes: 2, class_names: [horizontal, vertical]",
        "reference": "body, head = model.body[0], model.head\n"
        "    hidden = torch.relu(torch.nn.functional.conv2d(x, body.weight, body.bias, padding=1)).mean((2, 3))\n"
        "    expected = hidden @ head.weight.T + head.bias",
    },
}


def add_new(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of `zoo new`."""
    parser.add_argument("task", help=f"one of {', '.join(_KINDS)}")
    parser.add_argument("name", help="kebab-case, as the paper calls it")
    parser.add_argument("--dir", metavar="DIR", help="write a package of your own there, instead of into a checkout")


def run_new(options: argparse.Namespace) -> int:
    """Write the files; nothing that exists is overwritten, except for the index, which gets a block."""
    _check(options.task, options.name)
    kind = _KINDS[options.task]
    root, package = _place(options.dir)
    values = _values(options.task, options.name, kind, package)
    files = _files(kind, values, root, package)
    shared = {root / _data_file(kind, package)}
    if taken := [path for path in files if path.exists() and path not in shared]:
        raise BadInput(f"{taken[0]} exists: choose another name.")
    index_file = root / (f"{package}/index.yaml" if package else "checkpoints.yaml")
    block = Template(INDEX).substitute(values)
    text = _insert(index_file.read_text(encoding="utf-8") if index_file.is_file() else _HEADER, options.name, block)
    written = [path for path in files if not path.exists()]
    for path in written:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files[path], encoding="utf-8")
    _replace(index_file, text)
    for path in [*written, index_file]:
        print(os.path.relpath(path))
    print(_next_steps(options.name, values, package, root))
    return 0


_HEADER = "# Methods of this package, in the format of the zoo's checkpoints.yaml.\n"


def _check(task: str, name: str) -> None:
    if task not in _KINDS:
        known = f"Templates: {', '.join(_KINDS)}."
        if task in index.TASKS:
            raise BadInput(f"There is no template for {task} yet: start from the nearest one and change it. {known}")
        raise UnknownName(f"There is no task {task!r}.{nearest(task, _KINDS)} {known}")
    if not _NAME.fullmatch(name):
        raise BadInput(f"{name!r} is not kebab-case: lower-case words with hyphens, such as my-method.")
    taken = {alias: e.id for e in index.entries().values() for alias in (e.id, *e.aliases)}
    if name in taken:
        raise BadInput(f"{name!r} is taken by {taken[name]}: choose another name.")


def _place(folder: str | None) -> tuple[Path, str | None]:
    """Root folder, and the package's name outside a checkout."""
    if folder is None:
        path = index.index_path()
        if (path.parent / "zoo" / "index.py").is_file() and (path.parent / "pyproject.toml").is_file():
            return path.parent, None
        raise BadInput("This zoo is installed, not a checkout: write a package of your own with --dir DIR.")
    root = Path(folder).expanduser().resolve()
    package = re.sub(r"\W+", "_", root.name.lower()).strip("_")
    if not package.isidentifier() or package in ("zoo", "datamodules", "tests", "test"):
        raise BadInput(f"--dir {folder}: its last part names the package; {package!r} cannot be one.")
    if root.is_file() or (root.is_dir() and any(root.iterdir()) and not (root / package / "index.yaml").is_file()):
        raise BadInput(f"--dir {folder} exists and is no package written by `zoo new`: give a new folder.")
    return root, package


def _values(task: str, name: str, kind: _Kind, package: str | None) -> dict[str, str]:
    parts = _PARTS[kind.data]
    snake = name.replace("-", "_")
    cls = "".join(word.capitalize() for word in name.split("-"))
    home = package or "datamodules"
    module = f"{package}.{snake}" if package else f"zoo.{kind.domain}.{snake}"
    can = ["batch_independent", *(["num_classes"] if kind.method == "classifier" else []), "export", "onnx", "compile"]
    regression = kind.method == "regressor"
    return {
        **{key: value for key, value in parts.items() if key not in ("data_class", "class_init")},
        "id": name,
        "Class": cls,
        "Title": name.replace("-", " ").capitalize(),
        "task": task,
        "module": module,
        "model_path": f"{module}:{cls}",
        "data_path": f"{home}.{parts['module']}:{parts['data_class']}",
        "data_import": f"from {home}.{parts['module']} import {parts['helper']}",
        "can": ", ".join(can),
        "init": "features: 4" if regression else parts["class_init"],
        "tiny_data": "batch_size: 8, kind: values" if regression else "batch_size: 8",
        "recipe_data": "batch_size: 16, kind: values" if regression else "batch_size: 16",
        "summary": f"The skeleton of {name}; say in one sentence what it does.",
        "year": str(datetime.date.today().year),
        "package": package or "",
        "project": (package or "").replace("_", "-"),
    }


def _data_file(kind: _Kind, package: str | None) -> str:
    return f"{package or 'datamodules'}/{_PARTS[kind.data]['module']}.py"


def _files(kind: _Kind, values: dict[str, str], root: Path, package: str | None) -> dict[Path, str]:
    def fill(text: str) -> str:
        return Template(text).substitute(values)

    snake, name = values["id"].replace("-", "_"), values["id"]
    home = f"{package}" if package else f"zoo/{kind.domain}"
    recipes = f"{package or 'zoo'}/recipes/{name}/example.yaml"
    tests = f"tests/test_{snake}.py" if package else f"tests/methods/test_{snake}.py"
    texts = {
        f"{home}/{snake}.py": fill(METHOD[kind.method]),
        _data_file(kind, package): DATA[kind.data],
        recipes: fill(RECIPE),
        tests: fill(TEST),
    }
    if package and not (root / "pyproject.toml").exists():
        texts["pyproject.toml"] = fill(PYPROJECT)
    starts = {f"{home}/__init__.py": f'"""Methods of {home}."""\n'}
    texts |= {path: text for path, text in starts.items() if not (root / path).exists()}
    return {root / path: text for path, text in texts.items()}


def _insert(text: str, name: str, block: str) -> str:
    """Put a block at its place in the alphabet. Comments stay; those right above a block belong to it."""
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    keys = [
        (i, m.group(1))
        for i, line in enumerate(lines)
        if (m := re.match(r"['\"]?([a-z0-9][a-z0-9-]*)['\"]?\s*:", line))
    ]
    later = [i for i, key in keys if key > name]
    if not later:
        gap = "\n" if lines and lines[-1].strip() else ""
        return "".join(lines) + gap + block
    place = later[0]
    while place > 0 and lines[place - 1].startswith("#") and any(i < place for i, _ in keys):
        place -= 1
    return "".join([*lines[:place], block, "\n", *lines[place:]])


def _replace(path: Path, text: str) -> None:
    """Write the index whole or not at all, and only if it can be read afterwards."""
    path.parent.mkdir(parents=True, exist_ok=True)
    index.read_index(path, text=text)
    write_whole(path, text)


def _next_steps(name: str, values: dict[str, str], package: str | None, root: Path) -> str:
    steps = [f"pip install -e {os.path.relpath(root)}"] if package else []
    tests = os.path.relpath(root / "tests") if package else f"tests/methods/test_{name.replace('-', '_')}.py"
    steps += [
        f"zoo train {name} --trainer.fast_dev_run true",
        f"zoo train {name}",
        f"pytest {tests}" if package else f"pytest {tests} tests/conformance -k {name}",
    ]
    return "\nIt runs as it is:\n" + indent("\n".join(steps), "  ") + f"\nThen replace the example network by {name}."
