"""C1, C2, C4-C6, C22, C41: what an entry says about itself is true."""

from __future__ import annotations

import doctest
import hashlib
import inspect
import json
import os
import re
import subprocess
import sys
import types
from importlib import import_module
from pathlib import Path

import torch

import datamodules
import zoo
from conformance.support import model_of
from datamodules.base import ZooDataModule
from zoo.base import RESULTS, ROLES, RoundModule, ZooModule, is_plain
from zoo.index import Entry, bundled_path, entries, resolve

KEBAB = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def test_c01_block(entry: Entry) -> None:
    assert KEBAB.fullmatch(entry.id)
    assert entry.summary.endswith(".")
    assert "\n" not in entry.summary
    assert entry.paper["title"]
    assert entry.licence
    assert entry.tiny.get("model") is not None, "conformance builds the model from tiny.model"
    assert entry.tiny.get("data") is not None, "conformance builds the data module from tiny.data"
    for weights in entry.weights.values():
        assert weights.licence
        assert resolve(f"{entry.id}:{weights.tag}")[1] == weights.tag


def test_c02_classes(entry: Entry) -> None:
    model, data = entry.model_class(), entry.data_class()
    assert issubclass(model, ZooModule)
    assert issubclass(data, ZooDataModule)
    assert model.task == entry.task
    assert set(model_of(entry).roles().values()) <= set(ROLES)
    assert (entry.learns in ("closed-form", "rounds")) <= issubclass(model, RoundModule)
    assert model.monitor[1] in ("min", "max")
    assert model.monitor[0].startswith("val/")


def test_c02_results_are_named_in_the_table(entry: Entry) -> None:
    assert entry.task in RESULTS, "add the task and its result keys to zoo/index/tasks.py"


def test_c04_import_opens_no_socket() -> None:
    modules = sorted({c.partition(":")[0] for e in entries().values() for c in (e.model, e.data)})
    code = (
        "import socket, sys\n"
        "def refuse(*args, **kwargs): raise SystemExit('a socket was opened at import')\n"
        "import torch, lightning\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
        "from importlib import import_module\n"
        f"for name in {modules!r}: import_module(name)\n"
        "print('fine')"
    )
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "fine", done.stdout + done.stderr


def test_c05_docstrings(entry: Entry) -> None:
    for cls in (entry.model_class(), entry.data_class()):
        missing = [] if cls.__doc__ else [cls.__name__]
        if cls.__module__.split(".")[0] in ("zoo", "datamodules"):
            missing += [
                f"{cls.__name__}.{name}"
                for name, value in vars(cls).items()
                if inspect.isfunction(value) and not name.startswith("_") and not inspect.getdoc(value)
            ]
        assert not missing, f"without a docstring: {missing}"


def test_c05_usage_lines_run(entry: Entry) -> None:
    for path in (entry.model, entry.data):
        module = import_module(path.partition(":")[0])
        assert doctest.testmod(module).failed == 0


def test_c06_constructor_takes_plain_values(entry: Entry) -> None:
    for cls in (entry.model_class(), entry.data_class()):
        for name, parameter in inspect.signature(cls.__init__).parameters.items():
            if name == "self" or parameter.kind is parameter.VAR_KEYWORD:
                continue
            assert parameter.annotation is not parameter.empty, f"{cls.__name__}({name}) has no type"
            assert parameter.default is parameter.empty or is_plain(parameter.default), f"{cls.__name__}({name})"


def test_c06_hyper_parameters_are_plain(entry: Entry) -> None:
    model = model_of(entry)
    again = json.loads(json.dumps(model.init_args))
    assert set(again) == set(inspect.signature(type(model).__init__).parameters) - {"self"}
    assert model_of(entry, **again).state_dict().keys() == model.state_dict().keys()


def test_roles_name_real_parts(entry: Entry) -> None:
    model = model_of(entry)
    named = [k for k, _ in model.named_parameters()]
    head = [k for k in named if model.role_of(k) == "head"]
    assert bool(head) >= ("num_classes" in entry.can), "num_classes needs parameters of the role head"
    assert set(model.published_state()) <= set(model.state_dict())


def test_public_names_are_no_submodules() -> None:
    for package in (zoo, datamodules):
        folder = Path(next(iter(package.__path__)))
        inside = {p.stem for p in folder.glob("*.py")} | {p.name for p in folder.iterdir() if p.is_dir()}
        public = set(getattr(package, "__all__", ())) - {"errors"}
        clash = {n for n in public & inside if not isinstance(getattr(package, n), types.ModuleType)}
        assert not clash, f"{package.__name__} has a name and a submodule called {clash}"


def test_c22_bundled_file(bundled: tuple[Entry, str]) -> None:
    entry, tag = bundled
    weights = entry.weights[tag]
    path = bundled_path(weights, entry)
    raw = path.read_bytes()
    assert hashlib.sha256(raw).hexdigest() == weights.sha256
    assert len(raw) == weights.bytes
    assert len(raw) <= 6_000_000
    model = zoo.load(f"{entry.id}:{tag}")
    assert model.report is not None
    assert model.report.pinned
    assert all(model.role_of(key) == "training" for key in model.report.missing)
    assert not model.report.unexpected
    assert not model.report.reinitialised
    assert not model.training


def test_c22_bundled_in_all(checkout: Path) -> None:
    assert sum(p.stat().st_size for p in (checkout / "zoo" / "bundled").glob("*.safetensors")) <= 60_000_000


def test_c41_counts(bundled: tuple[Entry, str]) -> None:
    entry, tag = bundled
    model = zoo.load(f"{entry.id}:{tag}")
    kept = model.published_state()
    unique = {p.data_ptr(): p.numel() for k, p in model.named_parameters() if k in kept}
    assert sum(unique.values()) == entry.weights[tag].params


def test_state_has_no_foreign_types(entry: Entry) -> None:
    assert all(isinstance(v, torch.Tensor) for v in model_of(entry).state_dict().values())
