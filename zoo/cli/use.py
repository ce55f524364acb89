"""`zoo export`, `pull` and `verify`: commands that touch weights."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import BadInput, InvalidConfig, require

if TYPE_CHECKING:
    from zoo.base import ZooModule

__all__ = [
    "add_export",
    "add_pull",
    "add_verify",
    "run_export",
    "run_pull",
    "run_verify",
]


# export -----------------------------------------------------------------------------------------------------------


def add_export(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of `zoo export`."""
    parser.add_argument("model", help="NAME[:TAG], hf://owner/repo, a saved folder or a .ckpt")
    parser.add_argument(
        "--format", choices=("onnx", "export"), default="onnx", help="onnx, or export: torch.export (.pt2)"
    )
    parser.add_argument("--out", metavar="FILE", help="file to write (NAME.onnx or NAME.pt2); must not exist")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="largest relative difference allowed (1e-4)")


def run_export(options: argparse.Namespace) -> int:
    """Write the file and compare its numbers with the module's."""
    from zoo import index

    known = _entry_of_name(options.model)
    if known is not None:
        _check_can(known, options.format)
    if options.format == "onnx":
        require("onnxruntime", "export")
    from zoo.store import load

    module = load(options.model)
    entry = known or index.entry_of(type(module))
    if known is None:
        _check_can(entry, options.format)
    suffix = ".onnx" if options.format == "onnx" else ".pt2"
    path = Path(options.out or f"{entry.id}{suffix}").expanduser()
    if path.exists():
        raise BadInput(f"{path} exists: choose another file with --out, or remove it.")
    path.parent.mkdir(parents=True, exist_ok=True)
    (module.export_onnx if options.format == "onnx" else module.export_program)(path)
    absolute, worst = _compare(module, path, options.format)
    size = path.stat().st_size / 1e6
    print(f"{path}  {size:.2f} MB  largest difference from the module: {absolute:.1e} ({worst:.1e} relative)")
    if not worst <= options.tolerance:
        print(f"That is more than --tolerance {options.tolerance:g}: do not rely on this file.")
        return 1
    return 0


def _entry_of_name(name: str) -> Any:
    """The entry of an index name, with its tag's overrides; None for folders, checkpoints and Hub repositories."""
    from zoo import index

    if name.startswith("hf://") or Path(name).expanduser().exists():
        return None
    return index.info(name)


def _check_can(entry: Any, format: str) -> None:
    if format not in entry.can:
        able = [f for f in ("onnx", "export") if f in entry.can]
        instead = f"It can: {', '.join(able)}." if able else "It cannot be exported."
        raise InvalidConfig(f"{entry.id} does not support --format {format}. {instead}")


def _compare(module: ZooModule, path: Path, format: str) -> tuple[float, float]:
    """Largest difference between file and module, on the example and on a batch of another size.

    Returns:
        The absolute difference, and the largest one relative to the largest value of its output (or to 1).
    """
    import torch

    example = module.example_input()
    absolute = relative = 0.0
    for args in (example, tuple(torch.cat([a, a[:1]]) for a in example)):
        with torch.no_grad():
            expected = _leaves(module(*args))
        got = _run_onnx(path, args) if format == "onnx" else _leaves(torch.export.load(str(path)).module()(*args))
        for a, b in zip(expected, got, strict=True):
            if a.numel():
                worst = (a.double() - b.double()).abs().max().item()
                absolute = max(absolute, worst)
                relative = max(relative, worst / max(1.0, a.double().abs().max().item()))
    return absolute, relative


def _run_onnx(path: Path, args: tuple[Any, ...]) -> list[Any]:
    import torch

    runtime: Any = require("onnxruntime", "export")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    feed = {node.name: a.numpy() for node, a in zip(session.get_inputs(), args, strict=True)}
    return [torch.from_numpy(a) for a in session.run(None, feed)]


def _leaves(value: Any) -> list[Any]:
    import torch
    from torch.utils import _pytree

    return [leaf.detach() for leaf in _pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]


# pull and verify --------------------------------------------------------------------------------------------------


def add_pull(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of `zoo pull`."""
    parser.add_argument("names", nargs="+", metavar="name", help="NAME[:TAG] or hf://owner/repo[@revision]")
    parser.add_argument("--endpoint", help="another Hub, as HF_ENDPOINT")


def run_pull(options: argparse.Namespace) -> int:
    """Download and check each."""
    from zoo import store

    for name in options.names:
        given = {"endpoint": options.endpoint} if options.endpoint else {}
        print(f"{name}  {store.pull(name, **given)}")
    return 0


def add_verify(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of `zoo verify`."""
    parser.add_argument("names", nargs="*", metavar="name", help="NAME[:TAG]; all, if none is given")
    parser.add_argument("--remote", action="store_true", help="also ask the Hub for each pinned revision")


def run_verify(options: argparse.Namespace) -> int:
    """Print one row per checkpoint; 1 if any is wrong."""
    from zoo import store
    from zoo.cli.share import print_rows

    return print_rows(store.verify(options.names or None, remote=options.remote), "checked")
