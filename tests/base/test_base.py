"""The base classes on their own: samplers, loaders, limits, rounds, freezing, options, random states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conformance.support import SaveAfter, data_of, different, model_of, run_state, state_of, trainer_of, variants
from lightning import Callback, LightningModule
from lightning.pytorch.callbacks import Checkpoint, EMAWeightAveraging
from toys import register_toys
from toys.ridge import ToyRidge
from toys.tables import TableDataModule

from datamodules.base import Problems, ShardSampler, TrainSampler, ZooLoader, data_cache
from zoo.base import AssignOptimizer, LoadReport, ZooModule, is_plain, trained_steps
from zoo.errors import BadData, BadInput, InvalidConfig, MissingExtra, TooFewSamples, UnknownName, require
from zoo.index import Entry


@pytest.fixture(autouse=True, scope="module")
def toys() -> None:
    register_toys()


def toy(name: str) -> Entry:
    return dict(variants())[name]


class Order(Callback):
    """Indices of the training batches, by epoch, and of the validation batches, by validation."""

    def __init__(self) -> None:
        self.train: list[list[int]] = []
        self.val: list[list[int]] = []

    def on_train_epoch_start(self, *_: Any) -> None:
        self.train.append([])

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if not self.train:
            self.train.append([])
        self.train[-1] += batch["index"].tolist()

    def on_validation_start(self, *_: Any) -> None:
        self.val.append([])

    def on_validation_batch_start(self, trainer: Any, pl_module: Any, batch: Any, *_: Any) -> None:
        self.val[-1] += batch["index"].tolist()


# Samplers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("samples", "world"), [(7, 1), (7, 2), (8, 2), (10, 4), (3, 3)])
def test_shards_cover_every_sample_once(samples: int, world: int) -> None:
    shards = [ShardSampler(range(samples), world, rank) for rank in range(world)]
    assert sorted(i for s in shards for i in s) == list(range(samples))
    assert all(len(list(s)) == len(s) for s in shards)


@pytest.mark.parametrize(("samples", "world"), [(7, 2), (9, 4), (8, 2)])
def test_training_shards_are_equal_and_interleave(samples: int, world: int) -> None:
    shards = [TrainSampler(range(samples), world, rank, seed=3) for rank in range(world)]
    drawn = [list(s) for s in shards]
    assert {len(d) for d in drawn} == {samples // world}
    alone = list(TrainSampler(range(samples), seed=3))
    assert [i for step in zip(*drawn, strict=True) for i in step] == alone[: samples // world * world]


def test_training_shards_may_keep_every_sample() -> None:
    shards = [TrainSampler(range(7), 2, rank, every=True) for rank in range(2)]
    assert sorted(i for s in shards for i in s) == list(range(7))


def test_more_ranks_than_samples() -> None:
    with pytest.raises(TooFewSamples, match="3 samples cannot be shared among 4 processes"):
        ShardSampler(range(3), 4, 0)


@pytest.mark.parametrize("samples", range(2, 40))
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_have_equally_many_batches(samples: int, world: int) -> None:
    from datamodules.base import even_batches

    if samples < world:
        return
    for batch_size in (1, 2, 5):
        size = even_batches(samples, world, batch_size)
        assert size >= batch_size
        counts = {-(-len(TrainSampler(range(samples), world, r, every=True)) // size) for r in range(world)}
        assert len(counts) == 1


# Loaders ----------------------------------------------------------------------------------------------------------


def test_loader_goes_on_where_it_stopped() -> None:
    loader = TableDataModule(batch_size=5).train_dataloader()
    whole = [b["index"].tolist() for b in loader]
    iterator = iter(loader)
    first = [next(iterator)["index"].tolist() for _ in range(3)]
    state = loader.state_dict()
    assert state == {"epoch": 0, "position": 3}
    other = TableDataModule(batch_size=5).train_dataloader()
    other.load_state_dict(state)
    assert first + [b["index"].tolist() for b in other] == whole
    assert [b["index"].tolist() for b in other] == whole, "the next pass starts anew"


def test_position_of_another_epoch_does_not_count() -> None:
    loader = TableDataModule(batch_size=5).train_dataloader()
    loader.load_state_dict({"epoch": 0, "position": 3})
    loader.sampler.set_epoch(1)  # type: ignore[attr-defined]
    assert len(list(loader)) == len(loader)


def test_abandoned_pass_does_not_count() -> None:
    loader = TableDataModule(batch_size=5).val_dataloader()
    next(iter(loader))
    assert len(list(loader)) == len(loader)


def test_other_samplers_skip_by_reading() -> None:
    data = TableDataModule(batch_size=5).split("val")
    loader = ZooLoader(data, batch_size=5, collate_fn=TableDataModule.collate)
    loader.load_state_dict({"epoch": 0, "position": 2})
    assert [b["index"].tolist() for b in loader] == [[10, 11, 12, 13, 14], [15, 16]]


def test_partial_batch_is_dropped_for_gradients_only(tmp_path: Path) -> None:
    for name, whole in (("toy-classifier", False), ("toy-ridge", True)):
        order = Order()
        trainer_of(tmp_path, order, limit_val_batches=0).fit(model_of(toy(name)), data_of(toy(name), batch_size=8))
        assert (len(order.train[0]) == 45) == whole
        assert len(set(order.train[0])) == len(order.train[0])


def test_limits_and_sanity_check_leave_no_trace(tmp_path: Path) -> None:
    order = Order()
    limits = {"limit_train_batches": 2, "limit_val_batches": 2, "num_sanity_val_steps": 1, "max_epochs": 3}
    trainer_of(tmp_path, order, **limits).fit(
        model_of(toy("toy-classifier")), data_of(toy("toy-classifier"), batch_size=4)
    )
    assert [len(e) for e in order.train] == [8, 8, 8]
    assert len({tuple(e) for e in order.train}) == 3, "each epoch has an order of its own"
    assert order.val == [[0, 1, 2, 3], *[[0, 1, 2, 3, 4, 5, 6, 7]] * 3]


def test_overfit_batches(tmp_path: Path) -> None:
    order = Order()
    trainer = trainer_of(tmp_path, order, overfit_batches=2, max_epochs=3)
    trainer.fit(model_of(toy("toy-classifier")), data_of(toy("toy-classifier"), batch_size=4))
    assert order.train == [list(range(8))] * 3


def test_two_fits_in_a_row(tmp_path: Path) -> None:
    """A second fit of the same objects without a checkpoint starts anew."""
    model, data = model_of(toy("toy-classifier")), data_of(toy("toy-classifier"), batch_size=4)
    for _ in range(2):
        order = Order()
        trainer_of(tmp_path, order, limit_val_batches=0).fit(model, data)
        assert len(order.train[0]) == 44


def test_augmentation_depends_on_epoch_not_on_processes() -> None:
    def rows(workers: int, epoch: int) -> torch.Tensor:
        loader = TableDataModule(batch_size=9, num_workers=workers).train_dataloader()
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        batches = list(loader)
        order = torch.cat([b["index"] for b in batches]).argsort()
        return torch.cat([b["row"] for b in batches])[order]

    assert torch.equal(rows(0, 0), rows(0, 0))
    assert torch.equal(rows(0, 1), rows(1, 1))
    assert not torch.equal(rows(0, 0), rows(0, 1))


# Resuming ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["toy-student", "toy-average"])
def test_resume_with_a_loader_process(name: str, tmp_path: Path) -> None:
    path = tmp_path / "middle.ckpt"
    batches = len(data_of(toy(name)).train_dataloader())
    whole = trainer_of(tmp_path, SaveAfter(batches + 2, path), max_epochs=2)
    whole.fit(model_of(toy(name)), data_of(toy(name), num_workers=1))
    expected = run_state(whole)
    again = trainer_of(tmp_path, max_epochs=2)
    again.fit(model_of(toy(name), seed=5), data_of(toy(name), num_workers=1), ckpt_path=path, weights_only=True)
    assert not different(expected, run_state(again))


@pytest.mark.parametrize("name", ["toy-adversary", "toy-average"])
def test_resume_after_max_steps(name: str, tmp_path: Path) -> None:
    """Stopped by max_steps, saved by hand, continued to the end. (A schedule would depend on max_steps.)"""
    whole = trainer_of(tmp_path, max_epochs=3)
    whole.fit(model_of(toy(name)), data_of(toy(name)))
    expected = run_state(whole)
    steps = 2 if name == "toy-average" else 14
    first = trainer_of(tmp_path, max_epochs=3, max_steps=steps)
    first.fit(model_of(toy(name)), data_of(toy(name)))
    first.save_checkpoint(tmp_path / "stopped.ckpt")
    again = trainer_of(tmp_path, max_epochs=3)
    again.fit(model_of(toy(name), seed=5), data_of(toy(name)), ckpt_path=tmp_path / "stopped.ckpt", weights_only=True)
    assert not different(expected, run_state(again))


def test_resume_in_an_epoch_with_limits_and_averaging(tmp_path: Path) -> None:
    def run(*callbacks: Callback, **options: Any) -> dict[str, Any]:
        trainer = trainer_of(tmp_path, *callbacks, max_epochs=3, limit_train_batches=4, val_check_interval=2)
        trainer.fit(model_of(toy("toy-student"), seed=options.pop("seed", 0)), data_of(toy("toy-student")), **options)
        return run_state(trainer)

    path = tmp_path / "middle.ckpt"
    average = lambda: EMAWeightAveraging(decay=0.7)  # noqa: E731
    expected = run(average(), SaveAfter(7, path))
    assert not different(expected, run(average(), seed=4, ckpt_path=path, weights_only=True))


@pytest.mark.parametrize("name", ["toy-student", "toy-average"])
@pytest.mark.parametrize("interval", [1.0, 0.5])
def test_resume_between_a_batch_and_its_validation(name: str, interval: float, tmp_path: Path) -> None:
    """From a checkpoint of any batch: no validation is left out, and none is done twice."""
    entry = toy(name)
    after: list[int] = []  # the batches that validations followed

    class Keep(Checkpoint):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            trainer.save_checkpoint(tmp_path / f"batch{trainer.fit_loop.epoch_loop.total_batch_idx + 1}.ckpt")

        def on_validation_end(self, trainer: Any, *_: Any) -> None:
            after.append(trainer.fit_loop.epoch_loop.total_batch_idx + 1)
            trainer.save_checkpoint(tmp_path / f"val{after[-1]}.ckpt")

    def run(seed: int, *callbacks: Callback, **options: Any) -> tuple[dict[str, Any], Order]:
        order = Order()
        trainer = trainer_of(tmp_path, order, *callbacks, max_epochs=2, val_check_interval=interval)
        trainer.fit(model_of(entry, seed=seed), data_of(entry), **options)
        return run_state(trainer), order

    expected, whole = run(0, Keep())
    assert len(after) == 2 / interval
    times = tuple(after)
    for seen in (times[0] - 1, times[0], times[0] + 1, times[1]):
        found, order = run(5, ckpt_path=tmp_path / f"batch{seen}.ckpt", weights_only=True)
        assert order.val == whole.val[sum(n < seen for n in times) :], f"resumed after batch {seen}"
        assert not different(expected, found), f"resumed after batch {seen}"
    # resumed with a validation, and killed once more after it
    run(6, Keep(), ckpt_path=tmp_path / f"batch{times[0]}.ckpt", weights_only=True)
    found, order = run(7, ckpt_path=tmp_path / f"val{times[0]}.ckpt", weights_only=True)
    assert order.val == whole.val[1:]
    assert not different(expected, found)


def test_checkpoint_of_a_shorter_run_continues(tmp_path: Path) -> None:
    """The usual way to train longer: more epochs from last.ckpt; every epoch is complete."""
    first = trainer_of(tmp_path, limit_val_batches=0)
    first.fit(model_of(toy("toy-adversary")), data_of(toy("toy-adversary"), batch_size=9))
    first.save_checkpoint(tmp_path / "last.ckpt")
    order = Order()
    again = trainer_of(tmp_path, order, max_epochs=3, limit_val_batches=0)
    again.fit(
        model_of(toy("toy-adversary")),
        data_of(toy("toy-adversary"), batch_size=9),
        ckpt_path=tmp_path / "last.ckpt",
        weights_only=True,
    )
    assert [len(e) for e in order.train] == [45, 45]


# Rounds -----------------------------------------------------------------------------------------------------------


def test_ridge_is_the_solution(tmp_path: Path) -> None:
    model, data = model_of(toy("toy-ridge"), penalty=1e-9), data_of(toy("toy-ridge"), jitter=0.0)
    trainer = trainer_of(tmp_path)
    trainer.fit(model, data)
    batch = data.collate([data.split("train")[i] for i in range(45)])
    rows = torch.cat([batch["row"], torch.ones(45, 1)], 1).double()
    wanted = torch.linalg.lstsq(rows, batch["value"].double()).solution
    torch.testing.assert_close(model.weight, wanted, rtol=1e-6, atol=1e-6)
    assert trainer.global_step == 1
    assert trainer.callback_metrics["val/mse"] < 0.01, "validation sees the update"


def test_rounds_respect_limits(tmp_path: Path) -> None:
    model = model_of(toy("toy-neighbours"))
    trainer_of(tmp_path, limit_train_batches=2, max_epochs=2).fit(model, data_of(toy("toy-neighbours"), batch_size=8))
    assert model.memory.shape == (16, 4)


def test_elastic_buffers_take_the_shape_of_what_is_loaded(tmp_path: Path) -> None:
    model = model_of(toy("toy-neighbours"))
    trainer = trainer_of(tmp_path)
    trainer.fit(model, data_of(toy("toy-neighbours")))
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    scores = []
    for fresh in (model, model_of(toy("toy-neighbours"))):
        again = trainer_of(tmp_path)
        again.test(
            fresh, data_of(toy("toy-neighbours")), ckpt_path=tmp_path / "run.ckpt", weights_only=True, verbose=False
        )
        scores.append(dict(again.callback_metrics))
    assert not different(*scores)
    assert not different(state_of(model), state_of(fresh))


def test_assign_optimizer() -> None:
    layer = torch.nn.Linear(2, 1)
    optimizer = AssignOptimizer(layer)
    with pytest.raises(UnknownName, match="weight"):
        optimizer.assign({"wieght": torch.zeros(1, 2)})
    optimizer.assign({"bias": torch.ones(1)})
    assert layer.bias.item() != 1
    optimizer.step()
    assert layer.bias.item() == 1
    with pytest.raises(InvalidConfig):
        AssignOptimizer(torch.nn.Identity())


# Modules ----------------------------------------------------------------------------------------------------------


def test_arguments_must_be_plain() -> None:
    class Strange(ZooModule):
        def __init__(self, network: Any = None) -> None:
            super().__init__()

    with pytest.raises(InvalidConfig, match="network"):
        Strange(torch.nn.Linear(1, 1))
    assert is_plain({"a": [1, None, "x", {"b": 2.5}]})
    assert not is_plain({1: 2})


def test_frozen_statistics_do_not_drift(tmp_path: Path) -> None:
    entry = toy("toy-student")
    model = model_of(entry)
    model.freeze("norm", "entry")
    before = state_of(model)
    trainer_of(tmp_path).fit(model, data_of(entry))
    kept = [k for k in before if k.startswith(("norm.", "entry."))]
    assert kept
    after = state_of(model)
    assert not different({k: before[k] for k in kept}, {k: after[k] for k in kept})
    model.freeze()
    assert not any(p.requires_grad for p in model.parameters())
    model.unfreeze()
    assert model.train().norm.training
    with pytest.raises(UnknownName, match="norm"):
        model.freeze("nrom")


def test_predict_puts_the_mode_back_even_after_an_error() -> None:
    model = model_of(toy("toy-student")).train()
    model.freeze("norm")
    with pytest.raises(BadInput):
        model.predict([[1.0, 2.0]])
    assert model.training
    assert not model.norm.training


def test_unknown_option_names_the_nearest() -> None:
    class Optional(ToyRidge):
        """Takes an option."""

        def predict_step(self, batch: Any, batch_idx: int = 0, *, threshold: float = 0.5) -> Any:
            return super().predict_step(batch)

    with pytest.raises(BadInput, match="threshold"):
        Optional().predict([[0.0] * 4], treshold=1)


def test_report_is_a_table() -> None:
    report = LoadReport(
        "a:b", loaded=["w"] * 7, reinitialised=["head.weight"], sha256="ab", source="bundled", pinned=True
    )
    lines = str(report).splitlines()
    assert len({line.index(line.split()[-1]) > 0 for line in lines}) == 1
    assert "head.weight" in str(report)
    assert "(pinned)" in str(report)


def test_schedule_needs_an_end(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, max_epochs=-1)
    with pytest.raises(InvalidConfig, match="max_epochs"):
        trainer.fit(model_of(toy("toy-classifier")), data_of(toy("toy-classifier")))
    assert trained_steps


def test_zoo_modules_are_lightning_modules() -> None:
    assert issubclass(ZooModule, LightningModule)


# Errors -----------------------------------------------------------------------------------------------------------


def test_problems_are_told_together() -> None:
    problems = Problems("folder", shown=3)
    problems.raise_if_any()
    for i in range(5):
        problems.add(f"{i}.png", "size", "1 or more", 0)
    with pytest.raises(
        BadData, match=r"(?s)5 problems in folder.*0\.png: size: expected 1 or more, got 0.*2 more"
    ) as caught:
        problems.raise_if_any()
    assert len(caught.value.problems) == 5


def test_missing_extra_says_how_to_install() -> None:
    with pytest.raises(MissingExtra, match=r'pip install "lightning-method-zoo\[export\]"'):
        require("no_such_module_anywhere.part", "export")
    assert require("json", "export").__name__ == "json"  # type: ignore[attr-defined]


def test_cache_folder_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    assert data_cache() == tmp_path
    monkeypatch.delenv("ZOO_CACHE")
    assert data_cache().name == "lightning-method-zoo"
