"""config.json of a shared checkpoint, constructor arguments, class counts. Nothing here is followed as code."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.base.arguments import parameters_of
from zoo.base.format import check_format
from zoo.checks import repeated, unique_keys
from zoo.errors import BadInput, InvalidConfig, RepositoryNotFound, UnknownName, UnsafeFile, nearest
from zoo.index import Entry, entries, resolve
from zoo.index.rules import is_number, shown

__all__ = ["check_classes", "class_arguments", "parse_config", "read_config"]

_MAX_CONFIG = 1 << 20
_KEYS = {
    "format": int,
    "zoo": str,
    "tag": str,
    "init": dict,
    "facts": dict,
    "sha256": dict,
    "parent": str,
    "versions": dict,
    "metrics": dict,
    "licence": str,
}


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def is_line(value: Any) -> bool:
    """Whether a value is text of a sensible length."""
    return isinstance(value, str) and len(value) <= _MAX_LINE


_MAX_LINE = 300
_INNER: tuple[tuple[str, str, Callable[[Any], bool]], ...] = (
    ("format", "a whole number of at least 1", lambda number: number >= 1),
    ("sha256", "file names and hashes", lambda values: _are_texts(list(values.values()))),
    ("metrics", "names and numbers", lambda values: all(is_number(v) for v in values.values())),
    ("versions", "names and versions", lambda values: _are_texts(list(values.values()))),
    ("parent", f"text of at most {_MAX_LINE} characters", is_line),
    ("licence", f"text of at most {_MAX_LINE} characters", is_line),
)


def read_config(path: Path) -> tuple[dict[str, Any], bytes]:
    """Read and check a config.json. Returns it with its bytes."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_CONFIG + 1)
    except FileNotFoundError:
        raise RepositoryNotFound(f"{path}: there is no such file; expected a folder written by zoo.save().") from None
    return parse_config(data, path), data


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text[:40]} is no finite number")
    return number


def _whole(text: str) -> int:
    if len(text) > 20:
        raise ValueError(f"a number of {len(text)} digits; at most 20 are read")
    return int(text)


def parse_config(data: bytes, where: object) -> dict[str, Any]:
    """Check a config.json: bounded, plain, of a known format, naming an id of the index.

    Raises:
        FormatTooNew: if a newer zoo wrote it.
        UnsafeFile: if it is huge, or names a class.
        InvalidConfig: if it is anything else than what zoo.save writes.
        UnknownName: if its id is not in the index.
    """
    if len(data) > _MAX_CONFIG:
        raise UnsafeFile(
            f"{where}: expected a config of at most {_MAX_CONFIG:,} bytes, got more. Do not use this file."
        )
    # every container costs some hundred bytes when parsed: bound their number first
    if data.count(b"{") + data.count(b"[") > 20_000:
        raise UnsafeFile(f"{where}: expected a config, got many thousand lists. Do not use this file.")
    try:
        config = json.loads(
            data, object_pairs_hook=unique_keys, parse_constant=_no_constant, parse_float=_finite, parse_int=_whole
        )
    except (ValueError, RecursionError) as error:
        raise InvalidConfig(f"{where}: expected JSON as zoo.save writes it, got: {str(error)[:200]}.") from None
    if not isinstance(config, dict) or "zoo" not in config:
        raise InvalidConfig(
            f"{where}: expected the key 'zoo' with an index id: this was not written by zoo.save or push."
        )
    check_format(config.get("format"), where)
    _check_types(config, where)
    return config


def _check_types(config: dict[str, Any], where: object) -> None:
    for key, value in config.items():
        if key not in _KEYS:
            hint = nearest(key, _KEYS) or f" Keys: {', '.join(_KEYS)}."
            raise InvalidConfig(f"{where}: unknown key {key!r}.{hint}")
        if type(value) is not _KEYS[key] and not (value is None and key in ("tag", "parent", "licence")):
            raise InvalidConfig(f"{where}: {key}: expected {_KEYS[key].__name__}, got {str(value)[:80]!r}.")
    check_id(config["zoo"], where)
    missing = [key for key in ("format", "init", "sha256") if key not in config]
    if missing:
        raise InvalidConfig(f"{where}: the key {missing[0]!r} is missing: this was not written by zoo.save or push.")
    for key, expected, accepts in _INNER:
        value = config.get(key)
        if value is not None and not accepts(value):
            raise InvalidConfig(f"{where}: {key}: expected {expected}, got {shown(value)}.")
    names = config["init"].get("class_names")
    if names is not None and not _are_texts(names):
        raise InvalidConfig(f"{where}: init.class_names: expected a list of text, got {shown(names)}.")


def check_id(name: str, where: object) -> None:
    """Judge an id that a file names.

    Raises:
        UnsafeFile: if it looks like a class or a path.
        UnknownName: if it is not in the index.
    """
    if ":" in name or "." in name or "/" in name:
        raise UnsafeFile(
            f"{where}: expected an id of the index, got {name[:80]!r}. Files never name a class; nothing was imported."
        )
    if name not in entries():
        raise UnknownName(
            f"{where}: made with the method {name!r}, which is not in this installation's index."
            f"{nearest(name, entries())} Install the package that has it, or update the zoo."
        )


def check_arguments(cls: type, given: Mapping[str, Any], *, where: str, error: type[Exception]) -> None:
    """Refuse arguments the constructor does not have, with the nearest name.

    Raises:
        error: of that class.
    """
    known = parameters_of(cls)
    for name in given:
        if name not in known:
            raise error(
                f"{where}: {cls.__name__} has no argument {name!r}.{nearest(name, known)} "
                f"Arguments: {', '.join(known)}."
            )


def class_arguments(
    cls: type, init: Mapping[str, Any], num_classes: int | None, class_names: Sequence[str] | None, *, where: str
) -> dict[str, Any]:
    """The arguments that a requested class count or list of names adds to those of the file.

    `class_names` alone implies the count; a new count alone drops the file's names.

    Raises:
        BadInput: if the two contradict each other, or the method has no such argument.
    """
    known = parameters_of(cls)
    if num_classes is None and class_names is None:
        return {}
    asked = "class_names" if num_classes is None else "num_classes"
    if "num_classes" not in known:
        raise BadInput(f"{where} has a fixed number of outputs: it takes no {asked}. Arguments: {', '.join(known)}.")
    names = _checked_names(class_names)
    if num_classes is not None and (type(num_classes) is not int or num_classes < 1):
        raise BadInput(f"num_classes: expected a whole number of at least 1, got {num_classes!r}.")
    if names is None:
        if num_classes == class_count(cls, init):
            return {}
        return {"num_classes": num_classes} | ({"class_names": None} if "class_names" in known else {})
    if num_classes is not None and num_classes != len(names):
        raise BadInput(f"num_classes={num_classes} contradicts class_names, which has {len(names)}. Give one of them.")
    if "class_names" not in known:
        raise BadInput(f"{where} takes no class_names. Give num_classes={len(names)} instead.")
    return {"num_classes": len(names), "class_names": names}


def _checked_names(names: Sequence[str] | None) -> list[str] | None:
    if names is None:
        return None
    if isinstance(names, str) or not all(isinstance(n, str) and n for n in names) or not len(names):
        raise BadInput(f"class_names: expected a list of text, got {names!r}.")
    if doubled := repeated(names):
        raise BadInput(f"class_names: {doubled[0]!r} is given twice.")
    return list(names)


def class_count(cls: type, init: Mapping[str, Any]) -> Any:
    """Number of classes that arguments stand for, defaults included."""
    if isinstance(count := init.get("num_classes"), int):
        return count
    if init.get("class_names"):
        return len(init["class_names"])
    parameter = parameters_of(cls).get("num_classes")
    return None if parameter is None or parameter.default is parameter.empty else parameter.default


def check_classes(cls: type, file: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """True if the head must be re-initialised: another class count, or both sides have names and these differ."""
    if class_count(cls, file) != class_count(cls, wanted):
        return True
    ours, theirs = file.get("class_names"), wanted.get("class_names")
    return bool(ours and theirs and list(ours) != list(theirs))


def entry_and_tag(config: Mapping[str, Any]) -> Entry:
    """The index entry of a config, with its tag's overrides where that tag is known."""
    entry, _ = resolve(config["zoo"])
    tag = config.get("tag")
    return entry.tag(tag) if tag in entry.weights else entry
