"""Models of pictures in other types of number: cast by hand, or by the Trainer's precision."""

from __future__ import annotations

from typing import Any

import lightning
import numpy as np
import pytest
import torch

import zoo
from zoo import index
from zoo.base.modes import in_type_of
from zoo.errors import BadInput, InvalidConfig

PICTURES = [
    e.id
    for e in index.entries().values()
    if e.task in ("image-classification", "object-detection") and e.weights[e.default].file
]


def picture() -> np.ndarray:
    ramp = np.linspace(0, 255, 64)
    return np.stack(
        [np.add.outer(ramp, ramp) / 2, np.subtract.outer(ramp, ramp) / 2 + 127, ramp + 0 * ramp[:, None]], -1
    )


@pytest.mark.parametrize("name", PICTURES)
def test_a_model_that_was_cast_predicts(name: str) -> None:
    pixels = picture().astype(np.uint8)
    expected = zoo.load(name).predict(pixels)[0]
    for kind in ("half", "bfloat16", "double"):
        model = getattr(zoo.load(name), kind)()
        result = model.predict(pixels)[0]
        assert set(result) == set(expected)
        if "probs" in expected:
            assert torch.allclose(result["probs"].float(), expected["probs"], atol=0.05), kind


@pytest.mark.parametrize("name", ["soft-rocket", "steel-roughness", "steel-roughness:sim-inception"])
def test_a_model_of_series_that_was_cast_predicts(name: str) -> None:
    model = zoo.load(name)
    series = model.example_input()[0][0].numpy()
    expected = model.predict(series)[0]
    for kind in ("half", "bfloat16", "double"):
        result = getattr(zoo.load(name), kind)().predict(series)[0]
        assert set(result) == set(expected), kind
    torch.set_default_dtype(torch.float64)
    try:
        assert set(zoo.load(name).predict(series)[0]) == set(expected)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("network", ["inception", "fcn", "resnet1d", "transformer", "soft-rocket"])
def test_networks_of_series_train_in_another_precision(network: str) -> None:
    tiny = {**index.info("steel-roughness").tiny["model"], "network": network}
    model = zoo.load("steel-roughness", weights=False, **tiny)
    data = zoo.datamodule("steel-roughness", **index.info("steel-roughness").tiny["data"])
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(max_steps=1, limit_val_batches=0, accelerator="cpu", precision="bf16-true", **quiet)
    trainer.fit(model, data)
    assert trainer.global_step == 1


def test_an_index_that_was_cast_is_refused_by_the_name_of_the_cause() -> None:
    rows = np.column_stack([np.arange(30.0), np.zeros(30), 5.0 * np.arange(30)])
    for kind in ("half", "float"):
        with pytest.raises(InvalidConfig, match=r"needs float64.*as it is loaded"):
            getattr(zoo.load("sts-join"), kind)().predict(rows)


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
@pytest.mark.parametrize("name", PICTURES)
def test_a_precision_of_the_trainer(name: str, precision: Any) -> None:
    tiny = index.info(name).tiny
    model, data = zoo.load(name, weights=False, **tiny.get("model", {})), zoo.datamodule(name, **tiny.get("data", {}))
    limits: dict[str, Any] = {"limit_train_batches": 1, "limit_val_batches": 1, "num_sanity_val_steps": 0}
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(max_epochs=1, accelerator="cpu", precision=precision, **limits, **quiet)
    trainer.fit(model, data)
    assert trainer.global_step > 0


def test_inputs_stay_where_types_agree() -> None:
    network, x = torch.nn.Linear(2, 2), torch.zeros(1, 2)
    assert in_type_of(network, x) is x
    assert in_type_of(torch.nn.Flatten(), x) is x
    assert in_type_of(network.bfloat16(), x).dtype == torch.bfloat16
    with torch.autocast("cpu"):
        assert in_type_of(network, x) is x


@pytest.mark.parametrize("batch_size", ["4", 2.5, 0, True])
def test_a_batch_size_is_a_whole_number(batch_size: Any) -> None:
    for name in ("alpha-iou-yolo", "sts-join"):
        with pytest.raises(BadInput, match="batch_size: expected a whole number"):
            zoo.load(name).predict(picture().astype(np.uint8), batch_size=batch_size)


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_a_join_names_the_precision(precision: Any) -> None:
    model, data = zoo.load("sts-join"), zoo.datamodule("sts-join", train_size=6, val_size=2)
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    with pytest.raises(InvalidConfig, match=r"trainer\.precision"):
        lightning.Trainer(max_epochs=1, accelerator="cpu", precision=precision, **quiet).fit(model, data)
