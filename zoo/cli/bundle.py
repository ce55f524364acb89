"""`zoo bundle`: a trained checkpoint becomes a verified tag of the index, in a checkout or a package of its own."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import yaml

from zoo.cli.place import index_of, project_of, say_where
from zoo.errors import BadInput
from zoo.files import write_whole
from zoo.index.editing import with_keys

__all__ = ["add_bundle", "run_bundle"]

_LIMIT = 6_000_000  # bytes of one file in the package


def add_bundle(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of `zoo bundle`."""
    parser.add_argument("checkpoint", help="a Lightning .ckpt, or a folder written by zoo.save")
    parser.add_argument("name", help="ID:TAG; the tag is in the index, with a recipe")
    parser.add_argument("--float32", action="store_true", help="keep full precision (the default stores float16)")
    parser.add_argument("--dir", metavar="DIR", help="root of the checkout or package, to write there from elsewhere")
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
    if project_of(entry) is None:
        raise BadInput(f"{entry.id} is named in {index_of(entry)}, which is no checkout and no package's sources.")
    root, source = say_where(entry, options.dir, "name it with --dir"), index_of(entry)
    target = index.bundled_path(dataclasses.replace(about, file=f"{entry.id}-{tag}.safetensors"), entry)
    golden = index.golden_path(target.name, entry)
    pinned_before = about.file == target.name  # else it is what a stopped call has left
    if target.exists() and pinned_before and not options.replace:
        raise BadInput(f"{target} exists. If it was never published: --replace.")
    with tempfile.TemporaryDirectory() as temporary:
        folder = store.save(options.checkpoint, Path(temporary) / "saved", card=False, half=not options.float32)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if config["zoo"] != entry.id:
            raise BadInput(f"{options.checkpoint} holds {config['zoo']}, not {entry.id}.")
        weights = folder / "model.safetensors"
        size, module = weights.stat().st_size, store.load(folder)
        kept = module.published_state()
        if size > _LIMIT:
            raise BadInput(f"{size:,} bytes are too many for the package (at most {_LIMIT:,}): publish it on the Hub.")
        pinned = {
            "init": _changed(entry, config["init"]),
            "file": target.name,
            "sha256": config["sha256"]["model.safetensors"],
            "bytes": size,
            "params": sum(p.numel() for name, p in module.named_parameters() if name in kept),
        }
        # what was true of other weights
        pinned |= {"metrics": {}} if about.metrics else {}
        lines = {key: _in_one_line(value) for key, value in pinned.items()} | {"sha256": f'"{pinned["sha256"]}"'}
        text = with_keys(source, entry.id, about.tag, lines)
        for path, content in ((target, weights), (golden, folder / "golden.safetensors")):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, content.read_bytes())
        write_whole(source, text)  # last: until then the index says what it said
    for path in (target, golden, source):
        print(f"  {path.relative_to(root)}")
    print(f"Then measure what was shipped: zoo train test --zoo {options.name}, and add its headline metrics.")
    return 0


def _in_one_line(value: Any) -> str:
    """A value as YAML on one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=math.inf, sort_keys=False).removesuffix("...\n").strip()


def _changed(entry: Any, init: dict[str, Any]) -> dict[str, Any]:
    """Arguments that differ from the constructor's defaults."""
    known = inspect.signature(entry.model_class().__init__).parameters
    return {k: v for k, v in init.items() if k in known and v != known[k].default}
