"""Studies: how a claim finds them, and that each one of the repository is what its claims say."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest

from zoo import claims, index, studies
from zoo.errors import UnknownName
from zoo.studies import __main__ as program

OURS = [name for name, e in index.entries().items() if Path(e.source) == index.index_path()]
EXACT = [
    (name, claim)
    for name in OURS
    for claim in claims.claims_of(index.entries()[name])
    if claim.exact and all(arm.study for arm in claim.arms.values()) and not claim.needs and not claim.minutes
]


def test_a_method_without_studies_has_none() -> None:
    assert studies.studies_of("no-such-method") == {}
    with pytest.raises(UnknownName, match="no study 'race'"):
        studies.find_study("no-such-method", "race")


def test_the_nearest_study_is_named() -> None:
    name = next(n for n in OURS if studies.studies_of(n))
    known = next(iter(studies.studies_of(name)))
    with pytest.raises(UnknownName, match=repr(known)):
        studies.find_study(name, known[:-1])


@pytest.mark.parametrize(("name", "claim"), EXACT, ids=[f"{n}-{c.id}" for n, c in EXACT])
def test_exact_claims_are_confirmed_by_the_code_as_it_is(name: str, claim: claims.Claim) -> None:
    """Studies that need no data and state no cost run again; their published raw values must be reproduced.

    Of a mean over several worlds, the first one is computed; `test_means_over_worlds` computes all.
    """
    confirm(name, claim, worlds=1)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "claim"), EXACT, ids=[f"{n}-{c.id}" for n, c in EXACT])
def test_means_over_worlds(name: str, claim: claims.Claim) -> None:
    if several_worlds(name, claim):
        confirm(name, claim)


def several_worlds(name: str, claim: claims.Claim) -> bool:
    arms = [studies.find_study(name, str(arm.study)) for arm in claim.arms.values()]
    return any("worlds" in inspect.signature(function).parameters for function in arms)


def confirm(name: str, claim: claims.Claim, worlds: int | None = None) -> None:
    """Run the studies of a claim again and compare with what is stored."""
    stored = claims.results_of(index.entries()[name])["claims"][claim.id]["values"]
    for arm in [*claim.of_role("ours"), *claim.of_role("baseline")]:
        function = studies.find_study(name, str(arm.study))
        fewer = {"worlds": worlds} if worlds and "worlds" in inspect.signature(function).parameters else {}
        found = function(**{**arm.set, **fewer})
        assert set(found.metrics) == set(function.metrics)
        # what is next to nothing is rounding, which differs between machines
        wanted = pytest.approx(stored[arm.name]["exact"], rel=0.05 if fewer else 0.02, abs=2e-6)
        assert found.metrics[claim.metric] == wanted


@pytest.mark.parametrize("name", OURS)
def test_studies_have_plain_arguments_and_are_documented(name: str) -> None:
    for function in studies.studies_of(name).values():
        assert function.__doc__
        assert function.metrics
        for parameter in inspect.signature(function).parameters.values():
            assert parameter.name == "seed" or parameter.default is not parameter.empty


def test_the_program_writes_what_a_study_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @studies.study("twice")
    def double(value: float = 1.0, seed: int = 0) -> studies.Outcome:
        return studies.Outcome({"twice": 2 * value + seed}, {"line": [(0, value)]})

    monkeypatch.setattr(program, "find_study", lambda method, name: {"double": double}[name])
    out = tmp_path / "study.json"
    assert program.main(["toy", "double", '{"value": 3, "seed": 1}', str(out)]) == 0
    assert json.loads(out.read_text()) == {"metrics": {"twice": 7.0}, "curves": {"line": [[0.0, 3.0]]}}
    assert list(tmp_path.iterdir()) == [out]
