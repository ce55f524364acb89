"""`zoo bundle`: a trained checkpoint becomes a verified tag of the index (from a checkout)."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from zoo.errors import BadInput
from zoo.index.editing import set_keys

__all__ = ["add_bundle", "run_bundle"]

_LIMIT = 6_000_000  # bytes of one file in the package


def add_bundle(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of `zoo bundle`."""
    parser.add_argument("checkpoint", help="a Lightning .ckpt, or a folder written by zoo.save")
    parser.add_argument("name", help="ID:TAG; the tag is in the index, with a recipe")
    parser.add_argument("--float32", action="store_true", help="keep full precision (the default stores float16)")
    parser.add_argument("--replace", action="store_true", help="replace a bundled file that was never published")


def run_bundle(options: argparse.Namespace) -> int:
    """Write the file, its golden outputs, and the lines of the index that pin it."""
    from zoo import index, store

    entry, tag = index.resolve(options.name)
    about = entry.weights[tag] if tag else None
    if about is None or ":" not in options.name:
        raise BadInput(f"Expected ID:TAG of the index, got {options.name!r}: add the tag with its recipe first.")
    if about.hub.repo is not None:
        raise BadInput(f"{options.name} is published, and a published tag never moves. Add a new tag.")
    source = _own_index(entry)
    target = index.bundled_path(dataclasses.replace(about, file=f"{entry.id}-{tag}.safetensors"), entry)
    if target.exists() and not options.replace:
        raise BadInput(f"{target} exists. If it was never published: --replace.")
    with tempfile.TemporaryDirectory() as temporary:
        folder = store.save(options.checkpoint, Path(temporary) / "saved", card=False, half=not options.float32)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if config["zoo"] != entry.id:
            raise BadInput(f"{options.checkpoint} holds {config['zoo']}, not {entry.id}.")
        weights = folder / "model.safetensors"
        size = weights.stat().st_size
        if size > _LIMIT:
            raise BadInput(f"{size:,} bytes are too many for the package (at most {_LIMIT:,}): publish it on the Hub.")
        params = sum(p.numel() for p in store.load(folder).parameters())
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(weights, target)
        golden = index.golden_path(target.name, entry)
        golden.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / "golden.safetensors", golden)
        pinned = {
            "init": json.dumps(_changed(entry, config["init"])),
            "file": target.name,
            "sha256": f'"{config["sha256"]["model.safetensors"]}"',
            "bytes": str(size),
            "params": str(params),
        }
    set_keys(source, entry.id, about.tag, {key: value for key, value in pinned.items() if value != "{}"})
    print(f"wrote {target}\nwrote {golden}\npinned {options.name} in {source}")
    print(f"Then measure what was shipped: zoo train test --zoo {options.name}, and add its headline metrics.")
    return 0


def _own_index(entry: Any) -> Path:
    """The index file that names a method, if the current folder belongs to it; prints it.

    Raises:
        BadInput: outside of the checkout or the package's project, into which nothing is written from elsewhere.
    """
    from zoo import index

    source = Path(entry.source) if Path(entry.source).is_absolute() else index.index_path()
    root = source.parent if source == index.index_path() else source.parent.parent
    if not source.is_file() or root.resolve() not in (Path.cwd().resolve(), *Path.cwd().resolve().parents):
        raise BadInput(f"{entry.id} is named in {source}: go into {root} to write there.")
    print(f"into {root}", flush=True)
    return source


def _changed(entry: Any, init: dict[str, Any]) -> dict[str, Any]:
    """Arguments that differ from the constructor's defaults."""
    known = inspect.signature(entry.model_class().__init__).parameters
    return {k: v for k, v in init.items() if k in known and v != known[k].default}
