"""`claims.yaml`: its shape, and errors that name the claim, the key and the nearest valid name. No torch here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.checks import repeated
from zoo.claims.stats import EXPECTATIONS, LOOKS, looks_up_to
from zoo.errors import ZooError, nearest
from zoo.index.rules import Rule, check_keys, is_plain
from zoo.index.rules import is_number as _number
from zoo.index.rules import is_text as _text
from zoo.index.rules import matches as _matches
from zoo.index.rules import raise_if_any as _raise_if_any

if TYPE_CHECKING:
    from zoo.index import Entry

__all__ = ["RELATIONS", "ROLES", "Arm", "Branch", "Claim", "InvalidClaims", "Premise", "read_claims"]

ROLES = ("ours", "baseline", "control", "shown")
"""What an arm is for: `ours` is compared with each `baseline` and each `control`; `shown` is only reported."""

RELATIONS = ("at-least", "at-most", "above", "below")
"""What a premise may ask of an arm; the last two also against another arm."""

_NAME = re.compile(r"[a-z0-9]+(?:[-.][a-z0-9]+)*")
_METRIC = re.compile(r"[A-Za-z_][\w.-]*(?:/[\w.@-]+)*")
_SETTING = re.compile(r"(?:model|data|trainer)\.[A-Za-z_]\w*|weights")
_PLACEHOLDER = re.compile(r"\$([A-Za-z0-9][\w-]*)")


class InvalidClaims(ZooError):
    """A `claims.yaml` breaks its schema, or names something that does not exist."""


@dataclass(frozen=True)
class Branch:
    """A run that others start from: the weights of its last checkpoint with the same seed.

    Attributes:
        recipe: a tag of the method.
        set: settings that differ from the recipe.
    """

    recipe: str
    set: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Arm:
    """One side of a comparison: a recipe with changed settings, or a study.

    Attributes:
        name: in the claim.
        role: one of `ROLES`.
        recipe: a tag of the method.
        study: a function of `zoo/studies/<id>.py` instead.
        set: `model.X`, `data.X`, `trainer.X` or `weights` -> value; for a study, its arguments.
        start: a run to start from.
        once: one run without a seed serves all seeds of the claim (a study of published weights, say).
    """

    name: str
    role: str
    recipe: str | None = None
    study: str | None = None
    set: dict[str, Any] = field(default_factory=dict)
    start: Branch | None = None
    once: bool = False


@dataclass(frozen=True)
class Premise:
    """What a promise presupposes; where it fails, the runs say nothing about the promise.

    Attributes:
        arm: whose runs are asked.
        metric: one of theirs.
        relation: one of `RELATIONS`.
        bound: a number, or the name of another arm for `above` and `below`.
        says: the condition in words.
        by: how far above or below the other arm.
        each: every run must meet it, not only their mean.
    """

    arm: str
    metric: str
    relation: str
    bound: float | str
    says: str
    by: float = 0.0
    each: bool = False

    @property
    def other(self) -> str | None:
        """The arm to compare with, if it is no number."""
        return self.bound if isinstance(self.bound, str) else None


@dataclass(frozen=True)
class Claim:
    """One promise and how it is measured.

    Attributes:
        id: kebab-case name.
        promise: the sentence.
        paper: `value` and `source` of the published number.
        arms: by name.
        metric: logged key; with `at`, its value on the curve after that share of the epochs.
        expect: a key of `EXPECTATIONS`.
        margin: see `zoo.claims.stats.decide`.
        value: bound of `at-least` and `at-most`, and of `within` where there is no baseline.
        better: `higher` or `lower`, what `not-worse` means.
        at: share of the epochs, above 0.
        seeds: of each arm; none for an exact claim.
        looks: numbers of seeds after which it is judged, if seeds are added until it is decided; else empty.
        minutes: of all runs together.
        needs: data sets that must be given (`--root NAME=DIR`).
        contrast: factor of each arm, instead of ours minus baseline.
        reason: why it has not been run.
        note: a remark for the reader.
        across: what its curves are drawn against, where their name does not say it.
        axis: what its curves show, with the unit, for the plot.
        labels: arm -> what the legend of the plot calls it, where its name does not say it.
        premise: what must be so for the runs to say anything.
        judge: whose code scores it, where that is not the zoo's.
        timed: whether its metric is a time, which is never equal twice.
    """

    id: str
    promise: str
    arms: dict[str, Arm]
    metric: str
    expect: str
    paper: dict[str, Any] = field(default_factory=dict)
    margin: float = 0.0
    value: float | None = None
    better: str = "higher"
    at: float | None = None
    seeds: tuple[int, ...] = ()
    minutes: float | None = None
    needs: tuple[str, ...] = ()
    contrast: dict[str, float] = field(default_factory=dict)
    reason: str = ""
    note: str = ""
    across: str = ""
    axis: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    premise: tuple[Premise, ...] = ()
    judge: str = ""
    timed: bool = False
    looks: tuple[int, ...] = ()

    @property
    def exact(self) -> bool:
        """Whether chance plays no part."""
        return not self.seeds

    @property
    def planned(self) -> tuple[int, ...]:
        """Numbers of seeds after which it is judged; a list of seeds is one look, an exact claim has none."""
        return self.looks or ((len(self.seeds),) if self.seeds else ())

    def of_role(self, *roles: str) -> list[Arm]:
        """Arms with one of these roles, in the file's order."""
        return [arm for arm in self.arms.values() if arm.role in roles]


def _seeds(value: Any) -> bool:
    if type(value) is int:
        return 2 <= value <= LOOKS[-1]
    whole = isinstance(value, list) and all(type(v) is int and 0 <= v < 2**32 for v in value)
    return whole and len(set(value)) == len(value)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_text, value))


def _settings(value: Any) -> bool:
    return isinstance(value, dict) and is_plain(value, finite=True)


_CLAIM: dict[str, tuple[str, Callable[[Any], bool], bool]] = {
    "id": ("a kebab-case name", _matches(_NAME), True),
    "promise": ("a sentence", _text, True),
    "arms": ("a mapping from arm to {recipe: TAG, set: {...}} or {study: NAME}", lambda v: isinstance(v, dict), True),
    "metric": ("a logged key such as test/map", _matches(_METRIC), True),
    "expect": (f"one of {', '.join(EXPECTATIONS)}", _text, True),
    "set": ("a mapping from setting to a plain value", _settings, False),
    "paper": ("{value: ..., source: ...}", lambda v: isinstance(v, dict), False),
    "margin": ("a number of at least 0", lambda v: _number(v) and v >= 0, False),
    "value": ("a number", _number, False),
    "better": ("higher or lower", lambda v: v in ("higher", "lower"), False),
    "at": ("a share of the epochs, above 0 and at most 1", lambda v: _number(v) and 0 < v <= 1, False),
    "seeds": (
        f"a list of different whole numbers, or one from 2 to {LOOKS[-1]}, the largest number of seeds",
        _seeds,
        False,
    ),
    "minutes": ("a number of at least 0", lambda v: _number(v) and v >= 0, False),
    "needs": ("a list of names of data sets", _texts, False),
    "contrast": (
        "a mapping from arm to a number",
        lambda v: isinstance(v, dict) and all(map(_number, v.values())),
        False,
    ),
    "reason": ("text", _text, False),
    "note": ("text", _text, False),
    "across": ("text", _text, False),
    "axis": ("text", _text, False),
    "labels": (
        "a mapping from arm to text",
        lambda v: isinstance(v, dict) and all(map(_text, v.values())),
        False,
    ),
    "premise": (
        "a list of conditions, such as {arm: baseline, metric: test/accuracy, at-least: 0.8, says: ...}",
        lambda v: isinstance(v, list) and bool(v),
        False,
    ),
    "judge": ("the name of the code that scores it, such as autoattack", _text, False),
    "timed": ("true or false", lambda v: isinstance(v, bool), False),
}
_PREMISE: dict[str, tuple[str, Callable[[Any], bool], bool]] = {
    "arm": ("the name of an arm", _text, True),
    "metric": ("a metric of that arm", _matches(_METRIC), False),
    **dict.fromkeys(("at-least", "at-most"), ("a number", _number, False)),
    **dict.fromkeys(("above", "below"), ("a number or an arm's name", lambda v: _number(v) or _text(v), False)),
    "by": ("a number of at least 0", lambda v: _number(v) and v >= 0, False),
    "each": ("true or false", lambda v: isinstance(v, bool), False),
    "says": ("a sentence", _text, True),
}
_ARM: dict[str, tuple[str, Callable[[Any], bool], bool]] = {
    "recipe": ("a tag of the method", _text, False),
    "study": ("the name of a function", _text, False),
    "role": (f"one of {', '.join(ROLES)}", _text, False),
    "set": ("a mapping from setting to a plain value", _settings, False),
    "start": ("{recipe: TAG, set: {...}}", lambda v: isinstance(v, dict), False),
    "once": ("true or false", lambda v: isinstance(v, bool), False),
}
_BRANCH = {"recipe": ("a tag of the method", _text, True), "set": _ARM["set"]}


def _check_keys(where: str, raw: Any, rules: Mapping[str, tuple[str, Callable[[Any], bool], bool]]) -> list[str]:
    return check_keys(where, raw, {key: Rule(*rule) for key, rule in rules.items()})


def _one_of(where: str, value: Any, known: Iterable[str]) -> list[str]:
    names = list(known)
    if not isinstance(value, str) or value in names:
        return []
    return [f"{where}: no such name {value!r}.{nearest(value, names)} Known: {', '.join(names)}"]


def _check_settings(where: str, raw: Any, needs: Iterable[str], *, study: bool) -> list[str]:
    problems = []
    for key, value in raw.items() if isinstance(raw, dict) else ():
        if not study and not _SETTING.fullmatch(str(key)):
            problems.append(f"{where}: {key!r} is no setting; expected model.X, data.X, trainer.X or weights")
        if isinstance(value, str) and (match := _PLACEHOLDER.fullmatch(value)):
            problems += _one_of(f"{where}.{key} (a data set listed in needs:)", match.group(1), needs)
    return problems


def _check_arm(where: str, raw: Any, tags: Iterable[str], needs: Iterable[str]) -> list[str]:
    problems = _check_keys(where, raw, _ARM)
    if not isinstance(raw, dict):
        return problems
    if ("recipe" in raw) == ("study" in raw):
        problems.append(f"{where}: expected either a recipe or a study")
    problems += _one_of(f"{where}.recipe", raw.get("recipe"), tags)
    problems += _one_of(f"{where}.role", raw.get("role"), ROLES)
    if raw.get("once") is True and ("study" not in raw or raw.get("role") != "shown"):
        problems.append(f"{where}.once: expected a study with role: shown; what is compared needs a run for each seed")
    problems += _check_settings(f"{where}.set", raw.get("set"), needs, study="study" in raw)
    if isinstance(start := raw.get("start"), dict):
        problems += _check_keys(f"{where}.start", start, _BRANCH)
        problems += _one_of(f"{where}.start.recipe", start.get("recipe"), tags)
        problems += _check_settings(f"{where}.start.set", start.get("set"), needs, study=False)
        if "study" in raw:
            problems.append(f"{where}: a study has no start")
    return problems


def _check_comparison(where: str, raw: dict[str, Any], roles: dict[str, str]) -> list[str]:
    """Whether arms, expectation, margin and value fit together."""
    problems = []
    expect, given = raw.get("expect"), list(roles.values())
    against = "baseline" in given or "control" in given
    if contrast := raw.get("contrast"):
        for name in contrast if isinstance(contrast, dict) else ():
            problems += _one_of(f"{where}.contrast", str(name), roles)
        against = True
    elif given.count("ours") != 1:
        problems.append(f"{where}.arms: expected one arm called ours (or with role: ours), or a contrast")
    for name in raw["labels"] if isinstance(raw.get("labels"), dict) else ():
        problems += _one_of(f"{where}.labels", str(name), roles)
    if expect in ("higher", "lower", "not-worse") and not against:
        problems.append(f"{where}.arms: {expect} needs an arm called baseline to compare with")
    if expect in ("at-least", "at-most") and "value" not in raw:
        problems.append(f"{where}.value: {expect} needs the number to compare with")
    if expect == "within" and not against and "value" not in raw:
        problems.append(f"{where}: within needs an arm called baseline, or a value")
    if expect in ("not-worse", "within") and "margin" not in raw:
        problems.append(f"{where}.margin: {expect} needs one: how large a difference still counts as none")
    return problems


def _check_premise(where: str, raw: Any, arms: Iterable[str]) -> list[str]:
    problems = _check_keys(where, raw, _PREMISE)
    if not isinstance(raw, dict):
        return problems
    asked = [name for name in RELATIONS if name in raw]
    if len(asked) != 1:
        problems.append(f"{where}: expected one of {', '.join(RELATIONS)}, got {', '.join(asked) or 'none'}")
    problems += _one_of(f"{where}.arm", raw.get("arm"), arms)
    others = [name for name in ("above", "below") if isinstance(raw.get(name), str)]
    for name in others:
        problems += _one_of(f"{where}.{name}", raw[name], arms)
        if raw[name] == raw.get("arm"):
            problems.append(f"{where}.{name}: {raw[name]!r} would be compared with itself")
    if "by" in raw and not others:
        problems.append(f"{where}.by: only between two arms; write the number that is meant instead")
    return problems


def _check_claim(number: int, raw: Any, tags: Iterable[str]) -> list[str]:
    where = str(raw.get("id", f"claim {number}")) if isinstance(raw, dict) else f"claim {number}"
    problems = _check_keys(where, raw, _CLAIM)
    if not isinstance(raw, dict):
        return problems
    problems += _one_of(f"{where}.expect", raw.get("expect"), EXPECTATIONS)
    arms = raw.get("arms")
    if not isinstance(arms, dict) or not arms:
        return problems
    needs = raw.get("needs") if _texts(raw.get("needs")) else []
    problems += _check_settings(f"{where}.set", raw.get("set"), needs or [], study=False)
    for name, arm in arms.items():
        if not _matches(_NAME)(name):
            problems.append(f"{where}.arms: {name!r} is no kebab-case name")
        problems += _check_arm(f"{where}.arms.{name}", arm, tags, needs or [])
    premises = raw.get("premise")
    for place, premise in enumerate(premises if isinstance(premises, list) else [], 1):
        problems += _check_premise(f"{where}.premise[{place}]", premise, [str(name) for name in arms])
    problems += _check_comparison(where, raw, {str(k): _role(str(k), v) for k, v in arms.items()})
    trained = any(isinstance(a, dict) and "recipe" in a for a in arms.values())
    if trained and not raw.get("seeds"):
        problems.append(f"{where}.seeds: training depends on chance; give the largest number, such as 20, or a list")
    return problems


def _role(name: str, raw: Any) -> str:
    given = raw.get("role") if isinstance(raw, dict) else None
    return given or (name if name in ROLES else "shown")


def read_claims(entry: Entry, path: Path) -> list[Claim]:
    """Read and check the shape of a claims file; an absent one has no claims.

    Args:
        entry: the method it is about.
        path: of the file.

    Raises:
        InvalidClaims: listing everything that is wrong.
    """
    from zoo.index import load_yaml

    if not path.is_file():
        return []
    raw = load_yaml(path, error=InvalidClaims)
    if raw is None:
        return []
    if not isinstance(raw, list):
        raise InvalidClaims(f"{path}: expected a list of claims, got {type(raw).__name__}.")
    problems = [p for i, block in enumerate(raw, 1) for p in _check_claim(i, block, list(entry.weights))]
    names = [block.get("id") for block in raw if isinstance(block, dict)]
    problems += [f"{name}: this id is used twice; rename one" for name in repeated(map(str, names))[:1]]
    raise_if_any(str(path), problems)
    return [_claim(block) for block in raw]


def raise_if_any(where: str, problems: list[str]) -> None:
    """Report all problems together."""
    _raise_if_any(where, problems, "the claims", InvalidClaims)


def _claim(raw: dict[str, Any]) -> Claim:
    given = dict(raw)
    arms = {}
    common = given.pop("set", {})  # of all arms and their starts; a study has arguments of its own
    for name, arm in given.pop("arms").items():
        start = arm.get("start")
        branch = Branch(start["recipe"], {**common, **start.get("set", {})}) if start else None
        settings = {**({} if "study" in arm else common), **arm.get("set", {})}
        once = bool(arm.get("once"))
        arms[name] = Arm(name, _role(name, arm), arm.get("recipe"), arm.get("study"), settings, branch, once)
    seeds = given.pop("seeds", None) or ()
    looks = looks_up_to(seeds) if isinstance(seeds, int) else ()
    given["seeds"] = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    given["needs"] = tuple(given.get("needs") or ())
    premise = tuple(_premise(block, given["metric"]) for block in given.pop("premise", ()))
    return Claim(arms=arms, looks=looks, premise=premise, **given)


def _premise(raw: dict[str, Any], metric: str) -> Premise:
    relation = next(name for name in RELATIONS if name in raw)
    given = {"metric": metric, **{key: value for key, value in raw.items() if key != relation}}
    return Premise(relation=relation, bound=raw[relation], **given)
