"""ClientsDataModule: cohorts and luck, local batches, sharing among ranks, exact resume, report, errors."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger

from datamodules.clients import ClientsDataModule
from datamodules.clients.tasks import ClientTask, CohortSampler, CohortSet, LocalBatches, Swarm
from datamodules.images import ImagesDataModule
from zoo.errors import BadData, BadInput, TooFewSamples
from zoo.streams import generator_for, hash64


def small(**given: Any) -> ClientsDataModule:
    return ClientsDataModule(**{"train_size": 600, "val_size": 50, "test_size": 50, "num_clients": 6, **given})


def batches(data: ClientsDataModule, client: int = 1, round: int = 0, epochs: int = 1) -> list[dict[str, torch.Tensor]]:
    return list(data.client_loader(client, round, epochs))


def equal(one: list[dict[str, torch.Tensor]], two: list[dict[str, torch.Tensor]]) -> bool:
    return len(one) == len(two) and all(torch.equal(a[key], b[key]) for a, b in zip(one, two, strict=True) for key in a)


# Streams ----------------------------------------------------------------------------------------------------------


def test_hash64_is_the_documented_hash() -> None:
    """Frozen: checkpoints resume on other machines and versions."""
    assert hash64(0, 1, 2) == 4450782424123420391
    assert hash64(-1) == 1623352975185328750
    assert hash64(-1) != hash64(1)
    assert hash64(1, 2) != hash64(2, 1)
    assert all(0 <= hash64(s, r) < 2**63 for s in range(20) for r in range(20))
    assert len({hash64(s, r, c) for s in range(10) for r in range(20) for c in range(20)}) == 4000
    with pytest.raises(BadInput, match="64 bits"):
        hash64(2**64)
    assert generator_for(3, 4).random() == generator_for(3, 4).random() != generator_for(4, 3).random()


# Cohorts ----------------------------------------------------------------------------------------------------------


def test_everyone_takes_part_by_default() -> None:
    assert small().cohort(3) == [ClientTask(c, 1.0, True) for c in range(6)]


def test_cohorts_follow_from_seed_and_round() -> None:
    swarm = Swarm(50, participation=0.2, link_loss=0.3, stragglers=0.5, seed=4)
    assert [swarm.cohort(r) for r in range(5)] == [swarm.cohort(r) for r in range(5)]
    assert swarm.cohort(0) != swarm.cohort(1)
    assert swarm.cohort(0) != Swarm(50, 0.2, 0.3, 0.5, seed=5).cohort(0)
    for r in range(20):
        ids = [task.client for task in swarm.cohort(r)]
        assert ids == sorted(set(ids))
        assert len(ids) == 10
    taken = np.bincount([t.client for r in range(500) for t in swarm.cohort(r)], minlength=50)
    assert abs(taken - 100).max() < 40, "each one in about one of five rounds"


def test_a_clients_luck_does_not_depend_on_who_else_takes_part() -> None:
    few, all_ = Swarm(40, 0.25, 0.4, 0.4, seed=1), Swarm(40, 1.0, 0.4, 0.4, seed=1)
    for r in range(10):
        whole = {task.client: task for task in all_.cohort(r)}
        assert all(task == whole[task.client] for task in few.cohort(r))


def test_links_and_stragglers_have_their_frequency() -> None:
    tasks = [t for r in range(300) for t in Swarm(20, 1.0, 0.3, 0.5, (0.2, 0.6), seed=2).cohort(r)]
    slow = np.array([t.share_of_work for t in tasks if t.share_of_work < 1])
    assert abs(np.mean([not t.link_up for t in tasks]) - 0.3) < 0.02
    assert abs(len(slow) / len(tasks) - 0.5) < 0.02
    assert 0.2 <= slow.min() < 0.21
    assert 0.59 < slow.max() <= 0.6
    assert abs(np.corrcoef([t.link_up for t in tasks], [t.share_of_work for t in tasks])[0, 1]) < 0.05


@pytest.mark.parametrize(("share", "of", "steps"), [(1.0, 7, 7), (0.5, 7, 4), (0.01, 7, 1), (0.3, 10, 3)])
def test_steps_of_a_straggler(share: float, of: int, steps: int) -> None:
    assert ClientTask(0, share).steps(of) == steps


# Local batches ----------------------------------------------------------------------------------------------------


def test_a_clients_images_are_its_share() -> None:
    data = small(partition="dirichlet-0.5")
    plain = ImagesDataModule(train_size=600, val_size=50, test_size=50).split("train")
    seen = 0
    for client in range(6):
        mine = data.client_dataset(client)
        assert len(mine) == data.client_size(client) == len(data.shares()[client])
        for i in (0, len(mine) - 1):
            item, other = mine[i], plain[int(data.shares()[client][i])]
            assert torch.equal(item["image"], other["image"])
            assert item["label"] == other["label"]
        seen += len(mine)
    assert seen == 600


def test_each_pass_shows_each_image_once_in_its_own_order() -> None:
    data = small(batch_size=32)
    found = batches(data, epochs=3)
    assert [len(b["index"]) for b in found] == [32, 32, 32, 4] * 3
    orders = [torch.cat([b["index"] for b in found[4 * e : 4 * e + 4]]).tolist() for e in range(3)]
    assert all(sorted(order) == list(range(100)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    assert equal(batches(data, epochs=2), found[:8]), "fewer passes are the first ones"


def test_order_belongs_to_seed_round_and_client() -> None:
    one, two = small(), small()
    first = batches(one)
    torch.manual_seed(99)
    two.client_loader(3, 5)
    assert equal(batches(two), first), "neither other clients nor the global random state matter"
    for other in (batches(one, round=1), batches(small(seed=1))):
        assert not equal(other, first)
    shared = [batches(one, client=c)[0]["index"].tolist() for c in (1, 2)]
    assert shared[0] != shared[1]


def test_loaders_leave_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    batches(small(crop=2, flip=0.5), epochs=2)
    assert torch.equal(torch.get_rng_state(), before)


def test_augmentation_differs_by_pass_round_and_client_and_repeats() -> None:
    data = small(crop=2, flip=0.5)
    found = batches(data, epochs=2)
    assert equal(batches(small(crop=2, flip=0.5), epochs=2), found)

    def images(some: list[dict[str, torch.Tensor]]) -> torch.Tensor:
        order = torch.cat([b["index"] for b in some]).argsort()
        return torch.cat([b["image"] for b in some])[order]

    versions = [images(found[:4]), images(found[4:]), images(batches(data, round=1))]
    assert not any(torch.equal(versions[i], versions[j]) for i in range(3) for j in range(i))
    plain = small(crop=2)
    shifted = [
        images(batches(plain, client=c)) != small().client_dataset(c).__getitems__(range(100))["image"] for c in (1, 2)
    ]
    assert not torch.equal(shifted[0].flatten(1).any(1), shifted[1].flatten(1).any(1)) or not torch.equal(*shifted)


def test_drop_last_keeps_an_only_batch() -> None:
    assert [len(b["index"]) for b in batches(small(drop_last=True, batch_size=32))] == [32, 32, 32]
    assert [len(b["index"]) for b in batches(small(drop_last=True, batch_size=128))] == [100]
    assert len(LocalBatches(5, 2, 3, seed=0)) == 9


def test_loader_processes_change_nothing() -> None:
    here = batches(small(crop=2, flip=0.5), epochs=2)
    assert equal(batches(small(crop=2, flip=0.5, num_workers=2), epochs=2), here)


# Rounds -----------------------------------------------------------------------------------------------------------


def rounds(data: ClientsDataModule, count: int) -> list[list[dict[str, torch.Tensor]]]:
    loader = data.train_dataloader()
    found = []
    for r in range(count):
        loader.sampler.set_epoch(r)  # type: ignore[attr-defined]
        found.append(list(loader))
    return found


def test_an_epoch_is_a_round() -> None:
    data = small(participation=0.5, link_loss=0.4, stragglers=0.5, seed=3)
    for r, steps in enumerate(rounds(data, 6)):
        assert len(steps) == 1
        assert steps[0]["round"].tolist() == [r] * 3
        told = {
            ClientTask(int(c), float(w), bool(up))
            for c, w, up in zip(*(steps[0][k] for k in ("index", "share_of_work", "link_up")), strict=True)
        }
        assert told == set(data.cohort(r))


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize("per_step", [0, 1, 2])
def test_ranks_share_a_round(world: int, per_step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """None twice, none left out, equally many steps; also where the cohort cannot be divided evenly."""
    data = small(num_clients=11, participation=0.9, partition="dirichlet-0.3", clients_per_step=per_step)
    found: list[list[list[int]]] = []
    for rank in range(world):
        monkeypatch.setattr(data, "_place", lambda rank=rank: (world, rank))
        found.append([[int(c) for step in steps for c in step["index"]] for steps in rounds(data, 3)])
        steps = [len(data.train_dataloader()) for _ in range(1)]
        assert steps == [len(data.train_dataloader())]
    for r in range(3):
        together = [c for rank in found for c in rank[r]]
        assert sorted(together) == [task.client for task in data.cohort(r)]
    counts = set()
    for rank in range(world):
        monkeypatch.setattr(data, "_place", lambda rank=rank: (world, rank))
        counts.add(len(data.train_dataloader()))
    assert len(counts) == 1, "Lightning's ranks must step equally often"


def loads(cohort: CohortSet, world: int) -> list[float]:
    shared = [[cohort[i] for i in CohortSampler(cohort, world, rank)] for rank in range(world)]
    return [sum(task["share_of_work"] * cohort.sizes[task["index"]] for task in mine) for mine in shared]


def test_ranks_get_about_equal_work() -> None:
    assert loads(CohortSet(Swarm(6), [2, 6, 4, 3, 5, 2]), 2) == [11, 11]
    better = []
    for seed in range(30):
        sizes = (np.random.default_rng(seed).pareto(2, 24) * 200 + 20).astype(int).tolist()
        cohort = CohortSet(Swarm(24, stragglers=0.3, seed=seed), sizes)
        in_turn = [sum(t.share_of_work * sizes[t.client] for t in cohort.tasks[r::3]) for r in range(3)]
        found = loads(cohort, 3)
        assert sum(found) == pytest.approx(sum(in_turn))
        better.append((max(found) / sum(found), max(in_turn) / sum(in_turn)))
    assert np.mean([a for a, _ in better]) < 0.4 < np.mean([b for _, b in better])


def test_fewer_clients_than_processes_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    data = small(num_clients=3)
    monkeypatch.setattr(data, "_place", lambda: (4, 0))
    with pytest.raises(TooFewSamples, match="3 samples"):
        data.train_dataloader()


def test_a_loader_goes_on_in_the_middle_of_a_round() -> None:
    data = small(num_clients=7, participation=0.9, clients_per_step=2, link_loss=0.2, stragglers=0.5)
    whole = [step for steps in rounds(data, 4) for step in steps]
    loader = data.train_dataloader()
    for stop in range(1, len(whole)):
        done, position = divmod(stop, len(loader))
        fresh = small(
            **{k: v for k, v in data.hparams.items() if k in ("participation", "link_loss", "stragglers")},
            num_clients=7,
            clients_per_step=2,
        ).train_dataloader()
        fresh.load_state_dict({"epoch": done, "position": position})
        rest = []
        for r in range(done, 4):
            fresh.sampler.set_epoch(r)  # type: ignore[attr-defined]
            rest += list(fresh)
        assert equal(rest, whole[stop:])


class Recorder(LightningModule):
    """Notes which clients it is given."""

    every_sample = True

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seen: list[tuple[int, ...]] = []
        self.stop_at: int | None = None

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        self.seen.append((int(batch["round"][0]), *batch["index"].tolist()))
        if self.stop_at == len(self.seen):
            raise KeyboardInterrupt
        return self.layer(torch.ones(1, 1)).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def trainer(folder: Path, **given: Any) -> Trainer:
    usual = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return Trainer(default_root_dir=folder, **{**usual, "max_epochs": 3, **given})  # type: ignore[arg-type]


def test_lightning_rounds_and_resume(tmp_path: Path) -> None:
    given: dict[str, Any] = {"num_clients": 5, "participation": 0.8, "clients_per_step": 1}
    whole = Recorder()
    trainer(tmp_path, enable_checkpointing=False).fit(whole, datamodule=small(**given))
    assert [len(seen) for seen in whole.seen] == [2] * 12
    first = Recorder()
    cut = trainer(tmp_path, max_steps=6, enable_checkpointing=False)
    cut.fit(first, datamodule=small(**given))
    cut.save_checkpoint(tmp_path / "cut.ckpt")
    from zoo.base.resume import reopen_epoch

    held = torch.load(tmp_path / "cut.ckpt", weights_only=True)
    reopen_epoch(held)  # as every module of the zoo does when it writes a checkpoint
    torch.save(held, tmp_path / "cut.ckpt")
    second = Recorder()
    trainer(tmp_path, enable_checkpointing=False).fit(
        second, datamodule=small(**given), ckpt_path=str(tmp_path / "cut.ckpt"), weights_only=True
    )
    assert first.seen + second.seen == whole.seen


# Other splits -----------------------------------------------------------------------------------------------------


def test_evaluation_is_everyones() -> None:
    plain = ImagesDataModule(train_size=600, val_size=50, test_size=50, batch_size=32)
    for split in ("val", "test", "predict"):
        for a, b in zip(small().loader(split), plain.loader(split), strict=True):
            assert a.keys() == b.keys()
            assert all(torch.equal(a[k], b[k]) for k in a)
    assert small().facts() == plain.facts()


def test_no_training_image_is_held_out() -> None:
    data = small()
    held = set(data.split("val").chosen.tolist())  # type: ignore[attr-defined]
    assert not held & {int(i) for c in range(6) for i in data.client_dataset(c).chosen}


# Report -----------------------------------------------------------------------------------------------------------


def test_the_report_counts(tmp_path: Path) -> None:
    data = small(partition="dirichlet-0.2")
    report = data.partition_report()
    names = data.facts()["class_names"]
    for client, row in enumerate(report):
        labels = [int(data.client_dataset(client)[i]["label"]) for i in range(data.client_size(client))]
        assert [row[f"label {name}"] for name in names] == [labels.count(k) for k in range(10)]
        assert (row["client"], row["images"]) == (client, len(labels))
        shares = np.array([labels.count(k) for k in range(10)]) / len(labels)
        assert abs(row["skew"] - abs(shares - 0.1).sum() / 2) < 1e-4
    data.write_partition(tmp_path / "run")
    with (tmp_path / "run" / "partition.csv").open(newline="") as stream:
        assert [int(row["images"]) for row in csv.DictReader(stream)] == [row["images"] for row in report]


def test_the_picture_shows_the_counts() -> None:
    """As many pixels of a class's colour in a client's bar as its count says."""
    data = small(partition="labels-2")
    picture = np.asarray(data.partition_picture())
    counts = data.class_counts()
    line = picture[46 + 20 * 2 + 7]
    widths = {name: int((line == colour).all(1).sum()) for name, colour in (("T-shirt/top", (0, 0x72, 0xB2)),)}
    scale = (760 - 92 - 64) / counts.sum(1).max()
    assert abs(widths["T-shirt/top"] - counts[2, 0] * scale) <= 2
    bar = (picture[46 + 20 * 3 + 7, 92:] != 255).any(1)
    assert abs(int(np.argmin(bar)) - counts[3].sum() * scale) <= counts[3].astype(bool).sum() + 2


@pytest.mark.parametrize(("clients", "classes"), [(1, 2), (200, 10), (3, 100)])
def test_pictures_of_any_size(clients: int, classes: int) -> None:
    from datamodules.clients.picture import counts_picture

    counts = np.random.default_rng(0).integers(0, 50, (clients, classes))
    picture = counts_picture(counts, [f"class {i}" for i in range(classes)], "title")
    assert picture.width == 760
    assert picture.height < 1400


def test_training_writes_the_report_into_the_runs_folder(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, name="run", version=0)
    trainer(tmp_path, max_epochs=1, logger=logger, enable_checkpointing=False).fit(Recorder(), datamodule=small())
    assert (tmp_path / "run" / "version_0" / "partition.png").is_file()
    assert (tmp_path / "run" / "version_0" / "partition.csv").is_file()
    before = sorted(tmp_path.rglob("*"))
    trainer(tmp_path, max_epochs=1, enable_checkpointing=False).fit(Recorder(), datamodule=small())
    assert sorted(tmp_path.rglob("*")) == before, "a run without a logger has no folder"


def test_checking_a_folder_reads_the_clients_images(tmp_path: Path) -> None:
    root = ClientsDataModule().fake(tmp_path, format="eurosat")
    data = ClientsDataModule(root=str(root), num_clients=2)
    assert len(data.samples("train")) == len(data.images) > len(data.split("train"))  # type: ignore[arg-type]
    victim = data.images.source.paths[int(data.images.chosen[4])]  # type: ignore[attr-defined]
    victim.write_bytes(b"broken")
    with pytest.raises(BadData, match=victim.name):
        data.samples("train")[4]


# What is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"num_clients": 0}, "num_clients"),
        ({"num_clients": -2, "partition": "group"}, "num_clients"),
        ({"participation": 0.0}, "participation"),
        ({"participation": 1.5}, "larger than the swarm"),
        ({"link_loss": -0.1}, "link_loss"),
        ({"stragglers": 2}, "stragglers"),
        ({"straggler_work": (0.0, 1.0)}, "straggler_work"),
        ({"straggler_work": (0.6, 0.3)}, "straggler_work"),
        ({"straggler_work": [0.5]}, "straggler_work"),
        ({"clients_per_step": -1}, "clients_per_step"),
        ({"min_client_size": 0}, "min_client_size"),
        ({"partition": "dirichlet"}, "dirichlet-0.5"),
        ({"batch_size": 0}, "batch_size"),
        ({"format": "celebs"}, "celeba"),
    ],
)
def test_arguments_are_refused_at_once(given: dict[str, Any], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        ClientsDataModule(**given)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: small(num_clients=601).shares(), "600 training images only"),
        (lambda: small(min_client_size=101).train_dataloader(), "min_client_size=101"),
        (lambda: small(clients_per_step=7).train_dataloader(), "6 clients in a round"),
        (lambda: small().client_dataset(6), "0 to 5"),
        (lambda: small().client_size(-1), "0 to 5"),
        (lambda: small().client_loader(0, 0, epochs=0), "epochs"),
    ],
)
def test_impossible_requests_say_why(call: Callable[[], Any], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        call()


def test_classes_that_nobody_drew_are_told() -> None:
    with pytest.warns(UserWarning, match="240 of 600 training images"):
        small(partition="labels-1").shares()
