"""Files of one client's key and lock layers. They are for its own use and are never part of what is shared."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from zoo.errors import BadInput
from zoo.files import write_whole

__all__ = ["SUFFIX", "read_lock", "write_lock"]

SUFFIX = ".key.safetensors"
_ABOUT = {"zoo": "a private key and its lock layers: not to be shared"}


def write_lock(path: str | Path, lock: Mapping[str, Tensor]) -> Path:
    """Write a client's lock; only its owner may read the file.

    Args:
        path: of the new file.
        lock: entries of the state dict by name.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    held = {name: value.detach().cpu().contiguous() for name, value in lock.items()}
    write_whole(path, save(held, _ABOUT), private=True)
    return path


def read_lock(path: str | Path, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read a client's lock.

    Args:
        path: of the file.
        wanted: the entries that the network has, by name; shapes must agree.

    Raises:
        BadInput: if there is no such file, or it is no lock of this network.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"key: {path} is no file. Give a client's {SUFFIX} file, or none to go without.")
    try:
        with safe_open(path, "pt") as file:
            held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise BadInput(f"key: {path} cannot be read as a client's key ({error}).") from error
    for name, value in wanted.items():
        if name not in held:
            raise BadInput(f"key: {path} has no {name}: it belongs to a network with other locks.")
        if held[name].shape != value.shape:
            length = tuple(held[name].shape)
            raise BadInput(f"key: {path}: expected {name} of shape {tuple(value.shape)}, got {length}.")
    return {name: held[name].to(value.dtype) for name, value in wanted.items()}
