"""`zoo convert`: weights that another project has published become a folder that `zoo.load` reads."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from zoo.errors import BadInput

__all__ = ["add_convert", "run_convert"]


def add_convert(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of `zoo convert`."""
    parser.add_argument("file", help="weights of another project: .pt, .pth or .safetensors; nothing in it is executed")
    parser.add_argument("name", help="ID[:TAG] of the same network; the tag's arguments build it")
    parser.add_argument("--out", metavar="DIR", required=True, help="new folder, which zoo.load and zoo evaluate take")
    parser.add_argument(
        "--set",
        metavar="ARGUMENT=VALUE",
        action="append",
        default=[],
        help="another argument of the method, as YAML (may be given several times)",
    )


def run_convert(options: argparse.Namespace) -> int:
    """Build the module, fill it, save it."""
    from zoo import index, store
    from zoo.safe_yaml import load_yaml
    from zoo.store.conversion import fill_from, read_foreign_state, renamed
    from zoo.studies import import_beside

    entry, _ = index.resolve(options.name)
    given: dict[str, Any] = {}
    for word in options.set:
        name, equals, text = word.partition("=")
        if not equals:
            raise BadInput(f"--set: expected ARGUMENT=VALUE, got {word!r}.")
        given[name] = load_yaml(text, where=f"--set {name}", error=BadInput)
    state = read_foreign_state(options.file)
    names = getattr(import_beside(entry.id, "foreign"), "NAMES", None)
    if names is None:
        raise BadInput(f"{entry.id} does not say which names other projects give to its tensors.")
    module = store.load(options.name, weights=False, **given)
    fill_from(module, renamed(state, names, options.file), options.file)
    folder = store.save(module, Path(options.out))
    count = sum(p.numel() for p in module.parameters())
    print(f"{folder}  {len(state)} tensors, {count:,} parameters")
    print(f'load it   model = zoo.load("{folder}")')
    return 0
