"""ABL's losses against literal loops, phases of one fit, isolation, what is measured, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Trainer, seed_everything
from torch import Tensor, nn

import zoo
from datamodules.poisoned import PoisonedDataModule
from zoo.errors import BadInput, InvalidConfig, NotFinite
from zoo.inputs.images import fit_square, read_image
from zoo.methods.abl import ABL, isolation_loss, lowest
from zoo.methods.abl.isolation import CHUNK, isolated_count, read_suspects, training_losses
from zoo.methods.abl.scores import BackdoorScores
from zoo.nn.classifiers import create_classifier

TINY: dict[str, Any] = {"network": "wrn10-1-s2", "channels": 1, "img_size": 28, "lr": 0.05}
SMALL = {"train_size": 120, "val_size": 20, "test_size": 20, "batch_size": 16}


def data(**given: Any) -> PoisonedDataModule:
    return PoisonedDataModule(**(SMALL | given))


def model(**given: Any) -> ABL:
    torch.manual_seed(0)
    return ABL(**(TINY | {"isolate": 1, "unlearn": 1, "share": 0.1, "unlearn_batch_size": 6} | given))


def trainer(epochs: int, folder: Path, **given: Any) -> Trainer:
    options: dict[str, Any] = {"max_epochs": epochs, "accelerator": "cpu", "logger": False, "barebones": False}
    options |= {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    return Trainer(default_root_dir=folder, **(options | given))


# Equations --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["batch", "sample"])
@pytest.mark.parametrize("kind", ["lga", "flooding", "plain"])
def test_isolation_loss_equals_a_literal_loop(kind: str, reduction: str) -> None:
    values, gamma = [0.02, 0.9, 0.4, 2.5, 0.5], 0.5

    def one(value: float) -> float:
        sign = (value > gamma) - (value < gamma)
        return {"lga": sign * value, "flooding": abs(value - gamma) + gamma, "plain": value}[kind]

    mean = sum(values) / len(values)
    expected = one(mean) if reduction == "batch" else sum(one(v) for v in values) / len(values)
    assert isolation_loss(torch.tensor(values), kind, gamma, reduction).item() == pytest.approx(expected, abs=1e-6)


def test_a_mixed_batch_above_the_floor_still_descends_on_what_is_learned() -> None:
    """The sign of the mean is one for all; the sign of each sample pushes those below the floor back up."""
    for reduction, direction in (("batch", 1.0), ("sample", -1.0)):
        losses = torch.tensor([0.1, 3.0], requires_grad=True)
        isolation_loss(losses, "lga", 0.5, reduction).backward()
        assert losses.grad is not None
        assert math.copysign(1, losses.grad[0].item()) == direction
        assert losses.grad[1] > 0
    low = torch.tensor([0.1, 0.3], requires_grad=True)
    isolation_loss(low, "lga", 0.5).backward()
    assert low.grad is not None
    assert (low.grad < 0).all()


def test_the_network_has_the_stated_size_and_work() -> None:
    """175 k parameters; 26.7 M multiply-adds at 32x32x3, 20.2 M at 28x28x1, 5.5 M of it with a stem of stride 2."""
    for name, channels, side, millions in (
        ("wrn16-1", 3, 32, 26.7),
        ("wrn16-1", 1, 28, 20.2),
        ("wrn16-1-s2", 1, 28, 5.5),
    ):
        network = create_classifier(name, 10, channels)
        done = 0

        def count(module: nn.Module, _: Any, out: Tensor) -> None:
            nonlocal done
            weight: Any = module.weight
            done += out[0].numel() * weight[0].numel()

        for part in network.modules():
            if isinstance(part, (nn.Conv2d, nn.Linear)):
                part.register_forward_hook(count)
        network.eval()(torch.zeros(1, channels, side, side))
        assert done / 1e6 == pytest.approx(millions, rel=0.02), name
    assert sum(p.numel() for p in create_classifier("wrn16-1", 10, 3).parameters()) == 175_066


# Isolation --------------------------------------------------------------------------------------------------------


def test_lowest_takes_the_floor_of_the_share_and_each_sample_once() -> None:
    losses = np.array([0.5, 0.1, 0.4, 0.1, 0.9, 0.3, 0.2, 0.8, 0.7, 0.6, 1.0])
    assert lowest(np.arange(11), losses, 0.39).indices.tolist() == [1, 3, 6, 5]
    doubled = np.concatenate([np.arange(11), [1, 3]]), np.concatenate([losses, [0.1, 0.1]])
    assert lowest(*doubled, 0.39).indices.tolist() == [1, 3, 6, 5], "padding of ranks must not count"
    mixed = np.random.default_rng(0).permutation(11)
    assert lowest(np.arange(11)[mixed], losses[mixed], 0.39).indices.tolist() == [1, 3, 6, 5]


def test_the_share_that_a_message_names_isolates_one() -> None:
    for samples in (2, 7, 23, 36, 40, 99, 1000, 4321):
        with pytest.raises(BadInput, match=r"isolates none: raise it, ([0-9.e-]+) is one sample") as caught:
            isolated_count(0.0001, samples)
        named = float(str(caught.value).split("raise it, ")[1].split()[0])
        assert isolated_count(named, samples) == 1


def test_lowest_refuses_what_says_nothing() -> None:
    with pytest.raises(NotFinite, match="diverged"):
        lowest(np.arange(3), np.array([0.1, np.nan, 0.2]), 0.5)
    with pytest.raises(BadInput, match="isolates none"):
        lowest(np.arange(99), np.ones(99), 0.01)


def test_training_losses_are_those_of_the_pictures_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without augmentation, and equal to the last digit for any number of ranks."""
    module = data(crop=4, train_size=CHUNK + 150)
    part, network = module.split("train"), model().eval()
    index, losses = training_losses(part, network, lambda b: b, type(module).collate)
    assert index.tolist() == list(range(CHUNK + 150))
    plain = data(train_size=CHUNK + 150).split("train")
    with torch.no_grad():
        for i in (0, 3, CHUNK + 20):
            item = plain[i]
            expected = nn.functional.cross_entropy(network(item["image"][None]), item["label"][None])
            assert losses[i] == pytest.approx(expected.item(), rel=1e-4)
    shares = []
    for rank in range(2):
        monkeypatch.setattr("zoo.base.ranks.rank", lambda rank=rank: rank)
        monkeypatch.setattr("zoo.base.ranks.world_size", lambda: 2)
        shares.append(training_losses(part, network, lambda b: b, type(module).collate))
    together = {i: v for numbers, values in shares for i, v in zip(numbers.tolist(), values.tolist(), strict=True)}
    assert together == dict(zip(index.tolist(), losses.tolist(), strict=True))
    assert len(shares[0][0]) + len(shares[1][0]) == CHUNK + 150


def test_items_without_an_index_are_refused() -> None:
    class Nameless(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return 3

        def __getitem__(self, i: int) -> dict[str, Any]:
            return {"image": torch.zeros(1, 8, 8), "label": 0}

    with pytest.raises(BadInput, match="index"):
        training_losses(Nameless(), model(), lambda b: b, torch.utils.data.default_collate)


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.json", "[4, 2]"), ("b.json", '{"isolated_indices": [4, 2]}'), ("c.txt", "4\n2\n")],
)
def test_suspects_are_read_from_files(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    assert read_suspects(str(tmp_path / name), 5).indices.tolist() == [4, 2]


@pytest.mark.parametrize(
    ("content", "message"),
    [("[4, 5]", "0 to 4"), ("[1, 1]", "once"), ("[]", "numbers"), ("[1.5]", "numbers"), ("one", "whole number")],
)
def test_suspects_that_are_none_are_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text(content)
    with pytest.raises(BadInput, match=message):
        read_suspects(str(tmp_path / "s.json"), 5)
    with pytest.raises(BadInput, match="cannot be read"):
        read_suspects(str(tmp_path / "none.json"), 5)


# Phases of one fit ------------------------------------------------------------------------------------------------


def fitted(folder: Path, epochs: int = 4, module: PoisonedDataModule | None = None, **given: Any) -> tuple[ABL, Any]:
    """A fit whose batches are recorded by epoch."""
    from lightning import Callback

    class Recorder(Callback):
        def __init__(self) -> None:
            self.seen: dict[int, list[int]] = {}
            self.rates: dict[int, float] = {}
            self.momentum: dict[int, bool] = {}
            self.images: dict[int, Tensor] = {}

        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            epoch = trainer.current_epoch
            self.seen.setdefault(epoch, []).extend(batch["index"].tolist())
            self.images |= {int(i): x.clone() for i, x in zip(batch["index"], batch["image"], strict=True)}
            self.rates[epoch] = trainer.optimizers[0].param_groups[0]["lr"]

        def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            self.momentum.setdefault(trainer.current_epoch, bool(optimizer.state))

    seed_everything(1, verbose=False)
    recorder, net = Recorder(), model(**given)
    trainer(epochs, folder, callbacks=[recorder]).fit(net, datamodule=module or data())
    return net, recorder


def test_each_phase_trains_on_its_part(tmp_path: Path) -> None:
    net, seen = fitted(tmp_path, 4, milestones=[1])
    isolated = set(net.isolated_indices)
    assert len(isolated) == 12
    assert len(set(seen.seen[0])) == 112, "all but the partial batch"
    for epoch in (1, 2):
        assert not isolated & set(seen.seen[epoch])
        assert len(set(seen.seen[epoch])) == len(seen.seen[epoch]) == 96
    assert set(seen.seen[3]) == isolated
    assert len(seen.seen[3]) == 12, "none of so few samples is left out"
    assert [round(seen.rates[e], 6) for e in range(4)] == [0.05, 0.05, 0.005, 0.0005]
    assert seen.momentum == {0: False, 1: False, 2: True, 3: False}, "momentum starts again with each phase"


def test_augmentation_rests_in_the_first_and_last_phase(tmp_path: Path) -> None:
    module = data(crop=4)
    plain = module.split("train").without_augmentation()  # type: ignore[attr-defined]
    _, first = fitted(tmp_path, 1, module)
    assert all(torch.equal(image, plain[i]["image"]) for i, image in first.images.items())
    _, second = fitted(tmp_path, 2, data(crop=4), unlearn=0)
    assert any(not torch.equal(image, plain[i]["image"]) for i, image in second.images.items())
    net, last = fitted(tmp_path, 3, data(crop=4))
    assert all(torch.equal(last.images[i], plain[i]["image"]) for i in net.isolated_indices)


def test_unlearning_raises_the_loss_of_what_was_isolated(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = model(unlearn_lr=0.01)
    batch = {"image": torch.rand(8, 1, 28, 28), "label": torch.arange(8), "index": torch.arange(8)}
    net._trainer = None
    descent = net.training_step(batch)
    net.phase = lambda epoch=None: "unlearn"  # type: ignore[method-assign]
    assert net.training_step(batch).item() == pytest.approx(-descent.item())
    capped = model(ascent_cap=0.1)
    capped.phase = net.phase  # type: ignore[method-assign]
    loss = capped.training_step(batch)
    assert loss.item() == pytest.approx(-0.1)
    loss.backward()
    assert all(p.grad is None or not p.grad.any() for p in capped.parameters()), "nothing is pushed beyond the cap"


def test_the_truth_never_reaches_the_loss(tmp_path: Path) -> None:
    """The same run with the opposite truth, and with none, gives the same weights."""

    def weights(change: Any) -> dict[str, Tensor]:
        module = data()
        part: Any = module.split("train")
        part.is_poison = change(part.is_poison)
        net, _ = fitted(tmp_path, 3, module)
        return net.state_dict()

    usual = weights(lambda p: p)
    for change in (lambda p: ~p, lambda p: None):
        assert all(torch.equal(v, usual[k]) for k, v in weights(change).items())


def test_the_same_indices_are_unlearned_without_an_isolation(tmp_path: Path) -> None:
    net, seen = fitted(tmp_path, 2, isolate=0, unlearn=2, suspects=[3, 1, 4, 15, 9, 2])
    assert sorted(seen.seen[0]) == sorted(seen.seen[1]) == [1, 2, 3, 4, 9, 15]
    assert net.isolated_indices == [3, 1, 4, 15, 9, 2]


def test_any_classifier_with_a_network_can_unlearn(tmp_path: Path) -> None:
    start = "rslad:fmnist-resnet10w8"
    net = ABL.from_classifier(start, [5, 6, 7], unlearn=1, unlearn_lr=0.02)
    theirs = zoo.load(start)
    assert net.hparams["network"] == "resnet10-w8"
    x = torch.rand(4, 1, 28, 28)
    with torch.no_grad():
        assert torch.allclose(net.eval()(x), theirs(x), atol=1e-5)
    part: Any = data().split("train")
    batch = torch.stack([part[i]["image"] for i in (5, 6, 7)]), torch.tensor([int(part[i]["label"]) for i in (5, 6, 7)])
    before = nn.functional.cross_entropy(net(batch[0]), batch[1]).item()
    trainer(1, tmp_path).fit(net, datamodule=data())
    assert nn.functional.cross_entropy(net.eval()(batch[0]), batch[1]).item() > before
    torch.save(theirs.network.state_dict(), tmp_path / "w.pt")
    by_file = ABL.from_classifier(str(tmp_path / "w.pt"), [5], network="resnet10-w8", channels=1, img_size=28)
    with torch.no_grad():
        assert torch.allclose(by_file.eval()(x), theirs(x), atol=1e-5)
    loaded = zoo.load("abl", weights=False, network="resnet10-w8", start=start, isolate=0, suspects=[5], unlearn=1)
    trainer(1, tmp_path).fit(loaded, datamodule=data())
    assert loaded.hparams["start"] is None, "a checkpoint of this run does not need the other one"


def test_starts_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="network resnet10-w8"):
        trainer(1, tmp_path).fit(model(start="rslad:fmnist-resnet10w8"), datamodule=data())
    with pytest.raises(BadInput, match="classifier of images"):
        ABL.from_classifier("alpha-iou-yolo", [1])
    with pytest.raises(BadInput, match="name of its network"):
        ABL.from_classifier("w.pt", [1])


@pytest.mark.parametrize("kind", [np.array, torch.tensor, tuple])
def test_suspects_may_be_what_detectors_return(kind: Any, tmp_path: Path) -> None:
    net = ABL.from_classifier("rslad:fmnist-resnet10w8", kind([5, 6]), unlearn=1)
    assert list(net.hparams["suspects"]) == [5, 6]
    (tmp_path / "numbers.txt").write_text("5 6")
    assert ABL.from_classifier("rslad:fmnist-resnet10w8", tmp_path / "numbers.txt").hparams["suspects"].endswith(".txt")
    with pytest.raises(BadInput, match="got ABL: save it first"):
        ABL.from_classifier(net, [5])  # type: ignore[arg-type]


def test_a_start_that_is_more_than_its_network_is_refused(tmp_path: Path) -> None:
    """Its weights fit, but without what the method adds to the network they would be another classifier."""
    with pytest.raises(BadInput, match="CAS is more than a plain resnet10-w16"):
        ABL.from_classifier("cas:fmnist-resnet10w16", [1])
    ABL.from_classifier("cas:fmnist-resnet10w16-plain", [1])
    two = zoo.load("dh-at", weights=False, network="wrn10-1-s2", channels=1, img_size=28)
    zoo.save(two, tmp_path / "two")
    with pytest.raises(BadInput, match="DualHeadAT is more than a plain wrn10-1-s2"):
        ABL.from_classifier(str(tmp_path / "two"), [1])
    with pytest.raises(BadInput, match=r"a network of its own \(16-1\)"):
        ABL.from_classifier("robust-wrn:fmnist-16-1", [1])


def test_a_loader_cannot_follow_the_phases(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="data module"):
        trainer(3, tmp_path).fit(model(), data().train_dataloader())


def test_a_loader_is_refused_before_the_first_step_if_the_phases_will_differ(tmp_path: Path) -> None:
    net = model(isolate=2)
    before = net.network.fc.weight.clone()
    with pytest.raises(InvalidConfig, match="not a loader"):
        trainer(4, tmp_path).fit(net, data().train_dataloader())
    assert torch.equal(net.network.fc.weight, before)


def test_too_few_epochs_are_said(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="backdoor may stay"):
        fitted(tmp_path, 1)


@pytest.mark.parametrize("limit", [{"max_epochs": -1, "max_steps": 10}, {"max_epochs": 3, "max_steps": 10}])
def test_a_run_that_ends_before_unlearning_says_so(limit: dict[str, Any], tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="ended in the phase finetune"):
        trainer(0, tmp_path, **limit).fit(model(), datamodule=data())


def test_too_few_pictures_are_refused_before_training(tmp_path: Path) -> None:
    net = model(isolate=2, share=0.01)
    before = net.network.fc.weight.clone()
    with pytest.raises(BadInput, match=r"0\.01 of 40 training samples isolates none: raise it, 0\.025 is one"):
        trainer(4, tmp_path).fit(net, datamodule=data(train_size=40))
    assert torch.equal(net.network.fc.weight, before)


def test_suspecting_everything_leaves_nothing_for_fine_tuning(tmp_path: Path) -> None:
    net = model(isolate=0, suspects=list(range(120)))
    with pytest.raises(BadInput, match="none is left for fine-tuning"):
        trainer(2, tmp_path).fit(net, datamodule=data())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lr": 0.0}, "lr must be positive"),
        ({"ascent_cap": 0.0}, "ascent_cap"),
        ({"isolation": "lgb"}, "lga"),
        ({"reduction": "mean"}, "sample"),
        ({"share": 0.0}, "share"),
        ({"share": 1.5}, "share"),
        ({"isolate": -1}, "isolate"),
        ({"unlearn_lr": 0.0}, "unlearn_lr"),
        ({"unlearn_batch_size": 0}, "unlearn_batch_size"),
        ({"gamma": float("nan")}, "gamma"),
        ({"suspects": [1]}, "in place of"),
        ({"isolate": 0}, "something to unlearn"),
    ],
)
def test_impossible_arguments_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises((BadInput, InvalidConfig), match=message):
        model(**given)


def test_ascent_ends_when_accuracy_falls(tmp_path: Path) -> None:
    """With a rate that destroys the network, unlearning is over after its first epoch."""
    _, free = fitted(tmp_path, 5, isolate=1, unlearn=3, unlearn_lr=5.0)
    _, watched = fitted(tmp_path, 5, isolate=1, unlearn=3, unlearn_lr=5.0, max_drop=-1.0)
    assert max(free.seen) == 4
    assert max(watched.seen) == 2


def test_ascent_without_fine_tuning_compares_with_the_network_at_its_start(tmp_path: Path) -> None:
    given: dict[str, Any] = {"isolate": 0, "unlearn": 3, "suspects": [3, 1, 4]}
    _, free = fitted(tmp_path, 3, **given)
    net, watched = fitted(tmp_path, 3, **given, max_drop=-1.0)
    assert max(free.seen) == 2
    assert max(watched.seen) == 0
    assert net.accuracy_before is not None
    assert 0 <= net.accuracy_before <= 1


# What is measured -------------------------------------------------------------------------------------------------


def test_scores_equal_literal_counts() -> None:
    rng = np.random.default_rng(0)
    label, said, triggered = (rng.integers(0, 4, 60) for _ in range(3))
    for wanted in (np.full(60, 2), (label + 1) % 4):
        scores = BackdoorScores(4)
        for part in (slice(0, 13), slice(13, 60)):
            scores.update(*(torch.from_numpy(a[part]) for a in (said, label, triggered, wanted)))
        values = {k: v.item() for k, v in scores.compute().items()}
        able = [i for i in range(60) if wanted[i] != label[i]]
        assert values["accuracy"] == pytest.approx(sum(said == label) / 60)
        assert values["asr"] == pytest.approx(sum(triggered[i] == wanted[i] for i in able) / len(able))
        assert values["ra"] == pytest.approx(sum(triggered[i] == label[i] for i in able) / len(able))
        assert values["accuracy_without_target"] == pytest.approx(sum(said[i] == label[i] for i in able) / len(able))
        assert values["worst_recall"] == pytest.approx(min((said[label == k] == k).mean() for k in range(4)))
        if wanted[0] == wanted[1] == 2:
            assert values["target_recall"] == pytest.approx((said[label == 2] == 2).mean())
        else:
            assert "target_recall" not in values, "each class is somebody's target"


def test_a_destroyed_target_class_shows_in_accuracy_but_not_without_it() -> None:
    """Code in circulation leaves out the target class, and so misses what ascent may destroy."""
    label = torch.arange(100) % 10
    said = torch.where(label == 0, 1, label)
    scores = BackdoorScores(10)
    scores.update(said, label, said, torch.zeros(100, dtype=torch.int64))
    values = scores.compute()
    assert values["accuracy_without_target"] == 1
    assert values["accuracy"] == pytest.approx(0.9)
    assert values["target_recall"] == values["worst_recall"] == 0


def test_the_report_says_how_right_the_isolation_was(tmp_path: Path) -> None:
    from lightning.pytorch.loggers import CSVLogger

    module, net = data(rate=0.3), model()
    fit = trainer(2, tmp_path, logger=CSVLogger(tmp_path))
    fit.fit(net, datamodule=module)
    assert fit.log_dir is not None
    report = json.loads((Path(fit.log_dir) / "isolation.json").read_text())
    truth: Any = module.split("train")
    right = sum(bool(truth.is_poison[i]) for i in net.isolated_indices)
    assert report["isolated_indices"] == net.isolated_indices
    assert report["precision"] == pytest.approx(right / 12)
    assert report["recall"] == pytest.approx(right / 36)
    assert sum(report["classes"].values()) == 12
    places = report["origins"]  # in the file of all, of which training is a part
    pixels = truth.source.source.take(np.array(places))
    clean = [k for k, i in enumerate(net.isolated_indices) if not truth.is_poison[i]]
    assert places != net.isolated_indices
    for k in clean:
        shown = torch.from_numpy(pixels[k]).float() / 255
        assert torch.equal(truth[net.isolated_indices[k]]["image"], shown)
    assert fit.callback_metrics["train/isolation_precision"].item() == pytest.approx(right / 12)


@pytest.mark.parametrize("attack", [None, "badnets-square"])
def test_isolated_pictures_of_folders_are_named_by_their_files(attack: str | None, tmp_path: Path) -> None:
    root = str(PoisonedDataModule().fake(tmp_path / "own", format="folders"))
    part: Any = PoisonedDataModule(root=root, attack=attack).split("train")
    isolated = lowest(np.arange(len(part)), np.linspace(1, 0, len(part)), 0.3)
    files = isolated.report(part)["origins"]
    clean = [(i, file) for i, file in zip(isolated.indices, files, strict=True) if not attack or not part.is_poison[i]]
    assert len(clean) > 1
    for i, file in clean:
        image = part[i]["image"]
        assert np.array_equal(
            (image * 255).round().byte(), fit_square(read_image(Path(file)), image.shape[1], image.shape[0])
        )
