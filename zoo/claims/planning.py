"""From claims to runs: each distinct one once, in an order in which those that others start from come first."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from zoo import index
from zoo.claims.code import class_paths, code_hash
from zoo.claims.schema import Arm, Claim
from zoo.index import Entry
from zoo.index.recipes import read_recipe, stages_of

__all__ = ["Job", "code_of", "fingerprint", "is_current", "jobs_of", "plan", "recipe_seed", "spec_of"]

_TEXT_ONLY = ("description", "minutes")  # keys of a recipe that change no number
STAGES = {"test": "test", "val": "validate"}
"""First part of a metric -> command that measures it on the final weights."""

QUICK: dict[str, Any] = {
    "trainer.max_epochs": 1,
    "trainer.limit_train_batches": 2,
    "trainer.limit_val_batches": 1,
    "trainer.limit_test_batches": 1,
    "trainer.check_val_every_n_epoch": 1,
    "trainer.num_sanity_val_steps": 0,
}
"""What `--quick` changes in every run: enough to see that each of them works."""


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        key: name of its folder; covers what is run and the code behind it.
        spec: what is run, as plain values; see `spec_of`.
        code: hash of the code.
        label: for people.
        needs: keys of jobs that come first; the start, if any, is the first of them.
        stages: tags among them whose weights the recipe refers to -> their key.
        measures: commands that score the final weights.
        minutes: estimated.
        quick: a smoke run.
    """

    key: str
    spec: dict[str, Any]
    code: str
    label: str
    needs: tuple[str, ...] = ()
    stages: dict[str, str] = field(default_factory=dict)
    measures: tuple[str, ...] = ()
    minutes: float = 0.0
    quick: bool = False

    @property
    def seed(self) -> int | None:
        """Of the run."""
        seed: int | None = self.spec["seed"]
        return seed

    def measures_missing(self, run: dict[str, Any]) -> bool:
        """Whether a stored result lacks a score that this run is to have."""
        first = {command: stage for stage, command in STAGES.items()}
        return any(not any(k.startswith(f"{first[m]}/") for k in run["metrics"]) for m in self.measures)


def fingerprint(value: Any) -> str:
    """Sixteen hexadecimal digits of plain values."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def is_current(run: Mapping[str, Any], code: str) -> bool:
    """Whether a stored run was made by some code, or confirmed by it.

    Args:
        run: as results.json holds it.
        code: hash of the code.
    """
    return code in (run.get("code"), run.get("confirmed", {}).get("code"))


def _recipe(entry: Entry, tag: str) -> dict[str, Any]:
    return read_recipe(entry, tag)


def recipe_hash(entry: Entry, tag: str) -> str:
    """Of what a recipe says, not of how it is written."""
    return fingerprint({k: v for k, v in _recipe(entry, tag).items() if k not in _TEXT_ONLY})


def recipe_seed(entry: Entry, tag: str) -> int:
    """The seed a recipe names; 0 by default, as in training."""
    seed = _recipe(entry, tag).get("seed_everything")
    return seed if type(seed) is int else 0


def spec_of(entry: Entry, arm: Arm, seed: int | None) -> dict[str, Any]:
    """What is run for one arm and seed: equal specs are the same run, whichever claims they belong to."""
    if arm.study is not None:
        return {"study": arm.study, "set": arm.set, "seed": None if arm.once else seed}
    assert arm.recipe is not None
    spec = _recipe_spec(entry, arm.recipe, arm.set)
    if arm.start is not None:
        spec["start"] = {**_recipe_spec(entry, arm.start.recipe, arm.start.set), "seed": seed}
    return {**spec, "seed": seed}


def _recipe_spec(entry: Entry, tag: str, settings: dict[str, Any]) -> dict[str, Any]:
    """A recipe with settings; trained weights it refers to are part of what is run, so their hashes are, too."""
    recipe = _recipe(entry, tag)
    spec = {"recipe": tag, "config": recipe_hash(entry, tag), "set": settings}
    named = {key: recipe.get(key) for key in ("weights", "model", "data")} | settings
    weights = {name: sha for name in _texts(named) if (sha := _pinned(name)) is not None}
    return {**spec, "weights": weights} if weights else spec


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def _pinned(name: str) -> str | None:
    """The hash of `id:tag` in the index; None for any other text, and for weights that are not trained yet."""
    method, colon, tag = name.partition(":")
    known = index.entries().get(method) if colon else None
    return known.weights[tag].sha256 if known is not None and tag in known.weights else None


def _modules(entry: Entry, spec: dict[str, Any]) -> list[str]:
    if "study" in spec:
        from zoo.studies import module_name

        return [module_name(entry.id)]
    view = entry.tag(spec["recipe"])
    return [view.model.partition(":")[0], view.data.partition(":")[0], *class_paths(_recipe(entry, spec["recipe"]))]


def code_of(entry: Entry, spec: dict[str, Any]) -> str:
    """Hash of the code behind a run, as it is now."""
    return code_hash(_modules(entry, spec))


class _Planner:
    """Collects jobs; each spec becomes one."""

    def __init__(self, entry: Entry, quick: bool) -> None:
        self.entry, self.quick = entry, quick
        self.jobs: dict[str, Job] = {}
        self._codes: dict[str, str] = {}

    def code(self, spec: dict[str, Any]) -> str:
        about = spec.get("recipe", "(study)")
        if about not in self._codes:
            self._codes[about] = code_of(self.entry, spec)
        return self._codes[about]

    def add(self, spec: dict[str, Any], label: str, measures: Iterable[str] = (), minutes: float = 0.0) -> Job:
        """Add a run, and those it depends on before it."""
        stages, needs = {}, []
        if "start" in spec:
            # the share of a start in the cost is not known: its minutes are part of the estimate of its branches
            needs.append(self.add(spec["start"], f"{label} (start)").key)
        if "recipe" in spec:
            for tag in stages_of(_recipe(self.entry, spec["recipe"])):
                if self.entry.weights[tag].sha256 is None:
                    stage = _recipe_spec(self.entry, tag, {})
                    seed = recipe_seed(self.entry, tag)
                    name = f"{self.entry.id}:{tag}, seed {seed}"
                    stages[tag] = self.add({**stage, "seed": seed}, name, (), self._minutes(tag)).key
                    needs.append(stages[tag])
        code = self.code(spec)
        key = ("quick-" if self.quick else "") + fingerprint({"zoo": self.entry.id, "spec": spec, "code": code})
        known = self.jobs.get(key)
        if known is not None:
            both = tuple(sorted({*known.measures, *measures}))
            self.jobs[key] = replace(known, measures=both, minutes=max(known.minutes, minutes))
        else:
            job = Job(key, spec, code, label, tuple(needs), stages, tuple(sorted(measures)), minutes, self.quick)
            self.jobs[key] = job
        return self.jobs[key]

    def _minutes(self, tag: str) -> float:
        return float(_recipe(self.entry, tag).get("minutes") or 0)


def seeds_of(claim: Claim, seeds: Sequence[int] | None = None, look: int | None = None) -> list[int | None]:
    """Seeds to run; one run without a seed for an exact claim.

    Args:
        claim: whose seeds.
        seeds: only these among them.
        look: only those up to this look, from 1, of a claim that adds seeds.
    """
    if claim.exact:
        return [None]
    until = claim.looks[min(look, len(claim.looks)) - 1] if claim.looks and look else None
    return [seed for seed in claim.seeds[:until] if seeds is None or seed in seeds]


def measures_of(claim: Claim, arm: str | None = None) -> list[str]:
    """Commands that give a claim's metric, and what its premises ask of an arm."""
    # a value on the curve was logged while training
    asked = [claim.metric] if claim.at is None else []
    asked += [p.metric for p in claim.premise if arm in (p.arm, p.other)]
    firsts = [metric.partition("/")[0] for metric in asked]
    return list(dict.fromkeys(STAGES[first] for first in firsts if first in STAGES))


def jobs_of(
    entry: Entry, claim: Claim, seeds: Sequence[int] | None = None
) -> dict[tuple[str, int | None], dict[str, Any]]:
    """Spec of each (arm, seed)."""
    chosen = seeds_of(claim, seeds)
    return {(arm.name, seed): spec_of(entry, arm, seed) for seed in chosen for arm in claim.arms.values()}


def plan(
    entry: Entry,
    claims: Sequence[Claim],
    seeds: Sequence[int] | None = None,
    *,
    quick: bool = False,
    look: int | None = None,
) -> list[Job]:
    """Runs of some claims, in the order to do them: seed by seed, so that a claim interrupted has whole pairs.

    Args:
        entry: the method.
        claims: of that method.
        seeds: only these among each claim's seeds.
        quick: smoke runs of the first seed.
        look: only what claims that add seeds need up to this look.
    """
    planner = _Planner(entry, quick)
    for claim in claims:
        chosen = seeds_of(claim, seeds, look)[: 1 if quick else None]
        whole = max(1, len(claim.arms) * len(seeds_of(claim)))
        for seed in chosen:
            for arm in claim.arms.values():
                measures = () if arm.study else measures_of(claim, arm.name)
                minutes = 1.0 if quick else (claim.minutes or 0) / whole
                spec = spec_of(entry, arm, seed)
                label = f"{claim.id}: {arm.name}" + (f", seed {seed}" if spec["seed"] is not None else "")
                planner.add(spec, label, measures, minutes)
    return list(planner.jobs.values())
