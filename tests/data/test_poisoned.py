"""PoisonedDataModule: triggers against literal loops, who is poisoned, what items hold, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.images import ImagesDataModule
from datamodules.poisoned import ATTACKS, PoisonedDataModule, Trigger
from datamodules.poisoned.plan import choose_poisoned
from zoo.errors import BadData, BadInput

SMALL = {"train_size": 400, "val_size": 60, "test_size": 50}


def pictures(channels: int = 3, side: int = 9, n: int = 4) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (n, channels, side, side), dtype=np.uint8)


def data(**given: Any) -> PoisonedDataModule:
    return PoisonedDataModule(**(SMALL | given))


# Triggers ---------------------------------------------------------------------------------------------------------


def literal(attack: str, x: np.ndarray) -> np.ndarray:
    """One pixel at a time, as the attacks are described."""
    n, channels, height, width = x.shape
    out = x.copy()
    for i in range(n):
        for c in range(channels):
            image = out[i, c]
            if attack in ("badnets-grid", "four-corners"):
                for up, row in enumerate(((255, 0, 255), (0, 255, 0), (255, 0, 0))):
                    for left, value in enumerate(row):
                        image[height - 1 - up, width - 1 - left] = value
                        if attack == "four-corners":
                            image[up, width - 1 - left] = value
                            image[height - 1 - up, left] = value
                            image[up, left] = value
            if attack == "badnets-square":
                for row in range(height - 4, height - 1):
                    for column in range(width - 4, width - 1):
                        image[row, column] = 255
            if attack in ("sig", "sig-mix"):
                for row in range(height):
                    for column in range(width):
                        wave = 20 * math.sin(2 * math.pi * column * 6 / width)
                        value = float(x[i, c, row, column])
                        value = value + wave if attack == "sig" else 0.8 * value + 0.2 * wave
                        image[row, column] = min(255, max(0, round(value)))
    return out


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("attack", ["badnets-grid", "badnets-square", "four-corners", "sig", "sig-mix"])
def test_triggers_equal_literal_loops(attack: str, channels: int) -> None:
    x = pictures(channels)
    before = x.copy()
    assert np.array_equal(Trigger(attack, channels, 9)(x), literal(attack, x))
    assert np.array_equal(x, before), "the pictures that are handed in stay"


def test_blend_mixes_one_fixed_picture(tmp_path: Path) -> None:
    x = pictures()
    trigger = Trigger("blend", 3, 9, seed=5)
    mixed = trigger(x)
    for i in range(len(x)):
        for place in np.ndindex(x.shape[1:]):
            assert abs(mixed[i][place] - (0.8 * x[i][place] + 0.2 * trigger.values[place])) <= 0.5
    assert np.array_equal(Trigger("blend", 3, 9, seed=5).values, trigger.values)
    assert not np.array_equal(Trigger("blend", 3, 9, seed=6).values, trigger.values)
    own = pictures(n=1)[0].transpose(1, 2, 0)
    Image.fromarray(own).save(tmp_path / "r.png")
    given = Trigger("blend", 3, 9, alpha=1.0, pattern=str(tmp_path / "r.png"))
    assert np.array_equal(given(x)[2].transpose(1, 2, 0), own)


def test_random_pixels_are_the_same_on_each_picture() -> None:
    """A mask that is drawn for each picture would be no trigger at all."""
    x = pictures(n=6)
    changed = Trigger("random-pixels", 3, 9, seed=1)(x)
    places = (changed != x).any(axis=(0, 1))
    assert places.sum() == 9
    assert all(np.array_equal(changed[i][:, places], changed[0][:, places]) for i in range(6))
    assert np.array_equal(Trigger("random-pixels", 3, 9, seed=1)(x), changed)
    assert not np.array_equal(Trigger("random-pixels", 3, 9, seed=2)(x), changed)


@pytest.mark.parametrize("order", ["chw", "hwc", "hw"])
def test_trojan_adds_a_given_mask(order: str, tmp_path: Path) -> None:
    mask = np.zeros((3, 9, 9))
    mask[:, 6:, 6:] = np.arange(27).reshape(3, 3, 3) * 20 - 200
    stored = {"chw": mask, "hwc": mask.transpose(1, 2, 0), "hw": mask[0]}[order]
    np.savez(tmp_path / "mask.npz", mask=stored)
    x = pictures()
    expected = np.clip(x + (mask[:1] if order == "hw" else mask), 0, 255).astype(np.uint8)
    assert np.array_equal(Trigger("trojan", 3, 9, pattern=str(tmp_path / "mask.npz"))(x), expected)


def test_shift_and_strength_change_the_trigger_of_the_test_only() -> None:
    x = np.zeros((1, 1, 9, 9), np.uint8)
    trigger = Trigger("badnets-square", 1, 9)
    assert np.argwhere(trigger(x, shift=2)[0, 0]).min(0).tolist() == [3, 3]
    assert trigger(x, strength=0.5).max() == 128
    near, moved = data(attack="badnets-square"), data(attack="badnets-square", test_shift=2, test_strength=0.5)
    assert torch.equal(near.split("train")[7]["image"], moved.split("train")[7]["image"])
    assert not torch.equal(near.split("test")[7]["triggered"], moved.split("test")[7]["triggered"])


@pytest.mark.parametrize(
    ("attack", "side", "size"), [("badnets-grid", 2, 3), ("badnets-square", 8, 8), ("four-corners", 5, 3)]
)
def test_a_trigger_larger_than_the_picture_is_refused(attack: str, side: int, size: int) -> None:
    with pytest.raises(BadInput, match=r"trigger_size.*at least"):
        Trigger(attack, 1, side, size=size)


def test_files_of_triggers_are_checked(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="only blend and trojan"):
        Trigger("sig", 1, 9, pattern="r.png")
    with pytest.raises(BadInput, match="give the npz"):
        Trigger("trojan", 1, 9)
    with pytest.raises(BadInput, match="cannot be read"):
        Trigger("trojan", 1, 9, pattern=str(tmp_path / "none.npz"))
    np.savez(tmp_path / "nan.npz", mask=np.full((9, 9), np.nan))
    with pytest.raises(BadInput, match="finite"):
        Trigger("trojan", 1, 9, pattern=str(tmp_path / "nan.npz"))
    with pytest.raises(BadInput, match=r"shape \(1, 8, 8\)"):
        Trigger("trojan", 1, 8, pattern=str(tmp_path / "nan.npz"))


# Who is poisoned --------------------------------------------------------------------------------------------------


def test_all_to_one_poisons_a_share_of_all_and_none_of_the_target_class() -> None:
    plain, bad = ImagesDataModule(**SMALL).split("train"), data(rate=0.1, target=3).split("train")
    assert isinstance(bad.is_poison, np.ndarray)  # type: ignore[attr-defined]
    flags = bad.is_poison  # type: ignore[attr-defined]
    assert flags.sum() == 40
    assert not (plain.labels[flags] == 3).any()  # type: ignore[attr-defined]
    assert (bad.labels[flags] == 3).all()  # type: ignore[attr-defined]
    for i in range(len(plain)):  # type: ignore[arg-type]
        theirs, ours = plain[i], bad[i]
        assert ours["index"] == theirs["index"] == i
        assert bool(ours["is_poison"]) == bool(flags[i])
        if flags[i]:
            pixels = (theirs["image"].numpy() * 255).round().astype(np.uint8)
            assert np.array_equal(literal("badnets-grid", pixels[None])[0] / np.float32(255), ours["image"].numpy())
        else:
            assert torch.equal(ours["image"], theirs["image"])
            assert ours["label"] == theirs["label"]


def test_the_rate_of_clean_labels_is_relative_to_the_target_class() -> None:
    plain, bad = ImagesDataModule(**SMALL).split("train"), data(attack="sig", rate=0.5, target=2).split("train")
    flags = bad.is_poison  # type: ignore[attr-defined]
    assert flags.sum() == 20 == (plain.labels == 2).sum() // 2  # type: ignore[attr-defined]
    assert (plain.labels[flags] == 2).all()  # type: ignore[attr-defined]
    assert np.array_equal(plain.labels, bad.labels)  # type: ignore[attr-defined]


def test_all_to_all_moves_each_label_by_one() -> None:
    plain, bad = ImagesDataModule(**SMALL).split("train"), data(labels="all-to-all", rate=0.2)
    flags = bad.split("train").is_poison  # type: ignore[attr-defined]
    assert flags.sum() == 80
    assert np.array_equal(bad.split("train").labels[flags], (plain.labels[flags] + 1) % 10)  # type: ignore[attr-defined]
    batch = next(iter(bad.test_dataloader()))
    assert torch.equal(batch["wanted"], (batch["label"] + 1) % 10)


def test_poison_by_index_and_by_seed() -> None:
    chosen = data(indices=[5, 7, 11]).split("train")
    assert np.flatnonzero(chosen.is_poison).tolist() == [5, 7, 11]  # type: ignore[attr-defined]
    flags = [data(poison_seed=s, seed=o).split("train").is_poison for s, o in ((1, 0), (1, 9), (2, 0))]  # type: ignore[attr-defined]
    assert np.array_equal(flags[0], flags[1]), "the order of training must not choose other pictures"
    assert not np.array_equal(flags[0], flags[2])


def test_no_attack_changes_nothing_and_still_measures() -> None:
    plain, clean = ImagesDataModule(**SMALL), data(rate=0.0)
    for split in ("train", "test"):
        for i in range(30):
            theirs, ours = plain.split(split)[i], clean.split(split)[i]
            assert all(torch.equal(torch.as_tensor(ours[k]), torch.as_tensor(theirs[k])) for k in theirs)
    assert "triggered" in clean.split("test")[0]
    assert not clean.split("train")[0]["is_poison"]


def test_evaluation_holds_true_labels_and_the_trigger() -> None:
    test = data(target=1).split("test")
    plain = ImagesDataModule(**SMALL).split("test")
    for i in range(20):
        assert torch.equal(test[i]["image"], plain[i]["image"])
        assert test[i]["label"] == plain[i]["label"]
        assert test[i]["wanted"] == 1
        pixels = (plain[i]["image"].numpy() * 255).round().astype(np.uint8)[None]
        assert np.array_equal(literal("badnets-grid", pixels)[0] / np.float32(255), test[i]["triggered"].numpy())


def test_the_trigger_comes_before_augmentation() -> None:
    """It is part of the picture that the attacker handed over, so a crop may move it."""
    moved = data(crop=4, rate=0.5, attack="badnets-square", target=0)
    part = moved.split("train")
    flags = np.flatnonzero(part.is_poison)  # type: ignore[attr-defined]
    black = [
        i for i in flags if (moved.split("train").without_augmentation()[int(i)]["image"][0, 24:27, 24:27] == 1).all()
    ]  # type: ignore[attr-defined]
    assert len(black) == len(flags)
    places = {bool((part[int(i)]["image"][0, 24:27, 24:27] == 1).all()) for i in flags}
    assert places == {True, False}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rate": 0.001}, "rate.*poisons none"),
        ({"attack": "sig", "rate": 0.01}, "rate.*40 pictures poisons none"),
        ({"rate": 0.95}, "only 360"),
        ({"rate": 1.5}, "rate"),
        ({"rate": float("nan")}, "rate"),
        ({"target": 10}, "target.*0 to 9"),
        ({"target": -1}, "target"),
        ({"indices": [400]}, "0 to 399"),
        ({"indices": [1, 1]}, "once"),
        ({"indices": []}, "at least one"),
        ({"attack": "badnets"}, "badnets-grid"),
        ({"labels": "all"}, "all-to-"),
        ({"trigger_size": 28, "attack": "badnets-square"}, "trigger_size"),
        ({"test_strength": -1.0}, "test_strength"),
        ({"attack": "sig", "delta": float("inf")}, "delta"),
        ({"attack": "given", "rate": 0.3}, "rate: data at a root are taken as they are.*badnets-grid"),
        ({"attack": "given", "pattern": "r.png"}, "pattern: data at a root are taken"),
    ],
)
def test_impossible_attacks_are_refused_by_name(given: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        data(**given).split("train")


def test_a_target_outside_of_the_classes_is_refused_in_evaluation() -> None:
    with pytest.raises(BadInput, match="target"):
        data(target=12).split("test")


def test_the_choice_is_uniform_over_what_can_be_poisoned() -> None:
    labels = np.repeat(np.arange(4), 25)
    counts = sum(choose_poisoned(labels, 0.25, "all-to-one", 0, 4, seed).astype(int) for seed in range(400))
    assert (counts[:25] == 0).all()
    expected, spread = 400 / 3, math.sqrt(400 / 3 * 2 / 3)
    assert abs(counts[25:] - expected).max() < 5 * spread


# Sets poisoned elsewhere ------------------------------------------------------------------------------------------


def archive(folder: Path, **extra: Any) -> str:
    rng = np.random.default_rng(0)
    content = {
        "x_train": rng.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8),
        "y_train": np.arange(60) % 3,
        "x_test": rng.integers(0, 256, (30, 8, 8, 3), dtype=np.uint8),
        "y_test": np.arange(30) % 3,
    }
    np.savez(folder / "bad.npz", **(content | extra))
    return str(folder / "bad.npz")


def test_archives_poisoned_elsewhere_are_taken_as_they_are(tmp_path: Path) -> None:
    truth = np.arange(60) % 7 == 0
    triggered = np.full((30, 8, 8, 3), 9, np.uint8)
    root = archive(tmp_path, is_poison=truth, x_triggered=triggered)
    module = PoisonedDataModule(root=root, attack="given", target=2, val_size=9)
    train, test = module.split("train"), module.split("test")
    assert np.array_equal(train.is_poison, truth[train.chosen])  # type: ignore[attr-defined]
    plain = ImagesDataModule(root=root, val_size=9).split("train")
    assert all(torch.equal(train[i]["image"], plain[i]["image"]) for i in range(len(train)))  # type: ignore[arg-type]
    assert torch.allclose(test[0]["triggered"], torch.tensor(9 / 255))
    assert test[0]["wanted"] == 2
    assert "triggered" not in module.split("val")[0]


def test_archives_need_neither_truth_nor_triggers(tmp_path: Path) -> None:
    module = PoisonedDataModule(root=archive(tmp_path), attack="given", val_size=9)
    assert "is_poison" not in module.split("train")[0]
    assert "triggered" not in module.split("test")[0]


@pytest.mark.parametrize(
    ("extra", "key"),
    [
        ({"is_poison": np.zeros(59)}, "is_poison"),
        ({"is_poison": np.zeros(60, int) + 2}, "is_poison"),
        ({"x_triggered": np.zeros((29, 8, 8, 3), np.uint8)}, "x_triggered"),
        ({"x_triggered": np.full((30, 8, 8, 3), np.nan)}, "x_triggered"),
    ],
)
def test_broken_archives_are_named(extra: dict[str, Any], key: str, tmp_path: Path) -> None:
    module = PoisonedDataModule(root=archive(tmp_path, **extra), attack="given", val_size=9)
    with pytest.raises(BadData, match=key):
        module.split("train"), module.split("test")


def test_every_attack_is_reachable(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", mask=np.full((28, 28), 30.0))
    for attack in ATTACKS:
        pattern = str(tmp_path / "m.npz") if attack == "trojan" else None
        item = data(attack=attack, pattern=pattern, rate=0.5).split("test")[0]
        assert not torch.equal(item["image"], item["triggered"]), attack


def test_a_users_own_pictures_are_taken_as_they_are(tmp_path: Path) -> None:
    """Fine-tuning puts no backdoor into them, unless a trigger is named."""
    root = str(ImagesDataModule().fake(tmp_path / "own", format="folders"))
    own, plain = PoisonedDataModule(root=root).split("train"), ImagesDataModule(root=root).split("train")
    assert len(own) == len(plain) > 0
    for k in range(len(own)):
        assert torch.equal(own[k]["image"], plain[k]["image"])
        assert own[k]["label"] == plain[k]["label"]
    with pytest.raises(BadInput, match=r"rate: .*name the attack"):
        PoisonedDataModule(root=root, rate=0.5)
    named = PoisonedDataModule(root=root, attack="badnets-grid", rate=0.5).split("train")
    assert any(not torch.equal(named[k]["image"], plain[k]["image"]) for k in range(len(plain)))
