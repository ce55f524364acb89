"""What an index entry may contain. Works on plain dicts, so YAML files and `register()` share one judge."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

from zoo.errors import nearest
from zoo.index.rules import Rule, check_keys, is_count, is_mapping, is_number, is_plain, is_text, matches, shown
from zoo.index.tasks import TASKS

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

OWN = "own"
"""A tag that no method has: `zoo train NAME:own` is the default tag, trained on the user's own data."""

REGISTRIES = ("rules", "clients", "transforms")
"""Registries of the engines to which importing a method may add: aggregation rules, client algorithms, transforms."""


def _hex(digits: int) -> Callable[[Any], bool]:
    return matches(re.compile(rf"[0-9a-f]{{{digits}}}"))


def _plain_dict(value: Any) -> bool:
    return isinstance(value, dict) and is_plain(value, finite=True)


def _metrics(value: Any) -> bool:
    return _plain_dict(value) and all(map(is_number, value.values()))


def _relative(suffix: str) -> Callable[[Any], bool]:
    def accepts(value: Any) -> bool:
        if not is_text(value) or "\\" in value or ":" in value or not value.endswith(suffix):
            return False
        return not value.startswith("/") and ".." not in PurePosixPath(value).parts

    return accepts


def _can(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value)


def _registers(value: Any) -> bool:
    return isinstance(value, dict) and all(
        key in REGISTRIES and isinstance(names, (list, tuple)) and names and all(map(matches(NAME), names))
        for key, names in value.items()
    )


def _tolerance(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(k, str) and is_number(v) and v >= 0 for k, v in value.items())
    return is_number(value) and value >= 0


_OVERRIDABLE = {
    "data": Rule('a class path "package.module:Class"', matches(_CLASS_PATH)),
    "task": Rule("a known task", is_text),
    "learns": Rule(f"one of {', '.join(LEARNS)}", is_text),
    "can": Rule("a list of capabilities", _can),
    "tiny": Rule("{model: {...}, data: {...}} with plain values", _plain_dict),
}
_ENTRY = {
    "model": Rule('a class path "package.module:Class"', matches(_CLASS_PATH), True),
    **{k: r._replace(required=k in ("data", "task")) for k, r in _OVERRIDABLE.items()},
    "summary": Rule("one sentence", is_text, True),
    "paper": Rule("a mapping with a title", is_mapping, True),
    "licence": Rule("the licence of the code, such as Apache-2.0", is_text, True),
    "default": Rule("the name of a tag", matches(NAME)),
    "aliases": Rule("a mapping from another name to a tag", is_mapping),
    "registers": Rule(f"lists of names under {', '.join(REGISTRIES)}, such as {{rules: [my-rule]}}", _registers),
    "weights": Rule("a mapping from tag to weights", is_mapping),
}
_PAPER = {
    **dict.fromkeys(("authors", "venue", "url", "doi", "code"), Rule("text", is_text)),
    "title": Rule("text", is_text, True),
    "year": Rule("a year", lambda v: is_count(v) and 1900 <= v <= 2100, True),
    "arxiv": Rule('quoted text, such as "2110.13675" (unquoted, YAML reads a number)', is_text),
}
_WEIGHTS = {
    "init": Rule("constructor arguments as plain values", _plain_dict),
    "recipe": Rule("a relative path to a .yaml file, without '..'", _relative(".yaml")),
    "file": Rule("a file name", _relative(".safetensors")),
    "sha256": Rule("64 lower-case hexadecimal digits, in quotes", _hex(64)),
    "bytes": Rule("the size of the file in bytes", is_count),
    "params": Rule("the number of parameters", is_count),
    "hub": Rule("{repo: owner/name, revision: 40 hexadecimal digits}", is_mapping),
    "licence": Rule("the licence of the weights", is_text, True),
    "trained_on": Rule("a mapping with data and licence", _plain_dict),
    "metrics": Rule("a mapping from metric to number", _metrics),
    "seed": Rule("an integer", is_count),
    "tolerance": Rule("a number, or a mapping from metric to number", _tolerance),
    **_OVERRIDABLE,
}
_HUB = {
    "repo": Rule("owner/name", matches(_REPO)),
    "revision": Rule("40 lower-case hexadecimal digits, in quotes", _hex(40)),
}


def _keys(where: str, raw: Any, rules: dict[str, Rule]) -> list[str]:
    return check_keys(where, raw, rules, null_is_absent=True)


def _check_choices(where: str, raw: dict[str, Any]) -> list[str]:
    """Values that come from a table: task, learns, can; and the two parts of tiny."""
    problems = []
    task, learns, can, tiny = (raw.get(k) for k in ("task", "learns", "can", "tiny"))
    if is_text(task) and task not in TASKS:
        problems.append(f"{where}.task: unknown task {task!r}.{nearest(str(task), TASKS)} Tasks: {', '.join(TASKS)}.")
    if is_text(learns) and learns not in LEARNS:
        problems.append(f"{where}.learns: expected one of {', '.join(LEARNS)}, got {learns!r}")
    for value in can if _can(can) and can else ():
        if value not in CAPABILITIES:
            hint = nearest(value, CAPABILITIES) or f" Known: {', '.join(CAPABILITIES)}."
            problems.append(f"{where}.can: unknown capability {value!r}.{hint}")
    for part, value in tiny.items() if isinstance(tiny, dict) else ():
        if part not in ("model", "data") or not isinstance(value, dict):
            problems.append(f"{where}.tiny: expected {{model: {{...}}, data: {{...}}}}, got {part!r}: {shown(value)}")
    return problems


def _check_weights(entry: str, tag: Any, raw: Any) -> list[str]:
    where = f"{entry}: weights.{tag}"
    problems = [] if matches(NAME)(tag) else [f"{where}: a tag is kebab-case (a-z, 0-9, '-'); rename it"]
    problems += [f"{where}: this tag stands for training on own data; give it another name"] if tag == OWN else []
    problems += _keys(where, raw, _WEIGHTS)
    if not isinstance(raw, dict):
        return problems
    problems += _check_choices(where, raw)
    file, sha256, hub = raw.get("file"), raw.get("sha256"), raw.get("hub") or {}
    if isinstance(file, str) and file != f"{entry}-{tag}.safetensors":
        problems.append(f"{where}.file: expected {entry}-{tag}.safetensors, got {shown(file)}")
    if isinstance(hub, dict) and hub:
        problems += _keys(f"{where}.hub", hub, _HUB)
        if (hub.get("repo") is None) != (hub.get("revision") is None):
            problems.append(f"{where}.hub: repo and revision go together: give both, or null for both")
    published = isinstance(hub, dict) and hub.get("repo") is not None
    if (file or published) and sha256 is None:
        problems.append(f"{where}: the key 'sha256' is missing: weights are only loaded when their hash is pinned here")
    if sha256 is not None and not (file or published):
        problems.append(f"{where}: sha256 without a file: give 'file' (bundled) or 'hub' (published)")
    if sha256 is not None:
        problems += [f"{where}: the key {key!r} is missing" for key in ("bytes", "params") if raw.get(key) is None]
        trained_on = raw.get("trained_on") or {}
        if isinstance(trained_on, dict):
            problems += [
                f"{where}.trained_on: the key {k!r} is missing" for k in ("data", "licence") if k not in trained_on
            ]
    elif raw.get("recipe") is None:
        problems.append(f"{where}: neither weights (file, sha256) nor a recipe that would make them; add one")
    names = (raw.get("init") or {}).get("class_names") if isinstance(raw.get("init"), dict) else None
    if names is not None and not (isinstance(names, list) and all(isinstance(n, str) for n in names)):
        where = f"{where}.init.class_names"
        problems.append(f"{where}: expected a list of text; put words like yes, no, on and 1 in quotes")
    return problems


def problems_of(name: Any, raw: Any) -> list[str]:
    """Everything that is wrong with one entry, each line naming the entry, the key and the fix."""
    problems = []
    if not matches(NAME)(name):
        problems.append(f"{name}: an id is kebab-case (a-z, 0-9, '-'), such as my-method; rename it")
    problems += _keys(str(name), raw, _ENTRY)
    if not isinstance(raw, dict):
        return problems
    problems += _check_choices(str(name), raw)
    if isinstance(raw.get("paper"), dict):
        problems += _keys(f"{name}: paper", raw["paper"], _PAPER)
    weights, default, aliases = raw.get("weights") or {}, raw.get("default"), raw.get("aliases") or {}
    if not isinstance(weights, dict) or not isinstance(aliases, dict):
        return problems
    for tag, block in weights.items():
        problems += _check_weights(str(name), tag, block)
    if weights and default is None:
        problems.append(f"{name}: the key 'default' is missing; name one of the tags: {', '.join(map(str, weights))}")
    if default is not None and default not in weights:
        problems.append(f"{name}.default: no tag {default!r}.{nearest(str(default), weights)}")
    for alias, tag in aliases.items():
        if not matches(NAME)(alias):
            problems.append(f"{name}.aliases: {alias!r} is not kebab-case; rename it")
        if tag not in weights:
            problems.append(f"{name}.aliases.{alias}: no tag {tag!r}.{nearest(str(tag), weights)}")
    return problems
