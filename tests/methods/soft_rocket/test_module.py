"""Soft ROCKET: closed form, tuning that never ships a worse model, inputs of all kinds, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pandas as pd
import pytest
import torch

import zoo
from datamodules.series import SeriesDataModule
from datamodules.worlds.cylinder_bell_funnel import cylinder_bell_funnel
from zoo.errors import BadInput, InvalidConfig
from zoo.methods.soft_rocket.module import SoftRocket
from zoo.nn.ridge import Ridge

SMALL: dict[str, Any] = {"num_kernels": 60, "length": 32}


def data(**options: Any) -> SeriesDataModule:
    return SeriesDataModule(**{"length": 32, "train_size": 60, "val_size": 30, "test_size": 60, **options})


def fit(model: SoftRocket, module: SeriesDataModule, epochs: int = 1, **options: Any) -> lightning.Trainer:
    trainer = lightning.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, **options,
    )  # fmt: skip
    trainer.fit(model, module)
    return trainer


@pytest.fixture(scope="module")
def classifier() -> SoftRocket:
    model = SoftRocket(3, ["cylinder", "bell", "funnel"], **SMALL)
    fit(model, data())
    model._trainer = None
    return model.eval()


def regression(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Amplitude of a noisy sine, which normalising would take away."""
    rng = np.random.default_rng(seed)
    height = rng.uniform(0.5, 3, count)
    time = np.arange(32) / 4 + rng.uniform(0, 6, (count, 1))
    series = height[:, None] * np.sin(time) + 0.1 * rng.standard_normal((count, 32))
    return series[:, None].astype(np.float32), height


def test_it_learns_in_one_epoch(classifier: SoftRocket) -> None:
    trainer = lightning.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    found = trainer.test(classifier, data(test_size=300), verbose=False)[0]
    assert found["test/accuracy"] > 0.9
    assert found["test/loss"] < 0.4
    classifier._trainer = None


def test_head_is_the_ridge_of_its_features(classifier: SoftRocket) -> None:
    module = data()
    train: Any = module.split("train")
    batch = module.collate([train[i] for i in range(len(train))])
    ridge = Ridge(classifier.rocket.num_features, 3)
    with torch.no_grad():
        ridge.add(classifier.features(batch["series"]), classifier.targets_of(batch), batch["index"])
    torch.testing.assert_close(ridge.solve().weight.float(), classifier.head.weight.detach(), atol=1e-5, rtol=1e-3)


def test_sums_give_the_same_after_two_epochs() -> None:
    kept, summed = SoftRocket(3, **SMALL), SoftRocket(3, **SMALL, most_rows=0)
    fit(kept, data())
    fit(summed, data(batch_size=16), epochs=2)
    torch.testing.assert_close(summed.head.weight, kept.head.weight, atol=1e-4, rtol=1e-2)


def test_regression_and_its_intervals() -> None:
    train, test = regression(120, 0), regression(100, 1)
    module = SeriesDataModule.from_arrays(train, test)
    model = SoftRocket(0, normalise=False, **SMALL)
    assert model.task == "time-series-regression"
    fit(model, module)
    found = model.predict(test[0])
    value = np.array([float(r["value"]) for r in found])
    interval = np.array([r["interval"].tolist() for r in found])
    assert np.sqrt(np.mean((value - test[1]) ** 2)) < 0.25 * test[1].std()
    inside = ((interval[:, 0] <= test[1]) & (test[1] <= interval[:, 1])).mean()
    assert 0.75 < inside <= 1
    blind = SoftRocket(0, normalise=True, **SMALL)
    fit(blind, module)
    worse = np.array([float(r["value"]) for r in blind.predict(test[0])])
    assert np.mean((worse - test[1]) ** 2) > 2 * np.mean((value - test[1]) ** 2), "normalising removes amplitudes"


@pytest.mark.parametrize("pooling", ["soft", "straight-through"])
def test_tuning_changes_kernels_and_keeps_the_best(pooling: str) -> None:
    options = {**SMALL, "num_kernels": 16, "pooling": pooling, "sharpness": 5.0}
    frozen = SoftRocket(3, **options)
    module = data(batch_size=12)
    before = fit(frozen, module).callback_metrics["val/loss"]
    tuned = SoftRocket(3, **options, tune_epochs=4, lr_kernels=1e-2, lr_head=1e-2)
    start = tuned.rocket.weights.detach().clone()
    trainer = fit(tuned, module, epochs=6)
    after = trainer.validate(tuned, module, verbose=False)[0]["val/loss"]
    assert after <= float(before) + 1e-6
    assert tuned.tuner.best_loss == pytest.approx(after, abs=1e-5)
    assert tuned.tuner.tuned == 4
    moved = tuned.tuner.best_tuned["rocket.weights"]
    assert not torch.equal(moved, start), "gradients reached the kernels"


def test_tuning_that_harms_is_undone() -> None:
    options = {**SMALL, "num_kernels": 16, "pooling": "soft"}
    frozen = SoftRocket(3, **options)
    module = data(batch_size=12)
    before = float(fit(frozen, module).callback_metrics["val/loss"])
    wild = SoftRocket(3, **options, tune_epochs=2, lr_kernels=30.0, lr_head=30.0)
    trainer = fit(wild, module, epochs=4)
    after = trainer.validate(wild, module, verbose=False)[0]["val/loss"]
    assert after <= before + 1e-6
    assert trainer.callback_metrics["val/loss"] == pytest.approx(after)


def test_patience_ends_the_run() -> None:
    model = SoftRocket(3, **SMALL, pooling="soft", tune_epochs=30, patience=1, lr_kernels=10.0, lr_head=10.0)
    trainer = fit(model, data(batch_size=12), epochs=32)
    assert trainer.current_epoch < 12
    assert model.tuner.stage == "done"


def test_the_head_is_solved_again_for_the_tuned_kernels_where_only_sums_are_kept() -> None:
    class Solved(lightning.Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
            if trainer.is_last_batch and trainer.current_epoch == 3:
                self.weight = module.head.weight.detach().clone()
                with torch.no_grad():
                    self.features = module.features(batch["series"])
                    self.targets = module.targets_of(batch)

    module = data(batch_size=12)
    train: Any = module.split("train")
    batch = module.collate([train[i] for i in range(len(train))])
    model = SoftRocket(3, **SMALL, pooling="soft", most_rows=0, tune_epochs=2, lr_kernels=0.05)
    solved = Solved()
    fit(model, module, epochs=4, callbacks=[solved])
    ridge = Ridge(model.rocket.num_features, 3, most_rows=0)
    ridge.add(solved.features, solved.targets, batch["index"])
    torch.testing.assert_close(solved.weight, ridge.solve().weight.float(), atol=1e-4, rtol=1e-2)


def test_the_anchor_holds_kernels_back() -> None:
    def distance(anchor: float) -> float:
        model = SoftRocket(3, **SMALL, pooling="soft", tune_epochs=2, lr_kernels=1e-2, anchor=anchor)
        start = model.rocket.weights.detach().clone()
        fit(model, data(batch_size=12), epochs=4)
        return float((model.tuner.best_tuned["rocket.weights"] - start).norm())

    assert distance(10.0) < 0.5 * distance(0.0)


def test_predict_takes_what_people_have(classifier: SoftRocket) -> None:
    series, labels = cylinder_bell_funnel(6, 32, (5,))
    wanted = [int(r["label"]) for r in classifier.predict(series)]
    assert np.mean(np.array(wanted) == labels) > 0.5
    forms: list[Any] = [
        torch.from_numpy(series),
        series[:, 0],
        list(series),
        [row[0].tolist() for row in series],
        [torch.from_numpy(row[0]) for row in series],
    ]
    for form in forms:
        assert [int(r["label"]) for r in classifier.predict(form)] == wanted
    for one in (series[0], series[0, 0], series[0, 0].tolist(), torch.from_numpy(series[0])):
        found = classifier.predict(one)
        assert [int(r["label"]) for r in found] == wanted[:1]
    assert found[0]["name"] in ("cylinder", "bell", "funnel")
    assert found[0]["probs"].sum() == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(found[0]["scores"] * classifier.temperature, found[0]["logits"])


def test_predict_takes_frames() -> None:
    model = SoftRocket(2, channels=2, **SMALL)
    x, y = np.random.default_rng(0).standard_normal((2, 40))
    by_array = model.predict(np.stack([x, y]))[0]["logits"]
    frame = pd.DataFrame({"x": x, "y": y}, index=pd.date_range("2020", periods=40))
    for given in (frame, [frame], frame.astype("Float64"), pd.DataFrame(frame.to_numpy(), columns=["same", "same"])):
        torch.testing.assert_close(model.predict(given)[0]["logits"], by_array)
    with pytest.raises(BadInput, match="column 'name' does not hold numbers, such as 'a' in row 0"):
        model.predict(pd.DataFrame({"x": x, "name": "a"}))
    with pytest.raises(BadInput, match="column 'when'"):
        model.predict(pd.DataFrame({"x": x, "when": frame.index}))
    with pytest.raises(BadInput, match="expected 2 columns, got 3"):
        model.predict(frame.assign(z=y))
    with pytest.raises(BadInput, match="channel 1 holds nan at point 3"):
        model.predict(pd.DataFrame({"x": x, "y": pd.array([*range(3), None, *range(36)], dtype="Int64")}))


def test_predict_takes_columns_of_a_frame(classifier: SoftRocket) -> None:
    series, _ = cylinder_bell_funnel(2, 32, (5,))
    wanted = [r["logits"] for r in classifier.predict(series)]
    column = pd.Series(series[0, 0], index=pd.date_range("2020", periods=32))
    torch.testing.assert_close(classifier.predict(column)[0]["logits"], wanted[0])
    wide = pd.DataFrame(series[:, 0])
    found = classifier.predict([row for _, row in wide.iterrows()])
    torch.testing.assert_close([r["logits"] for r in found], wanted)
    with pytest.raises(BadInput, match="one series per row"):
        classifier.predict(wide)


def test_series_of_unequal_length(classifier: SoftRocket) -> None:
    series, _ = cylinder_bell_funnel(3, 48, (6,))
    rows = [series[0], series[1, :, :40], series[2, :, :36]]
    together = classifier.predict(rows)
    for row, found in zip(rows, together, strict=True):
        torch.testing.assert_close(classifier.predict(row)[0]["logits"], found["logits"], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((3, 2, 40)), "shape"),
        (np.full(40, np.nan), "nan at point 0"),
        ([1.0, 2.0, np.inf, *range(30)], "inf at point 2"),
        (np.ones(40), "constant"),
        (np.arange(10.0), "too short: kernel"),
        (np.zeros((1, 2, 3, 4)), "4 axes"),
        (["abc"], "got str"),
        ([1.0, None, *range(30)], "holds None at point 1"),
        (np.array([0.5, "bad"] * 20, dtype=object), "'bad' at 1"),
        (np.ma.masked_array(np.arange(40.0), mask=np.arange(40) == 7), "nan at point 7"),
        ([[1, 2], "x"], "series 1"),
        ([], None),
    ],
)
def test_unusable_series_are_named(classifier: SoftRocket, given: Any, message: str | None) -> None:
    if message is None:
        assert classifier.predict(given) == []
        return
    with pytest.raises(BadInput, match=message):
        classifier.predict(given)


def test_points_by_channels_is_recognised() -> None:
    model = SoftRocket(2, channels=3, **SMALL)
    with pytest.raises(BadInput, match="points x channels"):
        model.predict(np.random.default_rng(0).standard_normal((40, 3)))
    with pytest.raises(BadInput, match="one channel only"):
        model.predict([list(range(40))])
    for column in (np.random.default_rng(0).standard_normal((40, 1)), torch.rand(40, 1)):
        with pytest.raises(BadInput, match=r"the shape \(40, 1\)\. It looks like points x channels"):
            SoftRocket(2, channels=1, **SMALL).predict(column)


def test_constant_training_series_are_refused() -> None:
    series, labels = cylinder_bell_funnel(30, 32)
    series[4] = 3.0
    module = SeriesDataModule.from_arrays((series, labels), (series, labels), val_share=0)
    with pytest.raises(BadInput, match="Training series 4 is constant"):
        fit(SoftRocket(3, **SMALL), module)
    fit(SoftRocket(3, normalise=False, **SMALL), module)


def test_data_of_another_kind_are_refused_before_the_first_batch() -> None:
    series, labels = cylinder_bell_funnel(30, 32)
    classes = SeriesDataModule.from_arrays((series, labels), (series, labels))
    values = SeriesDataModule.from_arrays((series, labels + 0.5), (series, labels + 0.5))
    for model, module, message in (
        (SoftRocket(3, channels=2, **SMALL), classes, "model.channels=1"),
        (SoftRocket(4, **SMALL), classes, "3 classes and the model 4"),
        (SoftRocket(0, **SMALL), classes, "model.num_classes=3"),
        (SoftRocket(3, **SMALL), values, "data.target=label"),
    ):
        with pytest.raises(InvalidConfig, match=message):
            fit(model, module)
    named = SoftRocket(3, **SMALL)
    fit(named, classes)
    assert named.class_names == ["0", "1", "2"], "names travel with the weights"


def test_unusable_arguments_are_named() -> None:
    for given, message in (
        ({"num_classes": 1}, "num_classes"),
        ({"class_names": ["a"]}, "class_names"),
        ({"tune_epochs": 2}, "Hard pooling"),
        ({"targets": 0}, "targets"),
    ):
        with pytest.raises(BadInput, match=message):
            SoftRocket(**{**SMALL, **given})


def test_show(classifier: SoftRocket, tmp_path: Path) -> None:
    series, _ = cylinder_bell_funnel(1, 32)
    picture = classifier.show(series[0], classifier.predict(series[0])[0])
    pixels = np.asarray(picture)
    assert (pixels != 255).any(2).mean() > 0.005


@pytest.mark.parametrize(
    ("factor", "level"), [(1e-6, 0.0), (1e-12, 0.0), (1.0, 1e6), (0.01, 1e6), (1.0, 5.8e6), (1e20, 0.0)]
)
def test_the_unit_of_a_series_changes_nothing(factor: float, level: float) -> None:
    """Magnetoencephalography is in tesla, and a northing has seven digits before the point."""
    model = zoo.load("soft-rocket:gunpoint")
    x = np.cumsum(np.random.default_rng(0).normal(size=150))
    expected = model.predict(x)[0]
    found = model.predict(x * factor + level)[0]
    assert found["name"] == expected["name"]
    assert torch.allclose(found["probs"], expected["probs"], atol=1e-3)
