"""Damage to files, drawn from a seed: of bytes, of words, of values inside JSON, and of what zip, gzip and PNG hold."""

from __future__ import annotations

import gzip
import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

__all__ = ["mutated"]

Generator = np.random.Generator

_WORDS = (
    b"", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"nan", b"-inf", b"1e400", b"-1", b"0", b"1" + b"0" * 400, b"9" * 4400,
    b"99999999999", b"[" * 3000, b"{" * 300, b"<a>" * 300, b'{"a":' * 3000, b"x" * 5000, b"/" * 300, b"../../x",
    b"\r\n", b"\n\n", b",,,,", b";", b"\t", b'"', b"'", b"\xe4", b"\xed\xa0\x80", b"\\ud800", b"null",
    b"true", b"[]", b"{}",
    b"&x;", b"<!-- ", b"<![CDATA[", b"!!bool x", b"!!python/name:os.system", b"&a [*a]", b"*a", b"? [a]",
    b"0x" + b"f" * 4000,
    b"0001-01-01", b"2024-13-45", b"9999-12-31T23:59:59Z", b"12:30:45:99", b"~", b"<<: 1", b"%", b"#", b"\x1b[2J",
)  # fmt: skip

_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1.5, 1e308, float("nan"), float("inf"), "", "x", "\ud800", "a\0b", "y" * 3000, [], {}, [[]],
    [[[1]]],
    {"a": {}}, 10**17, 10**400, -(10**30), "1", "nan", [None], [1, "a"], ["a"] * 500, {"x": "y" * 300},
)  # fmt: skip


def mutated(content: bytes, rng: Generator, words: Sequence[bytes] = ()) -> bytes:
    """Content with one to four kinds of damage, at the level of the file or of what it packs."""
    inside = _inside(content)
    if inside is not None and rng.random() < 0.6:
        return inside(rng, words)
    for _ in range(1 if rng.random() < 0.6 else int(rng.integers(2, 5))):
        content = _damaged(content, rng, words)
    return content[: 4 << 20]


def _damaged(content: bytes, rng: Generator, words: Sequence[bytes]) -> bytes:
    if content[:1] in (b"{", b"[") and rng.random() < 0.5 and (changed := _json_value(content, rng)) is not None:
        return changed
    if content.startswith(b"\x93NUMPY") and rng.random() < 0.5 and (array := _array(content, rng)) is not None:
        return array
    kinds = (
        _flip,
        _flip,
        _overwrite,
        _overwrite,
        _cut,
        _delete,
        _repeat,
        _swap,
        _word,
        _word,
        _number,
        _number,
        _shuffle_lines,
    )
    return kinds[int(rng.integers(len(kinds)))](content, rng, (*_WORDS, *words))


Words = Sequence[bytes]


def _place(content: bytes, rng: Generator) -> int:
    """Beginnings are hit more often: headers decide about the rest."""
    return int(rng.integers(len(content) + 1) if rng.random() < 0.6 else rng.integers(min(len(content), 128) + 1))


def _flip(content: bytes, rng: Generator, words: Words) -> bytes:
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 9)) if data else 0):
        data[min(_place(content, rng), len(data) - 1)] ^= 1 << int(rng.integers(8))
    return bytes(data)


def _overwrite(content: bytes, rng: Generator, words: Words) -> bytes:
    at, count = _place(content, rng), int(rng.integers(1, 17))
    fill = rng.bytes(count) if rng.random() < 0.5 else bytes([int(rng.choice([0, 255, 127, 128]))]) * count
    return content[:at] + fill + content[at + count :]


def _cut(content: bytes, rng: Generator, words: Words) -> bytes:
    return content[: _place(content, rng)]


def _delete(content: bytes, rng: Generator, words: Words) -> bytes:
    at = _place(content, rng)
    return content[:at] + content[at + int(rng.integers(1, 65)) :]


def _repeat(content: bytes, rng: Generator, words: Words) -> bytes:
    at = _place(content, rng)
    part = content[at : at + int(rng.integers(1, 65))]
    return content[:at] + part * int(rng.choice([2, 3, 300])) + content[at:]


def _swap(content: bytes, rng: Generator, words: Words) -> bytes:
    a, b = sorted((_place(content, rng), _place(content, rng)))
    size = int(rng.integers(1, 33))
    return content[:a] + content[b : b + size] + content[a + size : b] + content[a : a + size] + content[b + size :]


def _word(content: bytes, rng: Generator, words: Words) -> bytes:
    at = _place(content, rng)
    return content[:at] + words[int(rng.integers(len(words)))] + content[at + int(rng.choice([0, 0, 1, 5])) :]


def _number(content: bytes, rng: Generator, words: Words) -> bytes:
    found = list(re.finditer(rb"[-+]?\d+(?:\.\d+)?", content[:200_000]))
    if not found:
        return _word(content, rng, words)
    one = found[int(rng.integers(len(found)))]
    return content[: one.start()] + words[int(rng.integers(len(words)))] + content[one.end() :]


def _shuffle_lines(content: bytes, rng: Generator, words: Words) -> bytes:
    lines = content.split(b"\n")
    if len(lines) < 3:
        return _swap(content, rng, words)
    at = int(rng.integers(len(lines)))
    action = int(rng.integers(3))
    if action == 0:
        del lines[at]
    elif action == 1:
        lines.insert(at, lines[int(rng.integers(len(lines)))])
    else:
        lines[at] = lines[at][: int(rng.integers(len(lines[at]) + 1))]
    return b"\n".join(lines)


def _json_value(content: bytes, rng: Generator) -> bytes | None:
    """One value anywhere in the tree is another one, or gone."""
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError):
        return None
    node: Any = tree
    while isinstance(node, (dict, list)) and len(node):
        key = list(node)[int(rng.integers(len(node)))] if isinstance(node, dict) else int(rng.integers(len(node)))
        if not isinstance(node[key], (dict, list)) or not len(node[key]) or rng.random() < 0.3:
            if rng.random() < 0.15:
                del node[key]
            else:
                node[key] = _VALUES[int(rng.integers(len(_VALUES)))]
            break
        node = node[key]
    return json.dumps(tree).encode("utf-8", "surrogatepass")


def _array(content: bytes, rng: Generator) -> bytes | None:
    """An array of another type, shape or range."""
    try:
        array = np.load(io.BytesIO(content), allow_pickle=False)
        changed = _CHANGES[int(rng.integers(len(_CHANGES)))](array)
    except Exception:  # it has been damaged before, or cannot be changed in this way
        return None
    raw = io.BytesIO()
    np.save(raw, changed, allow_pickle=False)
    return raw.getvalue()


def _filled(array: np.ndarray, value: Any) -> np.ndarray:
    array = array.astype(np.result_type(array.dtype, np.float32)) if isinstance(value, float) else array.copy()
    array.reshape(-1)[: max(1, array.size // 3)] = value
    return array


_CHANGES: tuple[Callable[[np.ndarray], np.ndarray], ...] = (
    *(lambda a, kind=kind: a.astype(kind) for kind in ("f2", ">f8", "i1", ">i8", "u8", "?", "c8", "U3", "S2", "M8[s]")),
    *(lambda a, value=value: _filled(a, value) for value in (np.nan, np.inf, -1e38, 1e300, -1, 255, 10**9)),
    lambda a: a.reshape(-1),
    lambda a: a[None],
    lambda a: a[..., None],
    lambda a: a.T,
    lambda a: a[:0],
    lambda a: a[..., :0],
    lambda a: a[:1],
    lambda a: a[:-1],
    lambda a: np.concatenate([a, a]),
    lambda a: np.asfortranarray(a),
    lambda a: np.asarray(a.reshape(-1)[0]),
    lambda a: a.reshape(-1)[:1],
    lambda a: np.zeros_like(a),
    lambda a: np.array("text"),
    lambda a: np.zeros((0,) * 20),
)  # fmt: skip


# What files pack ---------------------------------------------------------------------------------------------------


def _inside(content: bytes) -> Callable[[Generator, Words], bytes] | None:
    """A function that damages what a file packs and packs it as it should be; None if it packs nothing."""
    if content.startswith(b"PK\x03\x04"):
        return lambda rng, words: _zipped(content, rng, words)
    if content.startswith(b"\x1f\x8b"):
        return lambda rng, words: gzip.compress(mutated(gzip.decompress(content), rng, words), 1)
    if content.startswith(b"\x89PNG"):
        return lambda rng, words: _chunked(content, rng, words)
    if len(content) > 8 and content[8:9] == b"{" and struct.unpack("<Q", content[:8])[0] < len(content):
        return lambda rng, words: _headed(content, rng, words)
    return None


def _zipped(content: bytes, rng: Generator, words: Words) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    chosen, action = int(rng.integers(len(members))), rng.random()
    name, data = members[chosen]
    if action < 0.05:
        del members[chosen]
    elif action < 0.1:
        members[chosen] = (f"x{name}", data)
    else:
        members[chosen] = (name, mutated(data[:2_000_000], rng, words))
    kind = zipfile.ZIP_DEFLATED if rng.random() < 0.3 else zipfile.ZIP_STORED
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", kind) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return made.getvalue()


def _chunked(content: bytes, rng: Generator, words: Words) -> bytes:
    """A PNG of which one chunk is damaged, with the right checksum."""
    chunks, at = [], 8
    while at + 12 <= len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + size]))
        at += 12 + size
    chosen = int(rng.integers(len(chunks)))
    chunks[chosen] = (chunks[chosen][0], _damaged(chunks[chosen][1], rng, words))
    parts = [len(d).to_bytes(4, "big") + k + d + zlib.crc32(k + d).to_bytes(4, "big") for k, d in chunks]
    return content[:8] + b"".join(parts)


def _headed(content: bytes, rng: Generator, words: Words) -> bytes:
    """A safetensors file whose header is damaged and has the length that it says."""
    size = struct.unpack("<Q", content[:8])[0]
    header = _damaged(content[8 : 8 + size], rng, words)
    return struct.pack("<Q", len(header)) + header + content[8 + size :]
