"""safetensors in and out. A file is judged before a tensor is made of it.

The hash is computed over the very bytes that are parsed, so the file cannot be swapped in between.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

from zoo.checks import unique_keys
from zoo.errors import BadInput, CorruptFile, TruncatedFile, UnsafeFile
from zoo.files import file_sha256, open_regular
from zoo.index.rules import shown

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["check_header", "check_sha256", "header_text", "not_finite", "read_state", "write_state"]

_DTYPES = ("BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64", "F16", "BF16", "F32", "F64")

_MAX_HEADER = 8 << 20
_MAX_TENSORS = 20_000
_MAX_DIMS = 16
_MAX_NAME = 1_000
_MAX_METADATA = 1_000
_MAX_METADATA_TEXT = 1 << 20
_MAX_LENGTH = 1 << 62  # an empty tensor may claim any length, of which torch cannot make one
_IN_MEMORY = 1 << 30

_MAGICS = {
    b"PK\x03\x04": "a zip archive, as torch.save writes (it may hold a pickle)",
    b"\x80\x02": "a pickle",
    b"\x80\x03": "a pickle",
    b"\x80\x04": "a pickle",
    b"\x80\x05": "a pickle",
    b"\x93NUMPY": "a NumPy array",
    b"\x89HDF": "an HDF5 file",
    b"\x1f\x8b": "a gzip archive",
    b"version https://git-lfs": "a git-lfs pointer; run `git lfs pull`",
    b"<": "a web page, not a file",
    b"{": "JSON text",
}


def check_sha256(path: Path, expected: str, *, size: int | None = None, digest: str | None = None) -> None:
    """Compare a file with its pinned hash.

    Args:
        path: the file.
        expected: 64 hexadecimal digits.
        size: bytes it should have, to tell a truncated file from a changed one.
        digest: its hash, if it is known.

    Raises:
        CorruptFile: if it differs; TruncatedFile if it is also too short.
    """
    digest = digest or file_sha256(path)
    if digest == expected:
        return
    actual = path.stat().st_size
    what = f"{path}: expected sha256 {expected}, got {digest}"
    if size is not None and actual < size:
        raise TruncatedFile(f"{what} ({actual:,} of {size:,} bytes). Delete the file and load again.")
    raise CorruptFile(f"{what}. The file was changed or damaged, and is not used. Delete it and load again.")


def _refuse(path: object, expected: str, got: str) -> NoReturn:
    raise UnsafeFile(f"{path}: expected {expected}, got {got}. The file is not used; get it from its publisher again.")


def check_header(head: bytes | bytearray | memoryview, size: int, where: object) -> None:
    """Check the header of a safetensors file of `size` bytes, of which `head` holds at least the header.

    What offsets, sizes and dtypes mean, the library checks before it makes a tensor. Here are the bounds it does not
    set, what it silently accepts (a key given twice, further fields), and kinds of files that it cannot name.

    Raises:
        TruncatedFile: if the file is shorter than its header says.
        UnsafeFile: if the header is out of bounds, or the file is of another kind.
    """
    length = int.from_bytes(bytes(head[:8]), "little") if size >= 8 else -1
    if length < 2 or length > _MAX_HEADER or bytes(head[8:9]) != b"{":
        kind = next((kind for magic, kind in _MAGICS.items() if bytes(head[:32]).startswith(magic)), None)
        if kind is None and size < 8:
            raise TruncatedFile(f"{where}: expected a safetensors file, got {size} bytes. Delete it and load again.")
        _refuse(where, "a safetensors file", kind or f"a header of {length:,} bytes, or none")
    if 8 + length > size:
        raise TruncatedFile(
            f"{where}: expected a header of {length:,} bytes, got a file of {size:,} bytes. Delete it and load again."
        )
    text = bytes(head[8 : 8 + length])
    # each tensor is one object with two lists: bounding those bounds what parsing may allocate
    if (
        text.count(b"{") > 2 * _MAX_TENSORS
        or text.count(b"[") > 4 * _MAX_TENSORS
        or text.count(b",") > 20 * _MAX_TENSORS
    ):
        _refuse(where, f"at most {_MAX_TENSORS:,} tensors", "a header with far more parts")
    try:
        header = json.loads(text, object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        _refuse(where, "a JSON header without repeated keys", str(error)[:200])
    if not isinstance(header, dict):
        _refuse(where, "a header with tensors", type(header).__name__)
    _check_metadata(header.pop("__metadata__", None) or {}, where)
    if len(header) > _MAX_TENSORS:
        _refuse(where, f"at most {_MAX_TENSORS:,} tensors", f"{len(header):,}")
    ends = [_check_tensor(name, spec, where) for name, spec in header.items()]
    if (needed := max(ends, default=0)) > size - 8 - length:
        raise TruncatedFile(
            f"{where}: expected {needed:,} bytes of tensors, got {size - 8 - length:,}: the file is cut off. "
            "Delete it and load again."
        )


def _check_metadata(metadata: Any, where: object) -> None:
    """Bound the metadata, which is not used here; the library checks that it maps text to text."""
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        _refuse(where, "metadata that maps text to text", shown(metadata))
    size = sum(len(key) + len(value) for key, value in metadata.items())
    if len(metadata) > _MAX_METADATA or size > _MAX_METADATA_TEXT:
        limit = f"at most {_MAX_METADATA:,} entries of metadata with {_MAX_METADATA_TEXT:,} letters"
        _refuse(where, limit, f"{len(metadata):,} with {size:,}")


def _check_tensor(name: str, spec: Any, where: object) -> int:
    """Refuse what the library lets through; returns where the tensor claims to end."""
    if len(name) > _MAX_NAME or (not name.isascii() and not _is_utf8(name)):
        _refuse(where, f"names of at most {_MAX_NAME} letters", repr(name[:80]))
    if not isinstance(spec, dict) or set(spec) != {"dtype", "shape", "data_offsets"}:
        _refuse(where, "dtype, shape and data_offsets of each tensor", f"{name[:80]!r}: {str(spec)[:80]}")
    if spec["dtype"] not in _DTYPES:
        _refuse(where, f"a dtype of {', '.join(_DTYPES)}", f"{name[:80]!r}: {str(spec['dtype'])[:40]}")
    shape = spec["shape"]
    bounded = isinstance(shape, list) and all(type(n) is int and n < _MAX_LENGTH for n in shape)
    if not bounded or len(shape) > _MAX_DIMS:
        _refuse(where, f"at most {_MAX_DIMS} dimensions of less than 2^62", f"{name[:80]!r}: {str(spec)[:120]}")
    offsets = spec["data_offsets"] if isinstance(spec["data_offsets"], list) else []
    return max((offset for offset in offsets if type(offset) is int), default=0)


def _is_utf8(text: str) -> bool:
    """JSON can spell half a surrogate pair, which is no text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_state(
    path: str | Path, *, sha256: str | None = None, size: int | None = None, finite: bool = True
) -> tuple[dict[str, Tensor], str]:
    """Read a safetensors file of unknown intent.

    Args:
        path: the file.
        sha256: what the hash of its bytes must be.
        size: bytes it should have, for the message about a truncated file.
        finite: refuse NaN and infinite values.

    Returns:
        The tensors by name, and the file's sha256.

    Raises:
        CorruptFile: if the hash differs, or (TruncatedFile) the file is cut off.
        UnsafeFile: if it is not exactly a safetensors file of finite numbers.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load, load_file

    path = Path(path)
    with open_regular(path) as file:
        length = os.fstat(file.fileno()).st_size
        if length <= _IN_MEMORY:
            data = file.read(length)
            digest = hashlib.sha256(data).hexdigest()
        else:
            stamp = _stamp(file)
            data = file.read(min(length, _MAX_HEADER + 8))
            digest = file_sha256(path)
        if sha256 is not None:
            check_sha256(path, sha256, size=size, digest=digest)
        check_header(data, length, path)
        try:
            # what is too large to hold twice is read from disk
            state = load(data) if length <= _IN_MEMORY else load_file(path)
        except SafetensorError as error:
            _refuse(path, "a safetensors file", str(error).removeprefix("Error while deserializing: ")[:200])
        if length > _IN_MEMORY and (_stamp(file) != stamp or path.stat().st_ino != stamp[0]):
            raise CorruptFile(f"{path}: the file changed while it was read. Load again.")
    if finite and (bad := not_finite(state)):
        _refuse(path, f"finite numbers in {bad!r}", "NaN or infinity")
    return state, digest


def header_text(path: Path) -> str:
    """The header of a safetensors file that was read before: names, shapes and whatever else its writer put there."""
    with open_regular(path) as file:
        length = min(int.from_bytes(file.read(8), "little"), _MAX_HEADER)
        return file.read(length).decode("utf-8", "replace")


def _stamp(file: BinaryIO) -> tuple[int, int, int]:
    status = os.fstat(file.fileno())
    return status.st_ino, status.st_size, status.st_mtime_ns


def not_finite(state: Mapping[str, Tensor]) -> str | None:
    """Name of the first tensor that holds NaN or infinity."""
    for name, tensor in state.items():
        # one bad element makes the sum bad; only then look closer (a sum may also overflow)
        suspect = tensor.is_floating_point() and not tensor.sum(dtype=_wide(tensor)).isfinite()
        if suspect and not tensor.isfinite().all():
            return name
    return None


def _wide(tensor: Tensor) -> Any:
    import torch

    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def write_state(
    state: Mapping[str, Tensor], path: Path, *, half: frozenset[str] = frozenset(), finite: bool = True
) -> str:
    """Write tensors; of tensors that share memory, one is kept. Returns the file's sha256.

    Args:
        state: names and tensors.
        path: the new file.
        half: names to store in half precision.
        finite: refuse NaN and infinite values.

    Raises:
        BadInput: if a number does not fit into half precision.
        UnsafeFile: if a tensor holds NaN or infinite values.
    """
    import torch
    from safetensors.torch import save

    if finite and (bad := not_finite(state)):
        raise UnsafeFile(
            f"{bad!r} holds NaN or infinity: the training has diverged, and this could not be loaded. Save an earlier "
            "checkpoint."
        )
    kept: dict[str, Tensor] = {}
    seen: set[tuple[Any, ...]] = set()
    for name in sorted(state):
        tensor = state[name].detach()
        key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype, str(tensor.device))
        if tensor.numel() and key in seen:
            continue  # tied: the module ties them again when it is built
        seen.add(key)
        if name in half:
            low = tensor.to(torch.float16)
            if not low.isfinite().all():
                raise BadInput(
                    f"{name!r} holds numbers beyond 65504, which half precision cannot store. Use half=False."
                )
            tensor = low
        # clone: safetensors refuses views of one storage
        kept[name] = tensor.to("cpu", copy=True).contiguous()
    data = save(kept)
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()
