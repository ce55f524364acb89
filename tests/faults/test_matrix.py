"""docs/reliability.md is what the last run of the matrix found, and names only tests that exist."""

from __future__ import annotations

import json

import matrix


def test_page_is_generated() -> None:
    outcomes = json.loads(matrix.OUTCOMES.read_text(encoding="utf-8"))
    expected = matrix.render(outcomes)
    assert matrix.PAGE.read_text(encoding="utf-8") == expected, "run: python tests/faults/matrix.py"


def test_outcomes_are_those_of_the_matrix() -> None:
    outcomes = json.loads(matrix.OUTCOMES.read_text(encoding="utf-8"))
    assert list(outcomes) == matrix.named_tests(), "run: python tests/faults/matrix.py"
    assert {test: o for test, o in outcomes.items() if o not in ("passed", "skipped")} == {}


def test_no_kill_and_no_damaged_file_did_harm() -> None:
    kills = json.loads(matrix.KILLS.read_text(encoding="utf-8"))
    assert sum(counts["killed"] for counts in kills.values()) >= 200
    assert [name for name, c in kills.items() if c["lost"] or c["orphans"] or c["locks"]] == []
    found = json.loads(matrix.DAMAGED.read_text(encoding="utf-8"))
    assert found["summary"]["files"] >= 50_000
    assert found["failures"] == []


def test_every_cell_has_tests_or_a_reason() -> None:
    for rows, columns in ((matrix.ROWS, matrix.COLUMNS), (matrix.TRAINING, matrix.TRAINING_COLUMNS)):
        for fault, cells in rows.items():
            assert len(cells) == len(columns), fault
            assert all(cells), fault
    assert matrix.missing_tests() == []


def test_words_pick_parameters() -> None:
    assert matrix.matches("hub/a.py::t with toy-net 2", "tests/hub/a.py::t[toy-net-2]")
    assert not matrix.matches("hub/a.py::t with toy-net 8", "tests/hub/a.py::t[toy-net-2]")
    assert not matrix.matches("hub/a.py::t", "tests/hub/a.py::t_more[x]")
    assert matrix.matches("hub/a.py::t", "tests/hub/a.py::t")
