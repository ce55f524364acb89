"""Lightning's `.ckpt` files, read without executing anything in them. Whoever reads one, reads it here."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.errors import BadInput, CorruptFile, RepositoryNotFound, UnsafeFile

__all__ = ["arguments_of", "read_checkpoint"]


def read_checkpoint(path: str | Path, *, tensors: bool = True) -> dict[str, Any]:
    """Read a Lightning `.ckpt`.

    Args:
        path: of the file.
        tensors: False leaves them on disk (mapped into memory), for callers that only want the arguments.

    Raises:
        RepositoryNotFound: if there is no such file.
        UnsafeFile: if it holds anything but tensors and plain values, or is compressed.
        CorruptFile: if it cannot be read.
        BadInput: if it is not a checkpoint.
    """
    import torch

    path = Path(path)
    _check_archive(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=not tensors)
    except pickle.UnpicklingError as error:
        raise UnsafeFile(
            f"{path}: expected tensors and plain values only, found something that would execute code "
            f"({_reason(error)}). Nothing was executed; do not use this file."
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise CorruptFile(f"{path}: the checkpoint cannot be read ({_reason(error)}). Use another one.") from None
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise BadInput(f"{path}: expected a Lightning checkpoint with a state_dict, found none.")
    return checkpoint


def _check_archive(path: Path) -> None:
    """Refuse other kinds of files, and compressed members: torch stores and never deflates, so one is a bomb."""
    try:
        with zipfile.ZipFile(path) as archive:
            packed = [i.filename for i in archive.infolist() if i.file_size > i.compress_size]
    except (FileNotFoundError, IsADirectoryError):
        raise RepositoryNotFound(
            f"No checkpoint {path}. Give the path of a .ckpt file; where a run is resumed, `last` is the newest one's."
        ) from None
    except zipfile.BadZipFile:
        raise UnsafeFile(
            f"{path}: expected a checkpoint of Lightning 2 (a zip archive), found another kind of file, or one that "
            "is cut off."
        ) from None
    if packed:
        raise UnsafeFile(
            f"{path}: expected a checkpoint as torch.save writes it, found compressed parts ({packed[0]})."
        )


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if "Unsupported" in line or "GLOBAL" in line]
    return (lines or str(error).splitlines() or [type(error).__name__])[0][:200]


def arguments_of(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The constructor arguments in a checkpoint, without Lightning's own keys."""
    saved = checkpoint.get("hyper_parameters") or {}
    return {k: v for k, v in saved.items() if isinstance(k, str) and not k.startswith("_")}
