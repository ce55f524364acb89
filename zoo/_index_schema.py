"""What an index entry may contain. Works on plain dicts, so YAML files and `register()` share one judge."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from zoo._index_tasks import TASKS
from zoo.errors import nearest

__all__ = ["CAPABILITIES", "LEARNS", "NAME", "problems_of"]

NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_CLASS_PATH = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)

CAPABILITIES = {
    "batch_independent": "an element's result does not depend on its neighbours in the batch",
    "channels": "the number of input channels is an argument",
    "compile": "torch.compile gives the same numbers",
    "export": "torch.export gives the same numbers, with a dynamic batch",
    "features": "inner feature maps by name",
    "num_classes": "the number of classes is an argument, and loading re-makes only the head",
    "odd_size": "any input size works",
    "onnx": "ONNX gives the same numbers, with a dynamic batch",
}
"""What an entry can claim in `can`; the conformance suite proves each."""

LEARNS = ("gradient", "closed-form", "rounds", "none")


class _Rule(NamedTuple):
    expected: str
    accepts: Callable[[Any], bool]
    required: bool = False


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_plain, value))
    if isinstance(value, dict):
        return all(isinstance(k, str) and _plain(v) for k, v in value.items())
    return value is None or isinstance(value, (bool, int, str)) or _number(value)


def _plain_dict(value: Any) -> bool:
    return isinstance(value, dict) and _plain(value)


def _hex(digits: int) -> Callable[[Any], bool]:
    pattern = re.compile(rf"[0-9a-f]{{{digits}}}")
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def _matches(pattern: re.Pattern[str]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def _relative(suffix: str) -> Callable[[Any], bool]:
    def accepts(value: Any) -> bool:
        if not _text(value) or "\\" in value or ":" in value or not value.endswith(suffix):
            return False
        return not value.startswith("/") and ".." not in PurePosixPath(value).parts

    return accepts


def _can(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value)


def _tolerance(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(k, str) and _number(v) and v >= 0 for k, v in value.items())
    return _number(value) and value >= 0


_OVERRIDABLE = {
    "data": _Rule('a class path "package.module:Class"', _matches(_CLASS_PATH)),
    "task": _Rule("a known task", _text),
    "learns": _Rule(f"one of {', '.join(LEARNS)}", _text),
    "can": _Rule("a list of capabilities", _can),
    "tiny": _Rule("{model: {...}, data: {...}} with plain values", _plain_dict),
}
_ENTRY = {
    "model": _Rule('a class path "package.module:Class"', _matches(_CLASS_PATH), True),
    **{k: r._replace(required=k in ("data", "task")) for k, r in _OVERRIDABLE.items()},
    "summary": _Rule("one sentence", _text, True),
    "paper": _Rule("a mapping with a title", lambda v: isinstance(v, dict), True),
    "licence": _Rule("the licence of the code, such as Apache-2.0", _text, True),
    "default": _Rule("the name of a tag", _matches(NAME)),
    "aliases": _Rule("a mapping from another name to a tag", lambda v: isinstance(v, dict)),
    "weights": _Rule("a mapping from tag to weights", lambda v: isinstance(v, dict)),
}
_PAPER = {
    **dict.fromkeys(("authors", "venue", "url", "doi", "code"), _Rule("text", _text)),
    "title": _Rule("text", _text, True),
    "year": _Rule("a year", lambda v: _count(v) and 1900 <= v <= 2100, True),
    "arxiv": _Rule('quoted text, such as "2110.13675" (unquoted, YAML reads a number)', _text),
}
_WEIGHTS = {
    "init": _Rule("constructor arguments as plain values", _plain_dict),
    "recipe": _Rule("a relative path to a .yaml file, without '..'", _relative(".yaml")),
    "file": _Rule("a file name", _relative(".safetensors")),
    "sha256": _Rule("64 lower-case hexadecimal digits, in quotes", _hex(64)),
    "bytes": _Rule("the size of the file in bytes", _count),
    "params": _Rule("the number of parameters", _count),
    "hub": _Rule("{repo: owner/name, revision: 40 hexadecimal digits}", lambda v: isinstance(v, dict)),
    "licence": _Rule("the licence of the weights", _text, True),
    "trained_on": _Rule("a mapping with data and licence", _plain_dict),
    "metrics": _Rule("a mapping from metric to number", lambda v: _plain_dict(v) and all(map(_number, v.values()))),
    "seed": _Rule("an integer", _count),
    "tolerance": _Rule("a number, or a mapping from metric to number", _tolerance),
    **_OVERRIDABLE,
}
_HUB = {
    "repo": _Rule("owner/name", _matches(_REPO)),
    "revision": _Rule("40 lower-case hexadecimal digits, in quotes", _hex(40)),
}


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _check_keys(where: str, raw: Any, rules: dict[str, _Rule]) -> list[str]:
    if not isinstance(raw, dict):
        return [f"{where}: expected a mapping, got {_shown(raw)}"]
    found = []
    for key, value in raw.items():
        if key not in rules:
            hint = nearest(str(key), rules) or f" Keys: {', '.join(rules)}."
            found.append(f"{where}: unknown key {key!r}.{hint}")
        elif value is None and not rules[key].required:
            continue
        elif not rules[key].accepts(value):
            found.append(f"{where}.{key}: expected {rules[key].expected}, got {_shown(value)}")
    found += [
        f"{where}: the key {key!r} is missing; add {rule.expected}"
        for key, rule in rules.items()
        if rule.required and key not in raw
    ]
    return found


def _check_choices(where: str, raw: dict[str, Any]) -> list[str]:
    """Values that come from a table: task, learns, can; and the two parts of tiny."""
    found = []
    task, learns, can, tiny = (raw.get(k) for k in ("task", "learns", "can", "tiny"))
    if _text(task) and task not in TASKS:
        found.append(f"{where}.task: unknown task {task!r}.{nearest(str(task), TASKS)} Tasks: {', '.join(TASKS)}.")
    if _text(learns) and learns not in LEARNS:
        found.append(f"{where}.learns: expected one of {', '.join(LEARNS)}, got {learns!r}")
    for value in can if _can(can) and can else ():
        if value not in CAPABILITIES:
            hint = nearest(value, CAPABILITIES) or f" Known: {', '.join(CAPABILITIES)}."
            found.append(f"{where}.can: unknown capability {value!r}.{hint}")
    for part, value in tiny.items() if isinstance(tiny, dict) else ():
        if part not in ("model", "data") or not isinstance(value, dict):
            found.append(f"{where}.tiny: expected {{model: {{...}}, data: {{...}}}}, got {part!r}: {_shown(value)}")
    return found


def _check_weights(entry: str, tag: Any, raw: Any) -> list[str]:
    where = f"{entry}: weights.{tag}"
    found = [] if _matches(NAME)(tag) else [f"{where}: a tag is kebab-case (a-z, 0-9, '-'); rename it"]
    found += _check_keys(where, raw, _WEIGHTS)
    if not isinstance(raw, dict):
        return found
    found += _check_choices(where, raw)
    file, sha256, hub = raw.get("file"), raw.get("sha256"), raw.get("hub") or {}
    if isinstance(file, str) and file != f"{entry}-{tag}.safetensors":
        found.append(f"{where}.file: expected {entry}-{tag}.safetensors, got {_shown(file)}")
    if isinstance(hub, dict) and hub:
        found += _check_keys(f"{where}.hub", hub, _HUB)
        if (hub.get("repo") is None) != (hub.get("revision") is None):
            found.append(f"{where}.hub: repo and revision go together: give both, or null for both")
    published = isinstance(hub, dict) and hub.get("repo") is not None
    if (file or published) and sha256 is None:
        found.append(f"{where}: the key 'sha256' is missing: weights are only loaded when their hash is pinned here")
    if sha256 is not None and not (file or published):
        found.append(f"{where}: sha256 without a file: give 'file' (bundled) or 'hub' (published)")
    if sha256 is not None:
        found += [f"{where}: the key {key!r} is missing" for key in ("bytes", "params") if raw.get(key) is None]
        trained_on = raw.get("trained_on") or {}
        if isinstance(trained_on, dict):
            found += [
                f"{where}.trained_on: the key {k!r} is missing" for k in ("data", "licence") if k not in trained_on
            ]
    elif raw.get("recipe") is None:
        found.append(f"{where}: neither weights (file, sha256) nor a recipe that would make them; add one")
    names = (raw.get("init") or {}).get("class_names") if isinstance(raw.get("init"), dict) else None
    if names is not None and not (isinstance(names, list) and all(isinstance(n, str) for n in names)):
        found.append(f"{where}.init.class_names: expected a list of text; put words like yes, no, on and 1 in quotes")
    return found


def problems_of(name: Any, raw: Any) -> list[str]:
    """Everything that is wrong with one entry, each line naming the entry, the key and the fix."""
    found = []
    if not _matches(NAME)(name):
        found.append(f"{name}: an id is kebab-case (a-z, 0-9, '-'), such as my-method; rename it")
    found += _check_keys(str(name), raw, _ENTRY)
    if not isinstance(raw, dict):
        return found
    found += _check_choices(str(name), raw)
    if isinstance(raw.get("paper"), dict):
        found += _check_keys(f"{name}: paper", raw["paper"], _PAPER)
    weights, default, aliases = raw.get("weights") or {}, raw.get("default"), raw.get("aliases") or {}
    if not isinstance(weights, dict) or not isinstance(aliases, dict):
        return found
    for tag, block in weights.items():
        found += _check_weights(str(name), tag, block)
    if weights and default is None:
        found.append(f"{name}: the key 'default' is missing; name one of the tags: {', '.join(map(str, weights))}")
    if default is not None and default not in weights:
        found.append(f"{name}.default: no tag {default!r}.{nearest(str(default), weights)}")
    for alias, tag in aliases.items():
        if not _matches(NAME)(alias):
            found.append(f"{name}.aliases: {alias!r} is not kebab-case; rename it")
        if tag not in weights:
            found.append(f"{name}.aliases.{alias}: no tag {tag!r}.{nearest(str(tag), weights)}")
    return found
