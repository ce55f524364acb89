"""Files of `torch.save`, read without executing anything in them: Lightning's `.ckpt`, and others' `.pt` and `.pth`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.errors import BadInput, RepositoryNotFound
from zoo.files import open_regular
from zoo.store.archive import TorchArchive
from zoo.store.legacy import LegacyArchive
from zoo.store.unpickle import unpickle

__all__ = ["arguments_of", "read_checkpoint", "read_torch_file"]


def read_checkpoint(path: str | Path, *, tensors: bool = True) -> dict[str, Any]:
    """Read a Lightning `.ckpt`.

    Args:
        path: of the file.
        tensors: False leaves their numbers on disk, for callers that only want the arguments.

    Raises:
        RepositoryNotFound: if there is no such file.
        UnsafeFile: if it holds anything but tensors and plain values, is compressed, or asks for more memory than its
            size explains.
        CorruptFile: if it is damaged.
        BadInput: if it is not a checkpoint.
    """
    path = Path(path)
    if path.is_dir() or not (path.exists() or path.is_symlink()):
        raise RepositoryNotFound(
            f"No checkpoint {path}. Give the path of a .ckpt file; where a run is resumed, `last` is the newest one's."
        )
    with open_regular(path) as file:
        checkpoint = unpickle(TorchArchive(file, path), tensors=tensors)
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise BadInput(f"{path}: expected a Lightning checkpoint with a state_dict, got none.")
    return checkpoint


def read_torch_file(path: str | Path) -> Any:
    """Read what somebody has written with `torch.save`, of any version: tensors and plain values.

    Raises:
        RepositoryNotFound: if there is no such file.
        UnsafeFile: if it holds anything else, is compressed, or asks for more memory than its size explains.
        CorruptFile: if it is damaged.
        BadInput: if it is a folder.
    """
    path = Path(path)
    with open_regular(path) as file:
        return unpickle(LegacyArchive(file, path) if LegacyArchive.is_one(file) else TorchArchive(file, path))


def arguments_of(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The constructor arguments in a checkpoint, without Lightning's own keys."""
    saved = checkpoint.get("hyper_parameters") or {}
    if not isinstance(saved, dict):
        return {}
    return {k: v for k, v in saved.items() if isinstance(k, str) and not k.startswith("_")}
