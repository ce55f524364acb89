"""C7-C12: shapes, finiteness, determinism, gradients, and that it learns at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from conformance.support import (
    Gradients,
    Losses,
    Repeat,
    all_finite,
    batch_of,
    data_of,
    different,
    furthest,
    inputs_of,
    items_of,
    learned,
    model_of,
    names,
    state_of,
    tensors,
    trainer_of,
)
from zoo.base import RESULTS
from zoo.errors import BadInput
from zoo.index import Entry

OVERFIT_STEPS, OVERFIT_RATIO = 50, 0.7


def test_c07_forward(entry: Entry) -> None:
    model = model_of(entry).eval()
    args = model.example_input()
    with torch.no_grad():
        out = model(*args)
        twice = model(*(torch.cat([a, a]) for a in args))
    assert tensors(out)
    assert all_finite(out)
    for one, two in zip(tensors(out), tensors(twice), strict=True):
        assert two.shape[0] == 2 * one.shape[0], "the first axis of every output is the batch"


def test_c07_real_batch(entry: Entry, folder: Path) -> None:
    model, data = learned(entry, folder)
    batch = batch_of(data, "val")
    with model.inference():
        result = model.predict_step(batch)
    assert set(RESULTS[entry.task]) <= set(result), f"predict_step gives {sorted(result)}"
    assert all(len(value) == len(batch["index"]) for value in result.values())
    assert all_finite(result)


def test_c08_deterministic(entry: Entry, folder: Path) -> None:
    model, data = learned(entry, folder)
    batch = batch_of(data, "val")
    with model.inference():
        assert not different(model.predict_step(batch), model.predict_step(batch))


def test_c08_neighbours_do_not_matter(entry: Entry, folder: Path) -> None:
    model, data = learned(entry, folder)
    items = items_of(data, "val", 4)
    with model.inference():
        together = model.predict_step(type(data).collate(items))
        for i, item in enumerate(items):
            alone = model.predict_step(type(data).collate([item]))
            for key, value in alone.items():
                assert furthest(value[0], together[key][i]) < 1e-4, f"{key} of sample {i} depends on its neighbours"


def test_c09_batch_of_one(entry: Entry) -> None:
    model = model_of(entry).eval()
    with torch.no_grad():
        assert all_finite(model(*(a[:1] for a in model.example_input())))


def test_c09_odd_size(odd_size_entry: Entry, folder: Path) -> None:
    model = model_of(odd_size_entry)
    pictures = isinstance(inputs_of(odd_size_entry, model, folder)[0], str)
    row = model.example_input()[0][0]
    given: list[Any] = [torch.cat([row, row[..., -1:]], -1)]
    if pictures:
        noise = np.random.default_rng(0)
        given = [noise.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((37, 53), (101, 7), (1, 1))]
    assert all_finite(model.predict(given))


def test_c10_every_parameter_has_a_gradient(gradient_entry: Entry, folder: Path) -> None:
    model, data = model_of(gradient_entry), data_of(gradient_entry)
    frozen = {k for k, p in model.named_parameters() if not p.requires_grad}
    seen = Gradients()
    trainer_of(folder, seen, max_steps=4, max_epochs=-1, limit_val_batches=0).fit(model, data)
    trainable = {k for k, _ in model.named_parameters()} - frozen
    assert not seen.broken, f"gradients that are not finite: {names(seen.broken)}"
    assert trainable <= seen.seen, f"without a gradient and not frozen: {names(trainable - seen.seen)}"
    assert not frozen & seen.seen


def test_c11_overfits_a_batch(gradient_entry: Entry, folder: Path) -> None:
    model, data = model_of(gradient_entry), data_of(gradient_entry)
    batch = next(iter(data.train_dataloader()))
    losses = Losses(enough=lambda values: len(values) > 5 and settled(values) < OVERFIT_RATIO * values[0])
    trainer = trainer_of(folder, losses, limit_val_batches=0)
    trainer.fit(model, train_dataloaders=Repeat(batch, OVERFIT_STEPS))
    first, last = losses.values[0], settled(losses.values)
    assert last < OVERFIT_RATIO * first, f"loss {first:.4g} -> {last:.4g} in {OVERFIT_STEPS} steps"


def settled(losses: list[float]) -> float:
    """The median of the last five."""
    return sorted(losses[-5:])[2]


def test_c11_rounds_improve(round_entry: Entry, folder: Path) -> None:
    model, data = model_of(round_entry), data_of(round_entry)
    key, mode = model.monitor
    before = trainer_of(folder).validate(model, data, verbose=False)[0][key]
    trainer_of(folder, max_epochs=3).fit(model, data)
    after = trainer_of(folder).validate(model, data, verbose=False)[0][key]
    assert after < before if mode == "min" else after > before


def test_c12_seeds(entry: Entry, folder: Path) -> None:
    def trained(seed: int) -> dict[str, torch.Tensor]:
        model, data = model_of(entry, seed=seed), data_of(entry, seed=seed)
        trainer_of(folder, limit_train_batches=3, limit_val_batches=0).fit(model, data)
        return state_of(model)

    first, again, other = trained(1), trained(1), trained(2)
    assert not different(first, again)
    if entry.learns != "closed-form":  # its result depends on nothing that is drawn
        assert different(first, other)


def test_predict_and_show(entry: Entry, folder: Path) -> None:
    model, _ = learned(entry, folder)
    model.train()
    inputs = inputs_of(entry, model, folder / "fake")
    results = model.predict(inputs, batch_size=2)
    assert model.training, "predict leaves the mode as it was"
    assert len(results) == len(inputs)
    for given, result in zip(inputs, results, strict=True):
        assert isinstance(result, dict)
        assert set(RESULTS[entry.task]) <= set(result)
        alone = model.predict(given)
        assert len(alone) == 1
        for key in RESULTS[entry.task]:
            if tensors(result[key]):
                assert furthest(alone[0][key], result[key]) < 1e-4
        picture = model.show(given, result)
        assert isinstance(picture, Image.Image)
        assert min(picture.size) > 0


def test_predict_names_what_it_cannot_use(entry: Entry) -> None:
    model = model_of(entry)
    with pytest.raises(BadInput):
        model.predict(model.example_input()[0][0], batch_size=0)
    with pytest.raises(BadInput, match="no option"):
        model.predict(model.example_input()[0][0], no_such_option=1)
    with pytest.raises(BadInput):
        model.predict([object()])


def test_predict_of_nothing_is_nothing(entry: Entry) -> None:
    assert model_of(entry).predict([]) == []
