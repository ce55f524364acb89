"""What models of time series share: evaluation, checks against arguments and data, results and their captions."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import LightningDataModule, Trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from zoo.base.series import SeriesModel
from zoo.errors import BadInput, InvalidConfig


class Means(SeriesModel):
    """A linear layer on the means of the channels."""

    def __init__(
        self,
        num_classes: int = 3,
        class_names: list[str] | None = None,
        targets: int = 1,
        channels: int = 2,
        length: int = 10,
        normalise: bool = False,
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(channels, self.outputs)

    def forward(self, series: Tensor, lengths: Tensor | None = None) -> Tensor:
        out: Tensor = self.layer(series.mean(2))
        return out

    def interval_of(self, value: Tensor) -> Tensor:
        return torch.stack([value - 1, value + 2], 2)


class Facts(LightningDataModule):
    def __init__(self, **facts: Any) -> None:
        super().__init__()
        self._facts = facts

    def facts(self) -> dict[str, Any]:
        return self._facts

    def test_dataloader(self) -> Any:
        return loader(batches(2))


def batches(*sizes: int) -> list[dict[str, Any]]:
    draw = torch.Generator().manual_seed(1)
    return [
        {
            "index": torch.arange(n),
            "series": torch.randn(n, 2, 10, generator=draw),
            "label": torch.randint(0, 3, (n,), generator=draw),
            "value": torch.randn(n, generator=draw),
        }
        for n in sizes
    ]


def scores_of(model: SeriesModel, data: Any, folder: Path) -> dict[str, float]:
    trainer = Trainer(default_root_dir=folder, accelerator="cpu", logger=False, enable_progress_bar=False)
    given = {"datamodule": data} if isinstance(data, LightningDataModule) else {"dataloaders": data}
    found = trainer.test(model, **given, verbose=False)[0]
    return {name: float(value) for name, value in found.items()}


def loader(parts: list[dict[str, Any]]) -> DataLoader[Any]:
    return DataLoader(parts, batch_size=None)  # type: ignore[arg-type]


def test_classes_are_scored_by_series_not_by_batch(tmp_path: Path) -> None:
    model, parts = Means(), batches(7, 2)
    found = scores_of(model, loader(parts), tmp_path)
    with torch.no_grad():
        logits, labels = torch.cat([model(p["series"]) for p in parts]), torch.cat([p["label"] for p in parts])
    assert found["test/loss"] == pytest.approx(float(F.cross_entropy(logits, labels)), rel=1e-6)
    assert found["test/accuracy"] == pytest.approx(float((logits.argmax(1) == labels).float().mean()), rel=1e-6)


def test_values_are_scored_by_series_not_by_batch(tmp_path: Path) -> None:
    model, parts = Means(0), batches(7, 2)
    assert model.task == "time-series-regression"
    found = scores_of(model, loader(parts), tmp_path)
    with torch.no_grad():
        error = torch.cat([model(p["series"])[:, 0] - p["value"] for p in parts])
    assert found["test/loss"] == pytest.approx(float(error.square().mean()), rel=1e-6)
    assert found["test/rmse"] == pytest.approx(float(error.square().mean().sqrt()), rel=1e-6)


def test_a_model_that_diverged_has_no_good_score(tmp_path: Path) -> None:
    for classes, score in ((3, "test/loss"), (0, "test/rmse")):
        model, parts = Means(classes), batches(4)
        parts[0]["series"][1] = math.nan
        assert math.isnan(scores_of(model, loader(parts), tmp_path)[score])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_classes": 1}, "num_classes must be 0 .regression. or at least 2, got 1"),
        ({"num_classes": -2}, "num_classes"),
        ({"class_names": ["a"]}, "1 class_names were given for 3 classes"),
        ({"channels": 0}, "channels: expected a number from 1 to 100000, got 0"),
    ],
)
def test_arguments_are_checked(given: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Means(**given)


@pytest.mark.parametrize(
    ("classes", "facts", "message"),
    [
        (3, {"channels": 5}, "5 channels and the model 2: set model.channels=5"),
        (3, {"num_classes": 4}, "trained with num_classes 3, the data have 4"),
        (3, {"num_classes": 0}, "The data have values and the model predicts classes: set model.num_classes=0"),
        (0, {"num_classes": 4}, "The data have classes and the model predicts values: set model.num_classes=4"),
    ],
)
def test_other_data_are_refused(classes: int, facts: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=message):
        scores_of(Means(classes), Facts(**facts), tmp_path)


def test_data_that_fit_are_accepted_and_give_their_names(tmp_path: Path) -> None:
    model = Means()
    scores_of(model, Facts(channels=2, num_classes=3, class_names=["a", "b", "c"]), tmp_path)
    assert model.class_names == ["a", "b", "c"]


def test_results_of_a_classifier() -> None:
    model = Means(class_names=["bell", "funnel", "step"])
    series = batches(4)[0]["series"]
    for given in (series, series.numpy(), list(series)):
        found = model.predict(given)
        assert len(found) == 4
        torch.testing.assert_close(torch.stack([r["logits"] for r in found]), model(series).detach())
    assert len(model.predict(series[0])) == 1
    first = found[0]
    assert first["name"] == model.class_names[int(first["label"])]
    assert float(first["probs"].sum()) == pytest.approx(1)
    assert model.caption({"name": "bell", "probs": torch.tensor([0.314, 0.686])}) == "bell  (69 %)"


def test_results_of_one_and_of_several_values() -> None:
    series = batches(4)[0]["series"]
    one, two = Means(0).predict(series)[0], Means(0, targets=2).predict(series)[0]
    assert (one["value"].shape, one["interval"].shape) == ((), (2,))
    assert (two["value"].shape, two["interval"].shape) == ((2,), (2, 2))
    torch.testing.assert_close(two["interval"], two["value"][:, None] + torch.tensor([-1.0, 2.0]))
    text = Means(0, targets=2).caption({"value": [0.5, 123.456], "interval": [[0.25, 1], [100, 2e5]]})
    assert text == "0.5 (0.25 to 1), 123.5 (100 to 2e+05)"


def test_series_of_unequal_length_come_with_their_lengths() -> None:
    batch = Means().make_batch([np.ones((2, 4)), np.ones((2, 7))])
    assert batch["length"].tolist() == [4, 7]
    assert batch["series"].sum((1, 2)).tolist() == [8, 14]


def test_constant_series_are_refused_only_where_they_would_be_normalised() -> None:
    constant = np.full((2, 10), 3.0)
    assert len(Means().predict(constant)) == 1
    with pytest.raises(BadInput, match="series 0: it is constant"):
        Means(normalise=True).predict(constant)


def test_a_series_is_drawn_with_its_caption() -> None:
    series = batches(1)[0]["series"][0]
    model = Means()
    first, second = (np.asarray(model.show(series, {"name": name, "probs": [0.5]})) for name in ("bell", "step"))
    assert (first[:44] != second[:44]).any(), "the caption"
    assert (first[44:] == second[44:]).all()
    assert (first[44:] != 255).any(), "the curves"


def test_example_series_differ_and_have_the_shape_of_the_model() -> None:
    (series,) = Means(channels=3, length=17).example_input()
    assert series.shape == (3, 3, 17)
    assert len(np.unique(series.reshape(9, 17).numpy().round(4), axis=0)) == 9
