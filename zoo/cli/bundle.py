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

__all__ = ["add_bundle", "run_bundle"]

_LIMIT = 6_000_000  # bytes of one file in the package


def add_bundle(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of `zoo bundle`."""
    parser.add_argument("checkpoint", help="a Lightning .ckpt, or a folder written by zoo.save")
    parser.add_argument("name", help="ID:TAG; the tag is in the index, with a recipe")
    parser.add_argument("--float32", action="store_true", help="keep full precision (the default stores float16)")
    parser.add_argument("--replace", action="store_true", help="replace a bundled file that was never published")


def run_bundle(options: argparse.Namespace) -> int:
    """Write the file and print the lines that pin it."""
    from zoo import index, store

    entry, tag = index.resolve(options.name)
    about = entry.weights[tag] if tag else None
    if about is None or ":" not in options.name:
        raise BadInput(f"Expected ID:TAG of the index, got {options.name!r}: add the tag with its recipe first.")
    if about.hub.repo is not None:
        raise BadInput(f"{options.name} is published, and a published tag never moves. Add a new tag.")
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
        golden = index.index_path().parent / "tests" / "golden" / target.name
        golden.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / "golden.safetensors", golden)
    print(f"wrote {target.name} in {target.parent.name}/ and tests/golden/. Lines for checkpoints.yaml, below {tag}:")
    print(f"      init: {json.dumps(_changed(entry, config['init']))}")
    print(f"      file: {target.name}")
    print(f'      sha256: "{config["sha256"]["model.safetensors"]}"')
    print(f"      bytes: {size}\n      params: {params}")
    print(f"Then measure what was shipped: zoo train test --zoo {options.name}, and add its headline metrics.")
    return 0


def _changed(entry: Any, init: dict[str, Any]) -> dict[str, Any]:
    """Arguments that differ from the constructor's defaults."""
    known = inspect.signature(entry.model_class().__init__).parameters
    return {k: v for k, v in init.items() if k in known and v != known[k].default}
