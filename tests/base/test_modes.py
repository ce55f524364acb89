"""Modes of modules, default precision, and names of tensors in compiled parts."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch

import zoo
from zoo import index
from zoo.base.compiled import own_names, plain_names
from zoo.base.modes import evaluating


@pytest.fixture
def model() -> Any:
    return zoo.load("rslad")


def same(one: Any, two: Any) -> bool:
    first, second = one.state_dict(), two.state_dict()
    return list(first) == list(second) and all(torch.equal(first[k], second[k]) for k in first)


def test_predicting_from_threads_leaves_a_training_module_as_it_was(model: Any) -> None:
    x = torch.rand(1, 28, 28, generator=torch.Generator().manual_seed(0))
    expected = model.predict(x)[0]["probs"]
    before = copy.deepcopy(model)
    model.train()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda item: model.predict(item)[0]["probs"], [x] * 100))
    assert all(torch.equal(answer, expected) for answer in answers)
    assert same(model, before)
    assert all(part.training for part in model.modules())


def test_modes_return_when_the_last_user_has_left(model: Any) -> None:
    model.train()
    model.network.eval()
    with evaluating(model):
        with evaluating(model):
            assert not model.training
        assert not model.training
    assert model.training
    assert not model.network.training
    with pytest.raises(ValueError, match="x"), evaluating(model):
        raise ValueError("x")
    assert model.training


def test_loading_under_another_default_precision(model: Any) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        loaded = zoo.load("rslad")
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert same(loaded, model)
    assert all(p.dtype == torch.float32 for p in loaded.parameters())


def test_what_is_loaded_in_inference_mode_can_be_trained(model: Any) -> None:
    with torch.inference_mode():
        loaded = zoo.load("rslad")
    assert same(loaded, model)
    assert not any(tensor.is_inference() for tensor in loaded.state_dict().values())
    loaded.train()(torch.rand(2, 1, 28, 28)).sum().backward()


def test_a_compiled_part_is_saved_and_loaded_by_its_plain_names(model: Any, tmp_path: Path) -> None:
    wrapped = copy.deepcopy(model)
    wrapped.network = torch.compile(wrapped.network, backend="eager")
    assert any("_orig_mod" in key for key in wrapped.state_dict())
    assert [k for k in model.state_dict() if model.role_of(k) == "head"] == [
        k for k in plain_names(wrapped.state_dict()) if wrapped.role_of(k) == "head"
    ]
    assert same(zoo.load(zoo.save(wrapped, tmp_path / "saved")), model)
    trainer = lightning.Trainer(logger=False, accelerator="cpu", enable_progress_bar=False, max_epochs=0)
    trainer.strategy.connect(wrapped)
    trainer.save_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    assert same(zoo.load(tmp_path / "last.ckpt"), model)
    for one, other in ((model, wrapped), (wrapped, model)):
        target = copy.deepcopy(other)
        for parameter in target.parameters():
            parameter.data.zero_()
        target.load_state_dict(one.state_dict())
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), target.parameters(), strict=True))
    assert own_names({"a": 1}, torch.nn.Linear(1, 1)) == {"a": 1}


@pytest.mark.parametrize("name", ["uav-swarm-fl:fmnist-moon", "uav-swarm-fl:fmnist-fedprox", "ewwa-fl", "rslad"])
def test_a_compiled_network_trains_and_predicts(name: str, tmp_path: Path) -> None:
    """Its class is that of the wrapper, and what depends on the class asks for the one inside."""
    id = name.split(":")[0]
    model, data = zoo.load(name), zoo.datamodule(name, **index.info(id).tiny["data"])
    x = torch.rand(28, 28).numpy()
    expected = model.predict(x)[0]
    model.network = torch.compile(model.network, backend="eager")
    result = model.predict(x)[0]
    assert set(result) == set(expected)
    assert torch.allclose(result["probs"], expected["probs"], atol=1e-6)
    limits: dict[str, Any] = {"limit_train_batches": 1, "limit_val_batches": 1, "max_epochs": 2}
    lightning.Trainer(**limits, logger=False, accelerator="cpu", enable_progress_bar=False).fit(model, data)
    plain = plain_names(model.state_dict())
    loaded = zoo.load(zoo.save(model, tmp_path / "saved")).state_dict()
    assert all(torch.equal(loaded[key], plain[key]) for key in loaded)


@pytest.mark.parametrize("name", index.entries())
def test_a_module_is_pickled_whole(name: str) -> None:
    """As `torch.save(model)` and processes that are spawned do."""
    model = zoo.load(name, weights=False)
    copied = pickle.loads(pickle.dumps(model))
    assert same(copied, model)
