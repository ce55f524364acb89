"""`zoo predict`, `export`, `pull` and `verify`: commands that touch weights."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import BadInput, InvalidConfig, UnknownName, nearest, require

if TYPE_CHECKING:
    from zoo.base import ZooModule

__all__ = [
    "add_export",
    "add_predict",
    "add_pull",
    "add_verify",
    "run_export",
    "run_predict",
    "run_pull",
    "run_verify",
]

_LONG = 2000
"""Arrays with more elements go to .npy files instead of the JSON."""


# predict ----------------------------------------------------------------------------------------------------------


def add_predict(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of `zoo predict`; further flags are options of the method's `predict`."""
    parser.add_argument("model", help="NAME[:TAG], hf://owner/repo, a saved folder or a .ckpt")
    parser.add_argument("inputs", nargs="+", metavar="input", help="files")
    parser.add_argument(
        "--out", metavar="DIR", help="write pictures and results.json there; inputs are never overwritten"
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument("--batch-size", type=int, default=16, help="inputs computed at once (16)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps (cpu)")
    parser.set_defaults(pass_through=True)


def run_predict(options: argparse.Namespace) -> int:
    """Predict, print, and write pictures."""
    words, extra = predict_options(options.rest)
    inputs = [*options.inputs, *words]
    _check_inputs(inputs)
    if options.out and Path(options.out).exists() and not Path(options.out).is_dir():
        raise BadInput(f"--out {options.out} is a file: give a folder.")
    from zoo.store import load

    module = load(options.model, map_location=options.device)
    found = module.predict(list(inputs), batch_size=options.batch_size, **extra)
    names = _output_names(inputs)
    folder = Path(options.out).expanduser() if options.out else None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"input": path, **{key: _plain(value, folder, f"{name}-{key}") for key, value in result.items()}}
        for path, name, result in zip(inputs, names, found, strict=True)
    ]
    if folder is not None:
        _write(module, inputs, names, found, rows, folder)
    if options.json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        for row in rows:
            print(f"{row['input']}: {_summary(row)}")
        if folder is not None:
            print(f"written to {folder}")
    return 0


def predict_options(words: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Split words the parser does not know into inputs and options: `--score_threshold 0.4`, or with `=`."""
    import yaml

    inputs: list[str] = []
    found: dict[str, Any] = {}
    known = ("--out", "--json", "--batch-size", "--device")
    left = list(words)
    while left:
        word = left.pop(0)
        if not word.startswith("--"):
            inputs.append(word)
            continue
        name, equals, value = word.partition("=")
        if not equals:
            if not left or left[0].startswith("--"):
                raise UnknownName(
                    f"Unknown flag {name}, or its value is missing.{nearest(name, known)} Help: zoo predict --help"
                )
            value = left.pop(0)
        found[name[2:].replace("-", "_")] = yaml.safe_load(value)
    return inputs, found


def _check_inputs(inputs: Iterable[str]) -> None:
    missing = [path for path in inputs if not Path(path).expanduser().exists()]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise BadInput(f"There is no file {missing[0]}{more}. Give paths of files that exist.")


def _output_names(inputs: Sequence[str]) -> list[str]:
    """One name per input, distinct where stems repeat, and never that of an input."""
    taken = {Path(path).stem for path in inputs}
    names = []
    for path in inputs:
        base = f"{Path(path).stem}-predicted"
        name, number = base, 1
        while name in taken:
            number += 1
            name = f"{base}-{number}"
        taken.add(name)
        names.append(name)
    return names


def _write(
    module: ZooModule,
    inputs: Sequence[str],
    names: Sequence[str],
    found: Sequence[dict[str, Any]],
    rows: Sequence[dict[str, Any]],
    folder: Path,
) -> None:
    for path, name, result, row in zip(inputs, names, found, rows, strict=True):
        try:
            picture = module.show(path, result)
        except NotImplementedError:
            continue
        target = folder / f"{name}.png"
        picture.save(target)
        row["picture"] = target.name
    target = folder / "results.json"
    if any(target.resolve() == Path(path).expanduser().resolve() for path in inputs):
        target = folder / "results-predicted.json"
    target.write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _plain(value: Any, folder: Path | None, name: str) -> Any:
    """JSON of one result; long arrays become a .npy file in the folder, or their shape without one."""
    import numpy as np
    import torch

    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().float().numpy() if value.dtype == torch.bfloat16 else value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        if value.size <= _LONG:
            return [_rounded(v) for v in value] if value.ndim else _rounded(value)
        if folder is None:
            return {"shape": list(value.shape), "dtype": str(value.dtype), "note": "long: use --out DIR to keep it"}
        np.save(folder / f"{name}.npy", value)
        return {"shape": list(value.shape), "dtype": str(value.dtype), "file": f"{name}.npy"}
    if isinstance(value, (list, tuple)):
        return [_plain(v, folder, f"{name}-{i}") for i, v in enumerate(value)]
    if isinstance(value, dict):
        return {str(k): _plain(v, folder, f"{name}-{k}") for k, v in value.items()}
    if isinstance(value, np.generic):
        return value.item()
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _rounded(value: Any) -> Any:
    if getattr(value, "ndim", 0):
        return [_rounded(v) for v in value]
    number = value.item()
    # six digits: what a float32 holds, without its tail of noise
    return float(f"{number:.6g}") if isinstance(number, float) else number


def _summary(row: dict[str, Any]) -> str:
    """A line about one result: names with scores where there are any, else the short values."""
    names, scores = row.get("names"), row.get("scores")
    if isinstance(names, list) and isinstance(scores, list):
        pairs = [f"{name} {score:.2f}" for name, score in zip(names, scores, strict=False)]
        more = f", ... ({len(pairs) - 12} more)" if len(pairs) > 12 else ""
        return (", ".join(pairs[:12]) + more) or "nothing found"
    probs, label = row.get("probs"), row.get("label")
    if isinstance(probs, list) and isinstance(label, int) and label < len(probs):
        return f"{row.get('name', label)} {probs[label]:.2f}"
    short = {k: v for k, v in row.items() if k != "input" and len(json.dumps(v)) < 80}
    return ", ".join(f"{k} {json.dumps(v, ensure_ascii=False)}" for k, v in short.items()) or "done; --json shows it"


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
