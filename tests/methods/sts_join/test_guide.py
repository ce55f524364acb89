"""docs/trajectories.md: its numbers are those of the benchmark's results, and its examples run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = next(p for p in Path(__file__).parents if (p / "pyproject.toml").is_file())
PAGE = ROOT / "docs" / "trajectories.md"


def results() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((ROOT / "benchmarks" / "results" / "sts_join.json").read_text())
    return content


def rows_below(line: str) -> list[list[str]]:
    """Cells of the table that follows a line of the page."""
    text = PAGE.read_text(encoding="utf-8").partition(f"\n{line}")[2]
    assert text, f"the page has no line {line!r}"
    table = re.search(r"^\|.*\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert table is not None
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table[1].splitlines()]


@pytest.mark.parametrize(("line", "name"), [("Equal density:", "equal density"), ("5 km square:", "5 km square")])
def test_growth(line: str, name: str) -> None:
    expected = [
        [f"{r['walkers']:,}", f"{r['segments']:,}", f"{r['pairs']:,}", f"{r['seconds']:.2f}", f"{r['peak GiB']:.2f}"]
        for r in results()["growth"][name]["rows"]
    ]
    assert rows_below(line) == expected


def test_what_the_text_says_of_growth() -> None:
    growth, text = results()["growth"], " ".join(PAGE.read_text(encoding="utf-8").split())
    dense = growth["equal density"]["slope against segments + pairs"]
    fixed = growth["5 km square"]["slope against segments + solved"]
    assert f"power {dense:.2f} of segments plus pairs" in text
    assert f"power {fixed:.2f} of segments plus segment pairs solved" in text
    facts = results()
    assert f"Python {facts['python']}, torch {facts['torch'].partition('+')[0]}, {facts['machine']}" in text


def test_peers() -> None:
    measured = next(r for r in results()["peers"] if r["walkers"] == 2000)
    ways = {"sts-join": None, "pair of segments": "all pairs", "each second": "k-d tree 1 s", "fifth": "k-d tree 5 s"}
    rows = rows_below("Against others")
    assert len(rows) == len(ways)
    for (way, seconds, ratio, result), (word, key) in zip(rows, ways.items(), strict=True):
        assert word in way
        if key is None:
            assert seconds == f"{measured['ours, s']:.3g}"
            continue
        assert [seconds, ratio] == [f"{measured[f'{key}, s']:.3g}", f"{measured[f'ours / {key}']:.3g}"]
        if f"{key}, recall" in measured:
            recall, precision = measured[f"{key}, recall"], measured[f"{key}, precision"]
            assert result == f"recall {recall:.4f}, precision {precision:.4f}"


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracks that are cut at noon, joined by halves and added up, give the pairs of the whole."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        exec(compile(block, PAGE.name, "exec"), names)
    assert len(names["results"].pairs) > 0
    whole = names["own"].self_join(eps=60.0)
    assert len(whole.pairs) > 0
    expected = dict(zip(map(tuple, whole.pairs.tolist()), whole.durations.tolist(), strict=True))
    parts = names["together"][names["together"] >= 60.0].to_dict()
    assert parts.keys() == expected.keys()
    np.testing.assert_allclose([parts[pair] for pair in expected], list(expected.values()), atol=1e-6)
    crossing = sum(len(track["a"]) > 1 and len(track["b"]) > 1 for track in names["parts"])
    assert crossing > 0, "no track was cut"
