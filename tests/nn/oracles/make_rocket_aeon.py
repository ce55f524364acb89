"""Writes what aeon 1.6.0 and scikit-learn 1.9.1 compute, frozen because numba wants an older numpy.

ROCKET features go into `aeon/features.npz` of the method whose studies compare with them, the rest into
rocket_aeon.npz.

Run it where both are installed: `pip install aeon==1.6.0 && python make_rocket_aeon.py`. It also reads the `.ts` files
of tests/data/ts with aeon's loader. Series are aeon's own copies of GunPoint, BasicMotions and ItalyPowerDemand.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from aeon.datasets import load_classification, load_from_ts_file
from aeon.transformations.collection.convolution_based import MiniRocket, Rocket
from sklearn.linear_model import RidgeClassifierCV, RidgeCV

HERE = Path(__file__).parent
KERNELS = ("weights", "lengths", "biases", "dilations", "paddings", "channel_counts", "channels")
SETS = {"GunPoint": 12, "BasicMotions": 6, "ItalyPowerDemand": 20}
FEATURES = HERE.parents[2] / "zoo" / "methods" / "soft_rocket" / "aeon" / "features.npz"
ALPHAS = np.logspace(-3, 3, 10)


def rocket(found: dict[str, np.ndarray], features: dict[str, np.ndarray]) -> None:
    for name, count in SETS.items():
        x, _ = load_classification(name, split="test", extract_path=None)
        x = x[:count].astype(np.float32)
        made = Rocket(n_kernels=400, normalise=False, random_state=7).fit(x)
        found[f"{name}.x"] = features[f"{name}.x"] = x
        features[f"{name}.features"] = made.transform(x)
        for key, value in zip(KERNELS, made.kernels, strict=True):
            features[f"{name}.{key}"] = value
        mini = MiniRocket(n_kernels=1000, random_state=3).fit(x)
        found[f"{name}.mini"] = mini.transform(x)
        for key, value in zip(("counts", "index", "dilations", "widths", "biases"), mini.parameters, strict=True):
            found[f"{name}.mini.{key}"] = value


def ridge(found: dict[str, np.ndarray]) -> None:
    rng = np.random.default_rng(0)
    for name, rows, columns in (("wide", 40, 90), ("tall", 120, 25)):
        x = rng.normal(size=(rows, columns)) * rng.uniform(0.1, 5, columns) + 3
        x = (x - x.mean(0)) / x.std(0)
        value = x[:, :5].sum(1) + rng.normal(size=rows) + 10
        label = np.digitize(value, np.quantile(value, [0.33, 0.66]))
        one = RidgeCV(ALPHAS, store_cv_results=True).fit(x, value)
        many = RidgeClassifierCV(ALPHAS, store_cv_results=True).fit(x, label)
        found |= {f"{name}.x": x, f"{name}.value": value, f"{name}.label": label}
        found |= {f"{name}.value.alpha": one.alpha_, f"{name}.value.coef": one.coef_, f"{name}.value.b": one.intercept_}
        found |= {f"{name}.value.errors": one.cv_results_.mean(0)}
        found |= {
            f"{name}.label.alpha": many.alpha_,
            f"{name}.label.coef": many.coef_,
            f"{name}.label.b": many.intercept_,
        }
        found |= {f"{name}.label.errors": many.cv_results_.mean((0, 1))}


def ts(found: dict[str, np.ndarray]) -> None:
    for path in sorted((HERE.parents[1] / "data" / "ts").glob("*.ts")):
        x, y = load_from_ts_file(str(path))
        found[f"ts.{path.stem}.count"] = np.array(len(x))
        found[f"ts.{path.stem}.y"] = np.asarray(y)
        for i, row in enumerate(x):
            found[f"ts.{path.stem}.{i}"] = np.asarray(row, dtype=np.float64)


if __name__ == "__main__":
    arrays: dict[str, np.ndarray] = {}
    kernels: dict[str, np.ndarray] = {}
    rocket(arrays, kernels)
    ridge(arrays)
    ts(arrays)
    np.savez_compressed(HERE / "rocket_aeon.npz", **arrays)
    np.savez_compressed(FEATURES, **kernels)
    print(f"{len(arrays)} and {len(kernels)} arrays")
