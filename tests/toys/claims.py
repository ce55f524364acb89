"""What the tests of claims share: a claims file of a toy, raw runs for it, and a stand-in for training."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from toys import cli as cli_toys
from zoo import claims, index
from zoo.claims import planning as _claims_plan
from zoo.claims import steps as _claims_steps

STUB = Path(__file__).with_name("claims_stub.py")
PROGRAM = (sys.executable, "-I", "-S", str(STUB))  # without site packages it starts in a few milliseconds
PAIR = """\
- id: fast-wins
  promise: A higher rate is better.
  arms:
    ours: {recipe: ten-n, set: {model.lr: 0.5}}
    baseline: {recipe: ten-n, set: {model.lr: 0.25}}
  metric: test/acc
  expect: higher
  seeds: [0, 1, 2]
  minutes: 6
"""


BRANCHED = """\
- id: branches
  promise: A higher rate is the better finish.
  set: {data.length: 9}
  arms:
    ours: {recipe: ten-n, set: {model.lr: 0.5}, start: {recipe: ten-s, set: {trainer.max_epochs: 1}}}
    baseline: {recipe: ten-n, set: {model.lr: 0.25}, start: {recipe: ten-s, set: {trainer.max_epochs: 1}}}
  metric: val/acc
  expect: higher
  seeds: [0, 1]
"""


def make_entry(folder: Path, monkeypatch: pytest.MonkeyPatch) -> index.Entry:
    """The toy in the index, for the length of a test."""
    monkeypatch.setattr(index, "_registered", dict(index._registered))
    monkeypatch.setattr(cli_toys.ToyNet, "logged", ("acc", "loss", "acc/*"))
    monkeypatch.chdir(folder)
    return cli_toys.register(folder)


def write_claims(entry: index.Entry, text: str) -> list[claims.Claim]:
    path = claims.card_folder(entry) / "claims.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return claims.claims_of(entry)


def place_of(entry: index.Entry, folder: Path) -> _claims_steps.Place:
    return _claims_steps.Place(entry, folder / "runs", program=(*PROGRAM, str(folder)))


def calls(folder: Path) -> list[str]:
    path = folder / "calls.txt"
    return path.read_text().splitlines() if path.is_file() else []


def runs_with(entry: index.Entry, claim: claims.Claim, values: dict[str, list[float | None]]) -> dict[str, Any]:
    """Raw runs that give each arm these values, seed by seed."""
    found = {}
    for (arm, seed), spec in _claims_plan.jobs_of(entry, claim).items():
        place = claim.seeds.index(seed) if seed is not None else 0
        if place < len(values[arm]):
            found[_claims_plan.fingerprint(spec)] = {"spec": spec, "metrics": {claim.metric: values[arm][place]}}
    return found
