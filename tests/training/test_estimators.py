"""Methods of time series behind scikit-learn's interface: its own checks, its tools, and what people of series have."""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils.estimator_checks import estimator_checks_generator

import zoo
from datamodules.worlds.cylinder_bell_funnel import cylinder_bell_funnel
from zoo.errors import BadInput

OPTIONS = {"num_kernels": 100}


class _Longer:
    """The checks have series of one to ten points, where kernels need twelve: each point is repeated."""

    def _series(self, series: Any, *, reset: bool) -> Any:
        return np.repeat(super()._series(series, reset=reset), 12, axis=-1)  # type: ignore[misc]


class LongerClassifier(_Longer, zoo.SeriesClassifier):  # type: ignore[misc]
    pass


class LongerRegressor(_Longer, zoo.SeriesRegressor):  # type: ignore[misc]
    pass


PLAIN = {"num_kernels": 128, "normalise": False}
IN_SINGLE_PRECISION = {(LongerRegressor, "check_methods_subset_invariance")}
"""Networks compute in float32, and the check wants values that differ by at most 1e-7; `test_values` has its own."""


def checks() -> Iterator[Any]:
    """All of scikit-learn's checks but that of array libraries, which it only runs on request."""
    for made in (LongerClassifier("soft-rocket:cbf", options=PLAIN), LongerRegressor("soft-rocket:cbf", options=PLAIN)):
        for estimator, check in estimator_checks_generator(made, mark=None):
            name = getattr(check, "func", check).__name__
            if name != "check_array_api_input" and (type(made), name) not in IN_SINGLE_PRECISION:
                yield pytest.param(estimator, check, id=f"{type(made).__name__}-{name}")


@pytest.mark.parametrize(("estimator", "check"), checks())
@pytest.mark.filterwarnings("ignore")
def test_checks_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.fixture(scope="module")
def series() -> tuple[np.ndarray, np.ndarray]:
    values, labels = cylinder_bell_funnel(60, 64, (7, 1))
    return values, np.array(["cylinder", "bell", "funnel"])[labels]


def test_cross_validation_and_search(series: tuple[np.ndarray, np.ndarray]) -> None:
    model = zoo.SeriesClassifier("soft-rocket:cbf", options=OPTIONS)
    scores = cross_val_score(model, *series, cv=3)
    assert scores.mean() > 0.9
    grid = {"options": [{"num_kernels": 10}, {"num_kernels": 50}]}
    assert GridSearchCV(model, grid, cv=2).fit(*series).best_score_ > 0.6


def test_shapes_people_have_give_one_answer(series: tuple[np.ndarray, np.ndarray]) -> None:
    values, labels = series
    model = zoo.SeriesClassifier("soft-rocket:cbf", options=OPTIONS).fit(values[:, 0], labels)
    expected = model.predict_proba(values[:, 0])
    assert expected.shape == (60, 3)
    assert list(model.classes_) == ["bell", "cylinder", "funnel"]
    np.testing.assert_allclose(expected.sum(1), 1, rtol=1e-5)
    assert model.score(values[:, 0], labels) > 0.95
    frame = pd.DataFrame(values[:, 0])
    for other in (values, list(values), list(values[:, 0]), frame):
        again = clone(model).fit(other, labels)
        np.testing.assert_array_equal(again.predict_proba(other), expected)
        assert again.n_features_in_ == (1 if np.ndim(other[0]) == 2 else 64)


def test_series_of_unequal_length(series: tuple[np.ndarray, np.ndarray]) -> None:
    values, labels = series
    rows = [row[:, : 40 + i % 20] for i, row in enumerate(values)]
    model = zoo.SeriesClassifier("soft-rocket:cbf", options=OPTIONS).fit(rows, labels)
    assert model.score(rows, labels) > 0.9
    assert not hasattr(model, "n_features_in_")


@pytest.mark.parametrize("labels", [[10, 2], [True, False], [1.5, -3.0], ["10", "2"]])
def test_classes_come_back_as_they_were_given(labels: list[Any], series: tuple[np.ndarray, np.ndarray]) -> None:
    """Ten is after two as a number and before it as text; the columns follow `classes_` either way."""
    values, names = series
    if isinstance(labels[0], float):
        with pytest.raises(ValueError, match="continuous"):
            zoo.SeriesClassifier("soft-rocket:cbf").fit(values, np.array(labels)[(names == "bell").astype(int)])
        return
    given = np.array(labels)[(names == "bell").astype(int)]
    model = zoo.SeriesClassifier("soft-rocket:cbf", options=OPTIONS).fit(values, given)
    assert model.classes_.dtype == given.dtype
    assert (model.predict(values) == given).mean() > 0.95
    np.testing.assert_array_equal(model.classes_, np.unique(given))


def test_values(series: tuple[np.ndarray, np.ndarray]) -> None:
    """Whole numbers are values here, not classes."""
    values, _names = series
    targets = np.round(10 * values[:, 0].std(axis=1))
    model = zoo.SeriesRegressor("soft-rocket:cbf", options={**OPTIONS, "normalise": False}).fit(values, targets)
    assert model.score(values, targets) > 0.8
    np.testing.assert_allclose(model.predict(values[::7]), model.predict(values)[::7], rtol=1e-4)


def test_trained_weights_serve_as_start(series: tuple[np.ndarray, np.ndarray]) -> None:
    values, labels = cylinder_bell_funnel(60, 160, (7, 1))
    names = np.array(["cylinder", "bell", "funnel"])[labels]
    model = zoo.SeriesClassifier("soft-rocket:gunpoint", pretrained=True).fit(values, names)
    assert model.module_.hparams["num_kernels"] == 2000
    trained = zoo.load("soft-rocket:gunpoint").state_dict()
    kernels = [key for key in trained if key.startswith("rocket.")]
    assert kernels
    assert all(torch.equal(trained[key], model.module_.state_dict()[key]) for key in kernels)
    assert model.score(values, names) > 0.9


def test_what_was_fitted_can_be_kept(series: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    values, names = series
    model = zoo.SeriesClassifier("soft-rocket:cbf", options=OPTIONS).fit(values, names)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(values), model.predict(values))
    zoo.save(model.module_, tmp_path / "mine")
    (result,) = zoo.load(tmp_path / "mine").predict(values[:1])
    assert result["name"] == model.predict(values[:1])[0]


def test_the_global_random_state_stays(series: tuple[np.ndarray, np.ndarray]) -> None:
    states = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # type: ignore[index]
    zoo.SeriesClassifier("soft-rocket:cbf", options=OPTIONS, seed=3).fit(*series)
    assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # type: ignore[index]


def test_what_it_cannot_do_is_named(series: tuple[np.ndarray, np.ndarray]) -> None:
    values, names = series
    with pytest.raises(BadInput, match="expected at least two classes, got 1 class"):
        zoo.SeriesClassifier("soft-rocket:cbf").fit(values, ["a"] * 60)
    with pytest.raises(ValueError, match="NaN"):
        zoo.SeriesClassifier("soft-rocket:cbf").fit(np.where(values > 5, np.nan, values), names)
    with pytest.raises(BadInput, match="takes no arrays"):
        zoo.SeriesClassifier("rslad").fit(values, names)
    with pytest.raises(zoo.errors.UnknownName):
        zoo.SeriesClassifier("soft-rockt").fit(values, names)
    model = zoo.SeriesClassifier("soft-rocket:cbf", options=OPTIONS).fit(values, names)
    with pytest.raises(ValueError, match="X has 2 features"):
        model.predict([row.repeat(2, axis=0)[:, :50] for row in values[:1]])
