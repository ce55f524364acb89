"""benchmarks/RESULTS.md is what the stored results say, the lost comparisons included."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import results_table
from benchmarks.results_table import PAGE, RESULTS, Row, page, reader_of, table

FILES = sorted(RESULTS.glob("*.json"))


def rows_of(path: Path) -> list[Row]:
    content = json.loads(path.read_text(encoding="utf-8"))
    return list(reader_of(content, path.name)(content))


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run python benchmarks/results_table.py"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_has_a_reader_that_leaves_no_ratio_out(path: Path) -> None:
    rows = rows_of(path)
    assert rows
    assert len({(r.what, r.against, r.ours) for r in rows}) == len(rows), "two rows cannot be told apart"
    stored = json.loads(path.read_text(encoding="utf-8")).get("rows")
    if isinstance(stored, list):
        assert [r.ratio for r in rows if r.ratio is not None] == [r["ratio"] for r in stored if "ratio" in r]


@pytest.mark.parametrize(
    ("ratio", "kind", "outcome"),
    [
        (0.5, "peer", "won"),
        (0.96, "peer", "even"),
        (1.04, "peer", "even"),
        (1.2, "peer", "lost"),
        (0.9, "floor", "at the floor"),
        (1.2, "floor", "above the floor"),
        (0.1, "own", ""),
        (None, "peer", ""),
    ],
)
def test_how_a_ratio_reads(ratio: float | None, kind: str, outcome: str) -> None:
    assert Row("a join", ratio=ratio, kind=kind).outcome == outcome


def test_a_bar_is_shown_where_a_file_states_one() -> None:
    content = {"rows": [{"what": "step", "px": 32, "ours_ms": 12.0, "peer_ms": 10.0, "ratio": 1.2, "bar": 1.0}]}
    lines = table(list(reader_of(content, "toy.json")(content)))
    assert lines[0] == "| what | ours | against | theirs | ours / theirs | bar | |"
    assert lines[2] == "| step: px 32 | 12 ms | peer | 10 ms | 1.2 | 1 | lost |"


def test_an_unknown_shape_is_an_error() -> None:
    with pytest.raises(SystemExit, match=r"new\.json: expected a shape"):
        reader_of({"something": {"else": 1}}, "new.json")


def test_check_fails_when_a_result_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in FILES:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(results_table, "RESULTS", tmp_path)
    monkeypatch.setattr("sys.argv", ["results_table.py", "--check"])
    assert results_table.main() == 0
    changed = next(p for p in sorted(tmp_path.iterdir()) if '"ours_ms"' in p.read_text())
    content = json.loads(changed.read_text())
    content["rows"][0]["ratio"] *= 2
    changed.write_text(json.dumps(content))
    assert results_table.main() == 1
