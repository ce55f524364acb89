"""What the claims of Soft ROCKET measure outside of a recipe: exactness, speed, accuracy over many data sets."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.errors import BadInput
from zoo.nn.ridge import Ridge
from zoo.nn.rocket import Kernels, Rocket, standardise_series
from zoo.studies import Outcome, study

_FIELDS = ("weights", "lengths", "biases", "dilations", "paddings", "channel_counts", "channels")
_AEON = Path(__file__).with_name("aeon")  # what aeon computes; its README says how
Task = tuple[Tensor, Tensor, Tensor, Tensor]


# Exactness and speed ----------------------------------------------------------------------------------------------


@study("largest_difference", "unexplained")
def exactness(name: str = "GunPoint") -> Outcome:
    """With aeon's kernels: largest difference of a maximum from aeon's, and of a share beyond what rounding explains.

    Shares may differ by the responses within 1e-5 of 0, whose side rounding decides.
    """
    with np.load(_AEON / "features.npz") as file:
        kernels = Kernels(*(file[f"{name}.{field}"] for field in _FIELDS))
        x, wanted = torch.from_numpy(file[f"{name}.x"]), torch.from_numpy(file[f"{name}.features"])
    rocket = Rocket.from_kernels(kernels, x.shape[1])
    apart = (rocket(x) - wanted).abs()
    double = Rocket.from_kernels(kernels, x.shape[1]).double()
    shifted = []
    for shift in (-1e-5, 1e-5):  # how many responses lie between is how many may fall on either side
        double.biases.copy_(torch.from_numpy(kernels.biases).double() + shift)
        shifted.append(double(x)[:, ::2])
    unsure = (shifted[1] - shifted[0]).float()
    left = (apart[:, ::2] - unsure - 1e-6).clamp(min=0)
    return Outcome({"largest_difference": float(apart[:, 1::2].max()), "unexplained": float(left.max())})


def per_module(rocket: Rocket) -> Callable[[Tensor], Tensor]:
    """One Conv1d per kernel, one after the other, as in the paper's release."""
    kernels, modules = rocket.kernels(), []
    at = place = 0
    for i in range(len(kernels)):
        n, taps = int(kernels.channel_counts[i]), int(kernels.lengths[i])
        module = torch.nn.Conv1d(n, 1, taps, dilation=int(kernels.dilations[i]), padding=int(kernels.paddings[i]))
        module.weight.data = torch.from_numpy(kernels.weights[at : at + n * taps].reshape(1, n, taps).copy())
        module.bias.data.fill_(float(kernels.biases[i]))  # type: ignore[union-attr]
        chosen = torch.from_numpy(kernels.channels[place : place + n].copy())
        modules.append((module, None if rocket.series_channels == 1 else chosen))
        at, place = at + n * taps, place + n

    def run(x: Tensor) -> Tensor:
        features = []
        for module, chosen in modules:
            z = module(x if chosen is None else x[:, chosen])[:, 0]
            features += [(z > 0).float().mean(1), z.amax(1)]
        return torch.stack(features, 1)

    return run


@study("ratio")
@torch.no_grad()
def speed(
    series: int = 64,
    channels: int = 1,
    length: int = 100,
    kernels: int = 10_000,
    repeats: int = 5,
    device: str = "cpu",
    seed: int = 0,
) -> Outcome:
    """Time of the engine as a share of the time of one module per kernel on the CPU: the median of runs in turns."""
    if device != "cpu" and not torch.cuda.is_available():
        raise BadInput(f"device={device}: this machine has no GPU that torch can use.")
    slow = Rocket(kernels, length, channels, seed)
    rocket = Rocket(kernels, length, channels, seed).to(device)
    x = torch.randn(series, channels, length, generator=torch.Generator().manual_seed(seed))
    modules = per_module(slow)
    torch.testing.assert_close(rocket(x.to(device)).cpu()[:, 1::2], modules(x)[:, 1::2], atol=1e-3, rtol=1e-3)
    ratios = []
    for _ in range(repeats):
        start = time.perf_counter()
        rocket(x.to(device)).cpu()
        middle = time.perf_counter()
        modules(x)
        ratios.append((middle - start) / (time.perf_counter() - middle))
    return Outcome({"ratio": float(np.median(ratios))})


# Accuracy ---------------------------------------------------------------------------------------------------------


def _task(root: str) -> Task:
    """Training series and labels, test series and labels, in the files' own split."""
    from datamodules.series import SeriesDataModule

    if not root:
        raise BadInput("Give the folder of each data set of this study (`zoo data list` shows where to get them).")
    data = SeriesDataModule(root=root, val_share=0, missing="interpolate")
    if data.facts()["num_classes"] == 0 or "length" in data.split("train")[0]:
        raise BadInput(f"{root}: expected series of equal length with classes.")
    train: Any = data.split("train")
    test: Any = data.split("test")
    return train.series, train.targets, test.series, test.targets


def _features(rocket: Rocket, x: Tensor, batch: int = 512) -> Tensor:
    with torch.no_grad():
        return torch.cat([rocket(standardise_series(part)) for part in torch.split(x, batch)])


def frozen_accuracy(task: Task, kernels: int, seed: int, pooling: str = "hard", sharpness: float = 10.0) -> float:
    """Test accuracy of frozen kernels with a ridge head, all training series used."""
    train, label, test, truth = task
    classes = int(torch.cat([label, truth]).max()) + 1
    rocket = Rocket(kernels, train.shape[2], train.shape[1], seed, pooling, sharpness)
    ridge = Ridge(rocket.num_features, classes)
    for part in torch.split(torch.arange(len(train)), 512):
        codes = 2 * torch.nn.functional.one_hot(label[part], classes).double() - 1
        ridge.add(_features(rocket, train[part]), codes, part)
    fit = ridge.solve()
    scores = ((_features(rocket, test).double() - fit.mean) / fit.scale) @ fit.weight + fit.bias
    return float((scores.argmax(1) == truth).double().mean())


@study("accuracy", "arrowhead")
def pooled(
    gunpoint: str = "",
    arrowhead: str = "",
    italypowerdemand: str = "",
    osuleaf: str = "",
    basicmotions: str = "",
    pooling: str = "hard",
    sharpness: float = 10.0,
    kernels: int = 1000,
    seed: int = 0,
) -> Outcome:
    """Mean test accuracy over five sets, and that of ArrowHead, with one pooling."""
    roots = (gunpoint, arrowhead, italypowerdemand, osuleaf, basicmotions)
    accuracies = [frozen_accuracy(_task(root), kernels, seed, pooling, sharpness) for root in roots]
    return Outcome({"accuracy": float(np.mean(accuracies)), "arrowhead": accuracies[1]})


@study("accuracy", "val_loss")
def leaves(osuleaf: str = "", kernels: int = 300, tune_epochs: int = 0, seed: int = 0) -> Outcome:
    """Test accuracy on OSULeaf of frozen or tuned kernels; both hold out the same fifth of the training series."""
    import lightning

    from datamodules.series import SeriesDataModule
    from zoo.methods.soft_rocket.module import SoftRocket

    lightning.seed_everything(seed, verbose=False)
    data = SeriesDataModule(root=osuleaf, batch_size=32, val_share=0.2, split_seed=seed, seed=seed)
    facts = {k: v for k, v in data.facts().items() if k != "class_names"}
    model = SoftRocket(
        **facts, num_kernels=kernels, pooling="soft", sharpness=5.0, kernel_seed=seed, tune_epochs=tune_epochs,
        patience=15, lr_kernels=1e-3, lr_head=1e-3,
    )  # fmt: skip
    trainer = lightning.Trainer(
        max_epochs=tune_epochs + 2 if tune_epochs else 1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(model, data)
    kept = trainer.validate(model, data, verbose=False)[0]["val/loss"]
    return Outcome({"accuracy": trainer.test(model, data, verbose=False)[0]["test/accuracy"], "val_loss": kept})


@study("difference", "rank", "sets")
def archive(ucr_a_h: str = "", ucr_h_p: str = "", large: bool = False, kernels: int = 2000, seed: int = 0) -> Outcome:
    """Accuracy against aeon's Rocket over sets of the UCR archive: mean difference, and our mean rank of 1 or 2.

    Args:
        ucr_a_h: folder of the sets A to H.
        ucr_h_p: folder of the sets H to P.
        large: the sets that take long instead of the others.
        kernels: N.
        seed: of our kernels; aeon's results are those that `aeon/accuracy.py` wrote.

    Returns:
        Also `accuracy per set`: ours, by the place of the set in the alphabet.
    """
    theirs: dict[str, float] = json.loads((_AEON / f"accuracy{'_large' * large}.json").read_text())["accuracy"]
    ours: dict[str, float] = {}
    for name in sorted(theirs):
        root = next((p for p in (Path(ucr_a_h) / name, Path(ucr_h_p) / name) if p.is_dir()), None)
        if root is None:
            raise BadInput(f"{name} is in neither {ucr_a_h} nor {ucr_h_p}.")
        ours[name] = frozen_accuracy(_task(str(root)), kernels, seed)
    gaps = np.array([value - theirs[name] for name, value in ours.items()])
    metrics = {"difference": float(gaps.mean()), "rank": _mean_rank(gaps), "sets": float(len(gaps))}
    return Outcome(metrics, {"accuracy per set": [(float(i), value) for i, value in enumerate(ours.values())]})


def _mean_rank(gaps: Sequence[float] | np.ndarray) -> float:
    """Mean of 1 where ours is better, 2 where it is worse, 1.5 where both are equal."""
    gaps = np.asarray(gaps)
    return float(np.where(gaps > 0, 1.0, np.where(gaps < 0, 2.0, 1.5)).mean())
