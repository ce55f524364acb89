"""The module around the join: indices of own tracks, tables, errors, obfuscated indices, stored ones."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from zoo.errors import BadInput
from zoo.methods.sts_join.clients import clients_of
from zoo.methods.sts_join.module import STSJoin
from zoo.methods.sts_join.motions import motions_of
from zoo.methods.sts_join.oracle import sts_join_bruteforce

A = torch.tensor([[0, 0, 0], [10, 0, 10], [20, 0, 20], [30, 0, 30]], dtype=torch.float64)
B = torch.tensor([[2, 2, 1], [5, 5, 5], [15, 5, 15], [25, -5, 28], [35, 5, 35]], dtype=torch.float64)
GAP = 120.0


def crowd(count: int = 40, seed: int = 0, side: float = 800.0, points: int = 25) -> tuple[Tensor, Tensor]:
    """Tracks of unequal length with gaps, and their lengths."""
    draw = np.random.default_rng(seed)
    steps = draw.uniform(1, 40, (count, points))
    steps[draw.uniform(size=steps.shape) < 0.04] = 300.0
    times = np.cumsum(steps, 1) + draw.uniform(0, 200, (count, 1))
    places = draw.uniform(0, side, (count, 1, 2)) + np.cumsum(draw.normal(0, 40, (count, points, 2)), 1)
    length = torch.from_numpy(draw.integers(2, points + 1, count))
    return torch.from_numpy(np.concatenate([places, times[..., None]], 2)), length


# The module -------------------------------------------------------------------------------------------------------


def tracks(count: int = 6) -> list[np.ndarray]:
    xyt, length = crowd(count, side=200.0)
    return [xyt[i, : length[i]].numpy() for i in range(count)]


def test_index_of_own_tracks_and_its_arrays() -> None:
    own = tracks()
    model = STSJoin(delta=60.0, eps=20.0).index(own)
    found = model.predict(own)
    assert len(found) == len(own)
    truth, seconds = sts_join_bruteforce(*_padded(own), *_padded(own), 60.0, 20.0, GAP)
    assert found.pairs.tolist() == truth.tolist()
    np.testing.assert_allclose(found.durations, seconds.numpy(), atol=1e-8)
    assert len(found.intervals) == len(found.pairs)
    pairs = model.self_join()
    assert pairs.pairs.tolist() == truth[truth[:, 0] < truth[:, 1]].tolist()
    assert model.predict(own, delta=1.0, eps=0.0).pairs.shape[1] == 2


def _padded(own: list[np.ndarray]) -> tuple[Tensor, Tensor]:
    from datamodules.tracks import pad_tracks

    return pad_tracks(own)


def test_results_as_a_table() -> None:
    pandas = pytest.importorskip("pandas")
    own = tracks()
    found = STSJoin(delta=60.0, eps=20.0).index(own).predict(own)
    frame = found.to_dataframe()
    assert list(frame.columns) == ["query", "track", "query_name", "track_name", "seconds", "start", "end"]
    assert len(frame) == sum(map(len, found.intervals))
    together = (frame["end"] - frame["start"]).groupby([frame["query"], frame["track"]]).sum().to_numpy()
    np.testing.assert_allclose(together, found.durations, atol=1e-6)
    degrees = pandas.DataFrame(
        {
            "id": np.repeat(["a", "b"], 3),
            "lon": [4.9, 4.901, 4.902] * 2,
            "lat": [52.3] * 6,
            "time": pandas.to_datetime(["2024-05-01T10:00", "2024-05-01T10:01", "2024-05-01T10:02"] * 2),
        }
    )
    model = STSJoin(delta=60.0, eps=20.0).index(degrees)
    frame = model.self_join().to_dataframe()
    assert frame["seconds"].tolist() == pytest.approx([120.0])
    assert str(frame["start"][0]) == "2024-05-01 10:00:00+00:00"
    assert model.predict(degrees)[0]["queries"] == 2


def test_nothing_found_says_why() -> None:
    own = tracks()
    model = STSJoin(delta=60.0, eps=20.0).index(own)
    assert "longer than the longest time" in model.predict(own[0], eps=1e6).note
    late = own[0] + np.array([0, 0, 1e7])
    assert "No query moves while the index does" in model.predict(late).note
    assert "index is empty" in STSJoin().predict(own[0]).note
    assert "No pair is within" in model.predict(own[0] + np.array([1e6, 0, 0]), eps=1.0).note
    assert model.predict(own).note == ""


@pytest.mark.parametrize(
    ("track", "told"),
    [
        ([[0, 0, 5], [1, 1, 4]], "times must rise"),
        ([[0, 0, 5], [1, 1, 5]], "twice the time"),
        ([[0, 0, 5]], "at least 2 points"),
        ([[0, 0, 5], [float("nan"), 1, 6]], "finite numbers"),
        ([[0, 5], [1, 6]], r"\(points, 3\)"),
        ({"x": [0, 1], "y": [0, 1]}, "no column for t"),
        ({"lon": [4.0, 4.1], "lat": [52.0, 52.1], "t": [0, 60]}, "positions in degrees"),
        ({"x": [0, 1], "y": [0, 1], "lon": [4, 5], "t": [0, 60]}, "both degrees"),
        ({"x": [0, 1], "y": [0, 1], "t": [1.7e12, 1.7e12 + 1]}, "Milliseconds"),
        ({"x": [0, 1], "y": [0, 1], "t": ["2024-05-01T10:00:00Z", "2024-05-01T10:01:00"]}, "some times have a zone"),
        (object(), "expected rows of x, y, t"),
    ],
)
def test_bad_tracks_are_named(track: Any, told: str) -> None:
    model = STSJoin().index(tracks())
    with pytest.raises(BadInput, match=told):
        model.predict([track])


@pytest.mark.parametrize(
    "settings", [{"delta": 0}, {"delta": -1.0}, {"eps": -1.0}, {"radius": -1.0}, {"gap": 0.0}, {"cell": -5.0}]
)
def test_bad_settings_are_named(settings: dict[str, float]) -> None:
    with pytest.raises(BadInput, match=next(iter(settings))):
        STSJoin(**settings)
    if "delta" in settings or "eps" in settings:
        with pytest.raises(BadInput):
            STSJoin().index(tracks()).predict(tracks()[0], **settings)


def test_obfuscated_index_gives_bounds_and_with_clients_exact_results() -> None:
    own = tracks(12)
    plain = STSJoin(delta=80.0, eps=20.0).index(own)
    hidden = STSJoin(delta=80.0, eps=20.0, tolerance=5.0, radius=10.0).index(own)
    raw = {v for t in own for v in t[:, :2].ravel().tolist()}
    assert not raw & set(hidden.table.segments[:, 2:6].flatten().tolist())
    exact, bounds = plain.predict(own), hidden.predict(own)
    assert set(map(tuple, exact.pairs.tolist())) <= set(map(tuple, bounds.pairs.tolist()))
    certain = np.concatenate([one["certain"].numpy() for one in bounds])
    sure = {tuple(p) for p, c in zip(bounds.pairs.tolist(), certain, strict=True) if c}
    assert sure
    assert sure <= set(map(tuple, exact.pairs.tolist()))
    hidden.clients = clients_of(motions_of(*_padded(own), GAP), 0.0, 0.0)
    refined = hidden.predict(own)
    assert refined.pairs.tolist() == exact.pairs.tolist()
    np.testing.assert_allclose(refined.durations, exact.durations, atol=1e-8)


def test_no_pair_among_the_indexed_says_why() -> None:
    a = np.array([[0, 0, 0], [60, 0, 60], [60, 30, 90]], dtype=float)
    for tracks, gap, told in (
        ([], 120.0, "index is empty"),
        ([a], 120.0, "one track only"),
        ([a, a + np.array([5, 0, 0])], 20.0, "every step of its tracks is longer than gap"),
        ([a, a + np.array([0, 0, 90])], 120.0, "No two tracks of the index move at the same time"),
        ([a, a + np.array([0, 0, 80.0])], 120.0, r"longer than the longest time that two tracks share \(10 s\)"),
        ([a, a + np.array([500, 0, 0])], 120.0, "No pair is within 50 m for 60 s"),
    ):
        model = STSJoin(delta=50.0, eps=60.0, gap=gap).index(tracks)
        results = model.self_join()
        assert not len(results.pairs)
        assert re.search(told, results.note)
    assert not STSJoin(delta=50.0, eps=60.0).index([a, a + 1.0]).self_join().note
    assert "every step is longer than gap (20 s)" in STSJoin(gap=20.0).index([a[:2] * 0.2]).predict(a).note


def test_boats_on_both_sides_of_the_date_line() -> None:
    times = np.arange(20) * 10.0
    table = {
        "id": np.repeat(["east", "west"], 20),
        "lon": np.repeat([179.9999, -179.9999], 20),
        "lat": np.tile(np.arange(20) * 1e-4, 2),
        "t": np.tile(times, 2),
    }
    assert STSJoin(delta=50.0, eps=60.0).index(table).self_join().durations.tolist() == pytest.approx([190.0])


def test_an_empty_table_is_named() -> None:
    empty: dict[str, list[float]] = {"x": [], "y": [], "t": []}
    with pytest.raises(BadInput, match="track 0: the table has no rows"):
        STSJoin().index(empty)
    with pytest.raises(BadInput, match="input 0: the table has no rows"):
        STSJoin().index(tracks()).predict(empty)


def test_stored_index_answers_alike(tmp_path: Path) -> None:
    import zoo

    own = tracks()
    model = STSJoin(delta=60.0, eps=20.0).index(own)
    again = zoo.load(zoo.save(model, tmp_path / "saved"))
    first, second = model.predict(own), again.predict(own)
    assert first.pairs.tolist() == second.pairs.tolist()
    assert first.durations.tolist() == second.durations.tolist()
    assert again.table.segments.dtype == torch.float64
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["init"]["delta"] == 60.0
