"""Weights that another project has written, under the names of a module of ours."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from zoo.errors import BadInput
from zoo.store.checkpoint import read_torch_file
from zoo.store.tensors import read_state

if TYPE_CHECKING:
    from zoo.base import ZooModule

__all__ = ["fill_from", "read_foreign_state", "renamed"]

_INSIDE = ("state_dict", "model_state_dict", "model", "net")
"""Keys under which files hold the state dict, beside other things."""

_SHOWN = 5


def read_foreign_state(path: str | Path) -> dict[str, Tensor]:
    """State dict of a `.safetensors` or PyTorch file, without a `module.` prefix; nothing in it is executed.

    Raises:
        BadInput: if there is no such file, or it holds no state dict.
        UnsafeFile: if it holds more than tensors and plain values, or asks for more memory than its size explains.
        CorruptFile: if it is damaged.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise BadInput(f"{path}: no such file of weights.")
    stored: Any = read_state(path)[0] if path.suffix == ".safetensors" else read_torch_file(path)
    for key in _INSIDE:
        if isinstance(stored, dict) and isinstance(stored.get(key), dict):
            stored = stored[key]
    if not isinstance(stored, dict) or not all(isinstance(v, Tensor) for v in stored.values()):
        raise BadInput(f"{path}: expected a dict of tensors, got {type(stored).__name__}.")
    return {key.removeprefix("module."): value for key, value in stored.items()}


def renamed(state: Mapping[str, Tensor], names: Sequence[tuple[str, str]], path: str | Path) -> dict[str, Tensor]:
    """A state dict under other names.

    Args:
        state: name -> tensor.
        names: regular expressions and what replaces their first match, one after the other.
        path: of the file, for messages.

    Raises:
        BadInput: if two tensors get one name.
    """
    made: dict[str, Tensor] = {}
    for key, value in state.items():
        name = key
        for pattern, replacement in names:
            name = re.sub(pattern, replacement, name, count=1)
        if name in made:
            raise BadInput(f"{path}: two of its tensors stand for {name}, one of them {key}.")
        made[name] = value
    return made


def fill_from(module: ZooModule, state: Mapping[str, Tensor], path: str | Path) -> None:
    """Fill a module from a state dict of its names and shapes; what only training needs and counters may be absent.

    Args:
        module: what is filled.
        state: name -> tensor.
        path: of the file, for messages.

    Raises:
        BadInput: naming every kind of difference, with the first names of each.
    """
    wanted = module.published_state()
    differences = {
        "missing": [k for k in wanted if k not in state and not k.endswith("num_batches_tracked")],
        "foreign": [k for k in state if k not in wanted],
        "of another shape": [
            f"{k} {tuple(state[k].shape)}, expected {tuple(wanted[k].shape)}"
            for k in wanted
            if k in state and state[k].shape != wanted[k].shape
        ],
    }
    if any(differences.values()):
        listed = "; ".join(
            f"{len(names)} {kind} ({'; '.join(names[:_SHOWN])}{'; ...' if len(names) > _SHOWN else ''})"
            for kind, names in differences.items()
            if names
        )
        raise BadInput(f"{path} does not fit this {type(module).__name__}: tensors {listed}.")
    module.load_state_dict(dict(state), strict=False)
