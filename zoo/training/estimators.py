"""Methods of time series as scikit-learn estimators: `fit`, `predict`, `predict_proba`, `score`.

    model = zoo.SeriesClassifier("soft-rocket", options={"num_kernels": 2000}).fit(series, labels)
    model.predict_proba(new_series)                        # (n, K), columns as in model.classes_
    cross_val_score(model, series, labels, cv=5)           # of scikit-learn, as are pipelines and searches
    zoo.save(model.module_, "my-model")                    # the Lightning module; zoo.load("my-model") reads it

What an estimator trains is what `zoo train` trains: the tag's recipe with the user's series. Series are arrays
(n, C, L) or (n, L), lists of series of unequal length, or tables with a series per row.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from zoo.errors import BadInput, require
from zoo.index import resolve
from zoo.index.recipes import read_recipe
from zoo.inputs.frames import is_frame
from zoo.store import load

require("sklearn", "sequence")

from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin  # noqa: E402
from sklearn.utils.multiclass import check_classification_targets  # noqa: E402
from sklearn.utils.validation import (  # noqa: E402
    assert_all_finite,
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
    validate_data,
)

__all__ = ["SeriesClassifier", "SeriesRegressor"]


class _SeriesEstimator(BaseEstimator):  # type: ignore[misc]
    """What both share. Their constructors only keep their arguments, as scikit-learn asks."""

    task = ""

    def __init__(
        self,
        name: str,
        *,
        options: dict[str, Any] | None = None,
        epochs: int | None = None,
        batch_size: int = 64,
        val_share: float = 0.0,
        pretrained: bool = False,
        trainer: dict[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        self.name, self.options, self.epochs, self.batch_size = name, options, epochs, batch_size
        self.val_share, self.pretrained, self.trainer, self.seed = val_share, pretrained, trainer, seed

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.allow_nan = False
        tags.non_deterministic = False
        return tags

    def _series(self, series: Any, *, reset: bool) -> Any:
        """Arrays and tables as finite numbers of the shape that was fitted; lists of series as they are."""
        rules: dict[str, Any] = {"allow_nd": True, "dtype": "numeric", "ensure_min_samples": 2 if reset else 1}
        if not isinstance(series, list) or (series and np.ndim(series[0]) == 0):
            return validate_data(self, series, reset=reset, **rules)
        if all(np.shape(row) == np.shape(series[0]) and not is_frame(row) for row in series):
            return validate_data(self, np.asarray(series), reset=reset, **rules)
        if reset and hasattr(self, "n_features_in_"):
            del self.n_features_in_  # series of unequal length have no such number
        return series

    def _fit(self, series: Any, targets: np.ndarray, target: str, names: list[str] | None) -> None:
        """Train the method on series and the texts of their classes, or their values."""
        from lightning import Trainer, seed_everything
        from lightning.pytorch.utilities.seed import isolate_rng

        entry, tag = resolve(self.name)
        view, recipe = entry.tag(tag), read_recipe(entry, tag)
        data_class: Any = view.data_class()
        if not hasattr(data_class, "from_arrays"):
            raise BadInput(f"{self.name} reads files of its own kind and takes no arrays: use `zoo train {self.name}`.")
        data = data_class.from_arrays(
            (series, targets),
            (series, targets),  # the names of all classes come from both; nothing is tested here
            target=target,
            val_share=self.val_share,
            batch_size=self.batch_size,
            seed=self.seed,
        )
        facts = data.facts()
        with isolate_rng(), _quiet():
            seed_everything(self.seed, verbose=False)
            given = {**recipe.get("model", {}), **(self.options or {})}
            given |= {key: facts[key] for key in ("channels", "length") if not self.pretrained}
            given |= {"num_classes": facts["num_classes"]}
            given |= {"class_names": facts["class_names"]} if names else {}
            module: Any = load(f"{entry.id}:{tag}", **given) if self.pretrained else view.model_class()(**given)
            if module.task != self.task:
                raise BadInput(f"{self.name} is a method of {module.task}, expected one of {self.task}.")
            quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
            validates = {} if self.val_share else {"limit_val_batches": 0, "num_sanity_val_steps": 0}
            epochs = {"max_epochs": self.epochs or recipe.get("trainer", {}).get("max_epochs")}
            options = {**quiet, "enable_model_summary": False, **validates, **epochs, **(self.trainer or {})}
            Trainer(**options).fit(module, data)
        module.trainer = None  # it holds the data; what is kept is the module
        self.module_ = module.cpu().eval()

    def _results(self, series: Any) -> list[dict[str, Any]]:
        """Results of the module's `predict`."""
        check_is_fitted(self, "module_")
        rows = self._series(series, reset=False)
        with _quiet():
            results: list[dict[str, Any]] = self.module_.predict(list(rows), batch_size=self.batch_size)
        return results


class SeriesClassifier(ClassifierMixin, _SeriesEstimator):  # type: ignore[misc]
    """A method of time-series classification as a scikit-learn estimator.

    Args:
        name: `id` or `id:tag` of a method of time-series classification; the tag's recipe gives what is not set here.
        options: arguments of the method's constructor.
        epochs: passes over the data; None for those of the recipe. Methods in closed form need one.
        batch_size: series at once.
        val_share: share of the series that validate, for methods that stop or choose by it; 0 trains on all.
        pretrained: start from the tag's trained weights, with a new head.
        trainer: further arguments of `lightning.Trainer`, as `{"accelerator": "gpu"}`.
        seed: of the order and of everything random; the global random state is left as it is.

    Attributes:
        module_: the trained Lightning module; `zoo.save` and its own `predict` and `show` work as for any other.
        classes_: the classes, sorted, as they were given.
        n_features_in_: size of the second axis of the series: points of (n, L), channels of (n, C, L).
    """

    task = "time-series-classification"

    def fit(self, X: Any, y: Any) -> SeriesClassifier:
        """Train on series.

        Args:
            X: series (n, C, L) or (n, L), a list of n series (C, L_i) or (L_i,), or a table with a series per row.
            y: n classes: numbers or text.

        Raises:
            ValueError: for other shapes, missing values, or a single class.
        """
        rows = self._series(X, reset=True)
        check_consistent_length(rows, y)
        labels = column_or_1d(y, warn=True)
        check_classification_targets(labels)
        self.classes_, encoded = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise BadInput(f"y: expected at least two classes, got 1 class: {self.classes_.tolist()}.")
        names = [str(value) for value in self.classes_.tolist()]
        self._fit(rows, np.asarray(names, dtype=object)[encoded], "label", names)
        order = list(self.module_.class_names)
        self._columns = [order.index(name) for name in names]
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities (n, K) of the classes in the order of `classes_`.

        Args:
            X: as in `fit`.
        """
        results = self._results(X)
        return np.stack([np.asarray(r["probs"], dtype=np.float64)[self._columns] for r in results])

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest class of each series (n,).

        Args:
            X: as in `fit`.
        """
        likeliest: np.ndarray = self.predict_proba(X).argmax(1)
        return np.asarray(self.classes_[likeliest])


class SeriesRegressor(RegressorMixin, _SeriesEstimator):  # type: ignore[misc]
    """A method of time-series regression as a scikit-learn estimator; arguments as of `SeriesClassifier`.

    Args:
        name: `id` or `id:tag` of a method that can predict values.
        options: arguments of the method's constructor.
        epochs: passes over the data; None for those of the recipe.
        batch_size: series at once.
        val_share: share of the series that validate; 0 trains on all.
        pretrained: start from the tag's trained weights, with a new head.
        trainer: further arguments of `lightning.Trainer`.
        seed: of the order and of everything random.

    Attributes:
        module_: the trained Lightning module.
        n_features_in_: size of the second axis of the series.
    """

    task = "time-series-regression"

    def fit(self, X: Any, y: Any) -> SeriesRegressor:
        """Train on series.

        Args:
            X: series (n, C, L) or (n, L), a list of n series (C, L_i) or (L_i,), or a table with a series per row.
            y: n finite values.

        Raises:
            ValueError: for other shapes or missing values.
        """
        rows = self._series(X, reset=True)
        values = column_or_1d(y, dtype=np.float64, warn=True)
        assert_all_finite(values, input_name="y")
        check_consistent_length(rows, values)
        self._fit(rows, values, "value", None)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """A value for each series (n,).

        Args:
            X: as in `fit`.
        """
        return np.asarray([float(result["value"]) for result in self._results(X)])


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's remarks on devices and loaders: an estimator is fitted many times in a row."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        logger.setLevel(level)
