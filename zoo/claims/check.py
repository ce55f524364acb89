"""What a claim names must exist: settings in the constructors, metrics in what is logged, studies in their module.

This imports the classes, which takes seconds, so only `zoo reproduce` does it, before anything trains.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from zoo.claims.schema import Arm, Claim, raise_if_any
from zoo.errors import ZooError, nearest
from zoo.index import Entry, resolve

__all__ = ["check_names"]

_OWN = {
    "trainer.default_root_dir": "the run's own folder",
    "data.seed": "the claim's seeds",
    "model.seed": "the claim's seeds",
}


def check_names(entry: Entry, claims: Sequence[Claim], where: str) -> None:
    """Refuse claims that name a setting, metric, study or study argument that does not exist.

    Args:
        entry: the method.
        claims: of that method.
        where: the file, for messages.

    Raises:
        InvalidClaims: listing everything that is wrong, each with the nearest valid name.
    """
    problems: list[str] = []
    seen: dict[str, dict[str, Any]] = {}
    for claim in claims:
        for arm in claim.arms.values():
            place = f"{claim.id}.arms.{arm.name}"
            if arm.study is not None:
                problems += _check_study(entry, claim, arm, place)
                continue
            parts = [(arm.recipe, arm.set, place)]
            parts += [(arm.start.recipe, arm.start.set, f"{place}.start")] if arm.start else []
            for tag, settings, at in parts:
                assert tag is not None
                if tag not in seen:
                    seen[tag] = _constructors(entry.tag(tag))
                problems += _check_settings(seen[tag], settings, at)
            assert arm.recipe is not None
            model = seen[arm.recipe]["model"]
            problems += _check_metric(model, f"{claim.id}.metric", claim.metric, curve=claim.at is not None)
            for metric, at in _premises(claim, arm):
                problems += _check_metric(model, at, metric)
    raise_if_any(where, list(dict.fromkeys(problems)))


def _constructors(view: Entry) -> dict[str, Any]:
    from lightning import Trainer

    return {"model": view.model_class(), "data": view.data_class(), "trainer": Trainer}


def _check_settings(classes: Mapping[str, Any], settings: Mapping[str, Any], where: str) -> list[str]:
    problems = []
    for key, value in settings.items():
        section, _, name = key.partition(".")
        if key == "weights":
            problems += _check_weights(value, where)
            continue
        known = list(inspect.signature(classes[section].__init__).parameters)[1:]
        if name not in known:
            known = [f"{section}.{k}" for k in known]
            problems.append(f"{where}.set: {classes[section].__name__} has no argument {name!r}.{nearest(key, known)}")
        elif key in _OWN:
            problems.append(f"{where}.set: {key} is taken: {_OWN[key]}")
        elif problem := _type_problem(classes[section], name, value):
            problems.append(f"{where}.set.{key}: {problem}")
    return problems


def _type_problem(cls: Any, name: str, value: Any) -> str:
    """What the command line would say about a value, without starting it."""
    if isinstance(value, str) and value.startswith("$"):
        return ""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    others = set(inspect.signature(cls.__init__).parameters) - {name, "self"}
    parser.add_class_arguments(cls, fail_untyped=False, skip=others, instantiate=False)
    try:
        parser.parse_object({name: value})
    except Exception as error:  # the parser raises several kinds, all of them about this value
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return f"expected another type, got {value!r} ({lines[-1] if lines else type(error).__name__})"
    return ""


def _check_weights(value: Any, where: str) -> list[str]:
    if value is None or (isinstance(value, str) and value.startswith(("hf://", "$"))):
        return []
    try:
        resolve(value)
    except ZooError as error:
        return [f"{where}.set.weights: {error}"]
    return []


def _premises(claim: Claim, arm: Arm) -> list[tuple[str, str]]:
    """Metrics that premises ask of an arm, and where each stands in the file."""
    asked = [(p, f"{claim.id}.premise[{place}].metric") for place, p in enumerate(claim.premise, 1)]
    return [(p.metric, where) for p, where in asked if arm.name in (p.arm, p.other)]


def _check_metric(model: Any, where: str, metric: str, *, curve: bool = False) -> list[str]:
    """A metric is `test/NAME` or `val/NAME`, and NAME is one that the class says it logs, where it says so."""
    first, _, name = metric.partition("/")
    if first not in ("test", "val", "train") or not name:
        near = nearest(metric, [f"{s}/{n}" for s in ("test", "val") for n in model.logged])
        return [f"{where}: expected test/NAME or val/NAME, got {metric!r}.{near}"]
    if curve and first == "test":
        return [f"{where}: {metric} has no curve; with at: use val/{name}"]
    if first == "train" or not model.logged or _known(name, model.logged):
        return []
    known = [f"{first}/{n}" for n in model.logged]
    near = nearest(metric, known)
    return [f"{where}: {model.__name__} logs no {metric!r}.{near} It logs: {', '.join(known)}"]


def _known(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _check_study(entry: Entry, claim: Claim, arm: Arm, where: str) -> list[str]:
    from zoo.studies import find_study

    try:
        function = find_study(entry.id, str(arm.study))
    except ZooError as error:
        return [f"{where}.study: {error}"]
    known = [name for name in inspect.signature(function).parameters if name != "seed"]
    problems = [
        f"{where}.set: {arm.study} has no argument {name!r}.{nearest(name, known)}"
        for name in arm.set
        if name not in known
    ]
    for metric, at in [(claim.metric, f"{claim.id}.metric"), *_premises(claim, arm)]:
        if metric not in function.metrics:
            problems.append(f"{at}: {arm.study} returns no {metric!r}.{nearest(metric, function.metrics)}")
    return problems
