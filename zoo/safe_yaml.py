"""YAML reading that a hostile or careless file cannot abuse: bounded, no tags, no repeated keys."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from zoo.errors import InvalidIndex, RepositoryNotFound, UnsafeFile, ZooError

__all__ = ["load_yaml"]

_MAX_DEPTH = 64
_MAX_ALIASES = 1000
_MAX_NODES = 200_000

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml is ten times faster, but optional in PyYAML


class _Loader(_Base):  # type: ignore[misc]
    """Safe loader that refuses a key given twice (YAML would silently keep the last)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, (list, dict)):
                raise yaml.constructor.ConstructorError(
                    None, None, "a list or mapping cannot be a key", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice; remove one", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)  # type: ignore[no-any-return]


def _whole_number(loader: Any, node: yaml.ScalarNode) -> int:
    number: int = _Base.construct_yaml_int(loader, node)
    if abs(number) >= 1 << 63:
        raise ValueError("a whole number of more than 18 digits")
    return number


_Loader.add_constructor("tag:yaml.org,2002:int", _whole_number)


class _Texts(_Loader):
    """Takes every plain value for a text: a class may be called `no`, `null` or `007`."""


_Texts.yaml_implicit_resolvers = {}
_Texts.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile("^<<$"), ["<"])


def _check_events(text: str, where: str) -> None:
    """Bound nesting and aliases before any tree is built (the composer recurses in C, without a limit of its own)."""
    depth = aliases = nodes = 0
    sizes: dict[str, int] = {}  # anchor -> nodes it stands for when written out
    open_anchors: list[tuple[str | None, int]] = []
    for event in yaml.parse(text, Loader=_Base):
        if isinstance(event, yaml.AliasEvent):
            aliases += 1
            nodes += sizes.get(str(event.anchor), _MAX_NODES)  # an alias inside its own anchor never ends
        elif isinstance(event, yaml.NodeEvent):
            nodes += 1
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                open_anchors.append((event.anchor, nodes - 1))
            elif event.anchor is not None:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
            anchor, before = open_anchors.pop()
            if anchor is not None:
                sizes[anchor] = nodes - before
        if depth > _MAX_DEPTH or aliases > _MAX_ALIASES or nodes > _MAX_NODES:
            raise UnsafeFile(
                f"{where}: expected a plain YAML file, got nesting deeper than {_MAX_DEPTH}, more than "
                f"{_MAX_ALIASES} aliases, or more than {_MAX_NODES:,} values when its aliases are written out. It "
                "looks like an attack: do not use this file."
            )


def _bytes_of(text_or_path: str | Path, where: str, max_bytes: int, error: type[ZooError]) -> bytes:
    """Text as UTF-8, or what a file holds, up to one byte too many."""
    if not isinstance(text_or_path, Path):
        return text_or_path.encode("utf-8", "surrogatepass")
    try:
        with text_or_path.open("rb") as file:
            return file.read(max_bytes + 1)
    except FileNotFoundError:
        raise RepositoryNotFound(f"{where}: there is no such file. Check the path.") from None
    except OSError as problem:
        raise error(f"{where}: expected a file that can be read, got none ({problem.strerror}).") from None


def load_yaml(
    text_or_path: str | Path,
    *,
    where: str | None = None,
    max_bytes: int = 4 << 20,
    error: type[ZooError] = InvalidIndex,
    texts: bool = False,
) -> Any:
    """Read YAML from a `Path`, or from text, with the safe C loader.

    Args:
        text_or_path: a `Path` is opened, a `str` is the text itself.
        where: name for messages; the path, by default.
        max_bytes: larger input is refused before it is parsed.
        error: class of the exception for wrong syntax and for repeated keys.
        texts: leave plain values as the text they are: `no`, `null` and `1.0` are three names.

    Raises:
        UnsafeFile: if the input is larger than `max_bytes`, nests or repeats without bound, or asks for Python objects.
        RepositoryNotFound: if there is no such file.
    """
    where = where or (str(text_or_path) if isinstance(text_or_path, Path) else "YAML text")
    data = _bytes_of(text_or_path, where, max_bytes, error)
    if len(data) > max_bytes:
        raise UnsafeFile(f"{where}: expected at most {max_bytes:,} bytes of YAML, got more. Use a smaller file.")
    try:
        text = data.decode("utf-8-sig")
        _check_events(text, where)
        return yaml.load(text, Loader=_Texts if texts else _Loader)
    except UnicodeDecodeError as problem:
        raise error(f"{where}: expected UTF-8 text, got byte {data[problem.start]:#04x} at {problem.start}.") from None
    except yaml.constructor.ConstructorError as problem:
        line = f" (line {problem.problem_mark.line + 1})" if problem.problem_mark else ""
        if "could not determine a constructor" in str(problem.problem):
            raise UnsafeFile(
                f"{where}{line}: expected plain values, got a YAML tag that asks for an object "
                f"({str(problem.problem).split('tag ')[-1]}). Nothing was executed; remove the tag."
            ) from None
        raise error(f"{where}{line}: {problem.problem}.") from None
    except yaml.YAMLError as problem:
        if "nesting depth" in str(problem):  # some builds of libyaml have a limit of their own
            raise UnsafeFile(f"{where}: expected a plain YAML file, got nesting without end. Do not use it.") from None
        mark = getattr(problem, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise error(f"{where}{line}: not valid YAML: {getattr(problem, 'problem', problem)}. Fix that line.") from None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as problem:
        # such as the date 2021-13-45, a number of a million digits, or `!!bool maybe`
        raise error(f"{where}: a value cannot be read: {str(problem)[:200]}. Put it in quotes.") from None
