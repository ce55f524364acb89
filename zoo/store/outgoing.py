"""What may leave this machine: regular files that were read, parsed and searched for what is private.

A folder that is pushed may be somebody else's, and a link in it may lead to this user's keys. So nothing is sent by its
path: small files are read here, once, and the bytes that were judged are the bytes that are sent.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from zoo.errors import BadInput, UnsafeFile
from zoo.files import read_regular

__all__ = ["check_private", "picture_files", "private_place", "text_file", "texts_of", "without_places"]

_MAX_PICTURE = 16 << 20
_MAX_PIXELS = 50_000_000
_MAX_PICTURES = 200
_MAX_TEXT = 4 << 20
_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}

_TOKENS = re.compile(
    r"hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|sk-[A-Za-z0-9_-]{24,}"
    r"|A(?:KIA|SIA)[A-Z0-9]{16}|xox[abeoprs]-[\w-]{10,}|-----BEGIN [A-Z ]*PRIVATE KEY|[a-z][a-z0-9+.-]{0,20}://[^\s/:@]+:[^\s/@]+@"
)
"""Access tokens of common services, private keys, and addresses with a password in them."""

_PLACES = re.compile(
    r"""(?:^|(?<=[\s"'`=:,;(\[{<>|]))(?:file://)?(~?/(?!/)[^\s"'`,;)\]}<>|]+|[A-Za-z]:[\\/][^\s"'`,;]+|\\\\\w+\\\S+)"""
)
"""Words that look like absolute paths: of POSIX, of Windows, of a network share."""


def private_place(text: str) -> str | None:
    """The first absolute path of this machine in a text.

    A word such as `/m/01g317`, which data sets use as the name of a class, is a path only if it begins with a folder
    that exists here.
    """
    for match in _PLACES.finditer(text):
        word = match.group(1)
        if word.startswith("~/") or PureWindowsPath(word).is_absolute():
            return word
        parts = PurePosixPath(word).parts
        if len(parts) > 1 and os.path.lexists(f"/{parts[1]}"):
            return word
    return None


def check_private(text: str, where: str, token: str | bool | None = None) -> None:
    """Refuse a text that holds a path of this machine, an access token or a key.

    Args:
        text: what is to be sent.
        where: for messages.
        token: the one in use, which must never be in it.

    Raises:
        UnsafeFile: naming the kind of secret; of a token nothing is repeated.
    """
    if any(secret in text for secret in _own_tokens(token)) or _TOKENS.search(text):
        raise UnsafeFile(f"{where}: expected nothing secret, got what looks like an access token or a key. Remove it.")
    if place := private_place(text):
        raise UnsafeFile(
            f"{where}: expected nothing about this machine, got the path {place[:120]!r}. Nothing was sent."
        )


def _own_tokens(token: str | bool | None) -> Iterator[str]:
    from huggingface_hub import get_token

    for secret in (token, None if token is False else get_token()):
        if isinstance(secret, str) and len(secret) >= 8:
            yield secret


def texts_of(value: Any) -> Iterator[str]:
    """All texts in plain values, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from texts_of(key)
            yield from texts_of(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from texts_of(item)


def has_place(value: Any) -> bool:
    """Whether any text in plain values holds a path of this machine."""
    return any(private_place(text) is not None for text in texts_of(value))


def without_places(
    config: dict[str, Any], optional: set[str], references: tuple[str, ...]
) -> tuple[dict[str, Any], list[str]]:
    """A config without what only means something on this machine.

    Args:
        config: what a config.json holds.
        optional: constructor arguments that may be None.
        references: those that name another network, which only training needs.

    Returns:
        The config, and the names of what was taken out of it.
    """
    removed: list[str] = []
    init: dict[str, Any] = {}
    for key, value in config["init"].items():
        local = key in references and isinstance(value, str) and _is_file(value)
        gone = key in optional and key != "class_names" and (local or has_place(value))
        removed += [f"init.{key}"] if gone else []
        init[key] = None if gone else value
    facts = {k: v for k, v in (config.get("facts") or {}).items() if not has_place(v)}
    removed += [f"facts.{k}" for k in config.get("facts") or {} if k not in facts]
    return {**config, "init": init, "facts": facts}, removed


def _is_file(name: str) -> bool:
    """Whether a reference names a file or folder, absolute or not; names of the index and of the Hub stay."""
    return "://" not in name and (os.path.exists(os.path.expanduser(name)) or name.endswith((".ckpt", ".pt", ".pth")))


def text_file(path: Path, token: str | bool | None = None) -> bytes:
    """Read a text that is to be sent.

    Raises:
        UnsafeFile: if it is a link, larger than 4 MiB, not UTF-8, or holds something private.
    """
    data = read_regular(path, _MAX_TEXT, links=False)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise UnsafeFile(f"{path}: expected UTF-8 text, got other bytes. Nothing was sent.") from None
    check_private(text, str(path), token)
    return data


def picture_files(folder: Path) -> dict[str, bytes]:
    """The pictures of a card, decoded and written again: pixels leave, nothing that travels beside them.

    Args:
        folder: called `images`; it may be absent.

    Raises:
        UnsafeFile: if it, or anything in it, is a link or not a picture, or if there are too many.
    """
    if folder.is_symlink():
        raise UnsafeFile(f"{folder}: expected a folder, got a link to another place. It is not followed.")
    if not folder.exists():
        return {}
    if not folder.is_dir():
        raise BadInput(f"{folder}: expected a folder of pictures, got a file.")
    names = sorted(os.listdir(folder))
    if len(names) > _MAX_PICTURES:
        raise UnsafeFile(f"{folder}: expected at most {_MAX_PICTURES} pictures, got {len(names):,} files.")
    return {f"images/{name}": _picture(folder / name) for name in names}


def _picture(path: Path) -> bytes:
    from PIL import Image

    form = _FORMATS.get(path.suffix.lower())
    if form is None or not re.fullmatch(r"[\w][\w .+-]{0,120}", path.name, re.ASCII):
        raise UnsafeFile(
            f"{path.parent}: expected pictures only (.png, .jpg, with plain names), got {path.name[:80]!r}. Nothing "
            "was sent; take it out of that folder."
        )
    data = read_regular(path, _MAX_PICTURE, links=False)
    out = io.BytesIO()
    try:
        with Image.open(io.BytesIO(data), formats=(form,)) as picture:
            if picture.width * picture.height > _MAX_PIXELS:
                raise UnsafeFile(f"{path}: expected at most {_MAX_PIXELS:,} pixels, got more. Nothing was sent.")
            if form == "JPEG":
                picture.save(out, form, quality="keep", exif=b"", icc_profile=None, comment=b"")
            else:
                picture.load()
                picture.info = {k: v for k, v in picture.info.items() if k == "transparency"}
                picture.save(out, form, optimize=True)
    except UnsafeFile:
        raise
    except (OSError, ValueError, SyntaxError, TypeError, Image.DecompressionBombError, MemoryError) as error:
        raise UnsafeFile(
            f"{path}: expected a {form} picture, got something else ({str(error)[:120]}). Nothing was sent."
        ) from None
    return out.getvalue()
